"""What is on its way through the runtime's loop, and who else it asks."""

from __future__ import annotations

import asyncio
from typing import Protocol, TypeVar

from msgspec import Struct

from agentd.core.messages import Action, Outcome, Refusal
from agentd.errors import Refused

T = TypeVar("T")


def granted(answer: T | Refusal) -> T:
    """What the controller answered.

    Raises:
        Refused: it did not take what was asked.
    """
    if isinstance(answer, Refusal):
        raise Refused(answer.reason, answer.text, status=answer.status)
    return answer


class Prober(Protocol):
    """Asks instances from outside whether they are well."""

    async def run(self) -> None: ...


class Unsaved(Struct):
    """What a step asked for, on its way to the store. `done` is resolved when it is there."""

    outcome: Outcome
    wall: float
    finished: tuple[str, ...] = ()
    done: asyncio.Future[None] | None = None


class UnderWay(Struct):
    """The driver call on one instance that is under way, or the last of several."""

    task: asyncio.Task[None]
    action: Action

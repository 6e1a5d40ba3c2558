"""What came of a step, as a JSON value that two steps can be compared by, and what differs between two of them."""

from __future__ import annotations

import zlib
from typing import Any

from agentd.core.messages import Action, Outcome, Record, Reply
from agentd.core.model import Decision
from agentd.recording import codec

# The state of the controller after the step, as a number; between different versions of agentd it says nothing.
STATE = "state"
EVALUATED = "evaluated"
ERROR = "error"

_ACTIONS = codec.coder(tuple[Action, ...])
_RECORDS = codec.coder(tuple[Record, ...])
_DECISIONS = codec.coder(tuple[Decision, ...])
_REPLY = codec.coder(Reply)


def told(outcome: Outcome, evaluated: tuple[Decision, ...], go_on: Outcome) -> dict[str, Any] | None:
    """None: nothing but `go_on`, the answer to nearly every heartbeat."""
    if outcome is go_on:
        return None
    found: dict[str, Any] = {}
    if evaluated:
        found[EVALUATED] = _DECISIONS.encode(evaluated)
    if outcome.decisions:
        found["kept"] = [decision.id for decision in outcome.decisions]
    if outcome.actions:
        found["actions"] = _ACTIONS.encode(outcome.actions)
    if outcome.records:
        found["records"] = _RECORDS.encode(outcome.records)
    if outcome.effects:
        found["effects"] = [[effect.decision, effect.pool, effect.verdict, effect.reason] for effect in outcome.effects]
    if outcome.directed:
        found["directed"] = list(outcome.directed)
    if outcome.reply is not None:
        found["reply"] = _REPLY.encode(outcome.reply)
    if outcome.rows:
        found[STATE] = zlib.crc32(repr(list(outcome.rows.items())).encode("utf-8", "backslashreplace"))
    return found


def raised(error: Exception) -> dict[str, Any]:
    """The step came to no end."""
    return {ERROR: f"{type(error).__name__}: {error}"}


def first_difference(recorded: Any, now: Any, at: str = "") -> tuple[str, Any, Any] | None:
    """Where two JSON values differ first, and what either has there; None: they are the same."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        pairs = [(f"{at}.{key}" if at else key, recorded.get(key), now.get(key)) for key in recorded | now]
    elif isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        pairs = [(f"{at}[{place}]", *pair) for place, pair in enumerate(zip(recorded, now, strict=True))]
    else:
        return None if recorded == now and type(recorded) is type(now) else (at or "outcome", recorded, now)
    return next((found for pair in pairs if (found := first_difference(pair[1], pair[2], pair[0]))), None)

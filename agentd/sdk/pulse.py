"""Whether an agent's event loop runs: it is asked to call back now and then, from a thread beside it.

Pure but for the loop: `now` is an argument. A loop that is idle answers at once, one in which something blocks does
not. What is told is the time since it was asked, so it may have stood still a little longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# A loop is asked that often, and stands still when it has not answered for that long.
BLOCKED_S = 5.0
# Who looks later than this was stopped himself, and so was the loop, perhaps.
OVERSLEPT_S = 1.0


class Pulse:
    """Watches one loop. `look` from one thread; the answer comes in the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, recovered: Callable[[], None]) -> None:
        """`recovered` is called in the loop when it goes on after `look` has found it blocked."""
        self._loop = loop
        self._recovered = recovered
        self._due: float | None = None  # when to look next
        self._asked: float | None = None  # since when an answer is awaited
        self._told = False

    def due_in_s(self, now: float) -> float:
        """Seconds until the next `look`; none is needed before."""
        return 0.0 if self._due is None else self._due - now

    def look(self, now: float) -> bool:
        """Ask the loop, or see that it has not answered. Whether it is news that it stands still."""
        overslept = self._due is not None and now > self._due + OVERSLEPT_S
        self._due = now + BLOCKED_S
        asked = self._asked  # the loop may answer meanwhile
        if asked is None or self._loop.is_closed():
            self._ask(now)
        elif self._told:
            return False
        elif overslept:
            self._asked = now
        elif now - asked >= BLOCKED_S:
            self._told = True
            return True
        return False

    def blocked_s(self, now: float) -> float | None:
        """For how long the loop has stood still; None: it runs, as far as is known."""
        asked = self._asked
        return now - asked if self._told and asked is not None else None

    def _ask(self, now: float) -> None:
        self._asked = now
        try:
            self._loop.call_soon_threadsafe(self._answer)
        except RuntimeError:  # it was closed: there is no loop to stand still
            self._asked = None

    def _answer(self) -> None:
        self._asked = None
        if self._told:
            self._told = False
            self._recovered()

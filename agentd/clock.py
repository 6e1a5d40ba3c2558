"""Time as an argument: the daemon uses `SystemClock`, tests and the simulator a clock they move themselves."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds on a clock that never jumps; only differences mean anything."""

    def wall(self) -> float:
        """Seconds since the epoch, for people and for the store; may jump."""


class SystemClock:
    """CLOCK_MONOTONIC and the wall clock."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

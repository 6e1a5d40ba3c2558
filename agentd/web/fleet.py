"""What the web part needs of the rest of agentd, as protocols.

Owns nothing and never does anything: the runtime and the daemon's facts satisfy these by their shape, and the
tests' fakes do too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from agentd.clock import Clock
from agentd.core.messages import Event, EventType, Reply, StoredRecord
from agentd.core.model import Decision, FleetConfig, PoolName
from agentd.core.views import FleetView, PoolPlan


class Fleet(Protocol):
    """The running fleet: what the runtime shows and takes."""

    @property
    def clock(self) -> Clock: ...

    @property
    def config(self) -> FleetConfig: ...

    def view(self) -> FleetView: ...

    def degraded(self) -> tuple[str, ...]: ...

    async def submit(self, event: Event) -> Reply:
        """Returns when the event's effects are stored.

        Raises:
            Refused: the event was not taken.
        """

    async def events(
        self, *, limit: int, pool: str = "", instance: str = "", types: tuple[EventType, ...] = ()
    ) -> list[StoredRecord]:
        """Newest first."""

    async def decisions(self, pool: PoolName, limit: int) -> list[Decision]:
        """Newest first."""

    def plan(self, pool: PoolName | None = None) -> tuple[PoolPlan, ...]:
        """What a check now would do.

        Raises:
            Refused: there is no such pool, or nothing is ever checked.
        """

    def watch(self, after: int | None) -> AsyncIterator[StoredRecord]:
        """Records from the one after id `after` on; None: from now on.

        Raises:
            Refused: TOKEN_EXPIRED; `after` is no longer kept, or the consumer has fallen too far behind.
        """


class About(Protocol):
    """Facts of this daemon. `started` is monotonic; `operators` are uids that may steer the fleet."""

    @property
    def version(self) -> str: ...

    @property
    def driver(self) -> str: ...

    @property
    def state_dir(self) -> Path: ...

    @property
    def config_file(self) -> Path | None: ...

    @property
    def http_address(self) -> str: ...

    @property
    def agents_address(self) -> str: ...

    @property
    def started(self) -> float: ...

    @property
    def operators(self) -> frozenset[int]: ...

"""Measuring the host for the fleet: when, and that a reading that fails is a trouble and not the end.

Owns the rhythm. What is read is the collector's, what follows from it the controller's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Protocol

from agentd.core.messages import HostSampled
from agentd.core.model import HostSample, InstanceId
from agentd.runtime_troubles import Troubles

SAMPLE_S = 5.0
# While a pool's footprint is a guess, a fleet that would fit may wait for memory: measure soon, after the first starts.
SAMPLE_SOON_S = 0.5

Pids = Mapping[InstanceId, int]


class Collector(Protocol):
    """Reads the host; called in a thread."""

    def sample(self, pids: Pids) -> HostSample: ...


class Measuring:
    """Readings of one host, handed to `take`."""

    def __init__(self, collector: Collector, troubles: Troubles, take: Callable[[HostSampled], None]) -> None:
        self._collector = collector
        self._troubles = troubles
        self._take = take
        self._wanted = asyncio.Event()

    def soon(self) -> None:
        """Somebody new is there, of whom nothing is known."""
        self._wanted.set()

    async def run(self, pids: Callable[[], Pids]) -> None:
        """Read every SAMPLE_S, and sooner after `soon`, until cancelled."""
        while True:
            self._wanted.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SAMPLE_S):
                    await self._wanted.wait()
                    await asyncio.sleep(SAMPLE_SOON_S)
            await self.once(pids())

    async def once(self, pids: Pids) -> None:
        with self._troubles.watching("host", "the host cannot be measured"):
            self._take(HostSampled(await asyncio.to_thread(self._collector.sample, pids)))

"""Reading the pools' collectors: when, how long, and that a reading which fails is a trouble and not the end.

Owns the rhythm and the readers' lives. What is read is the kinds' matter (`agentd.collecting`), what follows from a
number the controller's. Each collector has a task of its own, so that none waits for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from agentd.collecting.attempts import Collector, OpenReader, opened
from agentd.core.messages import Collected
from agentd.core.model import FleetConfig, PoolName
from agentd.core.rules import CollectorConfig
from agentd.runtime_troubles import Troubles

# The first readings of all collectors are spread over so long; then each keeps to its own rhythm.
STAGGER_S = 1.0
# A collector that fails is asked less and less often, at least so often.
BACKOFF_S_MAX = 60.0

Key = tuple[PoolName, str]


class _Polled(Struct, frozen=True):
    config: CollectorConfig
    task: asyncio.Task[None]


class Collecting:
    """The collectors of one fleet; readings are handed to `take`. `open_reader` is called in a thread."""

    def __init__(
        self,
        config: Callable[[], FleetConfig],
        troubles: Troubles,
        take: Callable[[Collected], None],
        open_reader: OpenReader = opened,
    ) -> None:
        self._config = config
        self._troubles = troubles
        self._take = take
        self._open = open_reader
        self._changed = asyncio.Event()
        self._polled: dict[Key, _Polled] = {}

    def adopt(self) -> None:
        """The configuration is another one. Collectors that it leaves alone go on as if nothing had happened."""
        self._changed.set()

    async def run(self) -> None:
        """Read until cancelled; every reader is closed then."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                await self._settle(group)
                await self._changed.wait()

    async def _settle(self, group: asyncio.TaskGroup) -> None:
        """Have a task for each collector of the configuration, and for no other."""
        pools = self._config().pools
        wanted = {(pool.name, config.name): config for pool in pools.values() for config in pool.collectors}
        gone = [key for key, polled in self._polled.items() if wanted.get(key) != polled.config]
        ended = [self._polled.pop(key).task for key in gone]
        for task in ended:
            task.cancel()
        if ended:  # its successor of the same name comes after it
            await asyncio.wait(ended)
        for key in gone:
            self._troubles.ended(_part(*key))
        new = [key for key in wanted if key not in self._polled]
        for index, key in enumerate(new):
            config = wanted[key]
            first_s = min(STAGGER_S, config.every_s) * index / len(new)
            task = group.create_task(self._poll(key[0], config, first_s), name=_part(*key))
            self._polled[key] = _Polled(config, task)

    async def _poll(self, pool: PoolName, config: CollectorConfig, first_s: float) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        collector = Collector(config, self._open)
        await asyncio.sleep(first_s)
        try:
            while True:
                began = loop.time()
                value, trouble = await collector.attempt()
                failures = failures + 1 if trouble else 0
                if trouble:
                    self._troubles.began(_part(pool, config.name), f"cannot read {pool}.{config.name}: {trouble}")
                else:
                    self._troubles.ended(_part(pool, config.name))
                self._take(Collected(pool, config.name, value, trouble))
                await asyncio.sleep(max(0.0, began + wait_s(config.every_s, failures) - loop.time()))
        finally:
            await collector.close()


def wait_s(every_s: float, failures: int) -> float:
    """From the beginning of one reading to the next, after so many failures in a row."""
    longest = max(every_s, BACKOFF_S_MAX)
    return min(longest, every_s * 2.0 ** min(max(0, failures - 1), 16))


def _part(pool: PoolName, name: str) -> str:
    return f"collector {pool}.{name}"

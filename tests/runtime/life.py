"""One run of agentd after another over one directory and one scripted host, with gates to hold things up."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, ParamSpec

from agentd.clock import SystemClock
from agentd.core.controller import Controller
from agentd.core.messages import (
    Probed,
    StoredRecord,
)
from agentd.core.model import (
    CoreAgent,
    FleetConfig,
    HealthCheck,
    HostSample,
    Incarnation,
    InstanceId,
    InstanceSpec,
    Observed,
    PoolConfig,
    PoolName,
    PortRange,
    State,
)
from agentd.drivers.memory import MemoryDriver, MemoryHost
from agentd.runtime import Runtime
from agentd.store import Batch, Bounds, Store

P = ParamSpec("P")
CORE = InstanceId("research-9002")
POOL = PoolConfig(
    PoolName("research"), core=(CoreAgent("researcher", 9002),), ports=PortRange(9101, 9150), health=HealthCheck.NONE
)
FLEET = FleetConfig(pools={POOL.name: POOL}, enabled=True, autoscaling_enabled=True)
HOST_SAMPLE = HostSample(8, 1.0, 2**32, 2**31, 2**40)


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class Gate:
    """A place where calls wait until the test lets them through. Open at first."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.waiting = 0

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        self.waiting += 1
        await self._open.wait()
        self.waiting -= 1


class SlowStore(Store):
    """A store whose writes wait at a gate, and that may say it is degraded."""

    gate: Gate
    said_degraded: str | None = None

    @property
    def degraded(self) -> str | None:
        return self.said_degraded or super().degraded

    async def write(self, batch: Batch) -> tuple[StoredRecord, ...]:
        await self.gate.passed()
        return await super().write(batch)


class SlowDriver(MemoryDriver):
    """A driver whose calls wait at gates; `log` holds them in the order in which they ended."""

    def __init__(self, host: MemoryHost) -> None:
        super().__init__(host)
        self.starting, self.stopping, self.listing = Gate(), Gate(), Gate()
        self.log: list[str] = []
        self.broken: Exception | None = None

    async def start(self, spec: InstanceSpec) -> Observed:
        await self.starting.passed()
        if self.broken is not None:
            raise self.broken
        observed = await super().start(spec)
        self.log.append(f"start {spec.id}")
        return observed

    async def stop(self, instance: InstanceId, grace_s: float) -> bool:
        await self.stopping.passed()
        forced = await super().stop(instance, grace_s)
        self.log.append(f"stop {instance}")
        return forced

    async def list(self) -> tuple[Observed, ...]:
        seen = await super().list()
        await self.listing.passed()
        return seen


class FakeCollector:
    """Reads a host that is made up, or fails."""

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.pids: list[Mapping[InstanceId, int]] = []

    def sample(self, pids: Mapping[InstanceId, int]) -> HostSample:
        self.pids.append(pids)
        if self.error is not None:
            raise self.error
        return HOST_SAMPLE


class Life:
    """One run of agentd over a directory and a host that outlive it."""

    def __init__(self, directory: Path, host: MemoryHost, config: FleetConfig, collector: FakeCollector | None) -> None:
        clock = SystemClock()
        store = SlowStore.open(directory / "agentd.db", Bounds(), clock)
        assert isinstance(store, SlowStore)
        self.store = store
        self.store.gate = Gate()
        self.driver = SlowDriver(host)
        self.controller = Controller(config, store.load().epoch)
        self.runtime = Runtime(
            self.controller, self.driver, store, clock, epoch=store.load().epoch, collector=collector
        )
        self.running: asyncio.Task[None]

    def state(self, ident: InstanceId = CORE) -> State | None:
        return next((i.state for i in self.runtime.view().instances if i.id == ident), None)

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for what happens in the background; an error there comes out here."""
        async with asyncio.timeout(10.0):
            while not true():
                if self.running.done():
                    self.running.result()
                await asyncio.sleep(0)

    async def stored(self) -> None:
        """Wait until all that has happened is in the store: this is taken after it, and changes nothing."""
        await self.runtime.submit(Probed(InstanceId("nobody-1"), Incarnation("")))

    async def told(self) -> list[str]:
        return [f"{r.record.type}" for r in reversed(await self.runtime.events(limit=100))]


@contextlib.asynccontextmanager
async def life(
    directory: Path,
    host: MemoryHost | None = None,
    config: FleetConfig = FLEET,
    *,
    collector: FakeCollector | None = None,
    run: bool = True,
) -> AsyncIterator[Life]:
    """agentd runs, and ends as it does on SIGTERM: the agents run on."""
    made = Life(directory, host or MemoryHost(), config, collector)
    try:
        await made.runtime.start()
        if run:
            made.running = asyncio.create_task(made.runtime.run())
        yield made
        made.store.gate.open()
        if run:
            await ended(made)
        await made.runtime.flush()
    finally:
        await made.driver.close()
        await made.store.close()


async def ended(agentd: Life) -> None:
    agentd.running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await agentd.running

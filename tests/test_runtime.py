"""The loop: persist, then perform; results come back as events; what breaks is said and not swallowed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec

import pytest

from agentd import runtime as module
from agentd.clock import SystemClock
from agentd.core.controller import Controller
from agentd.core.messages import (
    Beat,
    BeatReply,
    Check,
    EventType,
    Probed,
    Record,
    Restart,
    SetAutoscaling,
    Shutdown,
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
    StartFailure,
    State,
)
from agentd.drivers.memory import MemoryDriver, MemoryHost
from agentd.errors import Refused
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


# -- persist, then perform --------------------------------------------------------------------------


@asynchronous
async def test_nothing_is_performed_before_it_is_stored(tmp_path: Path) -> None:
    async with life(tmp_path, run=False) as agentd:
        agentd.store.gate.shut()
        agentd.running = asyncio.create_task(agentd.runtime.run())
        await agentd.until(lambda: agentd.store.gate.waiting > 0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert agentd.driver.log == []
        assert agentd.state() is State.PENDING
        agentd.store.gate.open()
        await agentd.until(lambda: agentd.state() is State.READY)
        assert agentd.driver.log == [f"start {CORE}"]
        await ended(agentd)


@asynchronous
async def test_a_person_hears_back_when_it_is_stored_and_not_before(tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        agentd.store.gate.shut()
        asked = asyncio.create_task(agentd.runtime.submit(SetAutoscaling(False, "alice", "")))
        await agentd.until(lambda: agentd.store.gate.waiting > 0)
        assert not asked.done()
        agentd.store.gate.open()
        await asked
        assert "autoscaling" in await agentd.told()


@asynchronous
async def test_an_intent_is_open_until_its_result_is_there(tmp_path: Path) -> None:
    host = MemoryHost()
    async with life(tmp_path, host) as agentd:
        agentd.driver.starting.shut()
        await agentd.until(lambda: agentd.driver.starting.waiting > 0)
    async with life(tmp_path, host, run=False) as agentd:
        assert [(intent.kind, intent.instance) for intent in agentd.store.load().intents] == [("start", CORE)]
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
    assert host.starts == [CORE]
    async with life(tmp_path, host, run=False) as agentd:
        assert agentd.store.load().intents == ()


# -- actions and their results ----------------------------------------------------------------------


@asynchronous
async def test_a_start_that_fails_comes_back_as_an_event(tmp_path: Path) -> None:
    host = MemoryHost()
    host.fail_next_start(CORE, StartFailure.COMMAND_NOT_FOUND, "no such file: agent")
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.FAILED)
        await agentd.stored()
        failed = await agentd.runtime.events(limit=1, types=(EventType.START_FAILED,))
        assert failed[0].record.reason == "command_not_found: no such file: agent"


@asynchronous
async def test_actions_on_one_instance_happen_one_after_the_other(tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        agentd.driver.starting.shut()
        await agentd.until(lambda: agentd.driver.starting.waiting > 0)
        await agentd.runtime.submit(Restart((CORE,), "alice"))  # a stop, then a start
        for _ in range(100):
            await asyncio.sleep(0)
        assert agentd.driver.log == []
        agentd.driver.starting.open()
        await agentd.until(lambda: agentd.state() is State.READY)
        assert agentd.driver.log == [f"start {CORE}", f"stop {CORE}", f"start {CORE}"]


@asynchronous
async def test_instances_do_not_wait_for_each_other(tmp_path: Path) -> None:
    config = replace(FLEET, pools={POOL.name: replace(POOL, min=3)})
    async with life(tmp_path, config=config) as agentd:
        agentd.driver.starting.shut()
        await agentd.until(lambda: agentd.driver.starting.waiting == 3)
        agentd.driver.starting.open()


@asynchronous
async def test_an_exit_and_the_restart_in_place_are_heard(tmp_path: Path) -> None:
    host = MemoryHost()
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        host.exit(CORE)
        await agentd.until(lambda: agentd.runtime.view().instances[0].restarts == 1)
        await agentd.stored()
        assert (await agentd.told())[-3:] == ["exit", "restart", "ready"]


@asynchronous
async def test_what_the_driver_never_expected_ends_agentd(tmp_path: Path) -> None:
    host = MemoryHost()
    made = Life(tmp_path, host, FLEET, None)
    made.driver.broken = RuntimeError("out of everything")
    await made.runtime.start()
    with pytest.raises(ExceptionGroup) as raised:
        await made.runtime.run()
    assert raised.group_contains(RuntimeError, match="out of everything")
    await made.driver.close()
    await made.store.close()


@asynchronous
async def test_a_shutdown_ends_when_nothing_is_left_and_can_be_hurried(tmp_path: Path) -> None:
    host = MemoryHost()
    host.slow_stop(CORE, 1000.0)
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        await agentd.runtime.submit(Shutdown(keep_agents=False, owner="alice"))
        gone = asyncio.create_task(agentd.runtime.gone())
        await agentd.until(lambda: agentd.state() is State.STOPPING)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not gone.done()
        await agentd.runtime.hurry()
        await asyncio.wait_for(gone, 10.0)
        assert agentd.runtime.view().instances == ()
        assert host.processes == {}


# -- time -------------------------------------------------------------------------------------------


@asynchronous
async def test_the_loop_wakes_at_the_deadline_the_controller_asked_for(tmp_path: Path) -> None:
    pool = replace(POOL, health=HealthCheck.HEARTBEAT)
    config = replace(FLEET, pools={POOL.name: pool}, check_interval_s=0.02, heartbeat_timeout_s=0.03)
    async with life(tmp_path, config=config) as agentd:
        await agentd.until(lambda: agentd.state() is State.STARTING)
        incarnation = agentd.runtime.view().instances[0].incarnation
        reply = agentd.runtime.beat(Beat(CORE, incarnation, 1, load=0.9))
        assert isinstance(reply, BeatReply)
        # Nothing else happens from here on: only a deadline can end the silence, or make the pool grow.
        await agentd.until(lambda: len(agentd.runtime.view().instances) > 1 or agentd.runtime.view().unhealthy > 0)


@asynchronous
async def test_beats_are_answered_without_the_store(tmp_path: Path) -> None:
    pool = replace(POOL, health=HealthCheck.HEARTBEAT)
    async with life(tmp_path, config=replace(FLEET, pools={POOL.name: pool})) as agentd:
        await agentd.until(lambda: agentd.state() is State.STARTING)
        incarnation = agentd.runtime.view().instances[0].incarnation
        agentd.runtime.beat(Beat(CORE, incarnation, 1, load=0.5))
        await agentd.stored()
        stored = agentd.store.last_id
        agentd.store.gate.shut()
        for seq in range(2, 100):
            assert isinstance(agentd.runtime.beat(Beat(CORE, incarnation, seq, load=0.6)), BeatReply)
        await asyncio.sleep(0)
        assert (agentd.store.gate.waiting, agentd.store.last_id) == (0, stored)
        assert agentd.runtime.view().instances[0].load == 0.6


# -- listings ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_listing_says_nothing_of_what_moved_while_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELIST_S", 0.0)
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        agentd.driver.listing.shut()
        await agentd.until(lambda: agentd.driver.listing.waiting > 0)  # it has seen the process, and waits
        await agentd.runtime.submit(Restart((CORE,), "alice"))
        await agentd.until(lambda: len(agentd.driver.log) == 3 and agentd.state() is State.READY)
        fresh = agentd.runtime.view().instances[0].incarnation
        agentd.driver.listing.open()
        await agentd.until(lambda: agentd.driver.listing.waiting == 0)
        await agentd.stored()
        assert agentd.runtime.view().instances[0].incarnation == fresh
        assert agentd.runtime.view().instances[0].restarts == 1


@asynchronous
async def test_what_vanished_unnoticed_is_found_by_the_next_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELIST_S", 0.0)
    host = MemoryHost()
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        entry = agentd.driver._entries[CORE]
        host.processes.clear()
        entry.phase = None
        await agentd.until(lambda: len(host.starts) == 2)
        await agentd.until(lambda: agentd.state() is State.READY)
        await agentd.stored()
        assert "vanished" in await agentd.told()


# -- restarts of agentd -----------------------------------------------------------------------------


@asynchronous
async def test_the_next_agentd_adopts_what_runs_and_remembers_what_was_said(tmp_path: Path) -> None:
    host = MemoryHost()
    config = replace(FLEET, pools={POOL.name: replace(POOL, min=3)})
    async with life(tmp_path, host, config) as agentd:
        await agentd.until(lambda: [i.state for i in agentd.runtime.view().instances] == [State.READY] * 3)
        await agentd.runtime.submit(SetAutoscaling(False, "alice", "maintenance"))
        pids = {i.id: i.pid for i in agentd.runtime.view().instances}
        epoch = agentd.runtime.view().epoch
    async with life(tmp_path, host, config) as agentd:
        assert {i.id: i.pid for i in agentd.runtime.view().instances} == pids
        assert agentd.runtime.view().autoscaling.owner == "alice"
        assert agentd.runtime.view().epoch > epoch
        await agentd.runtime.submit(Check("alice"))
    assert len(host.starts) == 3


@asynchronous
async def test_without_its_database_agentd_still_adopts_what_runs(tmp_path: Path) -> None:
    host = MemoryHost()
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
    for path in tmp_path.iterdir():
        path.unlink()
    async with life(tmp_path, host) as agentd:
        assert agentd.state() is State.READY
    assert host.starts == [CORE]


@asynchronous
async def test_the_last_words_are_stored_by_the_flush(tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        await ended(agentd)
        agentd.runtime.tell(Record(EventType.AGENTD_STOP, "good bye"))
    async with life(tmp_path) as agentd:
        last = await agentd.runtime.events(limit=1, types=(EventType.AGENTD_STOP,))
        assert last[0].record.reason == "good bye"


# -- what is wrong with agentd itself ---------------------------------------------------------------


@asynchronous
async def test_a_store_that_cannot_write_is_told_and_the_fleet_is_kept(tmp_path: Path) -> None:
    host = MemoryHost()
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        agentd.store.said_degraded = "no space left on device"
        assert agentd.runtime.degraded() == ("state is kept in memory only: no space left on device",)
        host.exit(CORE)
        await agentd.until(lambda: agentd.state() is State.READY and len(host.starts) == 2)
        agentd.store.said_degraded = None
        assert agentd.runtime.degraded() == ()


@asynchronous
async def test_a_host_that_cannot_be_measured_is_told_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE_S", 0.0)
    collector = FakeCollector()
    async with life(tmp_path, collector=collector) as agentd:
        assert agentd.runtime.view().host == HOST_SAMPLE
        collector.error = OSError(5, "Input/output error")
        await agentd.until(lambda: agentd.runtime.degraded() != ())
        assert "Input/output error" in agentd.runtime.degraded()[0]
        collector.error = None
        await agentd.until(lambda: agentd.runtime.degraded() == ())
        await agentd.until(lambda: any(CORE in pids for pids in collector.pids))


@asynchronous
async def test_a_refusal_is_raised_with_its_status(tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        with pytest.raises(Refused) as raised:
            await agentd.runtime.submit(Check("alice", PoolName("nowhere")))
        assert (raised.value.reason, raised.value.status) == ("UNKNOWN_POOL", "NOT_FOUND")


@asynchronous
async def test_a_new_configuration_is_in_force_and_the_driver_knows_it(tmp_path: Path) -> None:
    host = MemoryHost()
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        fresh = replace(FLEET, pools={POOL.name: replace(POOL, min=2, command=("new",))})
        await agentd.runtime.reconfigure(fresh)
        assert agentd.runtime.config == fresh
        await agentd.until(lambda: len(host.starts) == 2)
        spec = agentd.driver._entries[CORE].spec
        assert spec is not None
        assert spec.command == ("new",)


@asynchronous
async def test_metrics_are_kept_for_every_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "METRICS_S", 0.0)
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        async with asyncio.timeout(10.0):
            while not any(metric.ready == 1 for metric in await agentd.store.metrics("research", 0.0)):
                await asyncio.sleep(0)


# -- watching ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_watcher_sees_every_record_once_from_its_token_on(tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        await agentd.stored()
        before = agentd.store.last_id
        seen: list[int] = []

        async def watch() -> None:
            async for stored in agentd.runtime.watch(0):
                seen.append(stored.id)

        watcher = asyncio.create_task(watch())
        for number in range(20):
            agentd.runtime.tell(Record(EventType.CONFIG, str(number)))
            await asyncio.sleep(0)
        await agentd.until(lambda: len(seen) == before + 20)
        assert seen == list(range(1, before + 21))
        watcher.cancel()


@pytest.mark.parametrize("after", [-5, 10_000])
@asynchronous
async def test_a_token_beyond_what_is_kept_is_expired(after: int, tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        with pytest.raises(Refused, match="not kept"):
            await anext(agentd.runtime.watch(after))

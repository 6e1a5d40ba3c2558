"""From one agentd to the next, and what is told when something is wrong with agentd itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from life import CORE, FLEET, HOST_SAMPLE, POOL, FakeCollector, asynchronous, ended, life
from msgspec.structs import replace

from agentd import runtime as module
from agentd import runtime_measuring
from agentd.core.messages import (
    Beat,
    Check,
    EventType,
    Record,
    SetAutoscaling,
)
from agentd.core.model import (
    PoolName,
    State,
)
from agentd.drivers.memory import MemoryHost
from agentd.errors import Refused

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
    monkeypatch.setattr(runtime_measuring, "SAMPLE_S", 0.0)
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


@asynchronous
async def test_metrics_have_the_tasks_that_agents_have_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "METRICS_S", 0.0)
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        (incarnation,) = (one.incarnation for one in agentd.runtime.view().instances)
        agentd.runtime.beat(Beat(CORE, incarnation, 1, load=0.5, tasks_completed=17))
        async with asyncio.timeout(10.0):
            while not any(metric.completed == 17 for metric in await agentd.store.metrics("research", 0.0)):
                await asyncio.sleep(0)

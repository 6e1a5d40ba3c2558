"""An OSError of the host is told, and agentd goes on."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from life import CORE, HOST_SAMPLE, FakeCollector, asynchronous, ended, life

from agentd import runtime as module
from agentd import runtime_measuring
from agentd.core.messages import Shutdown
from agentd.core.model import State

NO_DESCRIPTOR_LEFT = OSError(errno.EMFILE, "Too many open files")


@asynchronous
async def test_logs_that_cannot_be_kept_in_bounds_are_told_until_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HOUSEKEEPING_S", 0.0)
    broken = True

    async def housekeeping() -> None:
        if broken:
            raise OSError(errno.EROFS, "Read-only file system")

    async with life(tmp_path, run=False) as agentd:
        agentd.runtime._housekeeping = housekeeping
        agentd.running = asyncio.create_task(agentd.runtime.run())
        await agentd.until(lambda: agentd.runtime.degraded() != ())
        assert "Read-only file system" in agentd.runtime.degraded()[0]
        broken = False
        await agentd.until(lambda: agentd.runtime.degraded() == ())
        await ended(agentd)


@asynchronous
async def test_processes_that_cannot_be_listed_are_told_until_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELIST_S", 0.0)
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        with monkeypatch.context() as patched:
            patched.setattr(agentd.driver, "list", failing)
            await agentd.until(lambda: agentd.runtime.degraded() != ())
            assert "Too many open files" in agentd.runtime.degraded()[0]
            assert agentd.state() is State.READY
        await agentd.until(lambda: agentd.runtime.degraded() == ())


@asynchronous
async def test_a_host_that_cannot_be_measured_at_first_is_measured_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_measuring, "SAMPLE_S", 0.0)
    collector = FakeCollector()
    collector.error = NO_DESCRIPTOR_LEFT
    async with life(tmp_path, collector=collector) as agentd:
        assert agentd.runtime.view().host is None
        collector.error = None
        await agentd.until(lambda: agentd.runtime.view().host == HOST_SAMPLE)
        assert agentd.runtime.degraded() == ()


@asynchronous
async def test_a_start_that_the_host_cannot_serve_fails_as_any_other(tmp_path: Path) -> None:
    async with life(tmp_path, run=False) as agentd:
        agentd.driver.broken = NO_DESCRIPTOR_LEFT
        agentd.running = asyncio.create_task(agentd.runtime.run())
        await agentd.until(lambda: agentd.state() not in (State.PENDING, State.STARTING))
        await agentd.stored()
        records = await agentd.runtime.events(limit=100)
        assert any("Too many open files" in stored.record.reason for stored in records)
        await ended(agentd)


@asynchronous
async def test_a_stop_that_the_host_cannot_serve_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_RETRY_S", 0.0)
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        with monkeypatch.context() as patched:
            patched.setattr(agentd.driver, "stop", failing)
            await agentd.runtime.submit(Shutdown(keep_agents=False, owner="alice"))
            await agentd.until(lambda: agentd.runtime.degraded() != ())
            assert agentd.runtime.degraded() == (f"cannot stop {CORE}, trying again: {NO_DESCRIPTOR_LEFT}",)
            await agentd.runtime.hurry()
        await asyncio.wait_for(agentd.runtime.gone(), 10.0)
        assert agentd.runtime.degraded() == ()


async def failing(*_: object) -> None:
    raise NO_DESCRIPTOR_LEFT

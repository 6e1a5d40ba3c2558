"""The process driver on a host that runs out of things, or that refuses it things."""

from __future__ import annotations

import errno
import os
import signal

import pytest
from driver_worlds import ID, ProcessWorld, asynchronous, shell, spec, started_up, until, watching

from agentd.core.messages import InstanceExited, InstanceGaveUp, InstanceStarted
from agentd.core.model import Phase, StartFailure
from agentd.drivers import process, process_instance, process_sweep
from agentd.drivers.process_table import Stat, read_stat
from agentd.errors import StartError

pytestmark = pytest.mark.host

NO_DESCRIPTOR_LEFT = OSError(errno.EMFILE, "Too many open files")


def out_of_descriptors(*_: object) -> None:
    raise NO_DESCRIPTOR_LEFT


@asynchronous
async def test_a_process_that_cannot_be_looked_at_after_its_birth_is_ended(
    process_world: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = process_world.driver()
    async with watching(driver):
        with monkeypatch.context() as patched:
            patched.setattr(process, "read_stat", out_of_descriptors)
            with pytest.raises(StartError, match="Too many open files") as caught:
                await driver.start(spec())
        assert caught.value.cause is StartFailure.SPAWN_FAILED
        assert await driver.list() == ()
        assert process_world.running(ID) == 0


@asynchronous
async def test_an_exit_on_a_host_without_descriptors_is_followed_by_a_restart_once_there_are_some(
    process_world: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "RETRY_S", 0.01)
    driver = process_world.driver()
    async with watching(driver) as reports:
        first = await driver.start(spec())
        with monkeypatch.context() as patched:
            patched.setattr(driver._sweeper._table, "scan", out_of_descriptors)
            await process_world.exit(first)
            await reports.first(InstanceExited)
            with pytest.raises(OSError, match="Too many open files"):
                await driver.list()
        await reports.first(InstanceStarted)
        assert not any(isinstance(report, InstanceGaveUp) for report in reports)


@asynchronous
async def test_a_stop_that_failed_for_want_of_descriptors_can_be_repeated(
    process_world: ProcessWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = process_world.driver()
    async with watching(driver):
        await driver.start(spec(command=shell("setsid sleep infinity & echo up $!; wait")))
        await started_up(process_world)
        with monkeypatch.context() as patched:
            patched.setattr(driver._sweeper._table, "scan", out_of_descriptors)
            with pytest.raises(OSError, match="Too many open files"):
                await driver.stop(ID, grace_s=10.0)
        await driver.stop(ID, grace_s=10.0)
        assert process_world.running(ID) == 0


def test_no_descriptor_is_lost_where_a_process_cannot_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    stat = read_stat(os.getpid())
    assert isinstance(stat, Stat)
    monkeypatch.setattr(process_sweep, "read_stat", out_of_descriptors)
    with pytest.raises(OSError, match="Too many open files"):
        process_sweep.open_pidfd(os.getpid(), stat.start_ticks)
    assert sorted(os.listdir("/proc/self/fd")) == before


@asynchronous
async def test_a_process_that_may_not_be_signalled_is_let_go_after_its_grace(
    process_world: ProcessWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that has become another user's. It is named in the log, and no longer listed."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(process_instance, "LET_GO_S", 0.01)
    driver = process_world.driver()
    async with watching(driver) as reports:
        observed = await driver.start(spec())
        with monkeypatch.context() as patched:
            patched.setattr(signal, "pidfd_send_signal", refused)
            assert await driver.stop(ID, grace_s=0.01) is True
            assert await driver.list() == ()
        assert process_world.running(ID) == 1
        assert reports == []
        lines = [record.message for record in caplog.records]
        assert lines.count("cannot signal a process") == 1
        assert lines.count("left a process running that may not be signalled") == 1
        again = await driver.start(spec())
        assert again.phase is Phase.RUNNING
        assert again.pid != observed.pid
        os.kill(observed.pid, signal.SIGKILL)
        os.waitpid(observed.pid, 0)
        await until(lambda: process_world.running(ID) == 1, "the one that was let go to end")

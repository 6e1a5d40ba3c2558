"""Programs that say themselves when they are ready: what the systemd driver waits for, and what it tells meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from driver_worlds import ID, asynchronous, until, watching
from msgspec import structs
from systemd_world import UNHURRIED_S, SystemdWorld, notifying

from agentd.core.messages import InstanceExited, InstanceStarted
from agentd.core.model import HealthCheck, InstanceSpec, Phase, StartFailure
from agentd.drivers.systemd import SystemdDriver
from agentd.errors import StartError
from agentd.units import unit_name

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]

UNIT = unit_name(ID)
WAITS = "while not os.path.exists('go'): time.sleep(0.01)\nsay(b'READY=1')\ntime.sleep(1000)"


def patient() -> InstanceSpec:
    """A program that is ready when there is a file `go` in its home, and that nobody asks for its health."""
    return notifying(WAITS, HealthCheck.NONE)


async def let_go(world: SystemdWorld) -> None:
    home = world.root / f"var/lib/private/agentd-agents/{ID}"
    await until(home.exists, "its home")
    (home / "go").touch()


async def activating(world: SystemdWorld) -> None:
    async def is_so() -> bool:
        return await world.show(ID, "ActiveState") == "activating"

    await until(is_so, "the program to run")


async def are_ready(driver: SystemdDriver) -> list[bool]:
    return [observed.ready for observed in await driver.list()]


@asynchronous
async def test_one_that_is_found_before_its_word_is_listed_as_not_ready(systemd_world: SystemdWorld) -> None:
    first = systemd_world.driver()
    starting = asyncio.create_task(first.start(patient()))
    await activating(systemd_world)
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    await first.close()
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        (found,) = await driver.list()
        assert (found.phase, found.ready, reports) == (Phase.RUNNING, False, [])
        driver.learn((patient(),))
        assert await are_ready(driver) == [False]
        await let_go(systemd_world)
        told = await reports.first(InstanceStarted)
        assert reports == [InstanceStarted(ID, found.incarnation, found.pid)]
        assert told == reports[0]
        assert await are_ready(driver) == [True]


@asynchronous
async def test_after_a_restart_in_place_its_word_is_waited_for(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        starting = asyncio.create_task(driver.start(patient()))
        await let_go(systemd_world)
        assert (await starting).ready
        (systemd_world.root / f"var/lib/private/agentd-agents/{ID}/go").unlink()
        await systemd_world.exit(await starting)
        started = await reports.first(InstanceStarted)
        assert isinstance(started, InstanceStarted)
        assert not started.ready
        assert await are_ready(driver) == [False]
        await let_go(systemd_world)
        assert await reports.first(InstanceStarted, 2) == structs.replace(started, ready=True)
        assert [type(report) for report in reports] == [InstanceExited, InstanceStarted, InstanceStarted]


@asynchronous
async def test_who_is_asked_for_its_health_is_told_of_once(systemd_world: SystemdWorld) -> None:
    """Nobody waits for its word, neither after a start nor after a restart in place."""
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        started = await driver.start(notifying(WAITS, HealthCheck.HEARTBEAT))
        assert started.ready
        await systemd_world.exit(started)
        await reports.first(InstanceStarted)
        await let_go(systemd_world)

        async def active() -> bool:
            return await systemd_world.show(ID, "ActiveState") == "active"

        await until(active, "its word")
        assert await are_ready(driver) == [True]
        assert [type(report) for report in reports] == [InstanceExited, InstanceStarted]


@asynchronous
async def test_a_program_without_a_health_check_has_started_when_it_says_so(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver):
        starting = asyncio.create_task(driver.start(patient()))
        await activating(systemd_world)
        assert not starting.done()
        await let_go(systemd_world)
        assert (await starting).phase is Phase.RUNNING
        assert await systemd_world.show(ID, "ActiveState") == "active"


@asynchronous
async def test_a_program_with_a_health_check_has_started_when_its_process_runs(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver):
        started = await driver.start(notifying("time.sleep(1000)", HealthCheck.HEARTBEAT))
        assert started.pid > 0
        assert await systemd_world.show(ID, "ActiveState") == "activating"
        assert await driver.list() == (started,)
        assert await driver.stop(ID, grace_s=10.0) is False
        assert await driver.list() == ()


@asynchronous
async def test_a_program_that_ends_before_it_is_ready_did_not_start(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        with pytest.raises(StartError, match="ended before it was ready: exit code 7") as caught:
            await driver.start(notifying("sys.exit(7)", HealthCheck.NONE))
        assert caught.value.cause is StartFailure.SPAWN_FAILED
        assert await driver.list() == ()
        assert reports == []


@asynchronous
async def test_a_program_that_is_never_ready_is_ended_in_time(systemd_world: SystemdWorld) -> None:
    systemd_world.drop_in(ID, f"[Service]\nTimeoutStartSec=300ms\nRestartSec={UNHURRIED_S:g}")
    driver = systemd_world.driver()
    async with watching(driver):
        with pytest.raises(StartError, match="did not say in time that it is ready") as caught:
            await driver.start(notifying("time.sleep(1000)", HealthCheck.NONE))
        assert caught.value.cause is StartFailure.TIMEOUT
        assert await driver.list() == ()


@asynchronous
async def test_a_start_that_somebody_cancels_says_so(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver):
        starting = asyncio.create_task(driver.start(notifying("time.sleep(1000)", HealthCheck.NONE)))
        await activating(systemd_world)
        await systemd_world.systemctl("stop", UNIT)
        with pytest.raises(StartError, match="somebody stopped it meanwhile"):
            await starting
        assert await driver.list() == ()


@asynchronous
async def test_a_program_that_never_says_that_it_is_ready_gets_its_pool_s_start_timeout(
    systemd_world: SystemdWorld,
) -> None:
    driver = systemd_world.driver()
    async with watching(driver):
        silent = structs.replace(notifying("time.sleep(1000)", HealthCheck.NONE), start_timeout_s=0.5)
        with pytest.raises(StartError, match=r"did not say READY=1 within 0\.5 s") as caught:
            await driver.start(silent)
        assert caught.value.cause is StartFailure.TIMEOUT
        assert await driver.list() == ()

"""What operators do to units past agentd, and what the systemd driver takes it for."""

from __future__ import annotations

import asyncio

import pytest
from driver_worlds import FOREVER, ID, POOL, asynchronous, shell, spec, until, watching
from systemd_world import SystemdWorld

from agentd.core.messages import HostStopping, InstanceExited, InstanceHeld, InstanceStarted
from agentd.core.model import ExitCause, ExitKind, instance_id
from agentd.units import unit_name

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]

UNIT = unit_name(ID)


@asynchronous
async def test_what_an_operator_stops_is_held_until_it_is_started_again(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        first = await driver.start(spec())
        driver.learn([spec()])
        await systemd_world.systemctl("stop", UNIT)
        assert await driver.list() == ()
        assert reports == [
            InstanceHeld(
                ID,
                "stopped by an operator; `systemctl start agent@research-9101` or `agentctl restart research-9101` "
                "resumes it",
            )
        ]
        driver.learn([spec()])
        await systemd_world.systemctl("start", UNIT)
        resumed = await reports.first(InstanceStarted)
        assert isinstance(resumed, InstanceStarted)
        assert resumed.incarnation != first.incarnation
        assert [observed.incarnation for observed in await driver.list()] == [resumed.incarnation]
        assert len(reports) == 2


@asynchronous
async def test_agentd_may_start_what_an_operator_stopped(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await driver.start(spec())
        await systemd_world.systemctl("stop", UNIT)
        await reports.first(InstanceHeld)
        second = await driver.start(spec())
        assert await driver.list() == (second,)
        assert len(reports) == 1


@asynchronous
async def test_what_failed_on_an_operator_s_stop_can_be_started_and_be_let_go(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    fails = spec(command=shell("trap 'exit 9' TERM; : >up; while :; do sleep 0.02; done"))
    async with watching(driver) as reports:
        first = await driver.start(fails)
        driver.learn([fails])
        await systemd_world.systemctl("stop", UNIT)
        await reports.first(InstanceHeld)
        second = await driver.start(fails)
        assert second.incarnation != first.incarnation
        assert await driver.list() == (second,)
        await systemd_world.systemctl("stop", UNIT)
        await reports.first(InstanceHeld, 2)
        driver.learn([])

        async with asyncio.timeout(30):
            while await systemd_world.show(ID, "ActiveState") != "inactive":
                await asyncio.sleep(0.02)


@asynchronous
async def test_an_agent_that_fails_on_an_operator_s_stop_is_held_too(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await driver.start(spec(command=shell("trap 'exit 9' TERM; : >up; while :; do sleep 0.02; done")))
        await systemd_world.home(ID, "up")
        await systemd_world.systemctl("stop", UNIT)
        await reports.first(InstanceHeld)
        assert await systemd_world.show(ID, "ActiveState") == "failed"
        assert await driver.list() == ()
        assert len(reports) == 1


@asynchronous
async def test_an_operator_s_restart_is_no_hold(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        first = await driver.start(spec())
        await systemd_world.systemctl("restart", UNIT)
        again = await reports.first(InstanceStarted)
        assert isinstance(again, InstanceStarted)
        assert again.incarnation != first.incarnation
        (listed,) = await driver.list()
        assert listed.incarnation == again.incarnation
        assert reports == [InstanceExited(ID, first.incarnation, ExitCause(ExitKind.UNKNOWN), 0.0), again]


@asynchronous
async def test_an_operator_may_stop_what_waits_for_its_restart(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await systemd_world.exit(await driver.start(systemd_world.slow()))
        await reports.first(InstanceExited)
        await systemd_world.systemctl("stop", UNIT)
        await reports.first(InstanceHeld)
        assert await driver.list() == ()


@asynchronous
async def test_a_stop_of_the_target_holds_nobody(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    try:
        async with watching(driver) as reports:
            for port in (9101, 9102, 9103):
                await driver.start(spec(port, command=FOREVER))
            await systemd_world.systemctl("stop", "agentd.target")

            async def all_gone() -> bool:
                return await driver.list() == ()

            await until(all_gone, "the agents to stop")
            assert reports == [HostStopping("agentd.target is being stopped")]
    finally:
        await systemd_world.systemctl("start", "agentd.target")


@asynchronous
async def test_a_report_is_never_overtaken_by_a_listing(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        for port in range(9101, 9109):
            await driver.start(spec(port))
        stopping = asyncio.create_task(systemd_world.systemctl("stop", "agent@*.service"))
        while (listed := await driver.list()) or not stopping.done():
            told = {report.instance for report in reports if isinstance(report, InstanceHeld)}
            assert told | {observed.id for observed in listed} == {instance_id(POOL, n) for n in range(9101, 9109)}
        await stopping

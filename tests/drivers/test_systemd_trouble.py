"""The systemd driver when the bus, systemd or the host goes away under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from driver_worlds import ID, asynchronous, spec, until, watching
from host_fixtures import FindBase, MakeHost
from systemd_world import SystemdWorld, lay_out, prepare

from agentd.core.messages import HostStopping, InstanceExited, InstanceStarted
from agentd.core.model import Phase, StartFailure
from agentd.drivers import systemd_bus
from agentd.drivers.systemd_bus import BusAway
from agentd.errors import AgentdError, StartError
from agentd.units import TEMPLATE, unit_name

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]

COUNT = 20
PORTS = range(9101, 9101 + COUNT)


@asynccontextmanager
async def without_bus(world: SystemdWorld) -> AsyncIterator[None]:
    """Keep the host's bus down. Only the kernel is asked: systemctl without a bus still reaches systemd."""
    await world.systemctl("stop", "dbus.socket", "dbus.service")
    try:
        yield
    finally:
        await world.systemctl("start", "dbus.socket", "dbus.service")


# -- the bus ------------------------------------------------------------------------------------


@asynchronous
async def test_without_a_bus_there_is_no_driver_and_it_says_why(systemd_world: SystemdWorld, tmp_path: Path) -> None:
    driver = systemd_world.driver(bus_address=f"unix:path={tmp_path}/bus")
    with pytest.raises(AgentdError, match=r"cannot reach systemd over the system bus: .*No such file"):
        await driver.open()
    await driver.close()
    working = systemd_world.driver()
    async with watching(working):
        assert await working.list() == ()  # the instances are not locked


@asynchronous
async def test_without_the_directory_of_instances_there_is_no_driver(
    systemd_world: SystemdWorld, tmp_path: Path
) -> None:
    driver = systemd_world.driver(instances_dir=tmp_path / "instances")
    with pytest.raises(AgentdError, match=r"cannot open .*/instances: No such file.*systemd-tmpfiles"):
        await driver.list()
    await driver.close()


@asynchronous
async def test_a_restart_of_the_bus_goes_unnoticed_by_agents(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        first, second = await driver.start(spec(9101)), await driver.start(spec(9102))
        await systemd_world.systemctl("restart", "dbus.service")
        assert await driver.list() == (first, second)
        third = await driver.start(spec(9103))
        assert reports == []
        await systemd_world.exit(first)
        await reports.first(InstanceStarted)
        assert [observed.id for observed in await driver.list()] == [first.id, second.id, third.id]


@asynchronous
async def test_what_happens_while_the_bus_is_away_is_found_out_afterwards(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        first = await driver.start(spec())
        async with without_bus(systemd_world):
            await systemd_world.exit(first)

            def restarted() -> bool:
                return systemd_world.running(ID) == 1 and not Path(f"{systemd_world.root}/proc/{first.pid}").exists()

            await until(restarted, "systemd to restart it")
        again = await reports.first(InstanceStarted)
        assert isinstance(again, InstanceStarted)
        exited = await reports.first(InstanceExited)
        assert isinstance(exited, InstanceExited)
        assert exited.incarnation == first.incarnation
        (listed,) = await driver.list()
        assert (listed.incarnation, listed.phase) == (again.incarnation, Phase.RUNNING)


@asynchronous
async def test_calls_wait_a_while_for_the_bus_and_then_say_that_it_is_away(
    systemd_world: SystemdWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        started = await driver.start(spec())
        with monkeypatch.context() as patch:
            patch.setattr(systemd_bus, "AWAY_S", 0.3)
            async with without_bus(systemd_world):
                with pytest.raises(StartError) as caught:
                    await driver.start(spec(9102))
                assert caught.value.cause is StartFailure.DRIVER_AWAY
                with pytest.raises(BusAway, match="cannot be reached"):
                    await driver.list()
                with pytest.raises(OSError, match="cannot be reached"):
                    await driver.stop(ID, grace_s=10.0)

        async def listed() -> bool:
            return await driver.list() == (started,)

        await until(listed, "the bus to be back")
        assert await driver.stop(ID, grace_s=10.0) is False
        assert reports == []


# -- systemd ------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", ["daemon-reload", "daemon-reexec"])
@asynchronous
async def test_reloading_systemd_means_nothing(systemd_world: SystemdWorld, again: str) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        started = await asyncio.gather(*(driver.start(spec(port)) for port in PORTS))
        for _ in range(3):
            await systemd_world.systemctl(again)
            assert await driver.list() == tuple(started)
        assert reports == []
        await systemd_world.exit(started[0])
        await reports.first(InstanceStarted)
        assert len(reports) == 2


@pytest.mark.parametrize("again", ["daemon-reload", "daemon-reexec"])
@asynchronous
async def test_starts_and_stops_survive_a_reload_of_systemd(systemd_world: SystemdWorld, again: str) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        starting = asyncio.gather(*(driver.start(spec(port)) for port in PORTS))
        await systemd_world.systemctl(again)
        started = await starting
        assert await driver.list() == tuple(started)
        stopping = asyncio.gather(*(driver.stop(observed.id, grace_s=30.0) for observed in started))
        await systemd_world.systemctl(again)
        assert await stopping == [False] * COUNT
        assert await driver.list() == ()
        assert reports == []


@asynchronous
async def test_a_masked_unit_is_not_started_and_says_how_to_unmask_it(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver):
        await systemd_world.systemctl("mask", "--runtime", unit_name(ID))
        try:
            with pytest.raises(StartError, match=f"is masked; `systemctl unmask --runtime {unit_name(ID)}`") as caught:
                await driver.start(spec())
            assert caught.value.cause is StartFailure.UNIT_MISSING
            assert await driver.stop(ID, grace_s=10.0) is False
            assert await driver.list() == ()
            assert list((systemd_world.root / "run/agentd/instances").iterdir()) == []
        finally:
            await systemd_world.systemctl("unmask", "--runtime", unit_name(ID))
        assert (await driver.start(spec())).phase is Phase.RUNNING


@asynchronous
@pytest.mark.parametrize(
    ("options", "why"), [("ro", "Read-only file system"), ("size=4k", "No space left on device")], ids=["ro", "full"]
)
async def test_instances_files_that_cannot_be_written_are_named(
    systemd_world: SystemdWorld, options: str, why: str
) -> None:
    place = systemd_world.root / "run/agentd/instances"
    driver = systemd_world.driver()
    async with watching(driver):
        await driver.start(spec(9102))
        await systemd_world.do("mount", "-t", "tmpfs", "-o", options, "tmpfs", "/run/agentd/instances")
        try:
            if why.startswith("No space"):
                (place / "other").write_bytes(b"x" * 4096)
            with pytest.raises(StartError) as caught:
                await driver.start(spec())
            assert str(caught.value) == f"cannot start {ID}: cannot write {place}/{ID}.env: {why}"
            assert caught.value.cause is StartFailure.SPAWN_FAILED
            assert [path.name for path in place.iterdir() if path.name != "other"] == []
            assert [observed.id for observed in await driver.list()] == [spec(9102).id]
        finally:
            await systemd_world.do("umount", "/run/agentd/instances")
        assert (await driver.start(spec())).phase is Phase.RUNNING


@asynchronous
async def test_a_missing_template_is_named(systemd_world: SystemdWorld) -> None:
    template = systemd_world.root / "usr/lib/systemd/system" / TEMPLATE
    driver = systemd_world.driver()
    async with watching(driver):
        text = template.read_text()
        template.unlink()
        # What tests add to the template would count as one.
        await systemd_world.do("mv", "/run/systemd/system/agent@.service.d", "/run/agent-drop-in")
        await systemd_world.systemctl("daemon-reload")
        try:
            with pytest.raises(StartError, match=r"Is agent@\.service installed") as caught:
                await driver.start(spec())
            assert caught.value.cause is StartFailure.UNIT_MISSING
            assert await driver.list() == ()
        finally:
            template.write_text(text)
            await systemd_world.do("mv", "/run/agent-drop-in", "/run/systemd/system/agent@.service.d")
            await systemd_world.systemctl("daemon-reload")


@asynchronous
async def test_many_ends_at_once_are_each_told_once(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        started = await asyncio.gather(*(driver.start(spec(port)) for port in PORTS))
        await systemd_world.do("kill", "-KILL", *(str(observed.pid) for observed in started))
        await reports.first(InstanceStarted, COUNT)
        ended = sorted((r.instance, r.incarnation) for r in reports if isinstance(r, InstanceExited))
        assert ended == [(observed.id, observed.incarnation) for observed in started]
        begun = sorted((r.instance, r.incarnation) for r in reports if isinstance(r, InstanceStarted))
        assert begun == [(observed.id, observed.incarnation) for observed in await driver.list()]
        assert len(reports) == 2 * COUNT


# -- the host -----------------------------------------------------------------------------------


def test_a_host_that_shuts_down_holds_nobody(clean_base: FindBase, make_host: MakeHost, tmp_path: Path) -> None:
    lay_out(tmp_path / "layer")
    host = make_host(tmp_path / "layer", clean_base("bookworm"))
    # As agentd.service has it: the bus outlives agentd, which outlives the agents.
    host.write("/run/systemd/system/agent@.service.d/60-order.conf", "[Unit]\nAfter=dbus.service\n")
    prepare(host)
    world = SystemdWorld(host)
    # Nobody waits for their end: the host is gone by then. It is time for a driver that stands still for a moment.
    slow_to_end = ("sh", "-c", "trap 'sleep 30; exit 0' TERM; : >up; while :; do sleep 0.05; done")

    async def run() -> None:
        driver = world.driver()
        async with watching(driver) as reports:
            for port in (9101, 9102):
                await driver.start(spec(port, command=slow_to_end))
                await world.home(spec(port).id, "up")
            await world.systemctl("--no-block", "poweroff")
            await reports.first(HostStopping)
            assert reports == [HostStopping("the host is shutting down")]

    asyncio.run(run())

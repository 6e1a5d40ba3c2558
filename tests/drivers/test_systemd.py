"""What the systemd driver does beyond the contract: how units start, end and stop."""

from __future__ import annotations

import asyncio
import json
import textwrap

import pytest
from driver_worlds import ID, POOL, asynchronous, shell, spec, until, watching
from systemd_world import SystemdWorld, notifying, python

from agentd.core.messages import (
    InstanceExited,
    InstanceGaveUp,
    InstanceHeld,
    InstanceStarted,
    InstanceWarned,
)
from agentd.core.model import (
    ExitCause,
    ExitKind,
    HealthCheck,
    Phase,
    RestartPolicy,
    StartFailure,
    instance_id,
)
from agentd.drivers.systemd_failures import where_to_look
from agentd.errors import StartError
from agentd.units import unit_name

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]

UNIT = unit_name(ID)


# -- starting -----------------------------------------------------------------------------------


@asynchronous
async def test_an_agent_is_told_who_it_is_and_what_its_pool_says(systemd_world: SystemdWorld) -> None:
    odd = 'it\'s "quoted" $HOME %i \\n ü \n second line'
    script = """
        import json
        told = {name: value for name, value in os.environ.items() if name.startswith("AGENTD_") or name == "ODD"}
        with open("told.new", "w") as file:
            json.dump([told, sys.argv[1:], os.environ["INVOCATION_ID"]], file)
        os.rename("told.new", "told")
        time.sleep(1000)
    """
    command = (*python(textwrap.dedent(script)), "{instance}:{port}", '{"a": {}}')
    driver = systemd_world.driver()
    async with watching(driver):
        started = await driver.start(spec(command=command, env={"ODD": odd, "AGENTD_PORT": "1"}))
        told, words, invocation = json.loads(await systemd_world.home(ID, "told"))
        assert words == ["research-9101:9101", '{"a": {}}']
        assert told == {
            "ODD": odd,
            "AGENTD_INSTANCE": ID,
            "AGENTD_PORT": "9101",
            "AGENTD_ENDPOINT": "unix:/run/agentd/agents.sock",
            "AGENTD_CONCURRENCY": "4",
            "AGENTD_INCARNATION": started.incarnation,
        }
        assert invocation == started.incarnation


@asynchronous
async def test_the_file_of_an_instance_is_for_systemd_alone_and_goes_with_it(systemd_world: SystemdWorld) -> None:
    files = systemd_world.root / "run/agentd/instances"
    driver = systemd_world.driver()
    async with watching(driver):
        await driver.start(spec(env={"SECRET": "x"}))
        (file,) = files.iterdir()
        assert file.name == "research-9101.env"
        assert file.stat().st_mode & 0o777 == 0o600
        await driver.stop(ID, grace_s=10.0)
        assert list(files.iterdir()) == []


@asynchronous
async def test_a_command_that_does_not_exist_is_named_and_nothing_is_left(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        with pytest.raises(StartError, match="'no-such-agent' is no program on the agent's PATH") as caught:
            await driver.start(spec(command=("no-such-agent",)))
        assert caught.value.cause is StartFailure.COMMAND_NOT_FOUND
        assert where_to_look(UNIT) in str(caught.value)
        assert await driver.list() == ()
        assert await systemd_world.systemctl("list-units", "--all", "--plain", "--no-legend", "agent@*") == ""
        assert list((systemd_world.root / "run/agentd/instances").iterdir()) == []
        assert reports == []


@asynchronous
async def test_a_sandbox_that_cannot_be_set_up_is_named_with_systemd_s_word(systemd_world: SystemdWorld) -> None:
    systemd_world.drop_in(ID, "[Service]\nWorkingDirectory=/nowhere")
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        with pytest.raises(StartError, match="status 200/CHDIR") as caught:
            await driver.start(spec())
        assert caught.value.cause is StartFailure.SETUP_FAILED
        assert await driver.list() == ()
        assert await systemd_world.systemctl("list-units", "--all", "--plain", "--no-legend", "agent@*") == ""
        assert reports == []


# -- ends ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_silent_watchdog_is_the_cause_of_an_exit(systemd_world: SystemdWorld) -> None:
    script = "say(b'READY=1\\nWATCHDOG_USEC=200000')\ntime.sleep(1000)"
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await driver.start(systemd_world.unhurried(notifying(script, HealthCheck.HEARTBEAT)))
        exited = await reports.first(InstanceExited)
        assert isinstance(exited, InstanceExited)
        assert exited.cause.kind is ExitKind.WATCHDOG


@asynchronous
async def test_a_watchdog_that_barks_again_and_again_is_a_crash_loop_and_a_start_is_the_way_out(
    systemd_world: SystemdWorld,
) -> None:
    script = "say(b'READY=1\\nWATCHDOG_USEC=50000')\ntime.sleep(1000)"
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await driver.start(notifying(script, HealthCheck.HEARTBEAT))
        surrender = await reports.first(InstanceGaveUp)
        assert isinstance(surrender, InstanceGaveUp)
        assert surrender.cause is StartFailure.CRASH_LOOP
        assert "watchdog" in surrender.text
        assert not [report for report in reports if isinstance(report, InstanceHeld)]
        again = await driver.start(spec())
        assert await driver.list() == (again,)


@asynchronous
async def test_a_program_that_vanishes_is_not_tried_again(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        started = await driver.start(spec())
        driver.learn([spec(command=("no-such-agent",))])
        await systemd_world.exit(started)
        surrender = await reports.first(InstanceGaveUp)
        assert isinstance(surrender, InstanceGaveUp)
        assert surrender.cause is StartFailure.COMMAND_NOT_FOUND
        assert where_to_look(UNIT) in surrender.text


@asynchronous
async def test_a_restart_runs_what_was_learned_last(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        started = await driver.start(spec())
        driver.learn([spec(command=shell(": >learned; exec sleep 1000"))])
        await systemd_world.exit(started)
        await reports.first(InstanceStarted)
        await systemd_world.home(ID, "learned")


@asynchronous
async def test_systemd_forgets_failures_after_a_healthy_period(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        started = await driver.start(spec(restart=RestartPolicy(healthy_s=0.1)))
        await systemd_world.exit(started)
        await reports.first(InstanceStarted)

        async def forgotten() -> bool:
            return await systemd_world.show(ID, "NRestarts") == "0"

        await until(forgotten, "the count of restarts to be reset")


@asynchronous
async def test_an_adopted_instance_is_forgiven_too(systemd_world: SystemdWorld) -> None:
    first = systemd_world.driver()
    async with watching(first) as reports:
        await systemd_world.exit(await first.start(spec()))
        await reports.first(InstanceStarted)
    assert await systemd_world.show(ID, "NRestarts") == "1"
    second = systemd_world.driver()
    async with watching(second):
        await second.list()
        second.learn([spec(restart=RestartPolicy(healthy_s=0.1))])

        async def forgotten() -> bool:
            return await systemd_world.show(ID, "NRestarts") == "0"

        await until(forgotten, "the count of restarts to be reset")


@asynchronous
async def test_an_instance_that_waits_or_failed_is_taken_over_as_such(systemd_world: SystemdWorld) -> None:
    first = systemd_world.driver()
    async with watching(first) as reports:
        waiting = await first.start(systemd_world.slow())
        await systemd_world.exit(waiting)
        await first.start(systemd_world.crashing(9102))
        await reports.first(InstanceGaveUp)
    second = systemd_world.driver()
    async with watching(second) as reports:
        listed = await second.list()
        assert [(o.id, o.phase) for o in listed] == [(ID, Phase.BACKOFF), (instance_id(POOL, 9102), Phase.FAILED)]
        assert listed[0].incarnation == waiting.incarnation
        exited, surrender = await reports.first(InstanceExited), await reports.first(InstanceGaveUp)
        assert isinstance(exited, InstanceExited) and isinstance(surrender, InstanceGaveUp)
        assert (exited.incarnation, exited.cause) == (waiting.incarnation, ExitCause(ExitKind.SIGNAL, 9))
        assert surrender.text == "research-9102 ended 3 times in a row, the last time with exit code 3"
        second.learn([spec()])
        assert [observed.id for observed in await second.list()] == [ID, "research-9102"]


@asynchronous
async def test_a_unit_that_was_never_ours_is_not_listed(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await systemd_world.do("sh", "-c", "systemctl start agent@other-9901 || true")
        assert await driver.list() == ()

        async def failed() -> bool:
            states = await systemd_world.systemctl("list-units", "--all", "--plain", "--no-legend", "agent@*")
            return " failed " in states

        await until(failed, "systemd to give up")
        assert await driver.list() == ()
        assert reports == []


# -- stopping -----------------------------------------------------------------------------------

STUBBORN = shell("trap '' TERM; : >up; while :; do sleep 0.05; done")


@asynchronous
async def test_what_ignores_TERM_is_killed_after_its_grace(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await driver.start(spec(command=STUBBORN))
        await systemd_world.home(ID, "up")
        assert await driver.stop(ID, grace_s=0.2) is True
        assert systemd_world.running(ID) == 0
        assert await driver.list() == ()
        assert await systemd_world.systemctl("list-units", "--all", "--plain", "--no-legend", "agent@*") == ""
        assert reports == []


@asynchronous
async def test_a_second_stop_shortens_the_grace(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver):
        await driver.start(spec(command=STUBBORN))
        await systemd_world.home(ID, "up")
        patient = asyncio.create_task(driver.stop(ID, grace_s=100.0))

        async def stopping() -> bool:
            return await systemd_world.show(ID, "SubState") == "stop-sigterm"

        await until(stopping, "TERM to be sent")
        assert await driver.stop(ID, grace_s=0.0) is True
        assert await patient is True


@asynchronous
async def test_a_grace_that_systemd_cuts_short_is_warned_of_and_told(systemd_world: SystemdWorld) -> None:
    systemd_world.drop_in(ID, "[Service]\nTimeoutStopSec=300ms")
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await driver.start(spec(command=STUBBORN))
        await systemd_world.home(ID, "up")
        assert await driver.stop(ID, grace_s=100.0) is True
        warned = await reports.first(InstanceWarned)
        assert isinstance(warned, InstanceWarned)
        assert warned.text == "its grace of 100 s is longer than TimeoutStopSec= of its unit: it ends after 0.3 s"
        assert await driver.list() == ()


@asynchronous
async def test_what_an_agent_leaves_behind_is_killed_with_it(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver):
        await driver.start(spec(command=shell("setsid sleep 1000 & setsid sleep 1000 & : >up; exec sleep 1000")))
        await systemd_world.home(ID, "up")
        assert systemd_world.running(ID) == 3
        assert await driver.stop(ID, grace_s=10.0) is False
        assert systemd_world.running(ID) == 0


@asynchronous
async def test_a_stopped_process_hears_TERM(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver):
        started = await driver.start(spec())
        await systemd_world.do("kill", "-STOP", str(started.pid))
        assert await driver.stop(ID, grace_s=30.0) is False

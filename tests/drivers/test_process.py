"""The process driver on the real host: what only it can get wrong."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from driver_worlds import ID, ProcessWorld, asynchronous, gone, shell, spec, started_up, until, watching

from agentd import logfiles, ports
from agentd.core.messages import InstanceStarted
from agentd.core.model import StartFailure
from agentd.drivers.process import STARTS_IN_TURN_MAX, ProcessDriver
from agentd.drivers.process_spawn import inheritable
from agentd.errors import StartError

pytestmark = pytest.mark.host


# -- birth --------------------------------------------------------------------------------------


@asynchronous
async def test_an_agent_is_told_who_it_is(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    async with watching(driver):
        command = shell('env; readlink /proc/$$/fd/0; echo "$1"; echo up; exec sleep infinity')
        words = ("agent", '{instance} {pool} {port} {"a": 1}')
        observed = await driver.start(spec(command=(*command, *words), env={"COLOUR": "red"}))
        await started_up(process_world)
        lines = process_world.log(ID).splitlines()
        assert {
            "AGENTD_INSTANCE=research-9101",
            f"AGENTD_INCARNATION={observed.incarnation}",
            "AGENTD_PORT=9101",
            "AGENTD_ENDPOINT=unix:/run/test/agents.sock",
            "AGENTD_CONCURRENCY=4",
            f"AGENTD_STATE_ID={process_world.state_id()}",
            "COLOUR=red",
            "/dev/null",
            'research-9101 research 9101 {"a": 1}',
        } <= set(lines)


def test_what_concerns_agentd_s_own_service_is_not_inherited() -> None:
    kept = {"PATH": "/bin", "LANG": "C", "AGENT": "mine"}
    dropped = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "JOURNAL_STREAM", "INVOCATION_ID", "AGENTD_STATE_ID")
    assert inheritable({**kept, **dict.fromkeys(dropped, "x")}) == kept


@asynchronous
async def test_an_agent_leads_a_session_and_a_group_of_its_own(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    async with watching(driver):
        observed = await driver.start(spec())
        assert os.getsid(observed.pid) == os.getpgid(observed.pid) == observed.pid


@asynchronous
async def test_an_agent_begins_with_the_signals_as_any_program_does(process_world: ProcessWorld) -> None:
    """Python ignores SIGPIPE and SIGXFSZ, which a child would inherit; and a child begins with nothing blocked."""
    driver = process_world.driver()
    async with watching(driver):
        observed = await driver.start(spec(command=("sleep", "infinity")))
        status = Path(f"/proc/{observed.pid}/status").read_text()
        masks = {name: int(mask, 16) for name, mask in re.findall(r"^(Sig\w+):\t(\w+)$", status, re.MULTILINE)}
    assert not masks["SigIgn"] & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)
    assert masks["SigBlk"] == 0


def test_agents_have_their_log_also_where_agentd_has_no_standard_input(tmp_path: Path) -> None:
    """The log's own descriptor is then 0, where the agent's standard input goes."""
    program = """if True:
        import os, sys
        from pathlib import Path
        from agentd.core.model import HealthCheck, InstanceId, InstanceSpec, PoolName, RestartPolicy
        from agentd.drivers.process_spawn import Spawner

        command = ("sh", "-c", "readlink /proc/$$/fd/0; echo err >&2")
        name, pool = InstanceId("a-1"), PoolName("a")
        spec = InstanceSpec(name, pool, 1, None, command, (), 1, HealthCheck.NONE, RestartPolicy())
        os.close(0)
        Spawner("state", "unix:/nowhere", Path(sys.argv[1]), (), None, {"PATH": os.defpath}).spawn(spec)
        os.wait()
    """
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
    assert (tmp_path / "a-1.log").read_text() == "/dev/null\nerr\n"


@asynchronous
async def test_starts_leave_the_loop_to_others_after_a_few(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    async with watching(driver):
        count = 3 * STARTS_IN_TURN_MAX
        starts = [asyncio.create_task(driver.start(spec(9101 + number))) for number in range(count)]
        together, done = 0, 0
        while done < count:
            await asyncio.sleep(0)
            before, done = done, sum(start.done() for start in starts)
            together = max(together, done - before)
        assert together == STARTS_IN_TURN_MAX


@asynchronous
async def test_a_log_is_appended_to_where_its_readers_look(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    async with watching(driver):
        for count in (1, 2):
            await driver.start(spec(command=shell("echo out; echo err >&2; echo up; exec sleep infinity")))
            await started_up(process_world, count)
            await driver.stop(ID, grace_s=10.0)
    assert logfiles.LogFiles(process_world.log_dir).path(ID).read_text() == "out\nerr\nup\n" * 2


@asynchronous
async def test_without_a_command_the_sample_runs(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    async with watching(driver):
        observed = await driver.start(spec(command=()))
        words = Path(f"/proc/{observed.pid}/cmdline")
        await until(lambda: words.read_bytes().endswith(b"sleep\0infinity\0"), "the sample")  # exec is still at work


@asynchronous
async def test_a_command_is_looked_up_on_the_agent_s_own_path(process_world: ProcessWorld, tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\nexec sleep infinity\n")
    program.chmod(0o755)
    driver = process_world.driver()
    async with watching(driver):
        with pytest.raises(StartError, match="'only-here' is no program on the agent's PATH") as caught:
            await driver.start(spec(command=("only-here",)))
        assert caught.value.cause is StartFailure.COMMAND_NOT_FOUND
        assert await driver.list() == ()
        await driver.start(spec(command=("only-here",), env={"PATH": f"{tmp_path}:/usr/bin:/bin"}))


@asynchronous
async def test_a_program_that_cannot_be_executed_is_the_start_s_error(
    process_world: ProcessWorld, tmp_path: Path
) -> None:
    program = tmp_path / "broken"
    program.write_bytes(b"\x7fELF but not really")
    program.chmod(0o755)
    driver = process_world.driver()
    async with watching(driver):
        with pytest.raises(StartError, match="Exec format error") as caught:
            await driver.start(spec(command=(str(program),)))
        assert caught.value.cause is StartFailure.SPAWN_FAILED
        assert await driver.list() == ()


@asynchronous
async def test_the_holder_of_a_taken_port_is_named(process_world: ProcessWorld) -> None:
    driver = ProcessDriver(
        state_id=process_world.state_id(),
        agent_endpoint="",
        log_dir=process_world.log_dir,
        port_probe=ports.probe,
        sample_command=(),
    )
    async with watching(driver):
        with socket.create_server(("127.0.0.1", 0)) as foreign:
            port = foreign.getsockname()[1]
            with pytest.raises(StartError, match=rf"port {port} is held by .*\(pid {os.getpid()}\)") as caught:
                await driver.start(spec(port))
            assert caught.value.cause is StartFailure.PORT_TAKEN
        await driver.start(spec(port))


@asynchronous
async def test_a_probe_that_fails_is_the_start_s_error(process_world: ProcessWorld) -> None:
    def failing(port: int) -> None:
        raise OSError(24, f"too many open files at {port}")

    driver = process_world.driver()
    driver._port_probe = failing
    async with watching(driver):
        with pytest.raises(StartError, match=r"cannot probe port 9101: .*too many open files") as caught:
            await driver.start(spec())
        assert caught.value.cause is StartFailure.SPAWN_FAILED


# -- limits -------------------------------------------------------------------------------------


@asynchronous
async def test_an_agent_gets_its_own_file_limit_and_its_whole_environment(process_world: ProcessWorld) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    driver = process_world.driver(fd_soft_limit=123)
    async with watching(driver):
        program = "import os, resource; print('up', *resource.getrlimit(resource.RLIMIT_NOFILE), os.environ['a.b'])"
        waiting = f"{program}; import sys, time; sys.stdout.flush(); time.sleep(3600)"
        command = (sys.executable, "-c", waiting)
        await driver.start(spec(command=command, env={"a.b": "dotted"}))
        assert await started_up(process_world) == ["123", str(hard), "dotted"]


def test_raising_the_file_limit_gives_back_the_old_one() -> None:
    program = """
        import resource
        from agentd.drivers.process import raise_fd_limit
        print(raise_fd_limit(), raise_fd_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
    """
    limited = ("prlimit", "--nofile=300:400", "--", sys.executable, "-c", textwrap.dedent(program))
    done = subprocess.run(limited, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["300", "400", "400", "400"]


# -- stop ---------------------------------------------------------------------------------------


@asynchronous
async def test_term_lets_an_agent_and_its_tools_finish(process_world: ProcessWorld, tmp_path: Path) -> None:
    driver = process_world.driver()
    async with watching(driver):
        script = f"""
            (until [ -e {tmp_path}/go ]; do sleep 0.01; done; echo tool finished) &
            tool=$!
            trap 'touch {tmp_path}/go; wait $tool; echo agent finished; exit 0' TERM
            echo up
            wait $tool
        """
        await driver.start(spec(command=shell(script)))
        await started_up(process_world)
        assert await driver.stop(ID, grace_s=60.0) is False
        assert process_world.log(ID).endswith("tool finished\nagent finished\n")


@asynchronous
async def test_an_agent_that_ignores_term_is_killed_with_its_grandchildren(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    async with watching(driver):
        script = "trap '' TERM; (sleep infinity & echo up $!; wait) & wait; sleep infinity"
        observed = await driver.start(spec(command=shell(script)))
        (grandchild,) = await started_up(process_world)
        assert process_world.running(ID) >= 3
        assert await driver.stop(ID, grace_s=0.05) is True
        assert gone(observed.pid)
        assert gone(int(grandchild))
        assert process_world.running(ID) == 0


@asynchronous
async def test_nothing_outlives_a_leader_that_ended_by_itself(process_world: ProcessWorld) -> None:
    """Neither who left the session, nor who dropped the environment, nor who ignores TERM."""
    driver = process_world.driver()
    async with watching(driver):
        script = """
            setsid sleep infinity & a=$!
            env -i sleep infinity & b=$!
            (trap '' TERM; echo ready; while :; do sleep 3600; done) & c=$!
            trap 'exit 0' TERM
            until grep -q ready "$AGENT_LOG"; do sleep 0.01; done
            echo up $a $b $c
            wait
        """
        log_path = str(process_world.log_dir / f"{ID}.log")
        await driver.start(spec(command=shell(script), env={"AGENT_LOG": log_path}))
        children = await started_up(process_world)
        assert not any(gone(int(pid)) for pid in children)
        assert await driver.stop(ID, grace_s=60.0) is False
        assert all(gone(int(pid)) for pid in children)
        assert process_world.running(ID) == 0


@asynchronous
async def test_a_restart_begins_with_nothing_of_the_earlier_run(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    async with watching(driver) as reports:
        first = await driver.start(spec(command=shell("setsid sleep infinity & echo up $!; wait")))
        (straggler,) = await started_up(process_world)
        await process_world.exit(first)
        await reports.first(InstanceStarted)
        assert gone(int(straggler))


@asynchronous
async def test_a_stopped_process_can_be_ended_gently(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    async with watching(driver):
        script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done"
        observed = await driver.start(spec(command=shell(script)))
        await started_up(process_world)
        os.kill(observed.pid, signal.SIGSTOP)
        assert await driver.stop(ID, grace_s=60.0) is False
        assert process_world.log(ID).endswith("bye\n")


@asynchronous
async def test_a_later_shorter_grace_wins(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    async with watching(driver):
        await driver.start(spec(command=shell("trap '' TERM; echo up; while :; do sleep 3600; done")))
        await started_up(process_world)
        patient = asyncio.create_task(driver.stop(ID, grace_s=3600.0))
        await asyncio.sleep(0)
        assert await driver.stop(ID, grace_s=0.01) is True
        assert await patient is True


# -- trouble ------------------------------------------------------------------------------------


@asynchronous
async def test_an_error_inside_the_driver_is_raised_to_its_consumer(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    first = await driver.start(spec())
    driver._port_probe = lambda port: 1 // 0  # noqa: ARG005
    await process_world.exit(first)
    with pytest.raises(ZeroDivisionError):
        async for _ in driver.watch():
            pass
    await driver.close()


@asynchronous
async def test_many_exits_are_swept_by_few_readings_of_the_process_table(process_world: ProcessWorld) -> None:
    driver = process_world.driver()
    table = driver._sweeper._table
    scans = 0
    scan = table.scan

    def counted() -> object:
        nonlocal scans
        scans += 1
        return scan()

    table.scan = counted  # type: ignore[method-assign, assignment]
    async with watching(driver):
        await asyncio.gather(*(driver.start(spec(port)) for port in range(9101, 9141)))
        before = scans
        await asyncio.gather(*(driver.stop(spec(port).id, grace_s=60.0) for port in range(9101, 9141)))
        assert scans - before <= 20

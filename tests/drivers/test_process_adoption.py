"""What the process driver finds running already: adopted, ended, or left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from driver_worlds import ID, ProcessWorld, asynchronous, gone, spec, started_up, until, watching

from agentd.core.messages import InstanceExited, InstanceStarted
from agentd.core.model import ExitCause, ExitKind
from agentd.drivers.process_table import read_stat

pytestmark = pytest.mark.host


def identity(world: ProcessWorld, incarnation: str) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "AGENTD_STATE_ID": world.state_id(),
        "AGENTD_INSTANCE": ID,
        "AGENTD_INCARNATION": incarnation,
    }


@asynchronous
async def test_a_zombie_is_dead(process_world: ProcessWorld) -> None:
    child = subprocess.Popen(["true"], env=identity(process_world, "a"), start_new_session=True)
    await until(lambda: gone(child.pid), "the zombie")
    driver = process_world.driver()
    async with watching(driver):
        assert await driver.list() == ()
        assert read_stat(child.pid) is not None
    child.wait()


@asynchronous
async def test_of_two_incarnations_the_newest_stays(process_world: ProcessWorld) -> None:
    old = subprocess.Popen(["sleep", "infinity"], env=identity(process_world, "old"), start_new_session=True)
    before = read_stat(old.pid)
    assert before is not None
    new = old

    def later() -> bool:
        nonlocal new
        new = subprocess.Popen(["sleep", "infinity"], env=identity(process_world, "new"), start_new_session=True)
        stat = read_stat(new.pid)
        assert stat is not None
        # Popen returns as soon as the program is loaded, a moment before the kernel shows its environment.
        if stat.start_ticks > before.start_ticks and Path(f"/proc/{new.pid}/environ").read_bytes():
            return True
        new.kill()
        new.wait()
        return False

    await until(later, "a process of a later clock tick")
    driver = process_world.driver()
    async with watching(driver) as reports:
        (listed,) = await driver.list()
        assert (listed.pid, listed.incarnation) == (new.pid, "new")
        await until(lambda: gone(old.pid), "the older incarnation to end")
        (listed,) = await driver.list()
        assert listed.pid == new.pid
        assert reports == []
        assert await driver.stop(ID, grace_s=10.0) is False


@asynchronous
async def test_leftovers_without_a_leader_are_killed_and_not_listed(process_world: ProcessWorld) -> None:
    leftover = subprocess.Popen(["sleep", "infinity"], env=identity(process_world, "a"))
    driver = process_world.driver()
    async with watching(driver):
        assert await driver.list() == ()
        await until(lambda: gone(leftover.pid), "the leftover to be killed")
    leftover.wait()


SUPERVISOR = """
import asyncio, sys, time
from pathlib import Path
sys.path.insert(0, {here!r})
from driver_worlds import spec
from agentd.drivers.process import ProcessDriver

async def main():
    driver = ProcessDriver(state_id={state_id!r}, agent_endpoint="", log_dir=Path({log_dir!r}),
                           port_probe=lambda port: None, sample_command=())
    for port in (9101, 9102):
        command = ("sh", "-c", "env -i sleep infinity & echo up $!; while :; do echo beat; sleep 0.01; done")
        observed = await driver.start(spec(port, command=command))
        print(observed.id, observed.incarnation, observed.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@asynchronous
async def test_agents_outlive_a_killed_agentd_and_are_adopted(process_world: ProcessWorld) -> None:
    here, log_dir = str(Path(__file__).parent), str(process_world.log_dir)
    program = SUPERVISOR.format(here=here, state_id=process_world.state_id(), log_dir=log_dir)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        before = [first.stdout.readline().split() for _ in range(2)]
        first.kill()
    size = len(process_world.log(ID))
    await until(lambda: len(process_world.log(ID)) > size, "the agent to go on writing")

    driver = process_world.driver()
    async with watching(driver) as reports:
        (without_environment,) = await started_up(process_world)
        adopted = await driver.list()
        assert [[o.id, o.incarnation, str(o.pid)] for o in adopted] == before
        driver.learn([spec(9101)])
        await process_world.exit(adopted[0])
        exited = await reports.first(InstanceExited)
        assert isinstance(exited, InstanceExited)
        assert exited.cause == ExitCause(ExitKind.UNKNOWN)
        await reports.first(InstanceStarted)
        assert gone(int(without_environment))
        for observed in adopted:
            assert await driver.stop(observed.id, grace_s=10.0) is False
        assert await driver.list() == ()

"""What the demo breaks: one agent, its own, at its time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from agentd.demo.faults import Fault, faults, send
from agentd.demo.fleet import Instance, Look

AGENT = Instance("research-9101", "research", 9101, "ready", 7, "life", "", 0)


def test_an_elastic_ready_agent_is_chosen_within_the_time() -> None:
    fault = Fault(signal.SIGKILL, at_s=45.0, until_s=70.0)
    core = replace(AGENT, id="research-9002", port=9002, core_name="researcher")
    starting = replace(AGENT, id="research-9103", port=9103, state="starting")
    second = replace(AGENT, id="research-9102", port=9102)
    look = Look((core, AGENT, second, starting), 2, 0.5)
    assert fault.choose(look, 44.9) is None
    assert fault.choose(look, 45.0) == AGENT
    assert replace(fault, number=signal.SIGSTOP).choose(look, 45.0) == second
    assert fault.choose(Look((core, starting), 2, 0.5), 50.0) is None
    assert fault.choose(look, 70.0) is None
    fault.done = True
    assert fault.choose(look, 50.0) is None


def test_the_default_demo_has_a_crash_and_later_a_hang() -> None:
    crash, hang = faults()
    assert (crash.number, hang.number) == (signal.SIGKILL, signal.SIGSTOP)
    assert crash.until_s <= hang.at_s


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "AGENTD_INSTANCE": AGENT.id, "AGENTD_INCARNATION": AGENT.incarnation}
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()  # its environment is its own now, not that of this process
    yield child
    child.kill()
    child.communicate()


@pytest.mark.host
def test_a_signal_goes_to_the_agent_itself(process: subprocess.Popen[bytes]) -> None:
    assert send(replace(AGENT, pid=process.pid), signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM


@pytest.mark.host
def test_another_process_is_never_hit(process: subprocess.Popen[bytes]) -> None:
    assert not send(replace(AGENT, pid=process.pid, incarnation="next life"), signal.SIGKILL)
    assert not send(replace(AGENT, pid=os.getpid()), signal.SIGKILL)
    assert process.poll() is None
    process.kill()
    process.wait()
    assert not send(replace(AGENT, pid=process.pid), signal.SIGKILL)

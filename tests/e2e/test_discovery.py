"""A program that gives tasks through Endpoints loses none of them, whatever becomes of an agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from e2e_fleet import SAMPLE, Fleet, call
from e2e_hosts import PATIENCE_S

from agentd.sdk.endpoints import Endpoint, Endpoints

pytestmark = pytest.mark.host

EXAMPLE = Path(__file__).parents[2] / "docs/examples/ask_agents.py"
TASKS = 100


def test_an_agent_is_killed_and_no_task_fails(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(command=SAMPLE, min=2, max=2, concurrency=4)})
    fleet.start()
    victim, other = (f"research-{fleet.ports[number]}" for number in (2, 3))
    before = fleet.ready(victim, other)
    assert {one["id"]: one["state"] for one in fleet.ctl("endpoints", "research")} == {victim: "ready", other: "ready"}
    env = {**fleet.env, "AGENTD_ADDRESS": fleet.address}
    command = [sys.executable, str(EXAMPLE), "research", str(TASKS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as program:
        try:
            assert program.stdout is not None and program.stderr is not None
            answered = [program.stdout.readline().strip() for _ in range(10)]
            os.kill(before[victim]["pid"], signal.SIGKILL)  # with tasks in flight
            answered += program.stdout.read().split()
            assert (program.stderr.read(), program.wait(PATIENCE_S)) == ("", 0)
        finally:
            program.kill()
    assert len(answered) == TASKS
    assert set(Counter(answered)) == {victim, other}
    after = fleet.ready(victim, other)
    assert after[victim]["incarnation"] != before[victim]["incarnation"]


def test_agentd_is_killed_and_returns_and_no_task_fails(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(min=2, max=2)})
    fleet.start()
    victim, other = (f"research-{fleet.ports[number]}" for number in (2, 3))
    before = fleet.ready(victim, other)
    with Endpoints("research", address=fleet.address) as endpoints:
        assert {endpoints.call(task) for _ in range(20)} == {victim, other}
        fleet.kill()
        os.kill(before[victim]["pid"], signal.SIGKILL)  # and nobody is there to tell
        assert {endpoints.call(task) for _ in range(20)} == {other}
        fleet.start()
        fleet.ready(victim, other)
        fleet.until("tasks go to the new process", lambda: endpoints.call(task) == victim)


def task(endpoint: Endpoint) -> str:
    status, answer = call(endpoint.port, "POST", "/task", {"service_s": 0.0})
    assert status == 200
    return str(answer["instance"])


def test_prometheus_finds_the_agents(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(min=1)})
    fleet.start()
    ident = f"research-{fleet.ports[2]}"
    fleet.ready(ident)
    status, groups = fleet.http("GET", "/discovery?pool=research")
    assert status == 200
    assert [(group["targets"], group["labels"]["__meta_agentd_instance"]) for group in groups] == [
        ([f"127.0.0.1:{fleet.ports[2]}"], ident)
    ]

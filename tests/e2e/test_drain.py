"""An agent that is asked to drain loses nothing: its tasks are finished, handed over, or it is taken back."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from e2e_fleet import PATIENT, SAMPLE, Fleet, Task, call, pids, set_load
from e2e_hosts import PATIENCE_S

from agentd.sdk.endpoints import Endpoint, Endpoints

pytestmark = pytest.mark.host
# Heartbeats every half second, and patience with those that a busy machine delays.
RULES = {**PATIENT, "heartbeat_timeout_sec": 1.5, "unhealthy_threshold": 20}


def offer(port: int, service_s: float, answers: list[Any]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(call(port, "POST", "/task", {"service_s": service_s})))
    thread.start()
    return thread


def test_what_waits_at_an_agent_that_drains_is_done_by_another(fleet: Fleet) -> None:
    pool = {"command": SAMPLE, "core": {"researcher": fleet.ports[1]}, "ports": [fleet.ports[2], fleet.ports[5]]}
    fleet.configure({"research": {**pool, "max": 2}}, rules=RULES)
    fleet.start()
    core, victim = (f"research-{fleet.ports[number]}" for number in (1, 2))
    fleet.ctl("up", "2", "--pool", "research")
    fleet.ready(core, victim)
    answers: list[tuple[int, Any]] = []
    # Long enough that also on a busy machine the drain has come before it ends, and one of the others begins.
    tasks = [offer(fleet.ports[2], 10.0, answers)]
    fleet.until("it works", lambda: fleet.ps()[victim]["in_flight"] == 1)
    tasks += [offer(fleet.ports[2], 0.1, answers) for _ in range(3)]
    fleet.until("three wait", lambda: fleet.ps()[victim]["queue_length"] == 3)
    fleet.ctl("down", "1", "--pool", "research")
    fleet.until("its door is closed", lambda: call(fleet.ports[2], "GET", "/healthz")[0] == 503)
    for task in tasks:
        task.join()
    assert [status for status, _ in answers] == [200] * 4
    assert Counter(fields["instance"] for _, fields in answers) == {core: 3, victim: 1}
    fleet.ready(core)
    assert fleet.events("stop_forced", "exit") == []
    assert "cut" not in fleet.event("stop", instance=victim)["reason"]


def test_interrupted_a_second_time_agentd_waits_for_no_drain(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(2, 5, min=1, drain_timeout_sec=600)}, rules=RULES)
    fleet.start()
    ident = f"research-{fleet.ports[2]}"
    fleet.ready(ident)
    connection = http.client.HTTPConnection("127.0.0.1", fleet.ports[2])
    connection.request("POST", "/task", '{"service_s": 600}')
    fleet.until("it works", lambda: fleet.ps()[ident]["in_flight"] == 1)
    fleet.signal(signal.SIGINT)
    fleet.until("it drains", lambda: fleet.ps()[ident]["state"] == "draining")
    fleet.signal(signal.SIGINT)
    assert fleet.ended() == 0
    assert fleet.running() == []
    connection.close()


def test_a_person_drains_one_and_waits_for_its_end(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(2, 5, min=1, drain_timeout_sec=60)}, rules=RULES)
    fleet.start()
    first, second = (f"research-{fleet.ports[number]}" for number in (2, 3))
    fleet.ready(first)
    task = Task(fleet.ports[2])
    fleet.until("it works", lambda: fleet.ps()[first]["in_flight"] == 1)
    drain = fleet.follow("drain", first, "--wait", "--timeout", "30s")
    fleet.until("it drains", lambda: fleet.ps()[first]["state"] == "draining")
    task.end()
    out, _ = drain.communicate(timeout=PATIENCE_S)
    ended = json.loads(out)["ended"]
    assert (drain.returncode, ended["type"], ended["instance"]) == (0, "stop", first)
    assert "cut" not in ended["reason"]
    assert task.answer()[0] == 200
    fleet.ready(second)  # the minimum of its pool


def test_an_agent_is_taken_back_in_the_middle_of_its_task(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(2, 5, min=1, drain_timeout_sec=60)}, rules=RULES)
    fleet.start()
    first, second = (f"research-{fleet.ports[number]}" for number in (2, 3))
    fleet.ctl("up", "2", "--pool", "research")
    before = fleet.ready(first, second)
    task = Task(fleet.ports[3])
    set_load(fleet.ports[2], 1.0)
    set_load(fleet.ports[3], 0.1)
    fleet.until("loads are known", lambda: [fleet.ps()[one]["load"] for one in (first, second)] == [1.0, 0.1])
    fleet.until("it works", lambda: fleet.ps()[second]["in_flight"] == 1)
    fleet.ctl("down", "1", "--pool", "research")
    fleet.until("its door is closed", lambda: call(fleet.ports[3], "POST", "/task", {"service_s": 0})[0] == 503)
    assert fleet.ps()[second]["state"] == "draining"
    fleet.ctl("up", "2", "--pool", "research")
    after = fleet.ready(first, second)
    assert pids(after) == pids(before)
    assert call(fleet.ports[3], "POST", "/task", {"service_s": 0})[0] == 200
    task.end()
    assert task.answer() == (200, {"instance": second, "incarnation": before[second]["incarnation"]})
    assert [event["instance"] for event in fleet.events("resume")] == [second]
    assert len(fleet.events("scale_up")) == 1
    assert fleet.events("stop", "stop_forced") == []


def test_what_a_deadline_cuts_is_told_and_done_by_another(fleet: Fleet) -> None:
    pool = fleet.elastic(2, 5, command=SAMPLE, min=2, drain_timeout_sec=1, stop_grace_sec=0.5)
    fleet.configure({"research": pool}, rules=RULES)
    fleet.start()
    fleet.ready(*(f"research-{fleet.ports[number]}" for number in (2, 3)))
    asked: list[str] = []

    def work(endpoint: Endpoint) -> str:
        asked.append(endpoint.id)
        _, answer = call(endpoint.port, "POST", "/task", {"service_s": 0.0 if asked[1:] else 600.0})
        return str(answer["instance"])

    with Endpoints("research", address=fleet.address) as endpoints, ThreadPoolExecutor(1) as thread:
        task = thread.submit(endpoints.call, work)
        fleet.until("it works", lambda: asked and fleet.ps()[asked[0]]["in_flight"] == 1)
        fleet.ctl("drain", asked[0])
        assert task.result() == asked[1] != asked[0]
    reason = fleet.event("stop_forced", instance=asked[0])["reason"]
    assert "deadline of 1 s passed; 1 task in flight and 0 queued were cut" in reason


def test_a_drain_that_ends_while_agentd_is_away_is_known_to_the_next(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(2, 5, drain_timeout_sec=600)}, rules=RULES)
    fleet.start()
    first, second = (f"research-{fleet.ports[number]}" for number in (2, 3))
    fleet.ready(first)
    task = Task(fleet.ports[2])
    fleet.until("it works", lambda: fleet.ps()[first]["in_flight"] == 1)
    fleet.ctl("drain", first)
    fleet.until("its door is closed", lambda: call(fleet.ports[2], "POST", "/task", {"service_s": 0})[0] == 503)
    fleet.kill()
    task.end()
    assert task.answer()[0] == 200
    fleet.start()
    fleet.ready(second)
    assert "cut" not in fleet.event("stop", instance=first)["reason"]

"""A pool is restarted under load: every instance gets a new process, and no request is lost on the way."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from e2e_fleet import PATIENT, SAMPLE, Fleet, call, pids
from e2e_hosts import PATIENCE_S

from agentd.sdk.endpoints import Endpoint, Endpoints, Retry

pytestmark = pytest.mark.host
# Heartbeats every half second, and patience with those that a busy machine delays.
RULES = {**PATIENT, "heartbeat_timeout_sec": 1.5, "unhealthy_threshold": 20}
CLIENTS = 4


def ask(endpoint: Endpoint) -> str:
    status, answer = call(endpoint.port, "POST", "/task", {"service_s": 0.1})
    if status == 503:
        raise Retry  # its door is closed: another one does it
    assert status == 200, answer
    return str(answer["instance"])


@contextmanager
def load(fleet: Fleet, answers: list[str], lost: list[BaseException]) -> Iterator[None]:
    """Programs that always have a request under way."""
    over = threading.Event()

    def work(endpoints: Endpoints) -> None:
        while not over.is_set():
            try:
                answers.append(endpoints.call(ask))
            except Exception as error:
                lost.append(error)

    with Endpoints("research", address=fleet.address) as endpoints:
        threads = [threading.Thread(target=work, args=(endpoints,)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


def test_under_load_a_pool_gets_new_processes_and_loses_no_request(fleet: Fleet) -> None:
    pool = {"command": SAMPLE, "core": {"researcher": fleet.ports[1]}, "ports": [fleet.ports[2], fleet.ports[4]]}
    fleet.configure({"research": {**pool, "min": 3, "max": 3, "concurrency": 4}}, rules=RULES)
    fleet.start()
    ids = [f"research-{fleet.ports[number]}" for number in (1, 2, 3)]
    stand_in = f"research-{fleet.ports[4]}"
    before = fleet.ready(*ids)
    answers: list[str] = []
    lost: list[BaseException] = []
    with load(fleet, answers, lost):
        fleet.until("they work", lambda: len(answers) > 20 or lost)
        assert lost == []
        done = fleet.ctl("restart", "research", "--wait", "--timeout", f"{PATIENCE_S:g}s")
        assert (done["restart"]["stand_in"], done["ended"]["type"]) == (stand_in, "rolling_done")
        so_far = len(answers)
        fleet.until("all work again", lambda: set(answers[so_far:]) == set(ids) or lost)
    assert lost == []
    after = fleet.ready(*ids)
    assert not set(pids(before).values()) & set(pids(after).values())
    assert stand_in in answers, "it took its share"
    assert fleet.events("stop_forced", "exit", "scale_up", "scale_down") == []
    assert all("cut" not in event["reason"] for event in fleet.events("stop"))
    steps = [(event["instance"], event["reason"]) for event in fleet.events("rolling_step")]
    assert steps == [(ident, f"restarted, {n} of 3") for n, ident in enumerate((*ids[1:], ids[0]), 1)]
    assert fleet.pool("research")["rolling"] is None


def test_agentd_is_killed_in_the_middle_and_the_restart_goes_on(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(2, 4, min=2, max=2)}, rules=RULES)
    fleet.start()
    ids = [f"research-{fleet.ports[number]}" for number in (2, 3)]
    before = fleet.ready(*ids)
    fleet.ctl("restart", "research")
    fleet.event("rolling_step", pool="research")
    fleet.kill()
    fleet.start()
    fleet.event("rolling_done", pool="research")
    after = fleet.ready(*ids)
    assert not set(pids(before).values()) & set(pids(after).values())


def test_a_program_that_does_not_start_any_more_takes_nobody_down(fleet: Fleet) -> None:
    program = fleet.root / "agent"
    program.write_text(f"#!/bin/sh\nexec {subprocess.list2cmdline(SAMPLE)}\n")
    program.chmod(0o755)
    pool = fleet.elastic(2, 4, min=2, max=2, command=[str(program)])
    fleet.configure({"research": pool}, rules=RULES)
    fleet.start()
    ids = [f"research-{fleet.ports[number]}" for number in (2, 3)]
    before = fleet.ready(*ids)
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    fleet.configure({"research": {**pool, "start_timeout_sec": 5}}, rules=RULES)  # only now: the first may take longer
    fleet.ctl("reload")
    failed = fleet.run("restart", "research", "--wait", "--output", "json")
    assert failed.returncode == 1, failed.stderr
    ended = json.loads(failed.stdout)["ended"]
    why = f"research-{fleet.ports[4]}: not ready within 5 s"
    assert (ended["type"], ended["reason"]) == ("rolling_stopped", f"{why}; 0 of 2 restarted")
    assert pids(fleet.ready(*ids)) == pids(before)
    assert why in fleet.run("status").stdout
    assert why in fleet.run("explain", "research").stdout

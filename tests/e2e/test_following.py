"""agentd is killed and started again while agentctl follows and waits: nobody has to begin anew, nothing is missed."""

from __future__ import annotations

import json

import pytest
from e2e_fleet import Fleet
from e2e_hosts import PATIENCE_S

pytestmark = pytest.mark.host


def test_whoever_follows_or_waits_goes_on_when_agentd_is_killed_and_back(fleet: Fleet) -> None:
    fleet.configure({"research": {**fleet.elastic(), "min": 1}})
    fleet.start()
    ident = f"research-{fleet.ports[2]}"
    fleet.ready(ident)
    endpoints = fleet.follow("endpoints", "research", "-f")
    assert endpoints.stdout is not None
    first = json.loads(endpoints.stdout.readline())
    assert (first["snapshot"], [one["id"] for one in first["endpoints"]]) == (True, [ident])
    events = fleet.follow("events", "-f", "-n", "1")
    assert events.stdout is not None
    events.stdout.readline()
    fleet.kill()
    fleet.start()
    while not (again := json.loads(endpoints.stdout.readline()))["snapshot"]:
        pass
    assert again["revision"].partition(".")[0] != first["revision"].partition(".")[0]
    while json.loads(events.stdout.readline())["type"] != "agentd_start":
        pass


def test_a_restart_of_one_instance_is_waited_for_through_a_kill_of_agentd(fleet: Fleet) -> None:
    fleet.configure({"research": {**fleet.elastic(), "min": 1}})
    fleet.start()
    ident = f"research-{fleet.ports[2]}"
    before = fleet.ready(ident)[ident]["incarnation"]
    waiting = fleet.follow("restart", ident, "--wait", output="table")
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == f"restarting {ident}\n"  # from here on it waits
    fleet.kill()
    fleet.start()
    out, _ = waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 0
    assert out.startswith(f"{ident}: ready after ")
    assert fleet.ps()[ident]["incarnation"] != before

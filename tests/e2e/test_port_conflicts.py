"""Somebody else listens where an agent should."""

from __future__ import annotations

import os

import pytest
from e2e_fleet import Fleet
from e2e_hosts import listener

pytestmark = pytest.mark.host


def test_an_elastic_agent_goes_to_the_next_port(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.elastic(2, 5, min=1)})
    with listener(fleet.ports[2]):
        fleet.start()
        fleet.ready(f"research-{fleet.ports[3]}")
        conflict = fleet.event("port_conflict")
        assert f"port {fleet.ports[2]} is held by" in conflict["reason"]
        assert f"(pid {os.getpid()})" in conflict["reason"]
        assert fleet.status()["scaling_events"] == 0
        # The taken port is no capacity.
        assert fleet.pool("research")["capacity"] == 3


def test_a_core_agent_waits_for_its_own_port(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core(), "primary": fleet.core("primary", 2)})
    core, other = f"research-{fleet.ports[1]}", f"primary-{fleet.ports[2]}"
    with listener(fleet.ports[1]):
        fleet.start()
        assert f"(pid {os.getpid()})" in fleet.event("port_conflict", instance=core)["reason"]
        fleet.until("the other one is ready", lambda: fleet.ps()[other]["state"] == "ready")
        waiting = fleet.ps()[core]
        assert waiting["state"] == "failed"
        assert waiting["cause"].startswith(f"port_taken: cannot start {core}: port {fleet.ports[1]} is held by")
    fleet.ready(core, other)

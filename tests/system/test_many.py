"""A hundred agents come and go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from system_agentd import Agentd, idle
from testhost import Host

from agentd import units

MANY = 100


@pytest.fixture
def agentd(shared_host: Host) -> Iterator[Agentd]:
    made = Agentd(shared_host)
    yield made
    made.clean_up()


def test_a_hundred_agents_come_and_go_and_leave_nothing(agentd: Agentd) -> None:
    agentd.configure({"research": idle(0, max=MANY)})
    agentd.start()
    agentd.ctl("up", str(MANY), "--pool", "research")
    running = agentd.wait_ready(MANY)
    assert len({run.invocation for run in running.values()}) == MANY
    agentd.ctl("down", "0", "--pool", "research")
    assert agentd.wait_ready(0) == {}
    assert agentd.systemctl("list-units", "--all", "--plain", "--no-legend", units.PATTERN) == ""
    assert agentd.host.out("ls", "/run/agentd/instances") == ""
    assert {kind: len(agentd.events(kind)) for kind in ("start", "ready", "stop")} == dict.fromkeys(
        ("start", "ready", "stop"), MANY
    )
    assert agentd.events("exit", "stop_forced", "start_failed", "vanished", "held", "warning") == []

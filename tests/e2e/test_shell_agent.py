"""docs/examples/shell_agent.sh is a whole agent: it reports, drains when asked, and leaves no task half done."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from e2e_fleet import PATIENT, Fleet

pytestmark = pytest.mark.host
SCRIPT = Path(__file__).parents[2] / "docs/examples/shell_agent.sh"
# A report is a process of its own, which takes its time on a busy machine.
RULES = {**PATIENT, "heartbeat_timeout_sec": 6, "unhealthy_threshold": 20}
TASKS = 12


def test_an_agent_in_shell_does_its_tasks_and_drains(fleet: Fleet) -> None:
    tasks = fleet.root / "tasks"
    tasks.mkdir()
    for number in range(TASKS):
        (tasks / f"{number}.todo").write_text("a few words " * number)
    pool = fleet.elastic(2, 5, min=1, command=["sh", str(SCRIPT), str(tasks)], drain_timeout_sec=60)
    fleet.configure({"research": pool}, rules=RULES)
    fleet.start(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    agents = [f"research-{fleet.ports[number]}" for number in (2, 3)]
    fleet.ready(agents[0])
    fleet.ctl("up", "2", "--pool", "research")
    fleet.ready(*agents)
    fleet.until("all tasks are done", lambda: len(list(tasks.glob("*.done"))) == TASKS)
    assert [int((tasks / f"{number}.done").read_text()) for number in range(TASKS)] == [3 * n for n in range(TASKS)]
    assert not list(tasks.glob("*.todo"))

    fleet.ctl("drain", agents[1], "--wait")
    assert fleet.event("stop", instance=agents[1])
    assert fleet.events("stop_forced", "exit", instance=agents[1]) == []

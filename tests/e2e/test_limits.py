"""What agentd changes about itself must not reach its agents, nor must its own surroundings."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

import pytest
from e2e_fleet import Fleet
from e2e_hosts import environment

pytestmark = pytest.mark.host


def fd_limits(pid: int) -> tuple[int, int]:
    """Soft and hard limit of open files."""
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)


def test_agentd_may_open_more_files_and_its_agents_may_not(fleet: Fleet) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fleet.configure({"research": fleet.core()})
    fleet.prefix = ("sh", "-c", 'ulimit -S -n 300; exec "$@"', "sh")
    daemon = fleet.start()
    core = f"research-{fleet.ports[1]}"
    agent = fleet.ready(core)[core]["pid"]
    assert fd_limits(daemon.pid) == (hard, hard)
    assert fd_limits(agent) == (300, hard)


def test_agents_hold_nothing_that_agentd_was_handed(fleet: Fleet) -> None:
    """A lock that somebody's script took before it started agentd would otherwise be theirs for as long as they run."""
    handed = fleet.root / "handed"
    fleet.configure({"research": fleet.core(command=["sleep", "infinity"], health="none")})
    fleet.prefix = ("sh", "-c", 'exec 7>"$0" && exec "$@"', str(handed))
    daemon = fleet.start()
    (agent,) = fleet.ready(f"research-{fleet.ports[1]}").values()
    assert str(handed) in held(daemon.pid).values()
    assert str(handed) not in held(agent["pid"]).values()


def held(pid: int) -> dict[str, str]:
    """The files that a process has open, by descriptor."""
    found = {}
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found[each.name] = os.readlink(each)
    return found


def test_an_agent_gets_what_is_promised_and_no_descriptor_of_agentd(fleet: Fleet) -> None:
    fleet.configure({"research": fleet.core(command=["sleep", "infinity"], health="none", env={"MODEL": "small"})})
    fleet.start(NOTIFY_SOCKET="@agentd-test-nobody")
    core = f"research-{fleet.ports[1]}"
    (one,) = fleet.ready(core).values()
    env = environment(one["pid"])
    assert {name: value for name, value in env.items() if name.startswith("AGENTD_") or name == "MODEL"} == {
        "AGENTD_INSTANCE": core,
        "AGENTD_INCARNATION": one["incarnation"],
        "AGENTD_PORT": str(fleet.ports[1]),
        "AGENTD_ENDPOINT": f"unix:{fleet.state_dir}/run/agents.sock",
        "AGENTD_CONCURRENCY": "1",
        "AGENTD_STATE_ID": fleet.state_id,
        "MODEL": "small",
    }
    assert "NOTIFY_SOCKET" not in env
    log = str(fleet.state_dir / "logs" / f"{core}.log")
    # A program that has just begun has its libraries open for a moment.
    fleet.until("nothing else is open", lambda: held(one["pid"]) == {"0": "/dev/null", "1": log, "2": log})

"""Everything ends, in order: the host, or the target of agentd and all its agents. Nothing of that is a fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from system_agentd import Agentd, Run, idle
from testhost import Host, wait_until

from agentd import units

# An agent that finishes its work in hand when it is told to end, once it has said that it is up. It takes longer than
# agentd may stand still on a busy machine, and agentd has to see it.
DRAINS = "trap 'sleep 4; echo drained; exit 0' TERM; echo $AGENTD_INCARNATION >up; while :; do sleep 1000 & wait; done"
# systemd's, of a unit that it begins to stop, and of one that it has stopped.
STOPPING = "de5b426a63be47a7b6ac3eaac82e2f6f"
STOPPED = "9d1aaa27d60140bd96365438aad20286"
OWN = (units.SERVICE, *units.SOCKETS, units.PATTERN)
FAULTS = ("exit", "held", "vanished", "start_failed", "crash_loop", "stop_forced", "oom_kill")


@pytest.fixture
def agentd(shared_host: Host) -> Iterator[Agentd]:
    made = Agentd(shared_host)
    yield made
    made.clean_up()


def test_a_host_that_goes_down_drains_its_agents_first_and_has_them_again(host: Host) -> None:
    host.exec("mkdir", "--parents", "/var/log/journal")
    host.exec("journalctl", "--flush")
    agentd = Agentd(host)
    agentd.configure({"research": idle(3, command=["/bin/sh", "-c", DRAINS])})
    agentd.systemctl("enable", "agentd.service")
    agentd.start()
    before = wait_drainable(agentd)
    assert host.reboot() == "running"
    after = agentd.wait_ready(3)
    assert set(after) == set(before)

    past = host.journal("--boot=-1")
    drained = {entry["AGENTD_INSTANCE"] for entry in past if entry["MESSAGE"] == "drained"}
    assert drained == set(before)
    ends = [(entry["MESSAGE_ID"], entry["UNIT"]) for entry in past if entry.get("MESSAGE_ID") in (STOPPING, STOPPED)]
    last = max(ends.index((STOPPED, unit)) for _, unit in ends if units.instance_of(unit))
    assert last < ends.index((STOPPING, "agentd.service"))

    (stopping,) = agentd.events("host_stopping")
    assert "shutting down" in stopping["reason"]
    assert agentd.events(*FAULTS) == []
    assert {one["state"] for one in agentd.instances().values()} == {"ready"}


def wait_drainable(agentd: Agentd) -> dict[str, Run]:
    """Wait until three agents run DRAINS; how they run. They are ready a moment before they have set their trap."""
    running = agentd.wait_ready(3)

    def up(name: str) -> str:
        return agentd.host.out("cat", f"/var/lib/agentd-agents/{name}/up", check=False)

    for name, run in running.items():
        wait_until(lambda name=name, run=run: up(name) == run.invocation, f"{name} has set its trap")
    return running


def start_target(agentd: Agentd) -> None:
    """Start the target, and wait until agentd serves: the target itself is up before."""
    agentd.systemctl("start", units.TARGET)
    wait_until(lambda: agentd.systemctl("is-active", units.SERVICE, check=False) == "active", "agentd serves")


def stop_target(agentd: Agentd) -> None:
    """Stop the target, and wait until agentd, its sockets and all agents have stopped."""
    agentd.systemctl("stop", units.TARGET)
    wait_until(
        lambda: agentd.systemctl("list-units", "--state=active,deactivating", "-q", *OWN) == "", "all is stopped"
    )


def test_the_target_stops_also_an_agentd_that_has_just_crashed(agentd: Agentd) -> None:
    agentd.drop_in("agentd.service", "[Service]\nRestartSec=1000")
    agentd.configure({"research": idle(2)})
    agentd.start()
    agentd.wait_ready(2)
    agentd.systemctl("kill", "--kill-whom=main", "--signal=KILL", "agentd.service")
    wait_until(lambda: agentd.host.show(units.SERVICE, "SubState")["SubState"] == "auto-restart", "agentd is away")
    stop_target(agentd)


def test_the_target_stops_everything_and_starts_it_again(agentd: Agentd) -> None:
    agentd.configure({"research": idle(3, command=["/bin/sh", "-c", DRAINS])})
    start_target(agentd)
    before = wait_drainable(agentd)
    stop_target(agentd)
    start_target(agentd)
    after = agentd.wait_ready(3)
    assert set(after) == set(before)
    assert len(agentd.events("host_stopping")) == 1
    assert agentd.events(*FAULTS) == []


def test_a_restart_of_the_target_is_told_as_such_and_nobody_is_missed(agentd: Agentd) -> None:
    agentd.configure({"research": idle(3, command=["/bin/sh", "-c", DRAINS])})
    start_target(agentd)
    before = wait_drainable(agentd)
    first = agentd.pid()
    agentd.systemctl("restart", units.TARGET)
    wait_until(lambda: agentd.pid() not in ("0", first), "agentd is another")
    agentd.systemctl("start", units.SERVICE)  # which waits until it serves
    after = agentd.wait_ready(3)
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    (told,) = agentd.events("host_stopping")
    assert told["reason"] == "agentd.target is being restarted"
    assert agentd.events(*FAULTS) == []

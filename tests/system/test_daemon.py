"""agentd and its agents as an operator has them: the package's units, agentctl, systemctl."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from system_agentd import CONFIG, Agentd, idle
from testhost import Host, wait_until

from agentd import units
from agentd.cgroups import Cgroups
from agentd.core.model import InstanceId, PoolName

MIB = 1024 * 1024
POLKIT_RULE = "/usr/share/polkit-1/rules.d/60-agentd.rules"
TEMPLATE = "/lib/systemd/system/agent@.service"
# Stays in sight when it cannot be started.
CORE = {"command": "sleep infinity", "health": "none", "core": {"researcher": 9002}, "max": 1}
GROW = "held = []\nwhile True: held.append(bytearray(b'x') * 1048576)"


@pytest.fixture
def agentd(shared_host: Host) -> Iterator[Agentd]:
    made = Agentd(shared_host)
    yield made
    made.clean_up()


def listed_units(agentd: Agentd) -> str:
    """All that systemd knows of agents' units, those that failed and those that wait included."""
    return agentd.systemctl("list-units", "--all", "--plain", "--no-legend", units.PATTERN)


def instance_files(agentd: Agentd) -> list[str]:
    return agentd.host.out("ls", "/run/agentd/instances").split()


def words(agentd: Agentd) -> list[str]:
    """What `journalctl -u agentd` shows."""
    return [str(entry["MESSAGE"]) for entry in agentd.host.journal("--unit=agentd.service")]


# -- how many there are -----------------------------------------------------------------------------


def test_the_fleet_grows_and_shrinks_as_a_person_asks(agentd: Agentd) -> None:
    agentd.configure({"research": idle(2, max=6)})
    agentd.start()
    first = agentd.wait_ready(2)
    assert set(first) == {"research-9101", "research-9102"}
    agentd.ctl("up", "5", "--pool", "research")
    grown = agentd.wait_ready(5)
    assert first.items() < grown.items()
    agentd.ctl("down", "2", "--pool", "research")
    assert len(agentd.wait_ready(2).items() & grown.items()) == 2
    assert len(listed_units(agentd).splitlines()) == 2
    assert len(instance_files(agentd)) == 2
    assert agentd.events("exit", "stop_forced", "vanished", "held") == []


def test_a_new_configuration_counts_from_its_reload_and_a_bad_one_never(agentd: Agentd) -> None:
    agentd.configure({"research": idle(1)})
    agentd.start()
    first = agentd.wait_ready(1)
    agentd.configure({"research": idle(3)})
    agentd.systemctl("reload", "agentd.service")
    grown = agentd.wait_ready(3)
    assert first.items() < grown.items()

    before = agentd.pid()
    agentd.configure({"research": idle(2, min=-1)})
    assert agentd.host.exec("systemctl", "reload", "agentd.service", check=False).returncode == 1
    (rejected,) = agentd.wait_event("config_rejected")
    assert f"{CONFIG}:" in rejected["reason"]
    assert "pools.research.min" in rejected["reason"]
    assert rejected["reason"] in " ".join(words(agentd))
    assert agentd.wait_ready(3) == grown
    assert agentd.host.show("agentd.service", "MainPID", "ActiveState") == {"MainPID": before, "ActiveState": "active"}


def test_who_starts_agentd_with_a_bad_configuration_is_shown_what_is_wrong(agentd: Agentd) -> None:
    agentd.configure({"research": idle(2, min=-1)})
    done = agentd.host.exec("systemctl", "start", "agentd.service", check=False)
    assert done.returncode == 1
    failed, look = done.stderr.splitlines()
    assert failed == "Job for agentd.service failed because the control process exited with error code."
    assert '"systemctl status agentd.service"' in look
    agentd.host.exec("journalctl", "--sync")
    page = agentd.systemctl("status", "agentd.service", check=False)
    assert re.search(rf"agentd: {CONFIG}:\d+:\d+: pools\.research\.min must be ", page)


def test_what_systemd_does_not_understand_in_an_exception_is_in_agentds_journal(agentd: Agentd) -> None:
    agentd.configure({"research": idle(1)})
    agentd.start()
    file = "/etc/agentd/sandbox/research.conf"
    agentd.host.write(file, "[Service]\nNice=5\nPrivteDevices=no\n")
    try:
        agentd.systemctl("reload", "agentd.service")
        [told] = [text for text in words(agentd) if file in text]
    finally:
        agentd.host.exec("rm", file)
    assert told.startswith(f"agentd: {file}:3: Unknown key")
    assert "PrivteDevices" in told


# -- limits -----------------------------------------------------------------------------------------


def test_limits_are_in_force_from_the_first_start(agentd: Agentd) -> None:
    limits = {"memory_max": "64M", "cpu_quota": "50%", "tasks_max": 32}
    agentd.configure({"research": idle(2, max=3, resources=limits), "free": idle(1, ports=[9401, 9401])})
    agentd.start()
    agentd.wait_ready(3)
    groups = Cgroups(Path(f"/proc/{agentd.host.leader()}/root"))
    for instance in ("research-9101", "research-9102"):
        held = groups.limits(units.instance_cgroup(InstanceId(instance)))
        assert (held.memory_max_bytes, held.cpu_quota_ratio, held.tasks_max) == (64 * MIB, 0.5, 32)
    wall = groups.limits(units.slice_cgroup(PoolName("research")))
    assert (wall.memory_max_bytes, wall.tasks_max) == (4 * 64 * MIB, 4 * 32)
    other = agentd.host.show(units.unit_name(InstanceId("free-9401")), "MemoryMax", "CPUQuotaPerSecUSec")
    assert set(other.values()) == {"infinity"}
    assert agentd.events("warning") == []


def test_an_agent_that_wants_more_memory_is_killed_and_told_apart(agentd: Agentd) -> None:
    greedy = ["/usr/bin/python3", "-c", GROW]
    limits = {"memory_max": "32M"}
    agentd.configure({"research": idle(1, ports=[9401, 9401]), "greedy": idle(1, command=greedy, resources=limits)})
    agentd.start()
    killed = agentd.wait_event("oom_kill")[0]
    assert killed["instance"] == "greedy-9101"
    wait_until(lambda: agentd.instances()["greedy-9101"]["oom_kills"] >= 1, "the kill is counted")
    agentd.wait_state("research-9401", "ready")
    assert {event["instance"] for event in agentd.events("exit", "oom_kill")} == {"greedy-9101"}


# -- what an operator does past agentd --------------------------------------------------------------


@pytest.mark.parametrize("way_out", ["systemctl", "agentctl"])
def test_what_an_operator_stops_is_held_until_it_is_resumed(agentd: Agentd, way_out: str) -> None:
    agentd.configure({"research": idle(2, max=3)})
    agentd.start()
    before = agentd.wait_ready(2)
    agentd.ctl("up", "2", "--pool", "research")
    agentd.systemctl("stop", "agent@research-9101")
    held = agentd.wait_state("research-9101", "held")
    for way in ("`systemctl start agent@research-9101`", "`agentctl restart research-9101`"):
        assert way in held["cause"]
        assert way in " ".join(agentd.ctl("status").stdout.split())
    wait_until(lambda: set(agentd.running()) == {"research-9102", "research-9103"}, "another one takes its place")
    if way_out == "systemctl":
        agentd.systemctl("start", "agent@research-9101")
    else:
        agentd.ctl("restart", "research-9101")
    after = agentd.wait_ready(2)
    assert after["research-9102"] == before["research-9102"]
    assert after["research-9101"] != before["research-9101"]
    assert [event["instance"] for event in agentd.events("held")] == ["research-9101"]
    assert agentd.events("exit", "vanished", "start_failed") == []


def test_a_hold_outlives_agentd(agentd: Agentd) -> None:
    agentd.configure({"research": idle(1, max=2)})
    agentd.start()
    agentd.wait_ready(1)
    agentd.systemctl("stop", "agent@research-9101")
    agentd.wait_state("research-9101", "held")
    wait_until(lambda: set(agentd.running()) == {"research-9102"}, "another one takes its place")
    before = agentd.running()
    agentd.systemctl("restart", "agentd.service")
    agentd.wait_event("adopt")
    assert agentd.instances()["research-9101"]["state"] == "held"
    assert agentd.running() == before


# -- what an operator has broken --------------------------------------------------------------------


def test_a_masked_template_is_named_and_unmasking_is_enough(agentd: Agentd) -> None:
    agentd.configure({"research": idle(1)})
    agentd.systemctl("mask", "--runtime", units.TEMPLATE)
    try:
        agentd.start()
        failed = agentd.wait_event("start_failed")[0]
    finally:
        agentd.systemctl("unmask", "--runtime", units.TEMPLATE)
    assert "its unit is masked; `systemctl unmask --runtime agent@.service` lets it start" in failed["reason"]
    agentd.wait_ready(1)


def test_a_missing_template_is_named_and_putting_it_back_is_enough(agentd: Agentd) -> None:
    agentd.configure({"research": CORE})
    agentd.host.exec("mv", TEMPLATE, "/root/")
    agentd.systemctl("daemon-reload")
    try:
        agentd.start()
        failed = agentd.wait_event("start_failed")[0]
    finally:
        agentd.host.exec("mv", "/root/agent@.service", TEMPLATE)
        agentd.systemctl("daemon-reload")
    assert "Is agent@.service installed as agentd's package has it?" in failed["reason"]
    assert agentd.wait_state("research-9002", "failed")["cause"].startswith("unit_missing: cannot start research-9002")
    assert "unit_missing" in agentd.ctl("status").stdout
    agentd.ctl("restart", "researcher")
    agentd.wait_ready(1)


def test_without_the_polkit_rule_agentd_says_what_is_missing(agentd: Agentd) -> None:
    agentd.configure({"research": CORE})
    agentd.host.exec("mv", POLKIT_RULE, "/root/")
    agentd.systemctl("restart", "polkit.service")
    try:
        agentd.start()
        failed = agentd.wait_event("start_failed")[0]
    finally:
        agentd.host.exec("mv", "/root/60-agentd.rules", POLKIT_RULE)
        agentd.systemctl("restart", "polkit.service")
    assert f"is polkit running, and is its rule {POLKIT_RULE} installed?" in failed["reason"]
    assert agentd.wait_state("research-9002", "failed")["cause"].startswith("denied: cannot start research-9002")
    assert listed_units(agentd) == ""
    agentd.ctl("restart", "researcher")
    agentd.wait_ready(1)

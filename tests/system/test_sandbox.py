"""What is made for a pool reaches the units of its agents: limits through the setter, exceptions from the sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from system_agentd import Agentd, idle
from testhost import Host, wait_until

UNITS = ("agent@research-9101.service", "agent@research-9102.service")
EXCEPTION = "/etc/agentd/sandbox/research.conf"
LIMITS = {"tasks_max": 50, "memory_max": "64M", "cpu_quota": "50%"}


@pytest.fixture
def agentd(shared_host: Host) -> Iterator[Agentd]:
    made = Agentd(shared_host)
    yield made
    made.clean_up()
    shared_host.exec("rm", "-rf", "/etc/agentd/sandbox")


def test_limits_of_the_configuration_are_set_by_the_setter(agentd: Agentd) -> None:
    host = agentd.host
    agentd.configure({"research": idle(2, resources=LIMITS)})
    agentd.start()
    agentd.wait_ready(2)
    for unit in UNITS:
        shown = host.show(unit, "TasksMax", "MemoryMax", "CPUQuotaPerSecUSec")
        assert shown == {"TasksMax": "50", "MemoryMax": str(64 << 20), "CPUQuotaPerSecUSec": "500ms"}
    wall = host.show("agentd-agents-research.slice", "TasksMax", "MemoryMax")
    assert wall == {"TasksMax": "150", "MemoryMax": str(192 << 20)}
    setter = host.show("agentd-limits.service", "ActiveState", "User")
    assert setter == {"ActiveState": "active", "User": "agentd-limits"}


def test_the_setter_serves_the_next_agentd_too(agentd: Agentd) -> None:
    """It outlives its last request by a minute, within which agentd may have been stopped and started."""
    agentd.configure({"research": idle(1, resources=LIMITS)})
    agentd.start()
    agentd.wait_ready(1)
    agentd.systemctl("stop", "agentd.service")
    wait_until(lambda: agentd.systemctl("is-active", "agentd-limits.service", check=False) == "inactive", "it ends")
    agentd.configure({"research": idle(2, resources=LIMITS)})
    agentd.start()
    agentd.wait_ready(2)
    assert agentd.host.show(UNITS[1], "TasksMax") == {"TasksMax": "50"}


def test_without_the_setter_nobody_may_set_limits_and_the_reason_is_told(agentd: Agentd) -> None:
    host = agentd.host
    host.exec("systemctl", "mask", "--runtime", "agentd-limits.socket")
    try:
        agentd.configure({"research": idle(1, resources=LIMITS)})
        agentd.start()
        said = "its limits cannot be set: /run/agentd/limits.sock is closed (No such file or directory)"
        wait_until(lambda: said in host.out("agentctl", "events"), "the refusal is told with what to do")
        assert "polkit" not in host.out("agentctl", "events")
    finally:
        host.exec("systemctl", "unmask", "--runtime", "agentd-limits.socket")


def test_an_exception_is_for_every_agent_of_its_pool_and_for_no_other(agentd: Agentd) -> None:
    host = agentd.host
    host.write(EXCEPTION, "[Service]\nNice=7\n")
    other = idle(1, ports=[9401, 9402])
    agentd.configure({"research": idle(2), "planning": other})
    agentd.start()
    agentd.wait_ready(3)
    units = (*UNITS, "agent@research-9103.service", "agent@planning-9401.service")
    assert [host.show(unit, "Nice")["Nice"] for unit in units] == ["7", "7", "7", "0"]
    pid = host.show(UNITS[0], "MainPID")["MainPID"]
    assert host.out("ps", "-o", "ni=", "-p", pid).strip() == "7"


def test_a_changed_exception_comes_with_a_reload_and_the_next_start(agentd: Agentd) -> None:
    host = agentd.host
    host.write(EXCEPTION, "[Service]\nNice=7\n")
    agentd.configure({"research": idle(1)})
    agentd.start()
    agentd.wait_ready(1)
    pid = host.show(UNITS[0], "MainPID")["MainPID"]
    host.write(EXCEPTION, "[Service]\nNice=9\n")
    host.exec("systemctl", "reload", "agentd.service")
    assert host.show(UNITS[0], "Nice", "NeedDaemonReload", "MainPID") == {
        "Nice": "9",
        "NeedDaemonReload": "no",
        "MainPID": pid,  # the agent that runs is left alone
    }
    host.exec("systemctl", "kill", "--signal=KILL", UNITS[0])

    def started_again() -> str:
        """Its process, once its program runs: a process that systemd has only just made is not niced yet."""
        shown = host.show(UNITS[0], "ActiveState", "MainPID")
        return shown["MainPID"] if shown["ActiveState"] == "active" and shown["MainPID"] != pid else ""

    fresh = wait_until(started_again, "the agent is started again")
    assert host.out("ps", "-o", "ni=", "-p", fresh).strip() == "9"
    host.exec("rm", EXCEPTION)
    host.exec("systemctl", "reload", "agentd.service")
    assert host.show(UNITS[0], "Nice")["Nice"] == "0"


def test_an_exception_that_belongs_to_no_pool_is_told(agentd: Agentd) -> None:
    agentd.host.write("/etc/agentd/sandbox/reserach.conf", "")
    agentd.configure({"research": idle(1)})
    agentd.start()
    said = [str(entry["MESSAGE"]) for entry in agentd.host.journal("--unit=agentd.service")]
    assert "agentd: /etc/agentd/sandbox/reserach.conf has no effect: there is no pool 'reserach'" in said


def test_a_program_in_a_home_directory_runs_by_the_recipe(agentd: Agentd) -> None:
    host = agentd.host
    script = "#!/bin/sh\nls -A /home/ada >looked\nmv looked seen\nexec sleep infinity\n"
    host.write("/home/ada/writer/run", script, mode=0o755)
    host.write("/home/ada/secret", "")
    host.exec("chmod", "700", "/home/ada")
    agentd.configure({"research": idle(1, command="/home/ada/writer/run")})
    agentd.start()
    wait_until(
        lambda: EXCEPTION in host.out("journalctl", "--identifier=research-9101"), "the launcher says what to do"
    )
    host.write(EXCEPTION, "[Service]\nProtectHome=tmpfs\nBindReadOnlyPaths=/home/ada/writer\n")
    agentd.systemctl("restart", "agentd.service")
    agentd.ctl("restart", "research", check=False)
    agentd.wait_ready(1)
    seen = "/var/lib/agentd-agents/research-9101/seen"
    assert wait_until(lambda: host.out("cat", seen, check=False), "the agent has looked around") == "writer"

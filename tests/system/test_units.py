"""The units alone, with a stand-in for agentd: what runs, restarts and stops whom, and what the sandboxes allow.

agentd itself is no part of it: here systemd keeps the promises that hold while agentd is down.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import unit_files
from testhost import Host, wait_until

MakeHost = Callable[..., Host]

# Says what systemd waits for, and writes down when it was started and stopped, and what it saw at its start.
STAND_IN = """#!/usr/bin/python3
import os, signal, socket, subprocess, sys, time
def note(text):
    with open("/var/lib/agentd/notes", "a") as notes:
        print(text, file=notes)
def leave(number, frame):
    note(f"agentd ends {time.time()}")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
signal.signal(signal.SIGHUP, lambda number, frame: note("agentd reads its configuration"))
target = subprocess.run(["systemctl", "is-active", "agentd.target"], stdout=subprocess.PIPE, text=True).stdout
note(f"agentd begins, target {target.strip()}, sockets {os.environ.get('LISTEN_FDNAMES')}")
if os.path.exists("/etc/agentd/bad"):
    sys.exit(78)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
    sender.connect(os.environ["NOTIFY_SOCKET"])
    sender.send(b"READY=1")
    while True:
        time.sleep(5)
        sender.send(b"WATCHDOG=1")
"""
# Makes the drop-ins of agents, unless it cannot read the configuration.
DROPINS = """#!/bin/sh
[ ! -e /etc/agentd/bad ] || exit 78
"""
# Takes its time to finish, and writes down when it has.
DRAINING = """
trap 'sleep 0.5; date +%s.%N >$HOME/ended; exit 0' TERM
touch $HOME/up
while :; do sleep 0.05; done
"""
ARMS_THE_WATCHDOG = """
import os, socket, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
    sender.sendto(b"WATCHDOG_USEC=200000", os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"""
AGENT = "agent@research-9101.service"
HOME = "/var/lib/agentd-agents/research-9101"
AGENTD_NOTES = "/var/lib/agentd/notes"
SCORES_MAX = {"agentd.service": 15, "agent@.service": 20, "agentd-limits.service": 15}  # in tenths


@pytest.fixture(scope="module", params=[("bookworm", 252), ("trixie", 257)], ids=lambda param: param[0])
def unit_host(
    request: pytest.FixtureRequest,
    clean_base: Callable[[str], Path],
    make_shared_host: MakeHost,
    tmp_path_factory: pytest.TempPathFactory,
) -> Host:
    suite, systemd = request.param
    base = clean_base(suite)
    made = make_shared_host(unit_files.layer(tmp_path_factory.mktemp("units") / suite, systemd), base)
    made.write("/usr/lib/agentd/venv/bin/agentd", STAND_IN, mode=0o755)
    made.write("/usr/lib/agentd/venv/bin/python", DROPINS, mode=0o755)
    made.exec("mkdir", "-p", "/etc/agentd")
    return made


@pytest.fixture
def host(unit_host: Host) -> Host:
    """The host with nothing of agentd running, nothing failed and nothing written down."""
    unit_host.exec("systemctl", "stop", "agentd.target", "agent@*.service", "agentd.service")
    unit_host.exec("systemctl", "reset-failed")
    unit_host.exec("systemctl", "start", "run-agentd-instances.mount")
    unit_host.exec("sh", "-c", f"rm -rf {AGENTD_NOTES} {HOME}/* /run/agentd/instances/* /etc/agentd/bad")
    return unit_host


def start_agent(host: Host, *command: str) -> str:
    """Start the agent with `command`; its process id."""
    unit_files.order(host, "research-9101", command)
    host.exec("systemctl", "start", AGENT)
    return pid_of(host, AGENT)


def start_draining_agent(host: Host) -> None:
    start_agent(host, "sh", "-c", DRAINING)
    wait_until(lambda: host.exec("test", "-e", f"{HOME}/up", check=False).returncode == 0, "the agent can be stopped")


def pid_of(host: Host, unit: str) -> str:
    return host.show(unit, "MainPID")["MainPID"]


def is_active(host: Host, unit: str) -> bool:
    return host.out("systemctl", "is-active", unit, check=False) == "active"


def notes(host: Host, path: str) -> list[str]:
    return host.out("cat", path, check=False).splitlines()


# -- the files ------------------------------------------------------------------------------------


def test_systemd_finds_nothing_wrong_with_them(unit_host: Host) -> None:
    names = sorted(path.name for path in unit_files.UNITS.iterdir() if path.is_file())
    paths = [f"/{unit_files.UNITS_DIR}/{name}" for name in names]
    done = unit_host.exec("systemd-analyze", "verify", "--man=no", *paths, check=False)
    ours = [line for line in done.stderr.splitlines() if "agent" in line]
    assert (ours, done.returncode) == ([], 0)


@pytest.mark.parametrize("unit", SCORES_MAX)
def test_they_are_exposed_no_more_than_promised(unit_host: Host, unit: str) -> None:
    threshold = f"--threshold={SCORES_MAX[unit]}"
    path = f"/{unit_files.UNITS_DIR}/{unit}"
    done = unit_host.exec("systemd-analyze", "security", "--offline=yes", threshold, path, check=False)
    assert done.returncode == 0, done.stdout


# -- agentd comes and goes ------------------------------------------------------------------------


def test_an_agent_does_not_notice_what_becomes_of_agentd(host: Host) -> None:
    host.exec("systemctl", "start", "agentd.service")
    agent = start_agent(host, "sleep", "infinity")
    host.exec("systemctl", "restart", "agentd.service")
    assert pid_of(host, AGENT) == agent
    before = pid_of(host, "agentd.service")
    host.exec("systemctl", "kill", "--signal=KILL", "agentd.service")
    wait_until(lambda: pid_of(host, "agentd.service") not in ("0", before), "agentd is started again")
    assert pid_of(host, AGENT) == agent
    host.exec("systemctl", "stop", "agentd.service")
    assert pid_of(host, AGENT) == agent
    assert is_active(host, AGENT)


def test_agents_restart_with_agentd_down(host: Host) -> None:
    first = start_agent(host, "sleep", "infinity")
    host.exec("systemctl", "kill", "--signal=KILL", AGENT)
    wait_until(lambda: is_active(host, AGENT) and pid_of(host, AGENT) != first, "the agent is started again")


def test_sockets_outlive_a_restart_and_end_with_a_stop(host: Host) -> None:
    host.exec("systemctl", "start", "agentd.service")
    paths = ("/run/agentd/control.sock", "/run/agentd/agents.sock")
    inodes = host.out("stat", "--format=%i", *paths)
    host.exec("systemctl", "restart", "agentd.service")
    restarts = host.show("agentd.service", "NRestarts")
    host.exec("systemctl", "kill", "--signal=KILL", "agentd.service")
    wait_until(lambda: host.show("agentd.service", "NRestarts") != restarts, "systemd has seen it end")
    wait_until(lambda: is_active(host, "agentd.service"), "agentd is started again")
    assert host.out("stat", "--format=%i", *paths) == inodes
    assert host.out("stat", "--format=%a %U %G", *paths).splitlines() == [
        "660 root agentd-operators",
        "660 root agentd-agents",
    ]
    host.exec("systemctl", "stop", "agentd.service")
    wait_until(lambda: host.out("ls", "/run/agentd").split() == ["instances"], "the sockets are gone")


def test_agentd_gets_both_sockets_by_name_and_a_target_that_is_up(host: Host) -> None:
    """An instance that stops while the target is down was not stopped by an operator: it must be up in time."""
    host.exec("systemctl", "start", "agentd.service")
    [begin] = notes(host, AGENTD_NOTES)
    assert begin.startswith("agentd begins, target active, sockets ")
    assert set(begin.rpartition(" ")[2].split(":")) == {"control", "agents"}
    assert is_active(host, "agentd.target")


def test_a_configuration_that_cannot_be_used_is_not_tried_again(host: Host) -> None:
    host.write("/etc/agentd/bad", "")
    done = host.exec("systemctl", "start", "agentd.service", check=False)
    assert done.stderr.startswith("Job for agentd.service failed because the control process exited with error code.")
    assert done.returncode == 1
    shown = host.show("agentd.service", "ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"}
    sockets = ("agentd.socket", "agentd-agents.socket", "agentd-limits.socket")
    wait_until(lambda: not any(is_active(host, unit) for unit in sockets), "nobody can start it again through a socket")


def test_a_reload_with_such_a_configuration_fails_and_agentd_goes_on(host: Host) -> None:
    def readings() -> int:
        return notes(host, AGENTD_NOTES).count("agentd reads its configuration")

    host.exec("systemctl", "start", "agentd.service")
    agentd = pid_of(host, "agentd.service")
    host.exec("systemctl", "reload", "agentd.service")
    wait_until(lambda: readings() == 1, "agentd is told")
    host.write("/etc/agentd/bad", "")
    done = host.exec("systemctl", "reload", "agentd.service", check=False)
    assert done.stderr.startswith("Job for agentd.service failed.")
    assert done.returncode == 1
    wait_until(lambda: readings() == 2, "agentd is told, and can say what is wrong")
    assert is_active(host, "agentd.service")
    assert pid_of(host, "agentd.service") == agentd


def test_the_target_stops_agents_before_agentd_and_is_down_first(host: Host) -> None:
    host.exec("systemctl", "start", "agentd.target")
    start_draining_agent(host)
    host.exec("systemctl", "stop", "agentd.target")
    stopped_too = ("systemctl", "is-active", "agentd.service")
    wait_until(lambda: host.out(*stopped_too, check=False) == "inactive", "agentd is stopped too")
    assert_agentd_saw_the_agent_end(host)
    units = ("UNIT=agentd.target", f"UNIT={AGENT}", "UNIT=agentd.service")

    def stopped() -> list[str]:
        return [entry["UNIT"] for entry in host.journal(*units) if entry["MESSAGE"].startswith("Stopped ")]

    wait_until(lambda: stopped()[-1] == "agentd.service", "systemd has said that agentd is stopped")
    assert stopped()[-3:] == ["agentd.target", AGENT, "agentd.service"]


def test_at_shutdown_agents_finish_while_agentd_looks_on(host: Host) -> None:
    host.exec("systemctl", "start", "agentd.target")
    start_draining_agent(host)
    host.reboot()
    assert_agentd_saw_the_agent_end(host)


def assert_agentd_saw_the_agent_end(host: Host) -> None:
    [agent] = notes(host, f"{HOME}/ended")
    what, _, agentd = notes(host, AGENTD_NOTES)[-1].rpartition(" ")
    assert what == "agentd ends"
    assert float(agent) < float(agentd)


# -- agents ---------------------------------------------------------------------------------------


def test_without_its_file_an_instance_neither_starts_nor_restarts(host: Host) -> None:
    assert host.exec("systemctl", "start", AGENT, check=False).returncode != 0
    host.exec("systemctl", "stop", AGENT)
    host.exec("systemctl", "reset-failed")
    start_agent(host, "sleep", "infinity")
    host.exec("rm", "/run/agentd/instances/research-9101.env")
    host.exec("systemctl", "kill", "--signal=KILL", AGENT)
    wait_until(lambda: host.show(AGENT, "Result")["Result"] == "resources", "the restart is refused")
    assert pid_of(host, AGENT) == "0"


def test_a_program_that_is_not_there_is_said_once_and_not_tried_again(host: Host) -> None:
    unit_files.order(host, "research-9101", ("/home/me/agent",))
    assert host.exec("systemctl", "start", AGENT, check=False).returncode != 0
    shown = host.show(AGENT, "ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "127", "NRestarts": "0"}
    said = [str(entry["MESSAGE"]) for entry in host.journal("SYSLOG_IDENTIFIER=research-9101")]
    [line] = [text for text in said if "/home/me/agent" in text]
    assert "/etc/agentd/sandbox/research.conf" in line


def test_a_crash_loop_comes_to_an_end(host: Host) -> None:
    """Quickly, by the way: only the delays are the test's own."""
    host.write(
        "/run/systemd/system/agent@.service.d/90-quick.conf", "[Service]\nRestartSec=1ms\nRestartMaxDelaySec=2ms\n"
    )
    host.exec("systemctl", "daemon-reload")
    try:
        unit_files.order(host, "research-9101", ("sh", "-c", "exit 3"))
        host.exec("systemctl", "start", AGENT, check=False)
        wait_until(lambda: host.show(AGENT, "ActiveState")["ActiveState"] == "failed", "systemd gives up")
        assert host.show(AGENT, "NRestarts", "Result") == {"NRestarts": "10", "Result": "exit-code"}
    finally:
        host.exec("rm", "-r", "/run/systemd/system/agent@.service.d")
        host.exec("systemctl", "daemon-reload")


def test_an_instance_is_in_a_slice_of_its_own_within_its_pools(host: Host) -> None:
    start_agent(host, "sleep", "infinity")
    group = host.show(AGENT, "ControlGroup")["ControlGroup"]
    slices = "agentd.slice/agentd-agents.slice/agentd-agents-research.slice/agentd-agents-research-9101.slice"
    assert group == f"/{slices}/{AGENT}"


LOOK = """
import glob, json, os, pwd, socket, tempfile
def attempt(act):
    try:
        act()
    except OSError as error:
        return error.strerror
    return "fine"
def write(path):
    return attempt(lambda: open(path + "/written", "w"))
found = {
    "user": pwd.getpwuid(os.getuid()).pw_name,
    "groups": len(os.getgroups()),
    "directory is home": os.path.samefile(".", os.environ["HOME"]),
    "write home": write(os.environ["HOME"]),
    "write tmp": write(tempfile.gettempdir()),
    "write opt": write("/opt"),
    "read opt": attempt(lambda: open("/opt/app/data")),
    "list root": attempt(lambda: os.listdir("/root")),
    "list home": attempt(lambda: print(os.listdir("/home/me"))),
    "read other agent": attempt(lambda: os.listdir("/var/lib/agentd-agents/other-9101")),
    "read instances": attempt(lambda: os.listdir("/run/agentd/instances")),
    "other processes": len([p for p in glob.glob("/proc/[0-9]*") if os.stat(p).st_uid != os.getuid()]),
    "listen": attempt(lambda: socket.socket().bind(("127.0.0.1", 9101))),
    "raw socket": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
    "kernel setting": attempt(lambda: open("/proc/sys/kernel/panic", "w")) == "fine",
}
with open("found.json", "w") as file:
    json.dump(found, file)
"""


def test_an_agent_has_what_it_needs_and_no_more(host: Host) -> None:
    host.write("/opt/app/data", "")
    host.write("/home/me/secret", "")
    unit_files.order(host, "other-9101", ("sleep", "infinity"))
    host.exec("systemctl", "start", "agent@other-9101.service")
    unit_files.order(host, "research-9101", ("/usr/bin/python3", "-c", LOOK + "import time\ntime.sleep(1000)\n"))
    host.exec("systemctl", "start", AGENT)
    found = wait_until(lambda: host.out("cat", f"{HOME}/found.json", check=False), "the agent has looked around")
    refused = "Permission denied"
    assert json.loads(found) == {
        "user": "agent-research-9101",
        "groups": 2,  # its own, and agentd-agents
        "directory is home": True,
        "write home": "fine",
        "write tmp": "fine",
        "write opt": "Read-only file system",
        "read opt": "fine",
        "list root": refused,
        "list home": refused,
        "read other agent": "No such file or directory",
        "read instances": refused,
        "other processes": 0,
        "listen": "fine",
        "raw socket": "Operation not permitted",
        "kernel setting": False,
    }


def test_the_watchdog_is_armed_by_a_message_of_the_program(host: Host) -> None:
    """The template has none, for programs that know nothing of it."""
    start_agent(host, "/usr/bin/python3", "-c", ARMS_THE_WATCHDOG)
    wait_until(lambda: host.show(AGENT, "NRestarts")["NRestarts"] != "0", "the silent agent is replaced")
    assert any("watchdog" in str(entry["MESSAGE"]).lower() for entry in host.journal(f"--unit={AGENT}"))

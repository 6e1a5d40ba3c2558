"""doctor: what it makes of the facts of a host, how it shows that, and that it looks without touching."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentd import __version__, units
from agentd.agentctl import doctor_look
from agentd.agentctl.command import Session
from agentd.agentctl.doctor import report
from agentd.agentctl.doctor_checks import Check, Level, checks
from agentd.agentctl.doctor_facts import (
    GROUPS,
    RUNNING_UNITS,
    USERS,
    Daemon,
    Facts,
    Holder,
    Kernel,
    Ports,
    Settings,
    State,
    Systemd,
)
from agentd.agentctl.doctor_look import gather, parse_mounted, parse_ranges, parse_shown
from agentd.cgroups import Mode

SYSTEMD = Systemd(
    version=257,
    unit_files=dict.fromkeys(units.FILES, "static") | {"agentd.service": "enabled"},
    active=dict.fromkeys(RUNNING_UNITS, "active"),
    instances_mount=frozenset({"rw", "nosymfollow"}),
    bus=True,
    polkit=(126,),
    rule=True,
    journal=True,
    users=frozenset(USERS),
    groups=frozenset(GROUPS),
    open_files=65_536,
)
SETTINGS = Settings(
    file=Path("/etc/agentd/agentd.yaml"),
    core_ports=frozenset({9001, 9002}),
    pool_ports=frozenset(range(9101, 9151)),
    http_port=8766,
    agents_max=52,
    disk_reserve_bytes=1 << 30,
)
DAEMON = Daemon("1.0", "systemd", 12, frozenset({9001, 9002}), (), "/etc/agentd/agentd.yaml", "/var/lib/agentd")
GOOD = Facts(
    user="alice",
    init="systemd",
    systemd=SYSTEMD,
    kernel=Kernel(Mode.V2, frozenset({"cpu", "io", "memory", "pids"}), frozenset(), pressure=True),
    settings=SETTINGS,
    ports=Ports({9001: Holder(7, "python3", ours=True)}, 32_768, 60_999),
    state=State(Path("/var/lib/agentd"), True, 9 << 30, "agentd", 0o700),
    open_files=1_024,
    own_version="1.0",
    control="/run/agentd/control.sock",
    daemon=DAEMON,
)
NO_SYSTEMD = replace(GOOD, systemd=None, init="tini", state=replace(GOOD.state, packaged=False))


def bad(facts: Facts) -> list[tuple[str, str]]:
    return [(one.name, one.level.value) for one in checks(facts) if one.level is not Level.OK]


def the(facts: Facts, name: str) -> Check:
    (found,) = (one for one in checks(facts) if one.name == name)
    return found


# -- checks ---------------------------------------------------------------------------------------


def test_a_host_with_everything_is_well() -> None:
    assert bad(GOOD) == []
    assert [one.name for one in checks(GOOD)] == [
        *(
            "init",
            "version",
            "units",
            "service",
            "setter",
            "instances",
            "d-bus",
            "polkit",
            "journal",
            "accounts",
            "drop-ins",
        ),
        *("cgroups", "memory", "cpu", "pids", "io", "pressure"),
        *("ports", "local ports", "open files", "disk", "state"),
        *("configuration", "control"),
    ]


def test_without_systemd_one_line_says_so_and_agentd_runs_all_the_same() -> None:
    assert bad(NO_SYSTEMD) == []
    assert [one.name for one in checks(NO_SYSTEMD) if one.group in ("systemd", "limits")] == ["init", "pressure"]
    assert the(NO_SYSTEMD, "init").text.startswith("PID 1 is tini, not systemd: agents run as child processes")
    asked_for = replace(NO_SYSTEMD, settings=replace(SETTINGS, driver="systemd"))
    assert bad(asked_for) == [("init", "fail")]


def test_who_asks_for_child_processes_is_not_bothered_with_units() -> None:
    facts = replace(GOOD, systemd=replace(SYSTEMD, polkit=None), settings=replace(SETTINGS, driver="process"))
    assert bad(facts) == []


SYSTEMD_TROUBLES: list[tuple[dict[str, Any], str, Level, str]] = [
    ({"version": 249}, "version", Level.FAIL, "upgrade"),
    ({"version": None}, "version", Level.FAIL, "reinstall systemd"),
    ({"unit_files": {"agentd.service": "enabled"}}, "units", Level.FAIL, "apt install --reinstall agentd"),
    (
        {"unit_files": dict(SYSTEMD.unit_files) | {"agent@.service": "masked-runtime"}},
        "units", Level.FAIL, "sudo systemctl unmask --runtime agent@.service",
    ),
    (
        {"unit_files": dict(SYSTEMD.unit_files) | {"agentd.socket": "masked", "agent@.service": "masked-runtime"}},
        "units", Level.FAIL,
        "sudo systemctl unmask agentd.socket && sudo systemctl unmask --runtime agent@.service",
    ),
    (
        {"active": dict(SYSTEMD.active) | {"agentd-limits.socket": "inactive"}},
        "setter", Level.WARN, "sudo systemctl restart agentd-limits.socket",
    ),
    (
        {"active": dict(SYSTEMD.active) | {"agentd-limits.service": "failed"}},
        "setter", Level.WARN, "journalctl -u agentd-limits.service",
    ),
    ({"instances_mount": None}, "instances", Level.WARN, "sudo systemctl restart agentd"),
    (
        {"instances_mount": None, "active": dict(SYSTEMD.active) | {"run-agentd-instances.mount": "failed"}},
        "instances", Level.WARN, "journalctl -u run-agentd-instances.mount",
    ),
    (
        {"instances_mount": frozenset({"rw", "nosuid"})},
        "instances", Level.WARN, "sudo mount -o remount,nosymfollow /run/agentd/instances",
    ),
    ({"unit_files": {}}, "units", Level.WARN, "sudo apt install ./agentd_*.deb"),
    (
        {"unit_files": dict(SYSTEMD.unit_files) | {"agentd.service": "disabled"}},
        "service", Level.WARN, "sudo systemctl enable agentd",
    ),
    ({"active": {"agentd.service": "failed"}}, "service", Level.FAIL, "journalctl -u agentd.service"),
    ({"active": {"agentd.service": "inactive"}}, "service", Level.WARN, "sudo systemctl start agentd"),
    (
        {"active": dict(SYSTEMD.active) | {"agentd.socket": "failed"}},
        "service", Level.FAIL, "sudo systemctl restart agentd.socket",
    ),
    ({"bus": False}, "d-bus", Level.FAIL, "systemctl start dbus.socket"),
    ({"polkit": None}, "polkit", Level.FAIL, "apt install polkitd"),
    ({"polkit": (0, 105)}, "polkit", Level.FAIL, "upgrade"),
    ({"rule": False}, "polkit", Level.FAIL, "reinstall agentd"),
    ({"journal": False}, "journal", Level.FAIL, "systemd-journald"),
    ({"groups": frozenset({"agentd-agents", "systemd-journal"})}, "accounts", Level.FAIL, "sudo systemd-sysusers"),
    ({"users": frozenset()}, "accounts", Level.FAIL, "sudo systemd-sysusers"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "name", "level", "fix"), SYSTEMD_TROUBLES)
def test_what_systemd_lacks_is_named_with_what_to_do(
    changes: dict[str, Any], name: str, level: Level, fix: str
) -> None:
    facts = replace(GOOD, systemd=replace(SYSTEMD, **changes))
    assert bad(facts) == [(name, level.value)]
    assert fix in the(facts, name).fix


def test_who_has_limits_configured_cannot_do_without_the_setter_of_limits() -> None:
    closed = replace(SYSTEMD, active=dict(SYSTEMD.active) | {"agentd-limits.socket": "failed"})
    found = the(replace(GOOD, systemd=closed, settings=replace(SETTINGS, limits=True)), "setter")
    assert found.level is Level.FAIL
    assert found.text == "agentd-limits.socket is failed: agents that have limits cannot be started"


def test_while_agentd_is_stopped_what_belongs_to_its_running_is_not_missed() -> None:
    stopped = replace(SYSTEMD, active=dict.fromkeys(RUNNING_UNITS, "inactive"), instances_mount=None)
    assert bad(replace(GOOD, systemd=stopped)) == [("service", "warn")]


def test_what_is_missing_is_called_by_its_name() -> None:
    facts = replace(GOOD, systemd=replace(SYSTEMD, groups=frozenset({"agentd-agents", "systemd-journal"})))
    assert the(facts, "accounts").text == "missing: group agentd-operators"


def test_an_older_systemd_is_well_and_says_what_later_ones_add() -> None:
    facts = replace(GOOD, systemd=replace(SYSTEMD, version=252))
    assert bad(facts) == []
    assert the(facts, "version").text == "systemd 252; later versions add restart delays that grow (254)"


def test_a_rule_that_only_root_may_see_is_no_trouble() -> None:
    facts = replace(GOOD, systemd=replace(SYSTEMD, rule=None))
    assert bad(facts) == []
    assert "only root" in the(facts, "polkit").text


KERNEL_TROUBLES: list[tuple[dict[str, Any], list[str], str]] = [
    ({"mode": Mode.HYBRID}, ["cgroups"], "unified_cgroup_hierarchy=1"),
    ({"mode": Mode.NONE, "controllers": frozenset()}, ["cgroups", "memory", "cpu", "pids", "io"], "unified"),
    ({"controllers": frozenset({"cpu", "io", "pids"})}, ["memory"], "cgroup_enable=memory"),
    ({"mode": Mode.V1, "read_only": frozenset({"pids"})}, ["cgroups", "pids"], "unified"),
    ({"read_only": frozenset({"cgroup2"})}, ["memory", "cpu", "pids", "io"], "mount -o remount,rw,bind /sys/fs/cgroup"),
    ({"pressure": False}, ["pressure"], "psi=1"),
]


@pytest.mark.parametrize(("changes", "names", "fix"), KERNEL_TROUBLES)
def test_limits_that_nobody_would_enforce_are_warned_of(changes: dict[str, Any], names: list[str], fix: str) -> None:
    facts = replace(GOOD, kernel=replace(GOOD.kernel, **changes))
    assert bad(facts) == [(name, "warn") for name in names]
    assert fix in the(facts, names[0]).fix


def test_on_version_1_the_limit_that_it_does_not_know_is_named() -> None:
    facts = replace(GOOD, kernel=replace(GOOD.kernel, mode=Mode.HYBRID))
    assert the(facts, "memory").text == "memory_max can be enforced; memory_high cannot, it needs version 2"


def listening(facts: Facts, *ports: int, pid: int | None = 42) -> Facts:
    holders = dict.fromkeys(ports, Holder(pid, "nginx" if pid else "", ours=False))
    return replace(facts, ports=replace(facts.ports, listeners=holders))


def test_a_foreign_process_on_a_fixed_port_is_a_failure_and_on_one_of_many_a_warning() -> None:
    core = the(listening(GOOD, 9002), "ports")
    assert (core.level, core.text) == (Level.FAIL, "taken: 9002 by nginx (pid 42)")
    assert the(listening(GOOD, 8766), "ports").level is Level.FAIL
    one_of_many = the(listening(GOOD, 9105), "ports")
    assert (one_of_many.level, one_of_many.text) == (
        Level.WARN,
        "taken: 9105 by nginx (pid 42); agentd leaves them out",
    )
    assert the(listening(GOOD, *range(9101, 9109)), "ports").text.endswith("and 3 more; agentd leaves them out")


def test_while_agentd_is_away_what_cannot_be_seen_may_be_its_agents() -> None:
    away = listening(replace(GOOD, daemon=None), 9001, 9002, 9101, pid=None)
    found = the(away, "ports")
    assert (found.level, found.fix) == (Level.WARN, "sudo agentctl doctor")
    assert found.text == "in use, by agents or by others: 9001-9002,9101"
    assert the(listening(GOOD, 9001, pid=None), "ports").text == "taken: 9001 by an unknown process"


def test_ports_that_the_kernel_gives_to_connections_are_to_be_reserved() -> None:
    ports = Ports({}, 9_100, 60_999, frozenset({9101, 20_000}))
    found = the(replace(GOOD, ports=ports), "local ports")
    assert found.level is Level.WARN
    assert found.text.endswith("9102-9150")
    assert found.fix == "sudo sysctl -w net.ipv4.ip_local_reserved_ports=9101-9150,20000", "what was reserved stays"
    reserved = replace(ports, reserved=frozenset(range(9101, 9151)))
    assert the(replace(GOOD, ports=reserved), "local ports").level is Level.OK


@pytest.mark.parametrize(
    ("changes", "name", "level"),
    [
        ({"state": replace(GOOD.state, free_bytes=10 << 20)}, "disk", Level.FAIL),
        ({"state": replace(GOOD.state, free_bytes=500 << 20)}, "disk", Level.WARN),
        ({"state": replace(GOOD.state, free_bytes=None)}, "disk", Level.WARN),
        ({"state": replace(GOOD.state, owner="root")}, "state", Level.FAIL),
        ({"state": replace(GOOD.state, mode=0o755)}, "state", Level.WARN),
        ({"systemd": replace(SYSTEMD, open_files=400)}, "open files", Level.WARN),
        ({"settings": replace(SETTINGS, problems=("a.yaml:1:1: no",))}, "configuration", Level.FAIL),
        ({"settings": replace(SETTINGS, problems=("a.yaml:1:1: no",), hidden=True)}, "configuration", Level.WARN),
        ({"daemon": None}, "control", Level.WARN),
        ({"daemon": None, "denied": True}, "control", Level.WARN),
        ({"daemon": None, "no_answer": "deadline exceeded"}, "control", Level.FAIL),
        ({"own_version": "1.1"}, "version", Level.WARN),
        ({"out_of_step": ("agent@research-9101.service",)}, "drop-ins", Level.WARN),
        ({"strangers": ("/etc/agentd/sandbox/reserch.conf",)}, "sandbox", Level.WARN),
        ({"mistakes": ("/etc/agentd/sandbox/research.conf:2: Unknown key 'Privte'",)}, "sandbox", Level.WARN),
        ({"daemon": replace(DAEMON, degraded=("the store is read-only",))}, "trouble", Level.WARN),
    ],
)
def test_what_is_wrong_with_agentd_and_its_host_is_told(changes: dict[str, Any], name: str, level: Level) -> None:
    facts = replace(GOOD, **changes)
    assert bad(facts) == [(name, level.value)]
    (found,) = (one for one in checks(facts) if one.level is not Level.OK)
    assert found.fix


def test_a_state_directory_of_ones_own_is_ones_own() -> None:
    mine = State(Path("/home/alice/.local/state/agentd"), False, 9 << 30, "alice", 0o700)
    assert the(replace(GOOD, state=mine), "state").level is Level.OK
    hidden = State(Path("/var/lib/agentd"), True, 9 << 30)
    assert the(replace(GOOD, state=hidden), "state").level is Level.OK


def test_of_many_units_out_of_step_the_first_are_named() -> None:
    many = tuple(f"agent@research-{port}.service" for port in range(9101, 9111))
    text = the(replace(GOOD, out_of_step=many), "drop-ins").text
    assert text.startswith("not what the configuration says: agent@research-9101.service, ")
    assert text.endswith("agent@research-9105.service, ... (10 units)")


def test_who_may_not_ask_agentd_is_told_how_to_be_allowed() -> None:
    found = the(replace(GOOD, daemon=None, denied=True), "control")
    assert found.text == "alice may not use /run/agentd/control.sock"
    assert found.fix == "sudo usermod -aG agentd-operators alice, and log in again"


# -- how it is shown ------------------------------------------------------------------------------


def test_the_page_has_a_line_for_each_check_and_what_to_do_below() -> None:
    found = [
        Check("init", Level.OK, "PID 1 is systemd", group="systemd"),
        Check("polkit", Level.FAIL, "missing\x1b[2J", "sudo apt install polkitd", group="systemd"),
        Check("pressure", Level.WARN, "none", "boot with psi=1", group="limits"),
    ]
    assert report(found) == [
        "systemd",
        "  ok    init      PID 1 is systemd",
        "  fail  polkit    missing?[2J",
        "                  -> sudo apt install polkitd",
        "",
        "limits",
        "  warn  pressure  none",
        "                  -> boot with psi=1",
        "",
        "1 failure, 1 warning",
    ]
    assert report(found[:1])[-1] == "all is well"
    assert report([found[0], found[2]])[-1] == "1 warning"


# -- looking at this host -------------------------------------------------------------------------


@contextmanager
def listener(directory: Path, text: str) -> Iterator[tuple[Path, int]]:
    """A configuration with the number of a port that somebody listens on, put where the text says {port}."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        file = directory / "agentd.yaml"
        file.write_text(text.format(port=port))
        yield file, port


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No agentd of this machine's is found."""
    for name in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY", "AGENTD_ADDRESS", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("agentd.agentctl.doctor_look.address.find_control", lambda *_: None)


@pytest.mark.host
@pytest.mark.usefixtures("elsewhere")
def test_a_port_that_is_taken_is_found_with_who_has_it(tmp_path: Path) -> None:
    text = "listen: {{http: '127.0.0.1:{port}'}}\nstate_dir: " + str(tmp_path)
    with listener(tmp_path, text) as (file, port):
        facts = gather(Session(), file, __version__)
    assert facts.ports.listeners[port].pid == os.getpid()
    assert facts.settings.http_port == port
    assert (facts.state.path, facts.state.packaged) == (tmp_path, False)
    assert facts.daemon is None and not facts.denied


@pytest.mark.host
@pytest.mark.usefixtures("elsewhere")
def test_a_configuration_with_errors_gives_code_1_and_json_says_why(
    agentctl: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "agentd.yaml"
    file.write_text("multi_agent: {enabled: perhaps}\n")
    result = agentctl("doctor", "--config", str(file), "--output", "json")
    assert (result.code, result.err) == (1, "")
    value = json.loads(result.out)
    assert value["ok"] is False
    (found,) = (one for one in value["checks"] if one["name"] == "configuration")
    assert found.keys() == {"group", "name", "level", "text", "fix"}
    assert (found["group"], found["level"]) == ("agentd", "fail")
    assert found["fix"] == f"agentctl config check {file}"


def test_a_running_agentd_is_asked(ctl: Callable[..., Any], daemon: Any) -> None:
    value = json.loads(ctl("doctor", "-o", "json").out)
    (found,) = (one for one in value["checks"] if one["name"] == "control")
    assert found["text"] == "agentd 0.1.0 answers: driver process, 4 agents"
    assert [one["text"] for one in value["checks"] if one["name"] == "trouble"] == list(daemon.fake.status.degraded)


def test_an_agentd_that_does_not_answer_is_a_failure(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        result = agentctl("--address", f"unix:{path}", "--timeout", "1s", "doctor", "-o", "json")
    (found,) = (one for one in json.loads(result.out)["checks"] if one["name"] == "control")
    assert (result.code, found["level"]) == (1, "fail")


@pytest.mark.host
def test_a_command_may_take_its_time_on_a_busy_host() -> None:
    """What systemctl says too late would be told as an installation without units."""
    assert doctor_look._run("sh", "-c", "sleep 2.5; echo late") == "late\n"


def test_what_systemctl_shows_is_read() -> None:
    text = "LimitNOFILE=65536\nId=agentd.service\nActiveState=active\n\nId=agentd.socket\nActiveState=failed\n"
    assert parse_shown(text) == ({"agentd.service": "active", "agentd.socket": "failed"}, 65_536)
    assert parse_shown("") == ({}, None)


def test_what_is_mounted_is_read_and_the_last_is_on_top() -> None:
    text = (
        "30 23 0:26 / /run rw,nosuid - tmpfs tmpfs rw\n"
        "31 30 0:27 / /run/agentd/instances rw,nosuid shared:7 - tmpfs tmpfs rw\n"
        "32 31 0:28 / /run/agentd/instances rw,nosuid,nosymfollow - tmpfs tmpfs rw\n"
    )
    assert parse_mounted(text, "/run/agentd/instances") == frozenset({"rw", "nosuid", "nosymfollow"})
    assert parse_mounted(text, "/run/agentd") is None
    assert parse_mounted("", "/run") is None


def test_ranges_of_ports_are_read() -> None:
    assert parse_ranges("8080,9101-9103") == {8080, 9101, 9102, 9103}
    assert parse_ranges("") == frozenset()

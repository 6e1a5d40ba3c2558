"""What agentd may ask of systemd, asked as the user agentd on booted hosts with the real polkit rule.

Each way from these rights to root that is known is walked here, on each release, and must end in a refusal that has
changed nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import unit_files
from testhost import Done, Host, wait_until

MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
OWN = "agent@research-9101.service"
SLICE = "agentd-agents-research.slice"
VICTIM = "victim.service"
PROOF = "/run/became-root"
TEMPLATE = "/usr/lib/systemd/system/agent@.service"
SETTER = "agentd-limits"
DENIED = ("Access denied", "Interactive authentication required")

MakeHost = Callable[..., Host]


@pytest.fixture(scope="module", params=[("bookworm", 252), ("trixie", 257)], ids=lambda param: param[0])
def walked(
    request: pytest.FixtureRequest,
    clean_base: Callable[[str], Path],
    make_shared_host: MakeHost,
    tmp_path_factory: pytest.TempPathFactory,
) -> Host:
    suite, systemd = request.param
    base = clean_base(suite)
    made = make_shared_host(unit_files.layer(tmp_path_factory.mktemp("units") / suite, systemd), base)
    made.write(f"/etc/systemd/system/{VICTIM}", "[Service]\nExecStart=sleep infinity\n")
    made.exec("systemctl", "daemon-reload")
    made.exec("systemctl", "start", VICTIM)
    unit_files.order(made, "research-9101", ("sleep", "infinity"))
    return made


def ask(host: Host, *call: str, user: str = "agentd") -> Done:
    """Call a method of systemd's manager: member, signature, arguments."""
    return host.exec("busctl", "call", *MANAGER, *call, user=user, check=False)


def state(host: Host, unit: str) -> str:
    return host.out("systemctl", "is-active", unit, check=False)


def runtime_settings(host: Host) -> str:
    """What set-property has left behind."""
    return host.out(
        "sh", "-c", "find /run/systemd/system.control /etc/systemd/system.control -type f 2>/dev/null || true"
    )


def assert_denied(done: Done) -> None:
    assert done.returncode != 0
    assert any(words in done.stderr for words in DENIED), done.stderr


def transient(name: str, *properties: str) -> tuple[str, ...]:
    """StartTransientUnit of a service that would prove that it ran as root, or of what `properties` say."""
    proof = ("1", "ExecStart", "a(sasb)", "1", "/usr/bin/touch", "2", "touch", PROOF, "false")
    return ("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail", *(properties or proof), "0")


# -- what it may do -------------------------------------------------------------------------------


def test_its_own_instances_are_its_own(walked: Host) -> None:
    calls = [
        ("StartUnit", "ss", OWN, "fail"),
        ("RestartUnit", "ss", OWN, "fail"),
        ("KillUnit", "ssi", OWN, "main", "15"),
        ("ResetFailedUnit", "s", OWN),
        ("StopUnit", "ss", OWN, "replace"),
        ("Subscribe",),
    ]
    for call in calls:
        done = ask(walked, *call)
        assert done.returncode == 0, f"{call}: {done.stderr}"
        wait_until(lambda: not walked.out("systemctl", "list-jobs", "--no-legend"), f"no job after {call[0]}")
    assert state(walked, OWN) == "inactive"


def test_it_runs_agents_and_the_agents_are_others(walked: Host) -> None:
    assert ask(walked, "StartUnit", "ss", OWN, "fail").returncode == 0
    wait_until(lambda: state(walked, OWN) == "active", f"{OWN} runs")
    pid = walked.show(OWN, "MainPID")["MainPID"]
    assert walked.out("ps", "-o", "user:32=", "-p", pid) == "agent-research-9101"
    # The user that starts an agent cannot reach into it but through systemd.
    assert walked.exec("kill", "-0", pid, user="agentd", check=False).returncode != 0
    assert walked.exec("cat", f"/proc/{pid}/environ", user="agentd", check=False).returncode != 0
    assert ask(walked, "StopUnit", "ss", OWN, "replace").returncode == 0
    wait_until(lambda: state(walked, OWN) == "inactive", f"{OWN} is gone")


# -- what it may not ------------------------------------------------------------------------------

OTHERS = [
    VICTIM,
    "agentd.service",
    "agentd.socket",
    "agentd-limits.service",
    "agentd.target",
    "agentd-agents.slice",
    SLICE,
    "poweroff.target",
    "debug-shell.service",
    "agent@research.service",
    "agent@Research-9101.service",
    "agent@research-910100.service",
    "agent@abcdefghijklmnopqrst-9101.service",
    "agent@research-9101-x.service",
    "agent@x-research-9101.service",
]


@pytest.mark.parametrize("unit", OTHERS)
def test_other_units_are_none_of_its_business(walked: Host, unit: str) -> None:
    before = state(walked, unit)
    for method in ("StartUnit", "StopUnit", "RestartUnit", "ReloadOrRestartUnit"):
        assert_denied(ask(walked, method, "ss", unit, "replace"))
    if before == "active":
        assert_denied(ask(walked, "KillUnit", "ssi", unit, "all", "9"))
    assert state(walked, unit) == before


@pytest.mark.parametrize(
    "call",
    [
        ("Reload",),
        ("Reexecute",),
        ("EnableUnitFiles", "asbb", "1", TEMPLATE, "true", "false"),
        ("LinkUnitFiles", "asbb", "1", "/tmp/evil.service", "true", "false"),
        ("MaskUnitFiles", "asbb", "1", VICTIM, "true", "false"),
        ("SetEnvironment", "as", "1", "LD_PRELOAD=/tmp/evil.so"),
        ("SetDefaultTarget", "sb", "rescue.target", "true"),
        ("PowerOff",),
        ("ReloadUnit", "ss", OWN, "fail"),
        ("FreezeUnit", "s", OWN),
        ("CleanUnit", "sas", OWN, "1", "state"),
        ("AttachProcessesToUnit", "ssau", OWN, "", "1", "1"),
        ("ClearJobs",),
        ("ResetFailed",),
    ],
    ids=lambda call: call[0],
)
def test_other_methods_are_refused(walked: Host, call: tuple[str, ...]) -> None:
    done = ask(walked, *call)
    assert done.returncode != 0
    assert "nvalid arg" not in done.stderr, "a call that is wrong proves nothing"


@pytest.mark.parametrize("runtime", ["true", "false"])
@pytest.mark.parametrize("unit", [OWN, "agent@fresh-9101.service", SLICE, "agentd-agents-fresh.slice", *OTHERS[:3]])
def test_properties_are_not_its_to_set(walked: Host, unit: str, runtime: str) -> None:
    """A property is written into a drop-in as it is: with a line break in it, it is any line of the unit."""
    before = runtime_settings(walked)
    injected = f"x\n[Service]\nDynamicUser=no\nUser=root\nExecStartPre=+/usr/bin/touch {PROOF}\n"
    assert_denied(ask(walked, "SetUnitProperties", "sba(sv)", unit, runtime, "1", "Description", "s", injected))
    assert_denied(ask(walked, "SetUnitProperties", "sba(sv)", unit, runtime, "1", "TasksMax", "t", "100"))
    assert runtime_settings(walked) == before


def test_a_transient_service_with_the_name_of_an_instance_is_refused(walked: Host) -> None:
    for name in (OWN, "agent@never-9999.service", "evil.service"):
        assert_refused_and_harmless(walked, transient(name))


def test_nor_is_it_possible_where_the_template_is_gone(walked: Host) -> None:
    """Without the template nothing but the rule stands between a name that it allows and a command as root."""
    walked.exec("mv", TEMPLATE, f"{TEMPLATE}.away")
    walked.exec("systemctl", "daemon-reload")
    try:
        for name in (OWN, "agent@never-9999.service"):
            assert_denied(ask(walked, *transient(name)))
        assert walked.exec("test", "-e", PROOF, check=False).returncode == 1
    finally:
        walked.exec("mv", f"{TEMPLATE}.away", TEMPLATE)
        walked.exec("systemctl", "daemon-reload")


def test_a_scope_around_somebody_elses_process_is_refused(walked: Host) -> None:
    """A process that is taken into a scope dies with it."""
    pid = walked.show(VICTIM, "MainPID")["MainPID"]
    for name in ("agent-research-9101.scope", "agent@research-9101.scope", "evil.scope"):
        assert_refused_and_harmless(walked, transient(name, "1", "PIDs", "au", "1", pid))
    assert state(walked, VICTIM) == "active"


def test_a_unit_that_comes_along_with_a_transient_one_is_refused(walked: Host) -> None:
    proof = ("1", "ExecStart", "a(sasb)", "1", "/usr/bin/touch", "2", "touch", PROOF, "false")
    wants = ("1", "Wants", "as", "1", "evil.service")
    call = ("StartTransientUnit", "ssa(sv)a(sa(sv))", OWN, "fail", *wants, "1", "evil.service", *proof)
    assert_refused_and_harmless(walked, call)


def assert_refused_and_harmless(host: Host, call: tuple[str, ...]) -> None:
    done = ask(host, *call)
    assert done.returncode != 0
    refusals = (*DENIED, "already exists", "was already loaded or has a fragment file")
    assert any(words in done.stderr for words in refusals), done.stderr
    assert host.exec("test", "-e", PROOF, check=False).returncode == 1


def test_a_file_of_an_instance_that_leads_elsewhere_is_not_read(walked: Host) -> None:
    """PID 1 reads an instance's file as root and logs what it does not understand, and agentd may put a link there."""
    walked.exec("systemctl", "start", "run-agentd-instances.mount")
    walked.write("/root/secret", "SECRET+=hidden-word\n", mode=0o600)
    walked.exec("ln", "-sf", "/root/secret", "/run/agentd/instances/peek-9101.env", user="agentd")
    try:
        ask(walked, "StartUnit", "ss", "agent@peek-9101.service", "fail")
        wait_until(lambda: "resources" in walked.show("agent@peek-9101.service", "Result").values(), "the start fails")
        walked.exec("systemctl", "stop", "agent@peek-9101.service")
        assert not [entry for entry in walked.journal() if "hidden-word" in str(entry.get("MESSAGE", ""))]
    finally:
        walked.exec("systemctl", "stop", "run-agentd-instances.mount")


# -- the other user -------------------------------------------------------------------------------


def test_the_setter_of_limits_may_do_nothing_else(walked: Host) -> None:
    number = ("1", "TasksMax", "t", "100")
    for unit in (OWN, SLICE):
        assert ask(walked, "SetUnitProperties", "sba(sv)", unit, "true", *number, user=SETTER).returncode == 0
    for unit in (VICTIM, "agentd.service", "agentd-agents.slice", "agentd-agents-research-9101.slice"):
        assert_denied(ask(walked, "SetUnitProperties", "sba(sv)", unit, "true", *number, user=SETTER))
    for method in ("StartUnit", "StopUnit", "RestartUnit"):
        assert_denied(ask(walked, method, "ss", OWN, "replace", user=SETTER))
    assert_denied(ask(walked, "Reload", user=SETTER))
    assert_denied(ask(walked, *transient("agent@never-9999.scope"), user=SETTER))


def test_nobody_else_gains_anything(walked: Host) -> None:
    assert_denied(ask(walked, "StartUnit", "ss", OWN, "fail", user="daemon"))


SET = """
import asyncio, pathlib, sys
from agentd import limits
asyncio.run(limits.ask(limits.SOCKET, sys.argv[1], {sys.argv[2]: int(sys.argv[3])}))
"""


def set_limit(host: Host, unit: str, name: str, value: int, user: str = "agentd") -> Done:
    python = "/usr/lib/agentd/venv/bin/python"
    return host.exec(python, "-I", "-c", SET, unit, name, str(value), user=user, check=False)


def test_agentd_has_limits_set_through_the_setter_and_nothing_else(shared_host: Host) -> None:
    shared_host.exec("systemctl", "start", "agentd-limits.socket")
    done = set_limit(shared_host, OWN, "TasksMax", 77)
    assert done.returncode == 0, done.stderr
    assert shared_host.show(OWN, "TasksMax") == {"TasksMax": "77"}
    done = set_limit(shared_host, SLICE, "MemoryMax", 1 << 30)
    assert done.returncode == 0, done.stderr
    for unit, name in ((VICTIM, "TasksMax"), (OWN, "Description")):
        done = set_limit(shared_host, unit, name, 77)
        assert done.returncode != 0
        assert "refused" in done.stderr


def test_no_fifo_of_agentd_s_can_hold_systemd_up(walked: Host) -> None:
    unit = walked.out("cat", "/usr/lib/systemd/system/agentd.service").splitlines()
    filters = [line for line in unit if line.startswith("SystemCall")]
    path = "/run/agentd/instances/fifo-9101.env"
    done = walked.run("mkfifo", path, properties=["User=agentd", *filters], check=False)
    assert done.returncode != 0
    assert "Operation not permitted" in done.stdout + done.stderr
    assert walked.run("touch", path, properties=["User=agentd", *filters], check=False).returncode == 0
    walked.exec("rm", path)


@pytest.mark.parametrize("user", ["daemon", "agentd-limits"])
def test_others_do_not_reach_the_setter(shared_host: Host, user: str) -> None:
    shared_host.exec("systemctl", "start", "agentd-limits.socket")
    done = set_limit(shared_host, OWN, "TasksMax", 78, user=user)
    assert done.returncode != 0
    assert f"{os.strerror(13)}" in done.stderr

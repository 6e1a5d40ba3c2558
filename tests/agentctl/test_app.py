"""Exit codes, and what every command owes: help with an example, --output, an end without a traceback."""

from __future__ import annotations

import contextlib
import grp
import os
import pty
import pwd
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import grpc
import pytest

from agentd import __version__
from agentd.agentctl.app import cli
from agentd.agentctl.command import Command
from agentd.sdk.address import runtime_dir_candidates
from agentd.sdk.control import default_owner

# What to give each command so that it would run.
ARGUMENTS = {
    "up": ["4"],
    "down": ["4"],
    "explain": ["research"],
    "forecast": ["research"],
    "logs": ["research-9101"],
    "restart": ["research-9101"],
    "drain": ["research-9101"],
    "propose": ["research", "4", "--as", "optimizer"],
    "configure": ["research-9101", "--concurrency", "2"],
}


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(leaves(cli))
REMOTE = [
    name
    for (name, *rest) in COMMANDS
    if not rest and name not in ("simulate", "optimize", "doctor", "heartbeat", "replay")
]


def test_all_commands_are_there() -> None:
    assert [" ".join(path) for path in COMMANDS] == [
        *("status", "ps", "up", "down", "auto", "check", "plan", "propose", "explain", "forecast", "replay"),
        "collectors",
        *(
            "events",
            "endpoints",
            "logs",
            "restart",
            "drain",
            "configure",
            "heartbeat",
            "reload",
            "shutdown",
            "simulate",
            "optimize",
            "doctor",
            "config check",
        ),
    ]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_output(agentctl: Callable[..., Any], path: tuple[str, ...]) -> None:
    result = agentctl(*path, "--help")
    command = COMMANDS[path]
    assert result.code == 0
    assert isinstance(command, Command)
    assert command.examples
    assert all(
        example in result.out and example.startswith("agentctl " + " ".join(path)) for example in command.examples
    )
    assert "--output" in result.out


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize("output", ["table", "json"])
def test_without_a_daemon_every_command_ends_with_one_line_and_code_3(
    agentctl: Callable[..., Any], name: str, output: str, tmp_path: Path
) -> None:
    address = f"unix:{tmp_path}/none.sock"
    result = agentctl("--address", address, name, *ARGUMENTS.get(name, []), "--output", output)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        f"agentctl: no agentd is running (looked for {address}); "
        "start one with: agentd --config FILE, or: scripts/run\n"
    )


def test_without_an_address_the_line_names_every_place(
    agentctl: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"{tmp_path}/xdg")
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/state")
    monkeypatch.setattr("agentd.sdk.address._ROOT_RUNTIME", tmp_path / "root")
    result = agentctl("status")
    assert result.code == 3
    places = [f"{directory}/control.sock" for directory in runtime_dir_candidates(os.environ, os.getuid())]
    assert f"{tmp_path}/xdg/agentd/control.sock" in places
    assert f"(looked for {', '.join(places)})" in result.err


def test_the_socket_is_found_where_agentd_makes_it(
    agentctl: Callable[..., Any], daemon: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    (tmp_path / "control.sock").symlink_to(daemon.address.removeprefix("unix:"))
    assert agentctl("status").code == 0


def test_the_environment_names_an_address(
    agentctl: Callable[..., Any], daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTD_ADDRESS", daemon.address.removeprefix("unix:"))
    assert agentctl("status").code == 0


def test_a_refusal_is_one_line_with_its_reason(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.refusals["Explain"] = daemon.refused(
        "UNKNOWN_POOL", "no pool 'nope'\nknown: research", grpc.StatusCode.NOT_FOUND
    )
    result = ctl("explain", "nope")
    assert (result.code, result.out) == (1, "")
    assert result.err == "agentctl: no pool 'nope' known: research (UNKNOWN_POOL)\n"


def test_agentd_itself_being_unavailable_is_a_refusal(ctl: Callable[..., Any], daemon: Any) -> None:
    daemon.fake.refusals["Reload"] = daemon.refused("STOPPING", "agentd is stopping", grpc.StatusCode.UNAVAILABLE)
    result = ctl("reload")
    assert (result.code, result.err) == (1, "agentctl: agentd is stopping (STOPPING)\n")


@pytest.mark.parametrize(
    ("mode", "who_may"),
    [
        (
            0o660,
            "members of group {group} may use it (sudo usermod -aG {group} {user}, and log in again), and root (sudo)",
        ),
        (0o600, "only {owner} and root (sudo) may use it"),
    ],
)
def test_a_socket_that_one_may_not_use_is_told_apart_and_who_may(
    agentctl: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, who_may: str
) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(str(path))  # refuses connections, as it does those of a user without permission
        path.chmod(mode)
        group, owner = grp.getgrgid(path.stat().st_gid).gr_name, pwd.getpwuid(path.stat().st_uid).pw_name
        monkeypatch.setattr("os.access", lambda *_: False)
        result = agentctl("--address", f"unix:{path}", "status")
    said = who_may.format(group=group, owner=owner, user=default_owner())
    assert (result.code, result.err) == (1, f"agentctl: permission denied for unix:{path}: {said}\n")


def test_a_directory_that_one_may_not_enter_is_told_apart(
    agentctl: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("agentd.sdk.control.find_control", lambda *_: None)
    result = agentctl("status")
    assert result.code == 3
    assert f"(looked for {tmp_path}/control.sock: permission denied" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        [],
        ["ps", "--output", "xml"],
        ["explain"],
        ["auto", "maybe"],
        ["events", "-n", "10001"],
        ["--address", "nowhere", "status"],
        ["--address", "unix:" + "x" * 108, "status"],
        ["--address", "unix:", "status"],
        ["--timeout", "0", "status"],
    ],
)
def test_usage_errors_end_with_code_2(agentctl: Callable[..., Any], arguments: Sequence[str]) -> None:
    result = agentctl(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "Usage:" in result.err


def test_version(agentctl: Callable[..., Any]) -> None:
    assert agentctl("--version").out == f"agentctl {__version__}\n"


def test_reload_shows_warnings_and_changes(ctl: Callable[..., Any], daemon: Any) -> None:
    assert ctl("reload").out == "read /etc/agentd.yaml\nnothing changed\n"
    daemon.fake.reloaded.warnings.append("agentd.yaml:3:1: 'llm' is not ours")
    daemon.fake.reloaded.changes.append("research: max 5 -> 8")
    assert ctl("reload").out.splitlines()[1:] == [
        "warning: agentd.yaml:3:1: 'llm' is not ours",
        "changed: research: max 5 -> 8",
    ]


def test_shutdown_says_what_becomes_of_the_agents(ctl: Callable[..., Any], daemon: Any) -> None:
    assert ctl("shutdown").out == "agentd ends after 3 instances\n"
    assert ctl("shutdown", "--keep-agents").out == "agentd ends; its agents run on\n"
    assert [request.keep_agents for request in daemon.fake.requests] == [False, True]
    assert len({request.request_id for request in daemon.fake.requests}) == 2


# -- as a process of its own --------------------------------------------------------------------


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    # Whoever runs the tests in the background of a shell script has SIGINT ignored, and a child inherits that.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heard}; from agentd.agentctl import main; main()", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.host
def test_what_needs_no_daemon_imports_no_grpc(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom agentd.agentctl.app import run\n"
        "for arguments in (['--help'], ['up', '--help'], ['config', 'check', sys.argv[1]]): run(arguments)\n"
        "print('imported:', [name for name in ('grpc', 'google.protobuf', 'rich') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "none.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "imported: []", done.stderr


@pytest.mark.host
def test_control_c_ends_quietly_with_130(daemon: Any) -> None:
    """The fake's stream ends at once, so a gate holds it open until the signal has been answered."""
    gate = Gate(daemon.event(9))
    daemon.fake.streams = [gate]
    with start("--address", daemon.address, "events", "-f", "-n", "0", stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert "research-9109" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            gate.open()
            process.kill()
    assert (process.returncode, errors) == (130, "")


@pytest.mark.host
def test_a_reader_that_leaves_early_is_no_trouble(daemon: Any) -> None:
    daemon.fake.log = b"x" * 4_000_000
    with start("--address", daemon.address, "logs", "research-9101", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 141


@pytest.mark.host
def test_a_full_disk_is_told_in_one_line(daemon: Any) -> None:
    with open("/dev/full", "w") as full, start("--address", daemon.address, "status", stdout=full) as process:
        assert process.stderr is not None
        assert process.stderr.read() == "agentctl: No space left on device: standard output\n"
        assert process.wait(timeout=30) == 1


@pytest.mark.host
def test_a_terminal_of_another_encoding_shows_what_it_can(daemon: Any) -> None:
    daemon.fake.status.degraded[0] = "größe"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    with start("--address", daemon.address, "status", stdout=subprocess.PIPE, env=environment) as process:
        out, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert out.startswith("DEGRADED gr??e\n")


@pytest.mark.host
@pytest.mark.parametrize(("changes", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_only_a_terminal_that_wants_colours_gets_them(daemon: Any, changes: dict[str, str], coloured: bool) -> None:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm", **changes}
    with start("--address", daemon.address, "status", stdout=theirs, env=environment) as process:
        os.close(theirs)
        page = b""
        with contextlib.suppress(OSError):  # EIO: the other side is closed, everything has been read
            while piece := os.read(ours, 4096):
                page += piece
        os.close(ours)
    assert process.returncode == 0
    assert page.startswith(b"\x1b[31;1mDEGRADED" if coloured else b"DEGRADED")
    assert (b"\x1b" in page) is coloured


class Gate:
    """One event, then nothing until it is opened."""

    def __init__(self, event: Any) -> None:
        self._event = event
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __iter__(self) -> Iterator[Any]:
        yield self._event
        assert self._opened.wait(60), "the test has ended without opening the gate"

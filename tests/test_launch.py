"""The launcher, as systemd runs it: a process of its own with a notify socket, which becomes the program."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from agentd import launch

LAUNCHER = Path(launch.__file__)
PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture
def notify_socket(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(10)
        yield made


def order(*command: str, notify: bool = False, **env: str) -> str:
    return json.dumps({"command": command, "env": env, "notify": notify})


def start(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-IS", str(LAUNCHER)],
        env={"PATH": PATH, "LC_ALL": "C.UTF-8", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(environment: dict[str, str]) -> tuple[int, str, str]:
    process = start(environment)
    out, error = process.communicate(timeout=20)
    return process.returncode, out, error


def seen(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a program that is launched with `environment`."""
    status, out, error = run(environment)
    assert (status, error) == (0, "")
    return dict(line.split("=", 1) for line in out.splitlines())


def test_the_program_takes_the_launchers_place() -> None:
    process = start({"AGENTD_LAUNCH": order("sh", "-c", "echo $$")})
    out, _ = process.communicate(timeout=20)
    assert int(out) == process.pid


def test_words_reach_the_program_as_they_are() -> None:
    words = ["a b", "", "$HOME", '{"x": "\u00fc\'"}', "--"]
    status, out, _ = run({"AGENTD_LAUNCH": order("printf", "%s|", *words)})
    assert (status, out) == (0, "".join(f"{word}|" for word in words))


def test_the_program_sees_its_incarnation_and_what_its_pool_says() -> None:
    environment = {
        "AGENTD_LAUNCH": order("env", MODEL="small", HOME="/srv/x", AGENTD_PORT="1"),
        "AGENTD_INSTANCE": "research-9101",
        "AGENTD_PORT": "9101",
        "INVOCATION_ID": "0123abcd" * 4,
        "HOME": "/",
        "WATCHDOG_USEC": "1000",
    }
    assert seen(environment) == {
        "PATH": PATH,
        "LC_ALL": "C.UTF-8",
        "AGENTD_INSTANCE": "research-9101",
        "AGENTD_PORT": "9101",  # agentd's word against the pool's
        "AGENTD_INCARNATION": "0123abcd" * 4,
        "INVOCATION_ID": "0123abcd" * 4,
        "MODEL": "small",
        "HOME": "/srv/x",  # the pool's word against systemd's
        "WATCHDOG_USEC": "1000",
    }


def test_the_program_is_looked_up_on_the_pools_own_path(tmp_path: Path) -> None:
    program = tmp_path / "my-agent"
    program.write_text("#!/bin/sh\necho mine\n")
    program.chmod(0o755)
    assert run({"AGENTD_LAUNCH": order("my-agent", PATH=f"{PATH}:{tmp_path}")})[1] == "mine\n"


def test_ready_is_said_by_the_process_that_becomes_the_program(notify_socket: socket.socket) -> None:
    notify_socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    process = start({"AGENTD_LAUNCH": order("cat"), "NOTIFY_SOCKET": notify_socket.getsockname()})
    text, ancillary, _, _ = notify_socket.recvmsg(100, socket.CMSG_SPACE(12))
    assert text == b"READY=1"
    assert int.from_bytes(ancillary[0][2][:4], sys.byteorder) == process.pid
    process.communicate(timeout=20)


def test_an_abstract_notify_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        name = f"agentd-test-{os.getpid()}"
        listener.bind(f"\0{name}")
        listener.settimeout(10)
        assert run({"AGENTD_LAUNCH": order("true"), "NOTIFY_SOCKET": f"@{name}"})[0] == 0
        assert listener.recv(100) == b"READY=1"


def test_a_program_that_notifies_speaks_for_itself(notify_socket: socket.socket) -> None:
    address = notify_socket.getsockname()
    environment = {"AGENTD_LAUNCH": order("env", notify=True), "NOTIFY_SOCKET": address}
    assert seen(environment)["NOTIFY_SOCKET"] == address
    notify_socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        notify_socket.recv(100)


def test_nothing_is_said_of_a_program_that_is_not_there(notify_socket: socket.socket) -> None:
    environment = {"AGENTD_LAUNCH": order("no-such-program"), "NOTIFY_SOCKET": notify_socket.getsockname()}
    status, _, error = run(environment)
    assert status == launch.NOT_FOUND
    assert error == f"agentd-launch: cannot find 'no-such-program' on PATH={PATH}\n"
    notify_socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        notify_socket.recv(100)


def test_signals_are_as_a_new_program_expects_them() -> None:
    # Python ignores two at its start, so a Python program could not tell.
    _, out, _ = run({"AGENTD_LAUNCH": order("grep", "SigIgn", "/proc/self/status")})
    ignored = int(out.split()[1], 16)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT):
        assert not ignored >> (number - 1) & 1


@pytest.mark.parametrize(
    ("path", "hinted"), [("/home/me/venv/bin/agent", True), ("/root/agent", True), ("/opt/no-such/agent", False)]
)
def test_a_path_that_the_sandbox_hides_is_said_to_be_hidden(path: str, hinted: bool) -> None:
    status, _, error = run({"AGENTD_LAUNCH": order(path), "AGENTD_INSTANCE": "research-9101"})
    assert status == launch.NOT_FOUND
    assert error.startswith(f"agentd-launch: cannot find '{path}'")
    assert ("/etc/agentd/sandbox/research.conf" in error) is hinted
    assert error.count("\n") == 1


def test_a_file_that_is_no_program_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    script = tmp_path / "agent"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    status, _, error = run({"AGENTD_LAUNCH": order(str(script))})
    assert (status, error.count("\n")) == (launch.NOT_RUN, 1)
    assert "interpreter" in error
    script.chmod(0o644)
    assert run({"AGENTD_LAUNCH": order(str(script))}) == (
        launch.NOT_RUN,
        "",
        f"agentd-launch: cannot run {script}: this user may not execute it\n",
    )


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        '"x"',
        "{}",
        '{"command": [], "env": {}, "notify": false}',
        '{"command": "true", "env": {}, "notify": false}',
        '{"command": ["true", 1], "env": {}, "notify": false}',
        '{"command": ["true"], "env": {"A": 1}, "notify": false}',
        '{"command": ["true"], "env": [], "notify": false}',
        '{"command": ["true\\u0000"], "env": {}, "notify": false}',
        '{"command": ["true"], "env": {"A=B": "x"}, "notify": false}',
    ],
)
def test_an_order_that_makes_no_sense_is_one_line_and_not_tried_again(text: str | None) -> None:
    status, _, error = run({} if text is None else {"AGENTD_LAUNCH": text})
    assert status == launch.NOT_FOUND
    assert re.fullmatch(r"agentd-launch: .*AGENTD_LAUNCH.*\n", error)


def test_it_knows_the_standard_library_alone_and_little_of_that() -> None:
    words: Sequence[str] = [sys.executable, "-IS", "-X", "importtime", str(LAUNCHER)]
    environment = {"PATH": PATH, "LC_ALL": "C.UTF-8", "AGENTD_LAUNCH": order("true")}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=20, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "json" in loaded
    assert {name.partition(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "imported package", "site"}
    slow = {"site", "typing", "dataclasses", "asyncio", "subprocess", "shutil", "logging", "pathlib", "inspect", "ast"}
    assert not loaded & slow


def test_the_installed_file_runs_isolated_from_the_agents_python() -> None:
    assert LAUNCHER.read_text().splitlines()[0] == "#!/usr/bin/python3 -IS"

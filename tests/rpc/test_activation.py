"""Inherited listeners: found by their names, for this process alone, and passed on to nobody."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agentd.activation import ActivationError, take

pytestmark = pytest.mark.host

# Takes its own process's place with these descriptors at 3 and on, as systemd would.
START = """
import os, sys
names, pid, code, *given = sys.argv[1:]
kept = [os.dup2(int(fd), 100 + n) for n, fd in enumerate(given)]
for n, fd in enumerate(kept):
    os.dup2(fd, 3 + n)
environ = {**os.environ, "LISTEN_PID": pid or str(os.getpid()), "LISTEN_FDS": str(len(given)), "LISTEN_FDNAMES": names}
os.execve(sys.executable, [sys.executable, "-c", code], environ)
"""
LOOK = """
import json, os
from agentd.activation import take
found = take(os.environ, os.getpid())
print(json.dumps({
    "found": {name: [one.getsockname() for one in listeners] for name, listeners in found.items()},
    "inheritable": [os.get_inheritable(one.fileno()) for listeners in found.values() for one in listeners],
    "blocking": [one.getblocking() for listeners in found.values() for one in listeners],
    "open": [fd for fd in range(3, 6) if os.path.exists(f"/proc/self/fd/{fd}")],
    "environ": sorted(name for name in os.environ if name.startswith("LISTEN_")),
    "again": len(take(os.environ, os.getpid())),
}))
"""


def start(names: str, descriptors: Sequence[int], *, pid: str = "", code: str = LOOK) -> Any:
    words = [sys.executable, "-c", START, names, pid, code, *map(str, descriptors)]
    done = subprocess.run(words, pass_fds=descriptors, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def listener(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def test_listeners_come_by_name_and_go_to_no_child(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in "abc"]
    with listener(tmp_path / "a") as a, listener(tmp_path / "b") as b, listener(tmp_path / "c") as c:
        seen = start("control:agents:control", [a.fileno(), b.fileno(), c.fileno()])
    assert seen["found"] == {"control": [paths[0], paths[2]], "agents": [paths[1]]}
    assert seen["inheritable"] == seen["blocking"] == [False] * 3
    assert seen["environ"] == []
    assert seen["again"] == 0


def test_what_is_no_listener_is_closed(tmp_path: Path) -> None:
    with listener(tmp_path / "a") as a, socket.socket(socket.AF_UNIX) as idle, (tmp_path / "file").open("w") as file:
        seen = start("stored:agents:stored", [idle.fileno(), a.fileno(), file.fileno()])
    assert seen["found"] == {"agents": [str(tmp_path / "a")]}
    assert seen["open"] == [4]


def test_listeners_of_another_process_are_not_ours(tmp_path: Path) -> None:
    with listener(tmp_path / "a") as a:
        seen = start("agents", [a.fileno()], pid="1")
    assert seen["found"] == {}
    assert seen["environ"] == []


def test_without_names_there_is_one_for_all(tmp_path: Path) -> None:
    with listener(tmp_path / "a") as a:
        assert start("", [a.fileno()])["found"] == {"unknown": [str(tmp_path / "a")]}


def test_nothing_inherited_is_nothing_found() -> None:
    assert take({}, os.getpid()) == {}


@pytest.mark.parametrize(
    ("listen", "text"),
    [
        ({"LISTEN_FDS": "two"}, "LISTEN_FDS='two' is no number"),
        ({"LISTEN_FDS": ""}, "LISTEN_FDS='' is no number"),
        ({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "agents"}, "1 names for 2 descriptors"),
    ],
)
def test_a_senseless_description_is_refused(listen: dict[str, str], text: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), **listen}
    with pytest.raises(ActivationError, match=text):
        take(environ, os.getpid())
    assert environ == {}


def test_a_descriptor_that_is_not_there_is_refused() -> None:
    code = LOOK.replace("found = take", "os.closerange(3, 10)\nfound = take")
    with pytest.raises(AssertionError, match="cannot use inherited sockets: descriptor 3: bad file descriptor"):
        start("agents", [0], code=code)

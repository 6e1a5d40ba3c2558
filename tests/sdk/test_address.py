"""Where agentd's sockets are: daemon and clients agree in every environment."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from agentd.sdk import address

ME = os.getuid()


def bind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a socket at `path`; bound by its short name, for the whole path may exceed a socket address."""
    path.parent.mkdir(parents=True)
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


def test_the_order_of_candidates() -> None:
    env = {
        "RUNTIME_DIRECTORY": "/run/mine:/run/other",
        "XDG_RUNTIME_DIR": "/run/user/7",
        "XDG_STATE_HOME": "/s",
        "HOME": "/h",
    }
    expected = ("/run/mine", "/run/user/7/agentd", "/s/agentd/run", "/run/agentd", "/s/agentd-demo/run")
    assert address.runtime_dir_candidates(env, 7) == tuple(map(Path, expected))
    assert address.runtime_dir_candidates({"HOME": "/h"}, 7) == (
        Path("/h/.local/state/agentd/run"),
        Path("/run/agentd"),
        Path("/h/.local/state/agentd-demo/run"),
    )


@pytest.mark.parametrize(
    ("env", "uid", "expected"),
    [
        ({"STATE_DIRECTORY": "/a:/b", "XDG_STATE_HOME": "/s", "HOME": "/h"}, 7, "/a"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/h"}, 7, "/s/agentd"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/root"}, 0, "/s/agentd"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, 7, "/h/.local/state/agentd"),
        ({"HOME": "/root"}, 0, "/var/lib/agentd"),
    ],
)
def test_the_default_state_directory(env: dict[str, str], uid: int, expected: str) -> None:
    assert address.state_dir_default(env, uid) == Path(expected)


def test_the_default_runtime_directory(tmp_path: Path) -> None:
    default = address.runtime_dir_default
    state = Path("/h/.local/state/agentd")
    assert default({"RUNTIME_DIRECTORY": "/r:/q"}, 7, state) == Path("/r")
    assert default({}, 0, Path("/var/lib/agentd")) == Path("/run/agentd")
    assert default({}, 0, state) == state / "run"
    assert default({}, 7, Path("/var/lib/agentd")) == Path("/var/lib/agentd/run")
    session = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert default(session, 7, state) == state / "run"  # nobody made the directory
    (tmp_path / "agentd").mkdir()
    assert default(session, 7, state) == tmp_path / "agentd"


@pytest.mark.parametrize("uid", [0, 7])
@pytest.mark.parametrize(
    "env",
    [
        {},
        {"XDG_STATE_HOME": "/s"},
        {"XDG_STATE_HOME": "relative"},
        {"RUNTIME_DIRECTORY": "/r"},
        {"XDG_RUNTIME_DIR": "/run/user/7"},
    ],
)
def test_every_default_is_among_the_places_that_are_searched(env: dict[str, str], uid: int) -> None:
    env = {**env, "HOME": "/h"}
    runtime_dir = address.runtime_dir_default(env, uid, address.state_dir_default(env, uid))
    assert runtime_dir in address.runtime_dir_candidates(env, uid)


def test_the_first_socket_that_exists_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"RUNTIME_DIRECTORY": str(tmp_path / "r"), "XDG_STATE_HOME": str(tmp_path / "s"), "HOME": str(tmp_path)}
    found = tmp_path / "s/agentd/run/control.sock"
    bind(found, monkeypatch)
    assert address.find_control(env, ME) == f"unix:{found}"
    first = tmp_path / "r/control.sock"
    bind(first, monkeypatch)
    assert address.find_control(env, ME) == f"unix:{first}"


def test_a_socket_that_a_dead_daemon_left_hides_no_living_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"RUNTIME_DIRECTORY": str(tmp_path / "r"), "XDG_STATE_HOME": str(tmp_path / "s"), "HOME": str(tmp_path)}
    bind(tmp_path / "r/control.sock", monkeypatch)
    demo = tmp_path / "s/agentd-demo/run/control.sock"
    demo.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(demo))
        server.listen(1)
        assert address.find_control(env, ME) == f"unix:{demo}"
        with socket.socket(socket.AF_UNIX) as waiting:  # nobody has accepted the first: the queue is full
            waiting.connect(str(demo))
            assert address.find_control(env, ME) == f"unix:{demo}"
    assert address.find_control(env, ME) == f"unix:{tmp_path}/r/control.sock"


def test_the_demo_has_a_state_directory_of_its_own() -> None:
    for env, uid in (({"XDG_STATE_HOME": "/s"}, 7), ({"HOME": "/root"}, 0)):
        demo = address.demo_state_dir(env, uid)
        assert demo.name == "agentd-demo"
        assert demo != address.state_dir_default(env, uid)


def test_what_is_no_socket_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("")
    found = address.find_control({"RUNTIME_DIRECTORY": str(tmp_path), "HOME": str(tmp_path)}, ME)
    assert found != f"unix:{tmp_path}/control.sock"


def test_a_user_without_an_entry_still_has_a_place() -> None:
    assert address.state_dir_default({}, 3_999_999) == Path("/.local/state/agentd")

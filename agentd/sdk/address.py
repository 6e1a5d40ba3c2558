"""Where agentd keeps its state and its sockets, and how programs find a running agentd.

The daemon and agentctl use the same functions, so that they cannot disagree. This module only names places
and looks whether somebody is there; it never creates one.

systemd gives `STATE_DIRECTORY` and `RUNTIME_DIRECTORY` as lists separated by colons; the first entry counts.
A relative path in an XDG variable is ignored, as the XDG base directory specification asks.
"""

from __future__ import annotations

import os
import pwd
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

AGENTS_SOCKET = "agents.sock"
CONTROL_SOCKET = "control.sock"

_ROOT_STATE = Path("/var/lib/agentd")
_ROOT_RUNTIME = Path("/run/agentd")
_CONNECT_S = 1.0


def state_dir_default(env: Mapping[str, str], uid: int) -> Path:
    """The directory in which an agentd of user `uid` keeps its state when its configuration names none."""
    if given := _first(env, "STATE_DIRECTORY"):
        return given
    if (state_home := _absolute(env, "XDG_STATE_HOME")) is not None:
        return state_home / "agentd"
    return _ROOT_STATE if uid == 0 else _home(env, uid) / ".local/state/agentd"


def demo_state_dir(env: Mapping[str, str], uid: int) -> Path:
    """Where the demo's agentd keeps its state: apart from `state_dir_default`, whose agents it would take over."""
    return _state_home(env, uid) / "agentd-demo"


def runtime_dir_default(env: Mapping[str, str], uid: int, state_dir: Path) -> Path:
    """The directory in which an agentd with `state_dir` makes its sockets when its configuration names none.

    A directory under `XDG_RUNTIME_DIR` is used where somebody has made it: it lives as long as the login
    session, which is shorter than agents should live. Every answer for a default `state_dir` is among the
    places where `find_control` looks.
    """
    if given := _first(env, "RUNTIME_DIRECTORY"):
        return given
    session = _absolute(env, "XDG_RUNTIME_DIR")
    if session is not None and (session / "agentd").is_dir():
        return session / "agentd"
    if uid == 0 and state_dir == _ROOT_STATE:
        return _ROOT_RUNTIME
    return state_dir / "run"


def runtime_dir_candidates(env: Mapping[str, str], uid: int) -> tuple[Path, ...]:
    """The directories in which to look for agentd's sockets, the most specific first."""
    candidates: list[Path] = []
    if given := _first(env, "RUNTIME_DIRECTORY"):
        candidates.append(given)
    if (session := _absolute(env, "XDG_RUNTIME_DIR")) is not None:
        candidates.append(session / "agentd")
    candidates.append(_state_home(env, uid) / "agentd/run")
    candidates.append(_ROOT_RUNTIME)
    candidates.append(demo_state_dir(env, uid) / "run")
    return tuple(dict.fromkeys(candidates))


def find_control(env: Mapping[str, str], uid: int) -> str | None:
    """The address of agentd's control socket in gRPC syntax (`unix:/run/agentd/control.sock`).

    The first one with somebody behind it whom this user may reach; where there is none, the first socket at
    all, so that a program can say which one does not answer. None: no candidate directory holds one.
    """
    paths = [directory / CONTROL_SOCKET for directory in runtime_dir_candidates(env, uid)]
    sockets = [path for path in paths if _is_socket(path)]
    found = next((path for path in sockets if _is_answered(path)), sockets[0] if sockets else None)
    return None if found is None else f"unix:{found}"


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:  # missing, or in a directory that this user may not enter: not a place for this user
        return False


def _is_answered(path: Path) -> bool:
    """Whether somebody listens on the socket. A daemon that was killed leaves its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(os.fspath(path))
        except (BlockingIOError, TimeoutError):  # a full queue: somebody is there, and busy
            return True
        except OSError:  # nobody, or not for this user
            return False
    return True


def _state_home(env: Mapping[str, str], uid: int) -> Path:
    return _absolute(env, "XDG_STATE_HOME") or _home(env, uid) / ".local/state"


def _first(env: Mapping[str, str], name: str) -> Path | None:
    first = env.get(name, "").split(":", 1)[0]
    return Path(first) if first else None


def _absolute(env: Mapping[str, str], name: str) -> Path | None:
    path = Path(env.get(name, ""))
    return path if path.is_absolute() else None


def _home(env: Mapping[str, str], uid: int) -> Path:
    if (home := _absolute(env, "HOME")) is not None:
        return home
    try:
        return Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:  # a user without an entry, as in many containers
        return Path("/")

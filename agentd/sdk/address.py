"""Where agentd keeps its state and its sockets, and how programs find a running agentd.

The daemon and agentctl use the same functions, so that they cannot disagree. This module only names places
and looks whether they exist; it never creates one.

systemd gives `STATE_DIRECTORY` and `RUNTIME_DIRECTORY` as lists separated by colons; the first entry counts.
A relative path in an XDG variable is ignored, as the XDG base directory specification asks.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path

AGENTS_SOCKET = "agents.sock"
CONTROL_SOCKET = "control.sock"

_ROOT_STATE = Path("/var/lib/agentd")
_ROOT_RUNTIME = Path("/run/agentd")


def state_dir_default(env: Mapping[str, str], uid: int) -> Path:
    """The directory in which an agentd of user `uid` keeps its state when its configuration names none."""
    if given := _first(env, "STATE_DIRECTORY"):
        return given
    if (state_home := _absolute(env, "XDG_STATE_HOME")) is not None:
        return state_home / "agentd"
    return _ROOT_STATE if uid == 0 else _home(env, uid) / ".local/state/agentd"


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
    state_home = _absolute(env, "XDG_STATE_HOME") or _home(env, uid) / ".local/state"
    candidates.append(state_home / "agentd/run")
    candidates.append(_ROOT_RUNTIME)
    return tuple(dict.fromkeys(candidates))


def find_control(env: Mapping[str, str], uid: int) -> str | None:
    """The address of agentd's control socket in gRPC syntax (`unix:/run/agentd/control.sock`).

    None: no candidate directory holds one. A socket that is found may still have nobody behind it.
    """
    for directory in runtime_dir_candidates(env, uid):
        path = directory / CONTROL_SOCKET
        if _is_socket(path):
            return f"unix:{path}"
    return None


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:  # missing, or in a directory that this user may not enter: not a place for this user
        return False


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

"""Listeners that the service manager opened for us: what systemd's socket activation passes on.

Owns the variables LISTEN_*: they are read once and removed, so that no child takes the descriptors for its own.
It never opens, binds or removes a socket; the files of inherited ones are the service manager's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from agentd.errors import AgentdError

FIRST_DESCRIPTOR = 3
VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")


class ActivationError(AgentdError):
    """The service manager's description of what it passes on makes no sense."""


def take(environ: MutableMapping[str, str], pid: int) -> dict[str, tuple[socket.socket, ...]]:
    """The inherited listeners by their names (FileDescriptorName=), each non-blocking and closed on exec.

    Empty where there are none, or where they are meant for another process than `pid`. Descriptors that are no
    listening stream sockets are closed. The variables are gone from `environ` in any case; call it once.

    Raises:
        ActivationError: the variables contradict each other.
    """
    given = {name: environ.pop(name, "") for name in VARIABLES}
    if given["LISTEN_PID"] != str(pid):
        return {}
    text = given["LISTEN_FDS"]
    if not (text.isascii() and text.isdecimal()):
        raise ActivationError(f"cannot use inherited sockets: LISTEN_FDS={text!r} is no number")
    descriptors = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(text))
    names = given["LISTEN_FDNAMES"].split(":") if given["LISTEN_FDNAMES"] else ["unknown"] * len(descriptors)
    if len(names) != len(descriptors):
        raise ActivationError(f"cannot use inherited sockets: {len(names)} names for {len(descriptors)} descriptors")
    found: dict[str, tuple[socket.socket, ...]] = {}
    for name, descriptor in zip(names, descriptors, strict=True):
        if (listener := _listener(descriptor)) is not None:
            found[name] = (*found.get(name, ()), listener)
    return found


def _listener(descriptor: int) -> socket.socket | None:
    try:
        os.set_inheritable(descriptor, False)
        made = socket.socket(fileno=descriptor)
    except OSError as error:
        if not _is_open(descriptor):
            text = f"cannot use inherited sockets: descriptor {descriptor}: {(error.strerror or str(error)).lower()}"
            raise ActivationError(text) from None
        os.close(descriptor)  # open, and no socket
        return None
    if made.type != socket.SOCK_STREAM or not made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        made.close()
        return None
    made.setblocking(False)
    return made


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

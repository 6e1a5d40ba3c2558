"""Who holds a TCP port of this host.

Owns: the question whether an agent could listen on a port. Never listens, and never connects to anybody: a port is
asked for by binding to it for some microseconds.
"""

from __future__ import annotations

import errno
import socket

import psutil
from msgspec import Struct

_NO_IPV6 = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT))


class PortHolder(Struct, frozen=True):
    """A socket that keeps others off `port`. `pid` None and `name` "": nobody tells us whose it is.

    As text it is printable, whatever the process calls itself.
    """

    port: int
    pid: int | None = None
    name: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            return "an unknown process"
        # A process may call itself anything, bytes that are no UTF-8 and control characters included.
        name = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in self.name)
        return f"{name or 'a process'} (pid {self.pid})"


def probe(port: int) -> PortHolder | None:
    """Who keeps an agent from listening on `port` (1..65535), on any address; None where nobody does.

    Connections in TIME_WAIT do not count, a listener on a single address does. Takes about 20 us where the port is
    free; finding the holder's name takes some milliseconds. A port that this process may not use for lack of rights
    counts as free: whether the agent may is not for us to say.
    """
    if _is_free(socket.AF_INET, "0.0.0.0", port) and _is_free(socket.AF_INET6, "::", port):
        return None
    return _holder(port)


def _is_free(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:  # a socket for both families would see IPv4's holders again
                attempt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            attempt.bind((address, port))
    except PermissionError:
        return True
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        if family is socket.AF_INET6 and error.errno in _NO_IPV6:
            return True
        raise
    return True


def _holder(port: int) -> PortHolder:
    """The listener on `port`, or whoever else is bound to it."""
    found = [
        (connection.status != psutil.CONN_LISTEN, connection.pid or 0)
        for connection in psutil.net_connections("tcp")
        if connection.laddr and connection.laddr[1] == port
    ]
    pid = min(found)[1] if found else 0
    if not pid:
        return PortHolder(port)
    try:
        return PortHolder(port, pid, psutil.Process(pid).name())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return PortHolder(port, pid)

"""The listening socket of the HTTP server, made long before that is loaded: whoever connects meanwhile waits.

It listens on loopback only, as nothing behind it encrypts or authenticates over a network.
"""

from __future__ import annotations

import ipaddress
import os
import socket

from agentd.errors import AgentdError

BACKLOG = 128


class ListenError(AgentdError):
    """The HTTP address cannot be used."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on a loopback address; `localhost` is 127.0.0.1, port 0 takes a free one.

    Raises:
        ListenError: the address is taken, not ours, or not loopback.
    """
    asked = _joined(host, port)
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        raise ListenError(
            f"cannot listen on {asked}: {host!r} is no address; set listen.http to 127.0.0.1:{port}"
        ) from None
    if not address.is_loopback:
        raise ListenError(
            f"cannot listen on {asked}: HTTP is served on loopback only, as it has neither encryption nor log-in; "
            f"set listen.http to 127.0.0.1:{port}"
        )
    listener = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        # Without this a restart within a minute finds the port taken by its own closed connections.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind((str(address), port))
        listener.listen(BACKLOG)
    except OSError as failure:
        listener.close()
        cause = os.strerror(failure.errno).lower() if failure.errno else str(failure)
        raise ListenError(
            f"cannot listen on {asked}: {cause}; stop what uses it or set listen.http to another address"
        ) from failure
    return listener


def shown(listener: socket.socket) -> str:
    """Where it listens, as `host:port`."""
    host, port, *_ = listener.getsockname()
    return _joined(host, port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"

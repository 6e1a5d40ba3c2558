"""The gRPC servers: one per role, so that a socket's permissions decide who may do what.

Owns their addresses, from the first moment: who connects before `services` are loaded waits. grpcio takes over a live
socket's path without a word, so each path has a lock beside it, `<socket>.lock`, and is looked at before.

A role's socket is either made here, for agentd's own user alone, or inherited from the service manager, who says
whose it is. Behind an inherited one grpc has a private socket, and a relay in between knows who calls.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path

from grpc import aio
from msgspec import Struct

from agentd import log
from agentd.errors import AgentdError
from agentd.rpc import identity, origin
from agentd.rpc.relay import Relay

AGENTS_MESSAGE_BYTES_MAX = 256 * 1024
CONTROL_MESSAGE_BYTES_MAX = 1024 * 1024
STOP_GRACE_S = 1.0
_OPTIONS = (
    # By default a second server may share our port.
    ("grpc.so_reuseport", 0),
    # By default a burst of new calls is dropped: when agentd returns, every agent calls at once.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.server_handshake_timeout_ms", 5_000),
)

_log = log.get("rpc")


class ListenError(AgentdError):
    """An address cannot be listened on."""


class Inherited(Struct, frozen=True):
    """A role's listeners from the service manager, at least one, and the path for grpc's private socket.

    Nobody but agentd's user may be able to enter the directory of `private`: who connects there may call himself
    by any name.
    """

    listeners: tuple[socket.socket, ...]
    private: Path


class Servers:
    """The two servers: bound when made, serving from `start` on.

    Attributes:
        agents, control: the servers, to which services are added before `start`.
        agents_address: where agents connect, with a port 0 resolved.
        control_address: where people's programs connect, likewise.
        agents_peer: says who calls, of `ServicerContext.peer()` on the agents' server, and out of which unit.
        control_peer: says who calls, of `ServicerContext.peer()` on the control server.
    """

    def __init__(self, agents: str | Inherited, control: str | Inherited) -> None:
        """Bind both, each an address in gRPC syntax or what was inherited; call it inside the event loop.

        Raises:
            ListenError: an address is taken or not allowed.
        """
        self.agents = aio.server(
            options=[
                *_OPTIONS,
                ("grpc.max_receive_message_length", AGENTS_MESSAGE_BYTES_MAX),
                # By default each message is followed by a ping that finds out how much may be under way at once; what
                # agents send is small, and the ping and its answer wake us twice more.
                ("grpc.http2.bdp_probe", 0),
            ]
        )
        self.control = aio.server(options=[*_OPTIONS, ("grpc.max_receive_message_length", CONTROL_MESSAGE_BYTES_MAX)])
        places = (agents, control)
        own = [f"unix:{place.private}" if isinstance(place, Inherited) else place for place in places]
        with contextlib.ExitStack() as locks:
            for address in own:
                _claim(address, locks)
            bound = (_bind(self.agents, own[0]), _bind(self.control, own[1]))
            self.agents_address, self.control_address = map(_public, places, bound)
            self._locks = locks.pop_all()
        inherited = [place for place in places if isinstance(place, Inherited)]
        found = origin.find() if isinstance(agents, Inherited) else None
        self._relays = [
            Relay(place.listeners, place.private, origin=found if place is agents else None) for place in inherited
        ]
        self.agents_peer = identity.relayed if found else identity.unverified
        if isinstance(agents, Inherited) and not found:
            # To refuse everybody would end a fleet on a host that hides processes (hidepid=) from agentd.
            _log.warning(
                "agents can report in each other's name", cause="process 1 does not show systemd's control group"
            )
        self.control_peer = identity.relayed if isinstance(control, Inherited) else identity.unverified

    async def start(self) -> None:
        """Take calls from now on."""
        await self.agents.start()
        await self.control.start()
        for relay in self._relays:
            relay.start()

    async def stop(self) -> None:
        """Refuse new calls, let those under way finish, close. Who connects to an inherited socket waits there."""
        for relay in self._relays:
            relay.pause()
        await self.agents.stop(STOP_GRACE_S)
        await self.control.stop(STOP_GRACE_S)
        for relay in self._relays:
            relay.close()
        self._locks.close()


def _public(place: str | Inherited, bound: str) -> str:
    """Where others connect: `bound` is where grpc listens.

    Raises:
        ListenError: a listener is no Unix socket in the file system, whose permissions say who may connect.
    """
    if not isinstance(place, Inherited):
        return bound
    for listener in place.listeners:
        name = listener.getsockname()
        if listener.family != socket.AF_UNIX or not isinstance(name, str) or not name.startswith("/"):
            text = f"cannot listen on the inherited socket {name!r}: it is no Unix socket with a path"
            raise ListenError(f"{text}; look at the ListenStream= lines of the socket units")
    return f"unix:{place.listeners[0].getsockname()}"


def _claim(address: str, locks: contextlib.ExitStack) -> None:
    """Make a socket's path ours: its lock goes to `locks`, and nothing is left there. Other addresses need none."""
    path = _socket_path(address)
    if path is None:
        return
    try:
        locks.callback(os.close, _lock(path))
        _clear(path)
    except OSError as error:
        raise _unusable(address, (error.strerror or str(error)).lower()) from None


def _bind(server: aio.Server, address: str) -> str:
    """Listen on `address`; return it with a port of 0 resolved."""
    before = os.umask(0o177)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise _unusable(address, str(error)) from None
    finally:
        os.umask(before)
    if port == 0:
        raise _unusable(address, "the address cannot be used")
    if _socket_path(address) is None:
        return f"{address.rpartition(':')[0]}:{port}"
    return address


def _lock(path: Path) -> int:
    """Take the lock of a socket's path; the descriptor holds it. The file stays: taken away, it would be no lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(f"{path}.lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise _unusable(f"unix:{path}", f"another agentd (pid {holder}) listens on it") from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _clear(path: Path) -> None:
    """Remove the socket that a killed agentd left at `path`, and nothing else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(f"cannot listen on unix:{path}: it is no socket; move it away or set listen: to another path")
    with socket.socket(socket.AF_UNIX) as caller:
        caller.setblocking(False)
        try:
            caller.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # it listens, and has more callers than it answers
            pass
    raise ListenError(f"another process listens on unix:{path}; set listen: to another path")


def _unusable(address: str, cause: str) -> ListenError:
    return ListenError(f"cannot listen on {address}: {cause}; set listen: to another address")


def _socket_path(address: str) -> Path | None:
    return Path(address.removeprefix("unix:")) if address.startswith("unix:") else None

"""The gRPC servers: one per role, so that a socket's permissions decide who may do what.

agents.sock serves AgentService only; control.sock serves ControlService, health and reflection. grpcio takes over
a live socket's path without a word, so each path has a lock beside it, `<socket>.lock`, and is looked at before.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path

from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from agentd.errors import AgentdError
from agentd.rpc.agents import AgentService
from agentd.rpc.control import ControlService
from agentd.v1 import control_pb2, control_pb2_grpc

AGENTS_MESSAGE_BYTES_MAX = 256 * 1024
CONTROL_MESSAGE_BYTES_MAX = 1024 * 1024
STOP_GRACE_S = 1.0
HEALTH_SERVICE = "grpc.health.v1.Health"
_OPTIONS = (
    # By default a second server may share our port.
    ("grpc.so_reuseport", 0),
    # By default a burst of new calls is dropped: when agentd returns, every agent calls at once.
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.server_handshake_timeout_ms", 5_000),
)


class ListenError(AgentdError):
    """An address cannot be listened on."""


class Servers:
    """The two servers: bound when made, serving from `serve` on. `agents_address` has a port 0 resolved."""

    def __init__(self, agents_address: str, control_address: str) -> None:
        """Bind both addresses; call it inside the event loop.

        Raises:
            ListenError: an address is taken or not allowed.
        """
        self._agents = aio.server(options=[*_OPTIONS, ("grpc.max_receive_message_length", AGENTS_MESSAGE_BYTES_MAX)])
        self._control = aio.server(options=[*_OPTIONS, ("grpc.max_receive_message_length", CONTROL_MESSAGE_BYTES_MAX)])
        self._health = HealthServicer()
        with contextlib.ExitStack() as locks:
            for address in (agents_address, control_address):
                _claim(address, locks)
            self.agents_address = _bind(self._agents, agents_address)
            self.control_address = _bind(self._control, control_address)
            self._locks = locks.pop_all()

    async def serve(self, agents: AgentService, control: ControlService) -> None:
        """Take calls from now on."""
        self._agents.add_generic_rpc_handlers((agents.handler(),))
        control_pb2_grpc.add_ControlServiceServicer_to_server(control, self._control)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._control)
        service = control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name
        reflection.enable_server_reflection((service, HEALTH_SERVICE, reflection.SERVICE_NAME), self._control)
        for name in ("", service):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._agents.start()
        await self._control.start()

    async def stop(self) -> None:
        """Refuse new calls, let those under way finish, close."""
        await self._health.enter_graceful_shutdown()
        await self._agents.stop(STOP_GRACE_S)
        await self._control.stop(STOP_GRACE_S)
        self._locks.close()


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

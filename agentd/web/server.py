"""The HTTP server: uvicorn inside agentd's own event loop.

Owns the listening socket and its life. It installs no signal handlers, configures no logging and believes no
forwarding header: the identity of callers rests on the address of the real connection. It listens on loopback
only, as nothing here encrypts or authenticates over a network.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.applications import Starlette

from agentd.errors import AgentdError

BACKLOG = 128
CONNECTIONS_MAX = 512
IDLE_TIMEOUT_S = 10
STOP_TIMEOUT_S = 3


class ListenError(AgentdError):
    """The HTTP address cannot be used."""


class HttpServer:
    """One server of `app` on `host`:`port`. Port 0 takes a free one; `address` tells which."""

    def __init__(self, app: Starlette, host: str, port: int) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._server: _EmbeddedServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self.address = _shown(host, port)

    async def start(self) -> None:
        """Listen and serve.

        Raises:
            ListenError: the address is taken, not ours, or not loopback.
        """
        listener = _listen(self._host, self._port)
        self.address = _shown(self._host, listener.getsockname()[1])
        server = _EmbeddedServer(_configuration(self._app))
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if serving.done():
            listener.close()
            serving.result()  # raises what kept it from starting
        self._server, self._serving = server, serving

    async def stop(self) -> None:
        """End event streams, let requests under way finish for up to `STOP_TIMEOUT_S`, close. Idempotent."""
        if self._server is None or self._serving is None:
            return
        self._app.state.streams.close()
        self._server.ended.set()
        await self._serving
        self._server = self._serving = None


@contextlib.asynccontextmanager
async def serve(app: Starlette, host: str, port: int) -> AsyncIterator[HttpServer]:
    """Serve `app` for the length of a block.

    Raises:
        ListenError: the address is taken, not ours, or not loopback.
    """
    server = HttpServer(app, host, port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class _EmbeddedServer(uvicorn.Server):
    """uvicorn without what belongs to a program of its own: signal handlers and a timer ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.ended.wait()


def _configuration(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        # A forwarded address would be one that the caller chose.
        proxy_headers=False,
        server_header=False,
        date_header=False,  # the guard sets it; here it needs the timer
        backlog=BACKLOG,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=IDLE_TIMEOUT_S,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket on a loopback address; `localhost` is 127.0.0.1."""
    shown = _shown(host, port)
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
    except ValueError:
        raise ListenError(
            f"cannot listen on {shown}: {host!r} is no address; set listen.http to 127.0.0.1:{port}"
        ) from None
    if not address.is_loopback:
        raise ListenError(
            f"cannot listen on {shown}: HTTP is served on loopback only, as it has neither encryption nor log-in; "
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
            f"cannot listen on {shown}: {cause}; stop what uses it or set listen.http to another address"
        ) from failure
    return listener


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"

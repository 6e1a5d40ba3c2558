"""The HTTP server: uvicorn inside agentd's own event loop.

Owns what happens on a listening socket (listener.py) until it is closed. It installs no signal handlers, configures
no logging and believes no forwarding header: the identity of callers rests on the address of the real connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.applications import Starlette

from agentd.web.listener import BACKLOG, listen, shown

CONNECTIONS_MAX = 512
IDLE_TIMEOUT_S = 10
STOP_TIMEOUT_S = 3


class HttpServer:
    """One server of `app` on `listener`, which it closes. `address` says where that is."""

    def __init__(self, app: Starlette, listener: socket.socket) -> None:
        self._app = app
        self._listener = listener
        self._server: _EmbeddedServer | None = None
        self._serving: asyncio.Task[None] | None = None
        self.address = shown(listener)

    async def start(self) -> None:
        """Serve, those too who have connected since the socket listens."""
        server = _EmbeddedServer(_configuration(self._app))
        serving = asyncio.create_task(server.serve(sockets=[self._listener]), name="http")
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if serving.done():
            self._listener.close()
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
    server = HttpServer(app, listen(host, port))
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

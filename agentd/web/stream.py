"""Server-sent events: the records of the fleet as they happen, one connection per watcher.

Owns the wire format of `/events/stream` and the life of its connections; it never keeps records. A watcher that
does not read is dropped: the runtime bounds what waits for it, and a send that makes no progress ends the
connection. Nothing is lost by that, since the watcher comes back with the id of the last record it has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio import Future
from typing import Any

from starlette.types import Receive, Scope, Send

from agentd.core.messages import StoredRecord
from agentd.errors import Refused
from agentd.web import shapes
from agentd.web.fleet import Fleet

KEEP_ALIVE_S = 15.0
SEND_TIMEOUT_S = 30.0
RECONNECT_MS = 2000
STREAMS_MAX = 64


class Streams:
    """The open streams of one server, bounded by `STREAMS_MAX`; `close` ends them all."""

    def __init__(self) -> None:
        self.open = 0
        self.closing = asyncio.Event()

    @property
    def full(self) -> bool:
        return self.open >= STREAMS_MAX

    def close(self) -> None:
        self.closing.set()


class EventStream:
    """An ASGI response that sends records until the client leaves, falls behind or the server closes.

    `after`: the id of the last record the client has; None: from now on. When that id is no longer kept the client
    is told with an event `reset`, after which the stream goes on from now.
    """

    def __init__(self, fleet: Fleet, streams: Streams, after: int | None, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._fleet = fleet
        self._streams = streams
        self._after = after
        self._keep_alive_s = keep_alive_s
        self._sent = False  # whether any record has reached this client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope
        self._streams.open += 1
        gone = asyncio.create_task(_disconnected(receive))
        closing = asyncio.create_task(self._streams.closing.wait())
        ends: set[Future[Any]] = {gone, closing}
        try:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await _write(send, f"retry: {RECONNECT_MS}\n: records follow\n\n")
            await self._follow(send, ends)
            await _write(send, "", more=False)
        except OSError:
            # The client has gone or, at a TimeoutError, does not read. Either way there is nobody to tell.
            return
        finally:
            self._streams.open -= 1
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    async def _follow(self, send: Send, ends: set[Future[Any]]) -> None:
        try:
            await self._copy(send, self._after, ends)
        except Refused as refused:
            if self._after is None or self._sent:
                return  # too slow: it comes back with the last id it has
            await _write(send, _reset(refused))
            with contextlib.suppress(Refused):
                await self._copy(send, None, ends)

    async def _copy(self, send: Send, after: int | None, ends: set[Future[Any]]) -> None:
        """Send records, and comments while there are none, until one of `ends` is done.

        Raises:
            Refused: the runtime no longer serves this watcher.
        """
        records = aiter(self._fleet.watch(after))
        upcoming: Future[StoredRecord] = asyncio.ensure_future(anext(records))
        try:
            while True:
                waited: set[Future[Any]] = {upcoming, *ends}
                done, _ = await asyncio.wait(waited, timeout=self._keep_alive_s, return_when=asyncio.FIRST_COMPLETED)
                if done & ends:
                    return
                if not done:
                    await _write(send, ": keep-alive\n\n")
                    continue
                try:
                    stored = upcoming.result()
                except StopAsyncIteration:
                    return
                await _write(send, render(stored))
                self._sent = True
                upcoming = asyncio.ensure_future(anext(records))
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
            aclose = getattr(records, "aclose", None)  # a generator has it, a plain iterator need not
            if aclose is not None:
                await aclose()


def render(stored: StoredRecord) -> str:
    """One record on the wire. JSON has no raw newline, so one `data` line is enough."""
    return f"id: {stored.id}\ndata: {json.dumps(shapes.event(stored), ensure_ascii=False)}\n\n"


def _reset(refused: Refused) -> str:
    data = json.dumps({"reason": refused.reason, "message": str(refused)}, ensure_ascii=False)
    return f"event: reset\ndata: {data}\n\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Send, text: str, *, more: bool = True) -> None:
    """Send within `SEND_TIMEOUT_S`.

    Raises:
        OSError: the client has gone; TimeoutError: it does not read.
    """
    body = {"type": "http.response.body", "body": text.encode(), "more_body": more}
    async with asyncio.timeout(SEND_TIMEOUT_S):
        await send(body)

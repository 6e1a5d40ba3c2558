"""Server-sent events, at the level of ASGI: what is sent, where a stream resumes, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Message

from agentd.core.messages import EventType, Record, StoredRecord
from agentd.errors import Refused
from agentd.web import stream
from agentd.web.app import create_app
from agentd.web.stream import STREAMS_MAX, EventStream, Streams
from tests.web.fake import FakeAbout, FakeRuntime

RECORD = Record(EventType.SCALE_UP, 'High "load": 0.88 > 0.75\nreally – ü', "research", "research-9104")


class Watcher:
    """The client's side of one ASGI call."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.sent.put(message)

    async def text(self) -> str:
        message = await asyncio.wait_for(self.sent.get(), timeout=10)
        return str(message["body"].decode())


@asynccontextmanager
async def watching(
    runtime: Any, after: int | None = None, streams: Streams | None = None, keep_alive_s: float = 60.0
) -> AsyncIterator[tuple[Watcher, asyncio.Task[None]]]:
    """A stream past its greeting."""
    watcher = Watcher()
    response = EventStream(runtime, streams or Streams(), after, keep_alive_s)
    task = asyncio.create_task(response({"type": "http"}, watcher.receive, watcher.send))
    start = await watcher.sent.get()
    assert start["status"] == 200
    assert start["headers"] == [(b"content-type", b"text/event-stream; charset=utf-8")]
    assert (await watcher.text()).startswith("retry: 2000\n")
    try:
        yield watcher, task
    finally:
        watcher.gone.set()
        await asyncio.wait_for(task, timeout=10)


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def parsed(text: str) -> tuple[int, dict[str, Any]]:
    first, second, *rest = text.split("\n")
    assert rest == ["", ""]
    return int(first.removeprefix("id: ")), json.loads(second.removeprefix("data: "))


async def started(runtime: FakeRuntime) -> None:
    while not runtime.watchers:
        await asyncio.sleep(0)


def test_a_record_is_sent_with_its_id(runtime: FakeRuntime) -> None:
    async def test() -> None:
        async with watching(runtime) as (watcher, _):
            await started(runtime)
            await runtime.add(RECORD)
            number, data = parsed(await watcher.text())
            assert number == data["id"] == 12
            assert data["reason"] == RECORD.reason
            assert data["instance"] == "research-9104"

    in_loop(test)


def test_a_stream_resumes_after_the_last_id(runtime: FakeRuntime) -> None:
    async def test() -> None:
        async with watching(runtime, after=9) as (watcher, _):
            assert [parsed(await watcher.text())[0] for _ in range(2)] == [10, 11]

    in_loop(test)


def test_an_id_that_is_gone_resets_the_stream_and_goes_on_from_now(runtime: FakeRuntime) -> None:
    async def test() -> None:
        runtime.oldest_kept = 8
        async with watching(runtime, after=2) as (watcher, _):
            event, data, *_ = (await watcher.text()).split("\n")
            assert event == "event: reset"
            assert json.loads(data.removeprefix("data: "))["reason"] == "TOKEN_EXPIRED"
            await started(runtime)
            await runtime.add(RECORD)
            assert parsed(await watcher.text())[0] == 12

    in_loop(test)


def test_comments_keep_an_idle_stream_alive(runtime: FakeRuntime) -> None:
    async def test() -> None:
        async with watching(runtime, keep_alive_s=0.01) as (watcher, _):
            assert [await watcher.text() for _ in range(2)] == [": keep-alive\n\n"] * 2
            await runtime.add(RECORD)
            while (text := await watcher.text()).startswith(":"):
                pass
            assert parsed(text)[0] == 12

    in_loop(test)


def test_closing_ends_a_stream_properly_and_frees_its_place(runtime: FakeRuntime) -> None:
    async def test() -> None:
        streams = Streams()
        async with watching(runtime, streams=streams) as (watcher, task):
            await started(runtime)
            assert streams.open == 1
            streams.close()
            await asyncio.wait_for(task, timeout=10)
            assert watcher.sent.get_nowait() == {"type": "http.response.body", "body": b"", "more_body": False}
            assert (streams.open, runtime.watchers) == (0, 0)

    in_loop(test)


def test_a_client_that_leaves_is_forgotten(runtime: FakeRuntime) -> None:
    async def test() -> None:
        async with watching(runtime) as (watcher, task):
            await started(runtime)
            watcher.gone.set()
            await asyncio.wait_for(task, timeout=10)
            assert runtime.watchers == 0

    in_loop(test)


def test_a_client_that_does_not_read_is_dropped(runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with watching(runtime) as (watcher, task):
            await started(runtime)
            stuck = asyncio.Event()
            monkeypatch.setattr(watcher.sent, "put", lambda _: stuck.wait())
            monkeypatch.setattr(stream, "SEND_TIMEOUT_S", 0.01)
            await runtime.add(RECORD)
            await asyncio.wait_for(task, timeout=10)
            assert runtime.watchers == 0

    in_loop(test)


def test_a_client_that_falls_behind_is_dropped_without_a_reset() -> None:
    class Impatient:
        async def watch(self, _: int | None) -> AsyncIterator[StoredRecord]:
            yield StoredRecord(1, 0.0, RECORD)
            raise Refused("TOKEN_EXPIRED", "too slow", status="OUT_OF_RANGE")

    async def test() -> None:
        async with watching(Impatient(), after=0) as (watcher, task):
            await asyncio.wait_for(task, timeout=10)
            assert parsed(await watcher.text())[0] == 1
            assert watcher.sent.get_nowait()["more_body"] is False
            assert watcher.sent.empty()

    in_loop(test)


def call(runtime: FakeRuntime, *, last_id: str | None, open_already: int = 0) -> tuple[int, dict[str, Any]]:
    """What the application answers at once to GET /events/stream."""

    async def test() -> tuple[int, dict[str, Any]]:
        app = create_app(runtime, FakeAbout())
        app.state.streams.open = open_already
        watcher = Watcher()
        watcher.gone.set()
        headers = [(b"host", b"localhost:8766")]
        if last_id is not None:
            headers.append((b"last-event-id", last_id.encode()))
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/events/stream",
            "raw_path": b"/events/stream",
            "query_string": b"",
            "headers": headers,
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8766),
            "scheme": "http",
            "root_path": "",
            "http_version": "1.1",
        }
        await app(scope, watcher.receive, watcher.send)
        status = watcher.sent.get_nowait()["status"]
        body = watcher.sent.get_nowait()["body"]
        return status, json.loads(body) if status != 200 else {}

    return asyncio.run(test())


def test_a_last_id_that_is_none_is_told(runtime: FakeRuntime) -> None:
    for text in ("abc", "-1", "1.5", "9" * 40):
        status, body = call(runtime, last_id=text)
        assert (status, body["error"]["reason"]) == (400, "INVALID_ARGUMENT")
    assert call(runtime, last_id="11")[0] == 200
    assert call(runtime, last_id=None)[0] == 200


def test_the_number_of_streams_is_bounded(runtime: FakeRuntime) -> None:
    assert call(runtime, last_id=None, open_already=STREAMS_MAX - 1)[0] == 200
    status, body = call(runtime, last_id=None, open_already=STREAMS_MAX)
    assert (status, body["error"]["reason"]) == (503, "TOO_MANY_STREAMS")

"""A real server on a real port: what only sockets can show."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket

import httpx
import pytest

from agentd.core.messages import EventType, Record
from agentd.web.app import create_app
from agentd.web.listener import ListenError, listen
from agentd.web.server import HttpServer, serve
from tests.web.fake import FakeAbout, FakeRuntime

pytestmark = pytest.mark.host


def test_the_same_user_may_post_without_ceremony(runtime: FakeRuntime) -> None:
    async def test() -> None:
        async with serve(create_app(runtime, FakeAbout()), "127.0.0.1", 0) as server, httpx.AsyncClient() as client:
            answer = await client.post(f"http://{server.address}/autoscaler/disable")
            assert (answer.status_code, answer.json()) == (200, {"enabled": False})
            assert "date" in answer.headers
            assert "server" not in answer.headers

    asyncio.run(test())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's socket")
def test_another_user_is_refused_by_the_real_table(runtime: FakeRuntime) -> None:
    async def test() -> bytes:
        async with serve(create_app(runtime, FakeAbout()), "127.0.0.1", 0) as server:
            host, port = server.address.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            os.fchown(writer.get_extra_info("socket").fileno(), 54321, -1)
            writer.write(f"POST /autoscaler/disable HTTP/1.1\r\nHost: {server.address}\r\n\r\n".encode())
            answer = await reader.readuntil(b"}}")
            writer.close()
            await writer.wait_closed()
            return answer

    answer = asyncio.run(test())
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"user 54321 may not change this fleet" in answer
    assert runtime.submitted == []


def test_a_forwarded_address_is_not_believed(runtime: FakeRuntime) -> None:
    seen: list[tuple[str, int]] = []

    def remember(client: tuple[str, int], _: tuple[str, int]) -> int | None:
        seen.append(client)
        return None

    async def test() -> None:
        app = create_app(runtime, FakeAbout(), peer_uid=remember)
        async with serve(app, "127.0.0.1", 0) as server, httpx.AsyncClient() as client:
            forged = {"X-Forwarded-For": "10.9.8.7", "Forwarded": "for=10.9.8.7"}
            answer = await client.post(f"http://{server.address}/autoscaler/disable", headers=forged)
            assert answer.status_code == 403

    asyncio.run(test())
    assert [address for address, _ in seen] == ["127.0.0.1"]


def test_events_arrive_and_stopping_ends_the_stream(runtime: FakeRuntime) -> None:
    async def test() -> None:
        server = HttpServer(create_app(runtime, FakeAbout()), listen("127.0.0.1", 0))
        await server.start()
        url = f"http://{server.address}/events/stream"
        resume = {"Last-Event-ID": "10"}
        async with httpx.AsyncClient(timeout=10) as client, client.stream("GET", url, headers=resume) as answer:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            lines = (line async for line in answer.aiter_lines() if line.startswith("data: "))
            assert json.loads((await anext(lines))[6:])["id"] == 11
            await runtime.add(Record(EventType.READY, "ready", "research", "research-9103"))
            assert json.loads((await anext(lines))[6:])["id"] == 12
            await asyncio.gather(server.stop(), drained(lines))
        assert runtime.watchers == 0

    async def drained(lines: object) -> None:
        assert [line async for line in lines] == []  # type: ignore[attr-defined]

    asyncio.run(test())


def test_a_busy_port_is_told_with_the_way_out() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            listen("127.0.0.1", port)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{port}: address already in use; "
        "stop what uses it or set listen.http to another address"
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "agents.example", ""])
def test_only_loopback_is_served(host: str) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on .*set listen\.http to 127\.0\.0\.1:8766"):
        listen(host, 8766)


def test_the_port_is_free_again_after_stop_and_signals_are_left_alone(runtime: FakeRuntime) -> None:
    async def test() -> None:
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        first = HttpServer(create_app(runtime, FakeAbout()), listen("localhost", 0))
        await first.start()
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        port = int(first.address.rpartition(":")[2])
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://localhost:{port}/healthz")).status_code == 200
        await first.stop()
        await first.stop()
        async with serve(create_app(runtime, FakeAbout()), "127.0.0.1", port) as second:
            assert second.address == f"127.0.0.1:{port}"

    asyncio.run(test())

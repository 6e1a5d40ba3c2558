"""One request over a real connection: what went wrong tells whether the work may have begun."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agentd.demo.client import Answer, Broken, NotTaken, request


async def against(*answer: bytes, hold: bool = False) -> Answer:
    """The outcome of a request to a server that reads it and writes `answer`."""
    hung = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /task HTTP/1.1\r\n")
        assert await reader.readexactly(4) == b"body"
        for part in answer:
            writer.write(part)
            await writer.drain()
        if hold:
            await hung.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        return await request(port, "POST", "/task", b"body", timeout_s=0.2 if hold else 30.0)
    finally:
        hung.set()
        server.close()


def test_a_whole_answer() -> None:
    answer = asyncio.run(against(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b'{"a":', b"1}"))
    assert (answer.status, answer.json()) == (200, {"a": 1})


def test_an_answer_in_chunks_and_one_that_ends_with_the_connection() -> None:
    chunked = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
    assert asyncio.run(against(chunked)) == Answer(503, b"no")
    assert asyncio.run(against(b"HTTP/1.1 200 OK\r\n\r\n", b"rest")) == Answer(200, b"rest")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b"nonsense\r\n\r\n"]
)
def test_an_answer_that_ends_too_soon_is_broken(answer: bytes) -> None:
    with pytest.raises(Broken):
        asyncio.run(against(answer))


def test_a_server_that_hangs_is_given_up() -> None:
    with pytest.raises(Broken, match=r"no answer in 0\.2 s"):
        asyncio.run(against(hold=True))


def test_nobody_there_is_not_taken() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # it does not listen, and nobody else can
        with pytest.raises(NotTaken):
            asyncio.run(request(held.getsockname()[1], "GET", "/", timeout_s=30.0))

"""The reader of JSON against a server of the test's own: what is sent, what is taken, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable

import pytest

from agentd.collecting import http_reading
from agentd.collecting.json_number import at, document, number, pointer_wrong
from agentd.collecting.kinds import open_reader
from agentd.collecting.reading import Reader, ReadFailed

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


async def asked(answer: Answer, read: Callable[[Reader], Awaitable[float]], *settings: tuple[str, str]) -> float:
    """What `read` makes of a reader whose server gives each request's head to `answer`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await answer(await reader.readuntil(b"\r\n\r\n"), writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    given = dict(settings)
    url, pointer = f"http://127.0.0.1:{port}{given.pop('path', '')}", given.pop("pointer", "/queue/waiting")
    reader = open_reader("http-json", (("url", url), ("pointer", pointer), *given.items()))
    try:
        return await read(reader)
    finally:
        await reader.close()
        server.close()


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def saying(reply: bytes) -> Answer:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)

    return answer


def read(reply: bytes, *settings: tuple[str, str]) -> float:
    return asyncio.run(asked(saying(reply), lambda reader: reader.read(), *settings))


def refused(reply: bytes, *settings: tuple[str, str]) -> str:
    with pytest.raises(ReadFailed) as failed:
        read(reply, *settings)
    return str(failed.value)


DOCUMENT = json.dumps({"queue": {"waiting": 12}, "list": [1, 2.5]}).encode()


def test_a_number_is_read() -> None:
    assert read(response(DOCUMENT)) == 12
    assert read(response(DOCUMENT), ("pointer", "/list/1")) == 2.5
    assert read(response(b"7"), ("pointer", "")) == 7


def test_what_is_sent_is_what_the_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_TOKEN", "abc\n")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    heads: list[bytes] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(response(DOCUMENT))

    async def twice(reader: Reader) -> float:
        return await reader.read() + await reader.read()

    headers = (("headers.Authorization", "Bearer ${QUEUE_TOKEN}"), ("headers.X-Org", "me"))
    assert asyncio.run(asked(answer, twice, ("path", "/q?name=a%2Fb"), *headers)) == 24
    first, *fields = heads[0].decode().splitlines()
    assert first == "GET /q?name=a%2Fb HTTP/1.1"
    assert {"Authorization: Bearer abc", "X-Org: me", "accept-encoding: identity", "connection: close"} <= set(fields)
    assert len(heads) == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "the environment variable QUEUE_TOKEN is not set"),
        ("", "the environment variable QUEUE_TOKEN is not set"),
        ("a\nsecret", "the environment variable QUEUE_TOKEN holds what cannot stand in a header"),
        ("sécret", "the environment variable QUEUE_TOKEN holds what cannot stand in a header"),
    ],
)
def test_a_header_that_cannot_be_made_is_said_without_its_value(
    monkeypatch: pytest.MonkeyPatch, value: str | None, text: str
) -> None:
    monkeypatch.delenv("QUEUE_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("QUEUE_TOKEN", value)
    assert refused(response(DOCUMENT), ("headers.Authorization", "Bearer ${QUEUE_TOKEN}")) == text


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (response(b"", "401 Unauthorized"), "answered 401 Unauthorized"),
        (response(b"", "599 What"), "answered 599"),
        (
            response(b"", "302 Found", "Location: http://127.0.0.1:9/secret"),
            "answered 302 Found; redirects are not followed, so name the address it leads to",
        ),
        (response(b"<html>"), "the answer is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (response(b'{"queue": {"waiting": NaN}}'), "the answer is not JSON: NaN is not JSON"),
        (response(b"[" * 100_000), "the answer is not JSON: it is nested too deeply"),
        (response(b'{"queue": {"waiting": "12"}}'), 'what is at /queue/waiting is "12", not a number'),
        (response(b'{"queue": {"waiting": true}}'), "what is at /queue/waiting is true, not a number"),
        (response(b'{"queue": {"waiting": null}}'), "what is at /queue/waiting is null, not a number"),
        (response(b'{"queue": {"waiting": 1e999}}'), "what is at /queue/waiting is not a finite number"),
        (response(b'{"queue": {"waiting": %b}}' % (b"9" * 400)), "what is at /queue/waiting is not a finite number"),
        (response(b'{"queue": [1]}'), "nothing is at /queue/waiting: at /queue is a list of 1, which has no 'waiting'"),
        (response(b"{}"), "nothing is at /queue/waiting: the answer is an object, which has no 'queue'"),
    ],
    ids=[str(number) for number in range(13)],
)
def test_what_is_no_number_is_said(reply: bytes, text: str) -> None:
    assert refused(reply) == text


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    long = b" " * (http_reading.BODY_BYTES_MAX + 1)
    assert refused(response(long)).endswith("answered with more than 1048576 bytes")


def test_an_answer_that_would_grow_when_it_is_decoded_is_refused() -> None:
    packed = gzip.compress(DOCUMENT)
    assert refused(response(packed, "200 OK", "Content-Encoding: gzip")).endswith("was not asked for")


def test_a_server_that_ends_each_connection_without_a_word_is_read_again() -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(DOCUMENT))
        await writer.drain()
        writer.close()

    async def often(reader: Reader) -> float:
        return sum([await reader.read() for _ in range(20)])

    assert asyncio.run(asked(answer, often)) == 240


def test_a_server_that_ends_before_its_answer_does_is_said() -> None:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    with pytest.raises(ReadFailed, match=r"^cannot ask http://127"):
        asyncio.run(asked(answer, lambda reader: reader.read()))


def test_a_reader_goes_on_after_a_reading_that_was_cut_short() -> None:
    came = asyncio.Event()
    heads: list[bytes] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        came.set()
        if len(heads) > 1:
            writer.write(response(DOCUMENT))

    async def cut_and_again(reader: Reader) -> float:
        task = asyncio.create_task(reader.read())
        await came.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await reader.read()

    assert asyncio.run(asked(answer, cut_and_again)) == 12


# -- JSON pointers: the examples of RFC 6901, section 5 --------------------------------------------

EXAMPLE = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", EXAMPLE),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_a_pointer_names_what_the_standard_says(pointer: str, value: object) -> None:
    assert pointer_wrong(pointer) == ""
    assert at(EXAMPLE, pointer) == value


def test_tilde_one_is_read_before_tilde_zero() -> None:
    assert at({"~1": 5}, "/~01") == 5


@pytest.mark.parametrize(
    "pointer", ["/foo/2", "/foo/-", "/foo/01", "/foo/x", "/nothing", "/foo/0/1", f"/foo/{'9' * 99}"]
)
def test_a_pointer_to_nothing_is_refused(pointer: str) -> None:
    with pytest.raises(ReadFailed, match="nothing is at"):
        at(EXAMPLE, pointer)


@pytest.mark.parametrize("pointer", ["foo", "#/foo", "/a~b", "/a~", "/~2"])
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    assert pointer_wrong(pointer).startswith("must be a JSON pointer")


def test_a_document_in_another_encoding_than_utf_8_is_refused() -> None:
    with pytest.raises(ReadFailed, match="not JSON"):
        document(b"\xff\xfe\xfa")


def test_a_long_text_is_shown_in_short() -> None:
    with pytest.raises(ReadFailed, match=r'the answer is "x{39}\.\.\., not a number'):
        number("x" * 1000, "the answer")

"""One HTTP request on one connection to a port of this machine, over asyncio and h11.

Each request has its own connection, so that what went wrong with it tells whether the other side may have
begun the work.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from msgspec import Struct

ANSWER_BYTES_MAX = 64 * 1024 * 1024


class NotTaken(Exception):
    """No connection: the other side has not seen the request."""


class Broken(Exception):
    """The connection ended before the answer did: the request may or may not have been worked on."""


class Answer(Struct, frozen=True):
    status: int
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: it is none.
        """
        return json.loads(self.body)


async def request(port: int, method: str, path: str, body: bytes = b"", *, timeout_s: float) -> Answer:
    """Send one request to 127.0.0.1:`port` and wait for the whole answer, at most `timeout_s` seconds.

    Raises:
        NotTaken: no connection was made.
        Broken: no whole answer came, in time or at all.
    """
    try:
        async with asyncio.timeout(timeout_s):
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError as error:
                raise NotTaken(str(error)) from error
            try:
                return await _exchange(reader, writer, method, path, body)
            finally:
                writer.close()
    except TimeoutError as error:  # before OSError, which it is as well
        raise Broken(f"no answer in {timeout_s:g} s") from error
    except (OSError, h11.RemoteProtocolError) as error:
        raise Broken(str(error)) from error


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: bytes
) -> Answer:
    port = writer.get_extra_info("peername")[1]
    headers = [("Host", f"127.0.0.1:{port}"), ("Connection", "close"), ("Content-Length", str(len(body)))]
    connection = h11.Connection(h11.CLIENT)
    head = h11.Request(method=method, target=path, headers=headers)
    for part in (head, h11.Data(data=body), h11.EndOfMessage()):
        writer.write(connection.send(part) or b"")
    await writer.drain()
    status, received = 0, bytearray()
    while True:
        event = connection.next_event()
        match event:
            case h11.NEED_DATA:
                # Empty at the end of the connection, which h11 reports as an error where it comes too soon.
                connection.receive_data(await reader.read(65536))
            case h11.Response():
                status = event.status_code
            case h11.Data():
                received += event.data
                if len(received) > ANSWER_BYTES_MAX:
                    raise Broken(f"the answer is longer than {ANSWER_BYTES_MAX} bytes")
            case h11.EndOfMessage():
                return Answer(status, bytes(received))
            case h11.ConnectionClosed():
                raise Broken("the connection ended without an answer")

"""agentd-limits.service: sets the limits of agents' units, and nothing else, for agentd, which may not.

    python -m agentd.limits_service

Owns one connection to systemd, and trusts nobody who asks: `agentd.limits.read_request` decides what is a request.
systemd starts it when agentd first has a limit to set; with nothing to do for IDLE_S it ends, and so it does when it
loses systemd. The next request starts it again.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping

from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.errors import AuthError

from agentd import activation, limits

IDLE_S = 60.0
_LOOKS = 4
_SYSTEMD = "org.freedesktop.systemd1"

# Sets properties of a unit; raises LimitsError.
Set = Callable[[str, Mapping[str, int]], Awaitable[None]]


async def serve(listener: socket.socket, set_properties: Set, idle_s: float = IDLE_S) -> None:
    """Answer requests on `listener` until there has been no connection for `idle_s`."""
    connections = 0
    loop = asyncio.get_running_loop()
    quiet_since = loop.time()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, quiet_since
        connections += 1
        try:
            await _converse(reader, writer, set_properties)
        except (OSError, ValueError):  # it left, or sends a line without an end: there is nobody to answer
            pass
        finally:
            writer.close()
            connections -= 1
            quiet_since = loop.time()

    server = await asyncio.start_unix_server(connected, sock=listener, limit=limits.LINE_BYTES_MAX)
    while connections or loop.time() < quiet_since + idle_s:
        await asyncio.sleep(idle_s / _LOOKS)
    server.close()


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, set_properties: Set) -> None:
    while line := await reader.readline():
        answer: dict[str, str] = {}
        try:
            await set_properties(*limits.read_request(line))
        except (ValueError, RecursionError) as error:
            answer = {"error": "", "text": f"refused: {error}"}
        except limits.LimitsError as error:
            answer = {"error": error.name, "text": str(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()


async def set_properties(bus: MessageBus, unit: str, values: Mapping[str, int]) -> None:
    """Set runtime properties of `unit` through systemd.

    Raises:
        LimitsError: systemd refuses, or is away.
    """
    properties = [[name, Variant("t", value)] for name, value in values.items()]
    message = Message(
        destination=_SYSTEMD,
        path="/org/freedesktop/systemd1",
        interface=f"{_SYSTEMD}.Manager",
        member="SetUnitProperties",
        signature="sba(sv)",
        body=[unit, True, properties],
    )
    try:
        reply = await bus.call(message)
    except (OSError, EOFError, DBusError) as error:
        raise limits.LimitsError("", f"systemd does not answer: {error}") from error
    if reply is None or reply.message_type is MessageType.ERROR:
        name = (reply.error_name or "") if reply else ""
        raise limits.LimitsError(name, str(reply.body[0]) if reply and reply.body else name)


async def run(listener: socket.socket) -> int:
    """Serve until there is nothing to do (0), or systemd is lost (1)."""
    try:
        bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    except (OSError, EOFError, AuthError, DBusError) as error:
        print(f"agentd-limits: the system bus cannot be reached: {error}", file=sys.stderr)
        return 1

    async def ask(unit: str, values: Mapping[str, int]) -> None:
        await set_properties(bus, unit, values)

    serving = asyncio.create_task(serve(listener, ask))
    # It ends with any exception, or none; whichever it is, this process is of no use any more.
    lost = asyncio.ensure_future(bus.wait_for_disconnect())  # type: ignore[no-untyped-call]
    await asyncio.wait((serving, lost), return_when=asyncio.FIRST_COMPLETED)
    return 0 if serving.done() and serving.exception() is None else 1


def main() -> int:
    """The entry point. It serves the socket that systemd hands over, and has none of its own."""
    given = activation.take(os.environ, os.getpid()).get(limits.NAME, ())
    if len(given) != 1:
        print(
            f"agentd-limits: it is started by agentd-limits.socket, not by hand: {len(given)} sockets", file=sys.stderr
        )
        return 1
    return asyncio.run(run(given[0]))


if __name__ == "__main__":
    sys.exit(main())

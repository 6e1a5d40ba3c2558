"""How agentd has the limits of a unit set: what it asks of agentd-limits.service, over a socket.

agentd itself may not set properties of units. systemd writes what it is told into a drop-in as it is, so a text with a
line break in it adds any line to the unit, and a unit may run anything as root. agentd-limits.service
(`agentd.limits_service`) is a user and a process of its own that may, and takes nothing but the numbers below for the
units below. So agentd, taken over by somebody, could change limits, and no more.

One request is one line of JSON, `{"unit": ..., "values": {name: number}}`; the answer is one line too, `{}` or
`{"error": D-Bus name or "", "text": ...}`. A connection carries any number of them in turn.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path

from agentd import units
from agentd.errors import AgentdError
from agentd.units import AGENTS_SLICE, instance_of

SOCKET = Path("/run/agentd/limits.sock")
NAME = "limits"
"""The socket's FileDescriptorName=."""

# Each is one number of 64 bits for systemd; the largest means no limit.
PROPERTIES = frozenset(("CPUQuotaPerSecUSec", "CPUWeight", "IOWeight", "MemoryHigh", "MemoryMax", "TasksMax"))
VALUE_MAX = (1 << 64) - 1
LINE_BYTES_MAX = 4096
ANSWER_S = 35.0

_POOL_SLICE = re.compile(re.escape(AGENTS_SLICE.removesuffix(".slice")) + r"-[a-z][a-z0-9]{0,18}\.slice", re.ASCII)


class LimitsError(AgentdError):
    """The limits were not set. `name` is the D-Bus name of systemd's error, "" where systemd did not answer."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        super().__init__(text)


async def ask(socket: Path, unit: str, values: Mapping[str, int]) -> None:
    """Have the properties `values` of `unit` set at run time.

    Raises:
        LimitsError: they are not set, or nobody says that they are.
    """
    request = json.dumps({"unit": unit, "values": dict(values)}).encode() + b"\n"
    try:
        async with asyncio.timeout(ANSWER_S):
            # It ends when it has had nothing to do for a while; who comes just then finds the next one there.
            line = await _exchange(socket, request) or await _exchange(socket, request)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        text = f"{socket} is closed ({error.strerror}); `systemctl start {units.LIMITS_SOCKET}` opens it"
        raise LimitsError("", text) from error
    except PermissionError as error:
        text = f"{socket} is for root and the user agentd alone ({error.strerror})"
        raise LimitsError("", text) from error
    except (OSError, ValueError) as error:  # OSError: a timeout too; ValueError: a line without an end
        text = f"{units.LIMITS_SERVICE} does not answer: {str(error) or type(error).__name__}"
        raise LimitsError("", text) from error
    if not line.endswith(b"\n"):
        text = f"{units.LIMITS_SERVICE} ended without an answer; see journalctl -u {units.LIMITS_SERVICE}"
        raise LimitsError("", text)
    answer = json.loads(line)
    if answer:
        raise LimitsError(answer["error"], answer["text"])


async def _exchange(socket: Path, request: bytes) -> bytes:
    """What comes back for `request`; nothing where the other end went away first.

    Raises:
        OSError: nobody is there.
        ValueError: the answer has no end.
    """
    reader, writer = await asyncio.open_unix_connection(socket, limit=LINE_BYTES_MAX)
    try:
        writer.write(request)
        return await reader.readline()
    except (ConnectionResetError, BrokenPipeError):  # it ended with the request unread
        return b""
    finally:
        writer.close()


def read_request(line: bytes) -> tuple[str, dict[str, int]]:
    """The unit and the values that `line` asks for. Whoever writes to the socket is not trusted.

    Raises:
        ValueError: it is no request, or one for another unit, another property or no number.
    """
    request = json.loads(line)
    if not isinstance(request, dict) or request.keys() != {"unit", "values"}:
        raise ValueError("a request has a unit and values")
    unit, values = request["unit"], request["values"]
    if not isinstance(unit, str) or not (instance_of(unit) or _POOL_SLICE.fullmatch(unit)):
        raise ValueError(f"{unit!r} is no unit of an instance and no slice of a pool")
    if not isinstance(values, dict) or not values:
        raise ValueError("there are no values")
    for name, value in values.items():
        if name not in PROPERTIES:
            raise ValueError(f"{name!r} is no limit")
        if type(value) is not int or not 0 <= value <= VALUE_MAX:
            raise ValueError(f"{name}: {value!r} is no number of 64 bits")
    return unit, values

"""Handing a task that waits to a successor: POST /task there, and its answer back to whoever waits for it here.

Once it is sent, it is the successor's for as long as that lives: it answers, or refuses. A task may be done twice where
a successor died that had taken it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from dataclasses import dataclass

from agentd.sample.work import Answer, Job
from agentd.sdk import Agent

log = logging.getLogger("agentd.sample")

HEAD_BYTES_MAX = BODY_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    body: bytes


class HandOver:
    """Gives tasks to the agent's successors, each its share by weight."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._given: Counter[str] = Counter()

    async def __call__(self, job: Job) -> Answer | None:
        """The answer of the successor that has done `job`; None: nobody has."""
        successors = self._agent.successors
        if not successors:
            return None
        chosen = min(successors, key=lambda one: (self._given[one.id] + 1) / one.weight)
        self._given[chosen.id] += 1
        try:
            async with asyncio.timeout(self._agent.drain_left_s):
                connection = await asyncio.open_connection(chosen.host, chosen.port, limit=HEAD_BYTES_MAX)
            # No timeout from here on: it may have begun there, and must not begin here too.
            response = await _post(*connection, chosen.host, _body(job))
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            log.warning("cannot hand a task to %s: %s", chosen.id, error or type(error).__name__)
            return None
        if response.status != 200:
            log.warning("cannot hand a task to %s: it answered %d", chosen.id, response.status)
            return None
        return Answer(response.body)


def _body(job: Job) -> bytes:
    fields: dict[str, object] = {"service_s": job.service_s, "cpu_s": job.cpu_s}
    return json.dumps(fields | ({"id": job.id} if job.id else {})).encode()


async def _post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, body: bytes) -> _Response:
    """One request, for answers that say how long they are. Closes the connection.

    Raises:
        OSError, EOFError, ValueError, LimitOverrunError: nobody answered, or no such answer.
    """
    try:
        head = f"POST /task HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "-1"))
        if not 0 <= length <= BODY_BYTES_MAX:
            raise ValueError(f"an answer of {length} bytes")
        return _Response(int(status.split(" ")[1]), await reader.readexactly(length))
    except IndexError:
        raise ValueError("no answer of HTTP") from None
    finally:
        writer.close()

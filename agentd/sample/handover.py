"""Handing a task that waits to a successor: POST /task there, and its answer back to whoever waits for it here.

A task may be done twice: a successor that took it and did not get its answer through is no reason to lose it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from dataclasses import dataclass

from agentd.sample.work import Answer, Job
from agentd.sdk import Agent
from agentd.sdk.drain import Successor

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
                response = await _post(chosen, json.dumps({"service_s": job.service_s, "cpu_s": job.cpu_s}).encode())
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            log.warning("cannot hand a task to %s: %s", chosen.id, error or type(error).__name__)
            return None
        if response.status != 200:
            log.warning("cannot hand a task to %s: it answered %d", chosen.id, response.status)
            return None
        return Answer(response.body)


async def _post(to: Successor, body: bytes) -> _Response:
    """One request on a connection of its own, for answers that say how long they are.

    Raises:
        OSError, EOFError, ValueError, LimitOverrunError: nobody answered, or no such answer.
    """
    reader, writer = await asyncio.open_connection(to.host, to.port, limit=HEAD_BYTES_MAX)
    try:
        head = f"POST /task HTTP/1.1\r\nHost: {to.host}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
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

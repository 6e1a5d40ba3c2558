"""The demo's beginning: from the start of agentd to the first agent that is ready, told as it goes.

Owns the waiting and what is said meanwhile; it starts and ends nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentd.demo.child import Agentd
from agentd.demo.fleet import Api, Look, Silent

READY_S = 60.0
MISSING_S = 20.0  # so long without an agent that it is worth a line
LOOK_S = 0.25

# What can keep agents from getting ready: agentd warns of it.
WARNINGS = frozenset(("port_conflict", "start_failed", "crash_loop", "late", "vanished", "store", "config_rejected"))


class Opening:
    """Waits for agentd and for one ready agent of `pool`."""

    def __init__(self, api: Api, agentd: Agentd, pool: str, say: Callable[[str], None]) -> None:
        self._api = api
        self._agentd = agentd
        self._pool = pool
        self._say = say
        self._since_wall = time.time()  # what earlier runs left in the history is no news
        self.last_event = 0
        self._missing = ""

    async def wait(self, *ends: asyncio.Future[Any]) -> Look | None:
        """The first look with a ready agent. None: one of `ends` was done first, or `READY_S` went by."""
        began = time.monotonic()
        told = False
        while not any(end.done() for end in ends):
            if (look := await self._look()) is not None and not any(end.done() for end in ends):
                return look
            waited_s = time.monotonic() - began
            if waited_s > READY_S:
                self._say(f"giving up after {READY_S:g} s: {self._missing}")
                return None
            if waited_s > MISSING_S and not told:
                told = True
                self._say(f"still waiting after {MISSING_S:g} s: {self._missing}")
            await asyncio.wait(ends, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        return None

    async def _look(self) -> Look | None:
        """One look; None: something is missing, and `_missing` says what."""
        try:
            if not await self._api.ready(self._agentd.state_dir):
                self._missing = f"agentd does not answer on port {self._api.port} yet; see {self._agentd.log_file}"
                return None
            look = await self._api.look(self._pool)
            await self._tell_warnings()
        except Silent as error:
            self._missing = str(error)
            return None
        if look.in_state("ready"):
            return look
        self._missing = _missing(self._pool, look)
        return None

    async def _tell_warnings(self) -> None:
        for event in await self._api.events(self.last_event):
            self.last_event = event.id
            if event.type in WARNINGS and event.wall >= self._since_wall:
                self._say(f"{event.type.replace('_', ' ')}: {event.instance}: {event.reason}")


def port_is_busy(lines: list[str]) -> bool:
    """Whether agentd ended because of the address of its HTTP API, going by the end of its log."""
    return any("cannot listen on" in line and "listen.http" in line for line in lines)


def shown_log(path: Path, lines: list[str]) -> list[str]:
    """The end of agentd's log, with its name as the heading."""
    return [f"the end of {path}:", *(f"    {line}" for line in lines)]


def _missing(pool: str, look: Look) -> str:
    if not look.enabled:
        return "multi_agent.enabled is false in the configuration: agentd starts no agent"
    agents = [
        f"{each.id} is {each.state}{f' ({each.cause})' if each.cause and each.state != 'ready' else ''}"
        for each in look.instances
    ]
    return f"no agent of pool {pool} is ready: {'; '.join(agents) or 'it has none yet'}"

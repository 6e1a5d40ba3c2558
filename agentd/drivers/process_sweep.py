"""Ends what an instance leaves behind: the rest of its session, and children that left it.

Owns: looking for leftovers and killing them. Never touches a process that the table does not give to the
incarnation in question, and never this process itself.

One reading of /proc serves all who ask for it at that moment, and the readings together take at most a fifth of
one core, so that five hundred exits at once do not cost five hundred readings.
"""

from __future__ import annotations

import asyncio
import os
import signal

import agentd.log
from agentd.drivers.process_table import ProcessTable, Remains, Row, Snapshot, read_stat

REST_RATIO = 4.0
"""After a reading that took t seconds the next one waits REST_RATIO * t."""

CLEAR_S_MAX = 30.0
"""How long leftovers are given to die of SIGKILL; only one stuck in the kernel outlives it."""

log = agentd.log.get("driver")


class Sweeper:
    """Shared by all instances of one driver; use it from one event loop."""

    def __init__(self, table: ProcessTable) -> None:
        self._table = table
        self._next: asyncio.Task[Snapshot] | None = None
        self._rest_until = 0.0

    async def snapshot(self) -> Snapshot:
        """The host's processes, read after this call began.

        Raises:
            OSError: they cannot be read now.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._read_soon(), name="read processes")
        return await asyncio.shield(self._next)

    async def clear(self, remains: Remains) -> None:
        """Kill everything that is left of `remains`. Returns when it is gone.

        What cannot be killed (another user's process, one stuck in the kernel) is named in the log and left.

        Raises:
            OSError: the host's processes cannot be read or held now.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CLEAR_S_MAX
        immune: set[int] = set()
        while left := [row for row in (await self.snapshot()).left_of(remains) if row.pid not in immune]:
            if loop.time() >= deadline:
                pids = [row.pid for row in left]
                log.error("cannot kill leftovers", incarnation=remains.incarnation, pids=pids)
                return
            dying: list[int] = []
            try:
                for row in left:
                    pidfd = _kill(row, immune)
                    if pidfd is not None:
                        dying.append(pidfd)
                await _gone(dying, deadline - loop.time())
            finally:
                for pidfd in dying:
                    os.close(pidfd)

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
            self._next = None

    async def _read_soon(self) -> Snapshot:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(self._rest_until - loop.time())
        finally:
            self._next = None
        began = loop.time()
        snapshot = self._table.scan()
        ended = loop.time()
        self._rest_until = ended + REST_RATIO * (ended - began)
        return snapshot


def open_pidfd(row_pid: int, start_ticks: int) -> int | None:
    """A pidfd for exactly the process that started at `start_ticks`; None where it is gone or dead.

    Raises:
        OSError: no descriptor is left.
    """
    try:
        pidfd = os.pidfd_open(row_pid)
    except ProcessLookupError:
        return None
    try:
        stat = read_stat(row_pid)
    except OSError:
        os.close(pidfd)
        raise
    if stat is None or stat.start_ticks != start_ticks or not stat.alive:
        os.close(pidfd)
        return None
    return pidfd


def _kill(row: Row, immune: set[int]) -> int | None:
    """Send SIGKILL to the process of `row`; the pidfd to wait on, None where there is nothing to wait for."""
    pidfd = open_pidfd(row.pid, row.start_ticks)
    if pidfd is None:
        return None
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        os.close(pidfd)
        return None
    except PermissionError:
        os.close(pidfd)
        immune.add(row.pid)
        log.warning("cannot kill a leftover of another user", pid=row.pid)
        return None
    return pidfd


async def _gone(pidfds: list[int], timeout_s: float) -> None:
    """Wait until every process of `pidfds` has ended, or for `timeout_s`."""
    loop = asyncio.get_running_loop()
    ended = [loop.create_future() for _ in pidfds]
    for pidfd, future in zip(pidfds, ended, strict=True):
        loop.add_reader(pidfd, _settle, loop, pidfd, future)
    try:
        if ended:
            await asyncio.wait(ended, timeout=timeout_s)
    finally:
        for pidfd in pidfds:
            loop.remove_reader(pidfd)


def _settle(loop: asyncio.AbstractEventLoop, pidfd: int, future: asyncio.Future[None]) -> None:
    loop.remove_reader(pidfd)
    if not future.done():
        future.set_result(None)

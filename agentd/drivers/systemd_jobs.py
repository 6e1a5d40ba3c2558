"""What systemd is told to do with one unit: start, stop, kill, forget its failures.

Owns the jobs: a call of systemd queues one, and a signal tells how it ended; where the signal was lost, the unit is
asked. Remembers nothing of instances, and decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from agentd.core.model import HealthCheck, InstanceSpec
from agentd.drivers.systemd_bus import SERVICE, SYSTEMD, UNIT, BusError, SystemdBus
from agentd.drivers.systemd_failures import start_failed
from agentd.drivers.systemd_instance import Entry
from agentd.drivers.systemd_unit import Process, read_incarnation, read_process, read_run

JOB_LOOK_S = 5.0
"""A job whose end no signal has told is asked after so often."""

_KILL = 9
_NOTHING_THERE = frozenset(f"{SYSTEMD}.{name}" for name in ("NoSuchUnit", "NoSuchProcess", "UnitMasked", "LoadFailed"))


class UnitJobs:
    """`run` does something in the background, under a name."""

    def __init__(self, bus: SystemdBus, run: Callable[[Coroutine[Any, Any, None], str], object]) -> None:
        self._bus = bus
        self._run = run

    async def start(self, entry: Entry, spec: InstanceSpec, program: str) -> Process:
        """Start the unit of `entry`, which is stopped. `program` is how `spec` names what it runs.

        Returns when the program runs. One that says itself when it is ready is watched by its health check as soon as
        there is a process; without a check its word is waited for.

        Raises:
            StartError: systemd tried and failed; nothing is left behind.
            BusError: systemd refused, or cannot be reached.
        """
        until_ready = not spec.notify or spec.health is HealthCheck.NONE
        before = await read_incarnation(self._bus, entry.unit)

        async def is_born() -> bool:
            process = await read_process(self._bus, entry.unit)
            return process.pid != 0 and process.incarnation != before

        job = await self._bus.manager("StartUnit", "ss", entry.unit, "replace")
        result = await self._end_of(entry, job, None if until_ready else is_born)
        process = await read_process(self._bus, entry.unit)
        if process.pid and result in ("done", ""):
            return process
        run = await read_run(self._bus, entry.unit)
        if run.pid and run.incarnation != before and (result == "done" or run.was_up):
            return run.process  # it has ended already, as a next look will see
        await self.stop(entry)
        raise start_failed(entry.id, entry.unit, program, run, result)

    async def stop(self, entry: Entry) -> bool:
        """Stop the unit until it is stopped, and let nothing of it be listed; whether SIGKILL was needed.

        Kills at the deadline of `entry`, where it has one. Raises BusError.
        """
        forced, active = False, ""
        entry.kill_with(lambda: self._begin_kill(entry))
        try:
            while active not in ("inactive", "failed"):
                job = await self._bus.manager("StopUnit", "ss", entry.unit, "replace")
                await self._end_of(entry, job)
                rows = await self._bus.units((entry.unit,))
                active = rows[0].active if rows else "inactive"
            if active == "failed":
                forced = await self._bus.get(entry.unit, SERVICE, "Result") == "timeout"
                await self.forgive(entry)
        except BusError as error:
            if error.name not in _NOTHING_THERE:
                raise
        finally:
            entry.kill_with(None)
        return forced or entry.killed

    async def forgive(self, entry: Entry) -> None:
        """Reset the unit's failure, its count of restarts and its start limit. Raises BusError."""
        try:
            await self._bus.manager("ResetFailedUnit", "s", entry.unit)
        except BusError as error:
            if error.name not in _NOTHING_THERE:
                raise

    def _begin_kill(self, entry: Entry) -> None:
        self._run(self._kill(entry), f"kill {entry.id}")

    async def _kill(self, entry: Entry) -> None:
        try:
            await self._bus.manager("KillUnit", "ssi", entry.unit, "all", _KILL)
            entry.killed = True
        except BusError as error:
            if error.name not in _NOTHING_THERE:
                raise

    async def _end_of(self, entry: Entry, job: str, until: Callable[[], Awaitable[bool]] | None = None) -> str:
        """Wait for the end of a job; its result, "" where nobody has told, or where `until` came true before."""
        while job not in entry.jobs:
            entry.woken.clear()
            if until is not None and await until():
                return ""
            if job in entry.jobs:
                break
            try:
                async with asyncio.timeout(JOB_LOOK_S):
                    await entry.woken.wait()
            except TimeoutError:
                entry.missed_signals = True
            if entry.missed_signals:
                number, _ = await self._bus.get(entry.unit, UNIT, "Job")
                if number == 0:
                    return entry.jobs.get(job, "")
        return entry.jobs[job]

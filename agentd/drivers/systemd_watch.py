"""Looks at the units of all instances and tells what has become of them.

Owns the look: list the units, read what may have changed, compare it with what is remembered, report the difference.
Signals only say that a look is worth while. Starts and stops nothing itself.

    RUNNING ──ends──> BACKOFF (systemd restarts it) ──> RUNNING ...
       │                 └── too often ──> FAILED
       └── an operator's systemctl stop: held, and not listed

An instance that a start or stop of ours moves is left to that call; what a look saw before the call is void.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from agentd.core.messages import (
    HostStopping,
    InstanceExited,
    InstanceGaveUp,
    InstanceHeld,
    InstanceStarted,
)
from agentd.core.model import ExitCause, ExitKind, InstanceId, Phase, StartFailure, parse_instance_id
from agentd.drivers import DriverEvent
from agentd.drivers.systemd_bus import MANAGER, UNIT, SystemdBus, UnitRow
from agentd.drivers.systemd_failures import not_begun, where_to_look
from agentd.drivers.systemd_instance import Entry
from agentd.drivers.systemd_limits import MemoryWitness
from agentd.drivers.systemd_unit import (
    NOT_FOUND_STATUS,
    Run,
    Standing,
    read_incarnation,
    read_process,
    read_run,
    standing,
    waits,
)
from agentd.units import PATTERN, TARGET, instance_of

UNWATCHED = ExitCause(ExitKind.UNKNOWN)


class Watcher:
    """Keeps `entries` true.

    `report` takes what is to be told. `began(entry)` is called when an incarnation was first seen running,
    `end(entry)` when systemd is to be kept from restarting one. `is_ours` knows the instances that agentd wants.
    """

    def __init__(
        self,
        bus: SystemdBus,
        root: Path,
        entries: dict[InstanceId, Entry],
        *,
        port_probe: Callable[[int], object | None],
        report: Callable[[DriverEvent], Awaitable[None]],
        began: Callable[[Entry], None],
        end: Callable[[Entry], None],
        is_ours: Callable[[InstanceId], bool],
    ) -> None:
        self._bus = bus
        self._entries = entries
        self._witness = MemoryWitness(root)
        self._port_probe = port_probe
        self._report = report
        self._began = began
        self._end = end
        self._is_ours = is_ours
        self._one_at_a_time = asyncio.Lock()
        self._hinted: set[InstanceId] = set()
        self._all_hinted = True
        self.number = 0
        self._target = ""
        self._target_is_being = ""
        self._told_that_all_stop = False
        self.something = asyncio.Event()
        """Set while there is a hint that has not been looked at."""

    def hint(self, instance: InstanceId) -> None:
        """Something about `instance` may have changed."""
        self._hinted.add(instance)
        self.something.set()

    def hint_all(self) -> None:
        self._all_hinted = True
        self.something.set()

    def kills(self, instance: InstanceId) -> int:
        """See `MemoryWitness.kills`."""
        return self._witness.kills(instance)

    async def look(self, *, at_all: bool) -> None:
        """Bring what is remembered up to date, and report what has changed.

        `at_all`: read each unit again; else only those that were hinted at or are listed differently.

        Raises:
            BusError: not all could be looked at; the next look makes up for it.
        """
        async with self._one_at_a_time:
            self.something.clear()
            at_all, self._all_hinted = at_all or self._all_hinted, False
            hinted, self._hinted = self._hinted, set()
            self.number += 1
            try:
                rows = {row.name: row for row in await self._bus.units((PATTERN, TARGET))}
                await self._notice_target(rows.pop(TARGET, None))
                by_id = {instance: row for name, row in rows.items() if (instance := instance_of(name))}
                for instance in by_id:
                    self._entries.setdefault(instance, Entry(instance))
                looks = [
                    self._judge(entry, by_id.get(entry.id))
                    for entry in self._entries.values()
                    if at_all or entry.id in hinted or _phase(by_id.get(entry.id)) is not entry.phase
                ]
                for result in await asyncio.gather(*looks, return_exceptions=True):
                    if isinstance(result, BaseException):
                        raise result
            except BaseException:
                self._hinted |= hinted
                self._all_hinted |= at_all
                raise

    async def all_stops(self) -> bool:
        """Whether the host or the target of all agents is going down; told once. Raises BusError."""
        if await self._bus.get("", MANAGER, "SystemState") == "stopping":
            text = "the host is shutting down"
        elif self._target_is_being:
            text = f"{TARGET} is being {self._target_is_being}"
        else:
            self._told_that_all_stop = False
            return False
        if not self._told_that_all_stop:
            self._told_that_all_stop = True
            await self._report(HostStopping(text))
        return True

    # -- one instance ---------------------------------------------------------------------------

    async def _judge(self, entry: Entry, row: UnitRow | None) -> None:
        number = self.number
        if entry.lock.locked():
            return  # the call under way finds out by itself
        async with entry.lock:
            entry.told = None
            if entry.moved >= number:
                self.hint(entry.id)
                return
            match standing(row):
                case Standing.RUNNING:
                    await self._running(entry, stops=row is not None and row.job in ("stop", "restart"))
                case Standing.WAITING:
                    await self._waiting(entry)
                case Standing.FAILED:
                    await self._failed(entry)
                case Standing.GONE:
                    await self._gone(entry)
                case Standing.MOVING if self._target_is_being and row is not None and row.active == "inactive":
                    await self._gone(entry)  # its next start waits for that of the next agentd
                case Standing.MOVING:
                    pass  # its job's end is a signal
        if entry.is_news():
            self.hint(entry.id)

    async def _running(self, entry: Entry, *, stops: bool) -> None:
        if entry.phase is not Phase.RUNNING or not entry.is_latest(await read_incarnation(self._bus, entry.unit)):
            process = await read_process(self._bus, entry.unit)
            if not process.incarnation or not process.pid:
                return  # it has moved on, which is a signal
            before, was_held = entry.phase, entry.held
            await self._lost(entry)
            entry.run(process, self.kills(entry.id), ready=await self._is_ready(entry))
            self._began(entry)
            if before is not None or was_held:
                await self._report(InstanceStarted(entry.id, process.incarnation, process.pid, entry.ready))
        elif not entry.ready and entry.process is not None and await self._is_ready(entry):
            entry.ready = True
            await self._report(InstanceStarted(entry.id, entry.process.incarnation, entry.process.pid))
        if stops:
            await self.all_stops()

    async def _is_ready(self, entry: Entry) -> bool:
        """Whether its program has said so. Where its word is known not to decide, nobody waits for it."""
        if entry.spec is not None and not entry.spec.has_last_word:
            return True
        return await self._bus.get(entry.unit, UNIT, "ActiveState") not in ("activating", "deactivating")

    async def _waiting(self, entry: Entry) -> None:
        if entry.phase is None and not self._is_ours(entry.id):
            return  # nobody has asked us to start it
        run = await read_run(self._bus, entry.unit)
        if not waits(run.sub):
            self.hint(entry.id)
            return
        seen = entry.is_latest(run.incarnation)
        if entry.phase is Phase.BACKOFF and (seen or run.pid == 0):
            entry.not_begun = run.result if run.pid == 0 else ""
            return
        known = entry.phase is not None
        if not seen:
            await self._lost(entry)
            if known and run.pid:  # it came and went between two looks
                await self._report(InstanceStarted(entry.id, run.incarnation, run.pid))
        cause = self._remember_end(entry, run)
        if entry.spec is None and known:
            entry.leave(None)
            await self._report(InstanceExited(entry.id, run.incarnation, cause, restart_in_s=-1.0))
            self._end(entry)
            return
        entry.leave(Phase.BACKOFF)
        await self._report(InstanceExited(entry.id, run.incarnation, cause, run.restart_in_s))
        await self._give_way(entry)

    async def _give_way(self, entry: Entry) -> None:
        """Give up an instance whose port somebody else has taken: its next process could not listen."""
        holder = None
        if entry.spec is not None:
            with suppress(OSError):  # the host cannot tell at the moment; then the agent finds out
                holder = self._port_probe(entry.spec.port)
        if holder is None or not waits(await self._bus.get(entry.unit, UNIT, "SubState")):
            return  # nobody has it, or the instance itself by now
        text = f"cannot restart {entry.id}: port {parse_instance_id(entry.id)[1]} is held by {holder}"
        await self._give_up(entry, StartFailure.PORT_TAKEN, text)
        self._end(entry)

    async def _failed(self, entry: Entry) -> None:
        if entry.phase is Phase.FAILED or entry.held or (entry.phase is None and not self._is_ours(entry.id)):
            return
        run = await read_run(self._bus, entry.unit)
        if run.sub != "failed":
            self.hint(entry.id)
            return
        ended_unasked = entry.phase is Phase.BACKOFF and entry.is_latest(run.incarnation)
        cause = entry.cause if entry.cause and entry.is_latest(run.incarnation) else self._remember_end(entry, run)
        if run.stopped_first and not ended_unasked:
            await self._stopped_by_others(entry)
            return
        failure, text = StartFailure.CRASH_LOOP, f"{entry.id} ended with {cause}, and its unit is not restarted"
        if entry.not_begun or run.pid == 0:
            failure = StartFailure.SPAWN_FAILED
            text = f"cannot restart {entry.id}: {not_begun(entry.not_begun or run.result)}"
        elif run.exited and run.status == NOT_FOUND_STATUS:
            failure = StartFailure.COMMAND_NOT_FOUND
            text = f"{entry.id} found no such program ({cause}), and is not tried again"
        elif run.restarts:  # the start limit: systemd says so only where nothing else had failed before
            await self._give_up(
                entry, failure, f"{entry.id} ended {run.restarts} times in a row, the last time with {cause}"
            )
            return
        await self._give_up(entry, failure, f"{text}; {where_to_look(entry.unit)}")

    async def _gone(self, entry: Entry) -> None:
        if entry.phase in (Phase.RUNNING, Phase.BACKOFF):
            await self._stopped_by_others(entry)
        entry.leave(None)

    # -- what has become of it ------------------------------------------------------------------

    async def _lost(self, entry: Entry) -> None:
        """An incarnation that ran when it was last looked at is no more: how it ended, nobody has seen.

        But for kills for memory, where the kernel counts them: a restart may be quicker than a look on a busy host.
        """
        if entry.phase is Phase.RUNNING and entry.process is not None:
            killed_for_memory = self._witness.blames_memory(entry.id, entry.kills_at_birth, limit_bytes=None)
            cause = ExitCause(ExitKind.OOM, signal.SIGKILL) if killed_for_memory else UNWATCHED
            await self._report(InstanceExited(entry.id, entry.process.incarnation, cause, restart_in_s=0.0))

    def _remember_end(self, entry: Entry, run: Run) -> ExitCause:
        entry.process = run.process
        killed_for_memory = self._witness.blames_memory(entry.id, entry.kills_at_birth, run.memory_max_bytes)
        entry.cause = run.cause(out_of_memory=killed_for_memory)
        entry.not_begun = ""
        return entry.cause

    async def _give_up(self, entry: Entry, failure: StartFailure, text: str) -> None:
        entry.leave(Phase.FAILED)
        await self._report(InstanceGaveUp(entry.id, failure, text))

    async def _stopped_by_others(self, entry: Entry) -> None:
        """It was stopped, and not by agentd: by an operator who means it alone, or with everything else."""
        everything = await self.all_stops()
        entry.leave(None)
        if everything:
            return
        entry.held = True
        resume = f"`systemctl start {entry.unit.removesuffix('.service')}` or `agentctl restart {entry.id}` resumes it"
        await self._report(InstanceHeld(entry.id, f"stopped by an operator; {resume}"))

    async def _notice_target(self, row: UnitRow | None) -> None:
        """The target goes down before the first agent does. One that never was up says nothing.

        In a restart it is up again at once, as another incarnation, and agentd is restarted with it.
        """
        is_up = row is not None and row.active in ("active", "activating", "reloading")
        incarnation = await read_incarnation(self._bus, TARGET) if is_up else ""
        self._target = self._target or incarnation
        self._target_is_being = ""
        if self._target and (not is_up or (row is not None and row.job == "stop")):
            self._target_is_being = "stopped"
        elif incarnation != self._target:
            self._target_is_being = "restarted"


def _phase(row: UnitRow | None) -> Phase | None:
    """What an instance is remembered as whose unit stands so; FAILED, or held, where an operator stopped it."""
    match standing(row):
        case Standing.RUNNING:
            return Phase.RUNNING
        case Standing.WAITING:
            return Phase.BACKOFF
        case Standing.FAILED:
            return Phase.FAILED
        case _:
            return None

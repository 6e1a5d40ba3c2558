"""Runs instances as child processes, each in a session of its own.

Owns: starting, watching, restarting in place and ending agents' processes; taking over those that an earlier agentd
started. Never decides how many there are, and asks no database what runs: that is read from /proc, by the
environment that agents were born with, so that a lost database loses no agent and another agentd's agents are never
touched. Only of processes whose environment says nothing any more does a file of births tell whose they are.

A process is a pidfd, never a pid alone. Its life:

    start ──> RUNNING ──exits──> (its leftovers are killed) ──> BACKOFF ──delay──> RUNNING ...
                 │                                                 └─ attempts_max exits ──> FAILED
                 └─ stop: TERM to the leader, grace, KILL; then its leftovers; then nothing is left

TERM goes to the leader alone: an agent's children may be tools in the middle of the task that it wants to finish.

Two living incarnations of one id: the one already watched stays, else the newest; any other is asked to end and
given `DUPLICATE_GRACE_S` to finish its task. Processes of an incarnation without a leader are killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import agentd.log
from agentd.clock import Clock, SystemClock
from agentd.core.messages import InstanceExited, InstanceGaveUp, InstanceStarted
from agentd.core.model import (
    ExitCause,
    Incarnation,
    InstanceId,
    InstanceSpec,
    Observed,
    Phase,
    StartFailure,
)
from agentd.drivers import Capacity, DriverEvent
from agentd.drivers.process_births import Births
from agentd.drivers.process_instance import Entry, Live
from agentd.drivers.process_limits import capacity, raise_fd_limit
from agentd.drivers.process_spawn import Spawner, inheritable
from agentd.drivers.process_sweep import Sweeper, open_pidfd
from agentd.drivers.process_table import Owner, ProcessTable, Remains, Row, age_s, read_stat
from agentd.errors import StartError

__all__ = ["ProcessDriver", "raise_fd_limit"]

DUPLICATE_GRACE_S = 120.0
"""What a superseded incarnation is given to finish its task."""

REPORTS_MAX = 4096
"""Reports that nobody has read yet. A restart in place waits until its report has room."""

STARTS_IN_TURN_MAX = 8
"""Starts that follow each other before the loop does anything else; each blocks it for about a millisecond.

What comes of them is then stored and told together.
"""

RETRY_S = 1.0
"""How long a host that is out of descriptors or memory is left alone."""

log = agentd.log.get("driver")
T = TypeVar("T")


class ProcessDriver:
    """The driver `process`. Use it from one event loop.

    `state_id` names the state directory whose agents these are. `port_probe(port)` gives whoever listens on a port
    (`str()` of it is shown to people), or None. `sample_command` runs where a specification has no command.
    `chance` spreads restarts. `fd_soft_limit` is what agents get; None leaves them agentd's own.
    `births` is the file that knows those whose environment says nothing any more.
    """

    name = "process"

    def __init__(
        self,
        *,
        state_id: str,
        agent_endpoint: str,
        log_dir: Path,
        port_probe: Callable[[int], object | None],
        sample_command: tuple[str, ...],
        chance: Callable[[], float] = random.random,
        clock: Clock | None = None,
        fd_soft_limit: int | None = None,
        births: Path | None = None,
    ) -> None:
        self._spawner = Spawner(
            state_id, agent_endpoint, log_dir, sample_command, fd_soft_limit, inheritable(os.environ)
        )
        self._port_probe = port_probe
        self._chance = chance
        self._clock = clock or SystemClock()
        self._births = Births(births)
        self._sweeper = Sweeper(ProcessTable(state_id, self._births.owner))
        self._entries: dict[InstanceId, Entry] = {}
        self._looked = False  # at the host, at least once
        self._starts_in_turn = 0
        self._reports: asyncio.Queue[DriverEvent | BaseException | None] = asyncio.Queue(REPORTS_MAX)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending: dict[Incarnation, Entry] = {}  # leftovers and duplicates on their way out
        self._let_go: set[Incarnation] = set()  # that run on and may not be signalled

    # -- the protocol ---------------------------------------------------------------------------

    async def start(self, spec: InstanceSpec) -> Observed:
        """See `Driver.start`. The way out of BACKOFF and FAILED too; earlier failures are forgotten."""
        await self._look_once()
        entry = self._entries.setdefault(spec.id, Entry(spec.id))
        while entry.stopping is not None:  # the later call wins
            await asyncio.wait((entry.stopping,))
        async with entry.lock:
            entry.spec = spec
            if entry.phase is not Phase.RUNNING:
                entry.cancel_recovery()
                entry.phase = None
                entry.failures = 0
                await self._launch(entry, spec)
            return entry.observed()

    async def stop(self, instance: InstanceId, grace_s: float) -> bool:
        """See `Driver.stop`. Not needing SIGKILL means the leader ended within its grace."""
        await self._look_once()
        entry = self._entries.get(instance)
        if entry is None:
            return False
        return await asyncio.shield(self._begin_stop(entry, grace_s))

    async def list(self) -> tuple[Observed, ...]:
        """See `Driver.list`. Begins to watch what it did not know, and ends leftovers and duplicates."""
        found = (await self._sweeper.snapshot()).leaders()
        self._looked = True
        self._let_go.intersection_update(owner.incarnation for owner in found)
        leaders: dict[InstanceId, list[tuple[Row, Owner]]] = {}
        for owner, leader in found.items():
            if owner.incarnation in self._let_go:
                continue
            if leader is None:
                self._end_leftovers(owner)
            else:
                leaders.setdefault(owner.instance, []).append((leader, owner))
        unwatched = [self._notice(instance, candidates) for instance, candidates in leaders.items()]
        listed = [entry.observed() for entry in self._entries.values() if entry.phase is not None]
        return tuple(sorted(chain(listed, *unwatched), key=lambda observed: observed.id))

    async def watch(self) -> AsyncIterator[DriverEvent]:
        """See `Driver.watch`. Ends with `close`; raises what went wrong inside the driver."""
        while (report := await self._reports.get()) is not None:
            if isinstance(report, BaseException):
                raise report
            yield report

    async def capacity(self) -> Capacity:
        return capacity()

    async def close(self) -> None:
        """See `Driver.close`. The driver is not usable afterwards."""
        entries = (*self._entries.values(), *self._ending.values())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sweeper.close()
        for entry in entries:
            if entry.live is not None:
                asyncio.get_running_loop().remove_reader(entry.live.pidfd)
                os.close(entry.live.pidfd)
        self._entries.clear()
        self._report_now(None)

    def learn(self, specs: Iterable[InstanceSpec]) -> None:
        """See `Driver.learn`."""
        known = {spec.id: spec for spec in specs}
        for entry in self._entries.values():
            entry.spec = known.get(entry.id)
            if entry.spec is None and entry.phase is Phase.BACKOFF:
                entry.cancel_recovery()
                entry.phase = None
                self._recovering(entry, self._clear_patiently(entry))

    # -- starting -------------------------------------------------------------------------------

    async def _launch(self, entry: Entry, spec: InstanceSpec) -> None:
        """Start a new incarnation; `entry.lock` is held.

        Starts take turns with everything else on the loop.

        Raises:
            StartError: there is no new process.
        """
        try:
            await self._clear_remains(entry)
        except OSError as error:
            text = f"cannot start {spec.id}: cannot end what is left of its earlier run: {error}"
            raise StartError(StartFailure.SPAWN_FAILED, text) from error
        await self._turn()
        try:
            holder = self._port_probe(spec.port)
        except OSError as error:
            text = f"cannot start {spec.id}: cannot probe port {spec.port}: {error}"
            raise StartError(StartFailure.SPAWN_FAILED, text) from error
        if holder is not None:
            text = f"cannot start {spec.id}: port {spec.port} is held by {holder}"
            raise StartError(StartFailure.PORT_TAKEN, text)
        spawned = self._spawner.spawn(spec)
        try:
            stat = read_stat(spawned.pid)
            pidfd = os.pidfd_open(spawned.pid)
        except OSError as error:
            os.killpg(spawned.pid, signal.SIGKILL)
            os.waitpid(spawned.pid, 0)
            text = f"cannot start {spec.id}: cannot watch its process: {error}"
            raise StartError(StartFailure.SPAWN_FAILED, text) from error
        assert stat is not None, "a child stays in /proc until it is reaped, and only its pidfd does that"
        self._births.note(Owner(spec.id, spawned.incarnation), spawned.pid, stat.start_ticks)
        self._follow(entry, Remains(spawned.incarnation, spawned.pid, stat.start_ticks), pidfd, ran_s=0.0)

    async def _turn(self) -> None:
        """Wait where starts have held the loop long enough for now."""
        while self._starts_in_turn >= STARTS_IN_TURN_MAX:
            await asyncio.sleep(0)
        if not self._starts_in_turn:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._starts_in_turn += 1

    def _next_turn(self) -> None:
        self._starts_in_turn = 0

    def _follow(self, entry: Entry, remains: Remains, pidfd: int, *, ran_s: float) -> None:
        loop = asyncio.get_running_loop()
        live = Live(remains, pidfd, self._clock.now() - ran_s, loop.create_future())
        entry.run(live, self._clock.wall() - ran_s)
        loop.add_reader(pidfd, self._exited, entry, live)

    # -- exits ----------------------------------------------------------------------------------

    def _exited(self, entry: Entry, live: Live) -> None:
        asyncio.get_running_loop().remove_reader(live.pidfd)
        cause = live.reap()
        os.close(live.pidfd)
        entry.exited(live)
        live.ended(cause)
        if entry.stopping is None:
            self._recovering(entry, self._recover(entry, live, cause))

    def _recovering(self, entry: Entry, work: Coroutine[Any, Any, None]) -> None:
        entry.recovery = self._run(work, f"recover {entry.id}")
        entry.recovery.add_done_callback(entry.recovered)

    async def _recover(self, entry: Entry, live: Live, cause: ExitCause) -> None:
        """After an exit nobody asked for: kill the leftovers, wait, restart, or give up."""
        if entry.spec is None:
            await self._reports.put(InstanceExited(entry.id, entry.incarnation, cause, restart_in_s=-1.0))
            await self._clear_patiently(entry)
            return
        loop = asyncio.get_running_loop()
        failures = entry.count_failure(self._clock.now() - live.started)
        text = f"{entry.id} ended {failures} times in a row, the last time with {cause}"
        if failures >= entry.spec.restart.attempts_max:
            await self._give_up(entry, StartFailure.CRASH_LOOP, text)
            return
        delay_s = entry.spec.restart.delay_s(failures, self._chance())
        resume_at = loop.time() + delay_s
        await self._reports.put(InstanceExited(entry.id, entry.incarnation, cause, delay_s))
        await self._clear_patiently(entry)
        await asyncio.sleep(resume_at - loop.time())
        while (error := await self._relaunch(entry)) is not None:
            failures = entry.count_failure(None)
            if error.cause is StartFailure.PORT_TAKEN or failures >= entry.spec.restart.attempts_max:
                await self._give_up(entry, error.cause, str(error))
                return
            await asyncio.sleep(entry.spec.restart.delay_s(failures, self._chance()))

    async def _relaunch(self, entry: Entry) -> StartError | None:
        async with entry.lock:
            assert entry.spec is not None
            try:
                await self._launch(entry, entry.spec)
            except StartError as error:
                return error
            observed = entry.observed()
        await self._reports.put(InstanceStarted(entry.id, observed.incarnation, observed.pid))
        return None

    async def _give_up(self, entry: Entry, cause: StartFailure, text: str) -> None:
        entry.phase = Phase.FAILED
        await self._reports.put(InstanceGaveUp(entry.id, cause, text))
        await self._clear_patiently(entry)

    async def _clear_remains(self, entry: Entry) -> None:
        remains = entry.remains
        if remains is not None:
            await self._sweeper.clear(remains)
            if entry.remains is remains:
                entry.remains = None

    async def _clear_patiently(self, entry: Entry) -> None:
        """`_clear_remains`, again and again until the host has what it takes. For what can be cancelled."""
        refusal = ""
        while True:
            try:
                return await self._clear_remains(entry)
            except OSError as error:
                if str(error) != refusal:
                    refusal = str(error)
                    log.warning("cannot look for leftovers yet", instance=entry.id, cause=refusal)
            await asyncio.sleep(RETRY_S)

    # -- stopping -------------------------------------------------------------------------------

    def _begin_stop(self, entry: Entry, grace_s: float) -> asyncio.Task[bool]:
        entry.hurry(asyncio.get_running_loop().time() + grace_s)
        if entry.stopping is None:
            entry.stopping = self._run(self._stop(entry), f"stop {entry.id}")
        return entry.stopping

    async def _stop(self, entry: Entry) -> bool:
        try:
            entry.cancel_recovery()
            async with entry.lock:  # a start under way ends first
                live = entry.live
                if live is not None:
                    live.signal(signal.SIGTERM)
                    live.signal(signal.SIGCONT)  # a stopped process handles nothing
                    entry.arm(live)
                    await live.exited
                    if entry.live is live:
                        self._let_it_go(entry, live)
                await self._clear_remains(entry)
                return live is not None and live.killed
        finally:
            entry.stopped()

    def _let_it_go(self, entry: Entry, live: Live) -> None:
        """Forget a leader that runs on. What else is left of its incarnation is killed as far as it may be."""
        log.error("left a process running that may not be signalled", instance=entry.id, pid=live.remains.pid)
        self._let_go.add(live.remains.incarnation)
        asyncio.get_running_loop().remove_reader(live.pidfd)
        os.close(live.pidfd)
        entry.exited(live)

    # -- adoption -------------------------------------------------------------------------------

    async def _look_once(self) -> None:
        """Know what runs before the first change: starting what an earlier agentd runs would double it."""
        if not self._looked:
            await self.list()

    def _notice(self, instance: InstanceId, leaders: Iterable[tuple[Row, Owner]]) -> tuple[Observed, ...]:
        """Adopt the newest of the living leaders of one id, and end the others.

        Returns it only where it runs but cannot be watched.
        """
        entry = self._entries.setdefault(instance, Entry(instance))
        *older, newest = sorted(leaders, key=lambda leader: leader[0].start_ticks)
        unwatched: tuple[Observed, ...] = ()
        if entry.live is None:
            if entry.is_moving():
                return ()  # the next list sees the result
            try:
                self._adopt(entry, *newest)
            except OSError as error:
                row, owner = newest
                log.warning("cannot watch a running instance", instance=instance, cause=error)
                wall = self._clock.wall() - age_s(row.start_ticks)
                unwatched = (Observed(instance, owner.incarnation, row.pid, Phase.RUNNING, wall),)
        else:
            older.append(newest)
        for row, owner in older:
            if owner.incarnation != entry.incarnation and owner.incarnation not in self._ending:
                self._end_duplicate(row, owner)
        return unwatched

    def _adopt(self, entry: Entry, row: Row, owner: Owner) -> None:
        pidfd = open_pidfd(row.pid, row.start_ticks)
        if pidfd is not None:
            remains = Remains(owner.incarnation, row.pid, row.start_ticks)
            self._follow(entry, remains, pidfd, ran_s=age_s(row.start_ticks))

    def _end_duplicate(self, row: Row, owner: Owner) -> None:
        shadow = Entry(owner.instance)
        try:
            self._adopt(shadow, row, owner)
        except OSError as error:
            log.warning("cannot end a second incarnation", instance=owner.instance, pid=row.pid, cause=error)
        if shadow.live is not None:
            log.warning("ending a second incarnation", instance=owner.instance, pid=row.pid)
            self._end(owner, shadow, self._begin_stop(shadow, DUPLICATE_GRACE_S))

    def _end_leftovers(self, owner: Owner) -> None:
        entry = self._entries.get(owner.instance)
        if owner.incarnation in self._ending or (entry is not None and entry.holds(owner.incarnation)):
            return
        log.warning("killing leftovers of an instance", instance=owner.instance)
        clearing = self._sweeper.clear(Remains(owner.incarnation))
        self._end(owner, Entry(owner.instance), self._run(clearing, f"clear {owner.instance}"))

    def _end(self, owner: Owner, entry: Entry, task: asyncio.Task[Any]) -> None:
        self._ending[owner.incarnation] = entry
        task.add_done_callback(lambda _: self._ending.pop(owner.incarnation))

    # -- work in the background -----------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ran)
        return task

    def _ran(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, OSError):  # the host is out of something; a next call or list makes up for it
            log.warning("host trouble", work=task.get_name(), cause=error)
        elif error is not None:
            self._report_now(error)

    def _report_now(self, report: BaseException | None) -> None:
        """Tell the consumer that it ends here, whatever it has not read yet."""
        if self._reports.full():
            self._reports.get_nowait()
        self._reports.put_nowait(report)

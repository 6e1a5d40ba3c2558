"""Runs instances as systemd units, `agent@research-9101.service`, in slices of their own.

Owns: starting and stopping units, and what systemd needs to know for it (the file of each instance, its limits).
systemd restarts what exits, by the template's `Restart=`, also while agentd is away; the driver watches, tells, and
resets the count of failures of an instance that has been well for a while. Never calls a program, never needs root: a
polkit rule lets agentd's user do all this to these units and to no others.

There is one driver for a host. It knows nothing by heart: what runs is what systemd lists. An instance's incarnation
is the invocation id of its unit.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import agentd.log
from agentd.clock import Clock, SystemClock
from agentd.core.messages import InstanceWarned
from agentd.core.model import InstanceId, InstanceSpec, Observed, Phase, StartFailure, parse_instance_id
from agentd.drivers import Capacity, DriverEvent
from agentd.drivers.commands import command_words
from agentd.drivers.systemd_bus import SERVICE, BusAway, BusError, SystemdBus
from agentd.drivers.systemd_failures import denial, is_denied, start_refused
from agentd.drivers.systemd_files import InstanceFiles
from agentd.drivers.systemd_instance import Entry
from agentd.drivers.systemd_jobs import UnitJobs
from agentd.drivers.systemd_limits import Limits
from agentd.drivers.systemd_unit import UNKNOWN
from agentd.drivers.systemd_watch import Watcher
from agentd.errors import AgentdError, StartError
from agentd.units import instance_of

REPORTS_MAX = 4096
"""Reports that nobody has read yet. Looking at units waits until there is room."""

LOOK_PAUSE_S = 0.01
LOOK_PAUSE_RATIO = 3.0
"""After a look that took t the next one waits LOOK_PAUSE_RATIO * t: looks take at most a quarter of systemd's time."""

RETRY_S = 1.0

log = agentd.log.get("driver")
T = TypeVar("T")


class SystemdDriver:
    """The driver `systemd`. Use it from one event loop.

    `instances_dir` holds the instances' files. `port_probe(port)` gives whoever listens on a port (`str()` of it is
    shown to people), or None. `sample_command` runs where a specification has no command. `bus_address` None: the
    system bus. `root`: where the host's file system begins.
    """

    name = "systemd"

    def __init__(
        self,
        *,
        agent_endpoint: str,
        instances_dir: Path,
        port_probe: Callable[[int], object | None],
        sample_command: tuple[str, ...],
        bus_address: str | None = None,
        root: Path = Path("/"),
        clock: Clock | None = None,
    ) -> None:
        self._files = InstanceFiles(instances_dir, agent_endpoint=agent_endpoint, sample_command=sample_command)
        self._port_probe = port_probe
        self._sample_command = sample_command
        self._clock = clock or SystemClock()
        self._bus = SystemdBus(bus_address, self)
        self._root = root
        self._limits = Limits(self._bus, root, direct=os.geteuid() == 0)
        self._jobs = UnitJobs(self._bus, self._run)
        self._entries: dict[InstanceId, Entry] = {}
        self._reports: asyncio.Queue[DriverEvent | BaseException | None] = asyncio.Queue(REPORTS_MAX)
        self._watched = False
        self._watcher = Watcher(
            self._bus,
            root,
            self._entries,
            port_probe=port_probe,
            report=self._reports.put,
            began=self._forgive_later,
            end=self._end_unasked,
            is_ours=self._files.has,
        )
        self._opening = asyncio.Lock()
        self._opened = False
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- the protocol ---------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the host's units over. Every other method does this first, once.

        Raises:
            AgentdError: systemd cannot be reached, or another agentd runs this host's agents.
        """
        async with self._opening:
            if self._opened:
                return
            self._files.lock()
            try:
                await self._bus.open()
                await self._watcher.look(at_all=True)
            except BusError as error:
                await self._bus.close()
                self._files.unlock()
                text = f"cannot reach systemd over the system bus: {error}; is dbus running?"
                raise AgentdError(text) from error
            self._opened = True
            self._run(self._keep_looking(), "look at units")

    async def start(self, spec: InstanceSpec) -> Observed:
        """See `Driver.start`. The way out of BACKOFF and FAILED too; earlier failures are forgotten."""
        await self.open()
        entry = self._entries.setdefault(spec.id, Entry(spec.id))
        while entry.stopping is not None:  # the later call wins
            await asyncio.wait((entry.stopping,))
        async with entry.lock:
            entry.spec = spec
            if entry.phase is not Phase.RUNNING:
                try:
                    await self._calling(entry, self._launch(entry, spec))
                except StartError as error:
                    if error.cause is not StartFailure.DRIVER_AWAY:
                        entry.spec = None
                    raise
            return entry.observed()

    async def stop(self, instance: InstanceId, grace_s: float) -> bool:
        """See `Driver.stop`. Not needing SIGKILL means that the main process ended within its grace."""
        await self.open()
        entry = self._entries.get(instance)
        if entry is None:
            self._files.remove(instance)
            return False
        entry.hurry(asyncio.get_running_loop().time() + grace_s)
        if entry.stopping is None:
            entry.stopping = self._run(self._stop(entry, grace_s), f"stop {instance}")
        return await asyncio.shield(entry.stopping)

    async def list(self) -> tuple[Observed, ...]:
        """See `Driver.list`. What it finds changed is reported before it returns."""
        await self.open()
        await self._watcher.look(at_all=True)
        if self._watched:
            await self._reports.join()  # a listing must not overtake the report that explains it
        listed = [entry for entry in self._entries.values() if entry.phase is not None]
        return tuple(entry.observed() for entry in sorted(listed, key=lambda entry: entry.id))

    async def watch(self) -> AsyncIterator[DriverEvent]:
        """See `Driver.watch`. Ends with `close`; raises what went wrong inside the driver."""
        self._watched = True
        while True:
            report = await self._reports.get()
            try:
                if report is None:
                    return
                if isinstance(report, BaseException):
                    raise report
                yield report
            finally:
                self._reports.task_done()

    def learn(self, specs: Iterable[InstanceSpec]) -> None:
        """See `Driver.learn`. Rewrites the instances' files, which systemd's next restart of each reads."""
        known = {spec.id: spec for spec in specs}
        for entry in self._entries.values():
            if entry.calling and entry.id in known:
                continue  # a start writes what is to be known, and a stop leaves nothing to restart
            entry.spec = known.get(entry.id)
            if entry.spec is not None and (entry.phase is not None or entry.held):
                with _minding_files(entry.id):
                    self._files.write(entry.spec)
                self._forgive_later(entry)
            if entry.spec is None and (entry.phase is Phase.BACKOFF or entry.held):
                entry.leave(None)
                entry.held = False
                self._end_unasked(entry)
        with _minding_files():
            for instance in self._files.instances():
                if instance not in known:
                    self._files.remove(instance)

    async def capacity(self) -> Capacity:
        await self.open()
        return Capacity(None, "systemd sets no bound")

    async def close(self) -> None:
        """See `Driver.close`. The driver is not usable afterwards."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bus.close()
        self._files.unlock()
        for entry in self._entries.values():
            entry.leave(None)
        self._entries.clear()
        self._report_now(None)

    # -- starting -------------------------------------------------------------------------------

    async def _launch(self, entry: Entry, spec: InstanceSpec) -> None:
        """Start a new incarnation.

        Raises:
            StartError: there is none.
        """
        try:
            # A start would wait for a restart that is pending, and count earlier failures.
            if entry.phase is not None or entry.held:
                await self._jobs.stop(entry)
                await self._jobs.forgive(entry)
                entry.leave(None)
                entry.held = False
            holder = self._port_probe(spec.port)
            if holder is not None:
                text = f"cannot start {spec.id}: port {spec.port} is held by {holder}"
                raise StartError(StartFailure.PORT_TAKEN, text)
            self._files.write(spec)
            await self._set_limits(entry, spec)
            kills = self._watcher.kills(spec.id)
            words = command_words(spec, self._sample_command)
            # Where its word alone says when it is ready, nobody else counts how long that takes.
            async with asyncio.timeout(spec.start_timeout_s if spec.has_last_word else None):
                process = await self._jobs.start(entry, spec, words[0] if words else "")
        except TimeoutError as error:
            await self._jobs.stop(entry)
            self._files.remove(spec.id)
            text = f"cannot start {spec.id}: its program did not say READY=1 within {spec.start_timeout_s:g} s"
            raise StartError(StartFailure.TIMEOUT, text) from error
        except BusAway as error:  # it may run by now: its file stays, so that it is an agent like the others
            raise start_refused(spec.id, entry.unit, error, self._root) from error
        except BusError as error:
            self._files.remove(spec.id)
            await self._watcher.all_stops()  # one reason to be refused, and the one to be told of
            raise start_refused(spec.id, entry.unit, error, self._root) from error
        except OSError as error:
            raise StartError(StartFailure.SPAWN_FAILED, f"cannot start {spec.id}: {error}") from error
        except StartError:
            self._files.remove(spec.id)
            raise
        entry.run(process, kills)
        for text in self._limits.amiss(spec.id, spec.resources):
            await self._reports.put(InstanceWarned(spec.id, text))

    async def _set_limits(self, entry: Entry, spec: InstanceSpec) -> None:
        await self._limits.set(spec.id, spec.resources)
        if spec.pool_max:
            others = [e for e in self._entries.values() if e is not entry and _pool(e.id) == spec.pool and e.phase]
            count = max(spec.pool_max, len(others) + 1)
            await self._limits.set_wall(spec.pool, spec.resources, count, others_run=bool(others))

    # -- stopping -------------------------------------------------------------------------------

    async def _stop(self, entry: Entry, grace_s: float) -> bool:
        try:
            async with entry.lock:
                return await self._calling(entry, self._stop_for_good(entry, grace_s))
        except BusError as error:
            if is_denied(error):
                raise BusError(error.name, denial(error)) from error
            raise
        finally:
            entry.stopped()

    async def _stop_for_good(self, entry: Entry, grace_s: float) -> bool:
        if entry.phase is Phase.RUNNING:
            await self._warn_of_short_grace(entry, grace_s)
        forced = await self._jobs.stop(entry)
        self._files.remove(entry.id)
        entry.leave(None)
        entry.held = False
        return forced

    async def _warn_of_short_grace(self, entry: Entry, grace_s: float) -> None:
        allowed = await self._bus.get(entry.unit, SERVICE, "TimeoutStopUSec")
        if allowed != UNKNOWN and allowed / 1e6 < grace_s:
            text = f"its grace of {grace_s:g} s is longer than TimeoutStopSec= of its unit: it ends after "
            await self._reports.put(InstanceWarned(entry.id, f"{text}{allowed / 1e6:g} s"))

    def _end_unasked(self, entry: Entry) -> None:
        """Keep systemd from restarting an instance that nobody wants, or that could not run."""

        async def end() -> None:
            async with entry.lock:
                if entry.phase in (None, Phase.FAILED):
                    await self._calling(entry, self._jobs.stop(entry))
                    self._files.remove(entry.id)

        self._run(end(), f"end {entry.id}")

    # -- forgiving ------------------------------------------------------------------------------

    def _forgive_later(self, entry: Entry) -> None:
        """Have systemd forget earlier failures once the instance has been well for long enough."""
        if entry.forgiving is not None or entry.spec is None or entry.phase is not Phase.RUNNING:
            return
        process = entry.process
        if process is None or process.restarts == 0:
            return
        ran_s = self._clock.wall() - process.started_wall
        left_s = max(0.0, entry.spec.restart.healthy_s - max(0.0, ran_s))

        def forgive() -> None:
            entry.forgiving = None
            if entry.phase is Phase.RUNNING and entry.process is process:
                self._run(self._jobs.forgive(entry), f"forgive {entry.id}")

        entry.forgiving = asyncio.get_running_loop().call_later(left_s, forgive)

    # -- hints ----------------------------------------------------------------------------------

    def unit_changed(self, unit: str, active: str, sub: str, incarnation: str) -> None:
        instance = instance_of(unit)
        if instance is None:
            return
        entry = self._entries.get(instance)
        if entry is None:
            self._watcher.hint(instance)
            return
        entry.told = (active, sub, incarnation)
        entry.woken.set()
        if not entry.calling:
            self._look_again(entry)

    def job_ended(self, unit: str, job: str, result: str) -> None:
        instance = instance_of(unit)
        entry = self._entries.get(instance) if instance else None
        if entry is not None and entry.calling:
            entry.job_ended(job, result)

    def all_may_have_changed(self) -> None:
        for entry in self._entries.values():
            entry.missed_signals = True
            entry.woken.set()
        self._watcher.hint_all()

    def _look_again(self, entry: Entry) -> None:
        """Look at `entry` where its last signal told of something new."""
        if entry.is_news():
            self._watcher.hint(entry.id)

    async def _calling(self, entry: Entry, call: Coroutine[Any, Any, T]) -> T:
        """Make a call that moves `entry`, whose lock is held: what a look saw until it ended is void."""
        entry.begin_call()
        entry.moved = self._watcher.number
        try:
            return await call
        finally:
            entry.end_call()
            entry.moved = self._watcher.number
            self._look_again(entry)

    async def _keep_looking(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._watcher.something.wait()
            began = loop.time()
            try:
                await self._watcher.look(at_all=False)
            except BusError as error:
                log.warning("cannot look at units yet", cause=error)
                self._watcher.something.set()
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(max(LOOK_PAUSE_S, LOOK_PAUSE_RATIO * (loop.time() - began)))

    # -- work in the background -----------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ran)
        return task

    def _ran(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, OSError):  # the host's trouble; a next call or list makes up for it
            log.warning("host trouble", work=task.get_name(), cause=error)
        elif error is not None:
            self._report_now(error)

    def _report_now(self, report: BaseException | None) -> None:
        """Tell the consumer that it ends here, whatever it has not read yet."""
        if self._reports.full():
            self._reports.get_nowait()
            self._reports.task_done()
        self._reports.put_nowait(report)


def _pool(instance: InstanceId) -> str:
    return parse_instance_id(instance)[0]


@contextmanager
def _minding_files(instance: str = "") -> Iterator[None]:
    """A file that cannot be changed is the host's trouble: the instance would be restarted as it was, or not at all."""
    try:
        yield
    except OSError as error:
        log.warning("cannot change what a restart runs", instance=instance, cause=error)

"""A scripted driver: the protocol of a driver without processes, for tests and simulation.

`MemoryHost` is the machine: it owns what runs, survives the drivers attached to it (agentd's restarts), and is where
a test scripts what happens to instances. `MemoryDriver` is one agentd's hands on that machine. Neither touches the
real host. Times are those of the running event loop.
"""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from msgspec import Struct, field

from agentd.clock import Clock, SystemClock
from agentd.core.messages import InstanceExited, InstanceGaveUp, InstanceStarted
from agentd.core.model import (
    ExitCause,
    ExitKind,
    Incarnation,
    InstanceId,
    InstanceSpec,
    Observed,
    Phase,
    StartFailure,
)
from agentd.drivers import Capacity, DriverEvent
from agentd.errors import StartError

FIRST_PID = 1000

T = TypeVar("T")


class MemoryProcess(Struct):
    """A process that exists in name only. `ended` is called once, with the cause of its end."""

    instance: InstanceId
    incarnation: Incarnation
    pid: int
    started: float
    started_wall: float
    ended: Callable[[ExitCause], None] | None = None


class MemoryHost:
    """The machine. What it is told about an instance holds for every agentd (`state_id`) that has one of that id."""

    def __init__(self, instances_max: int | None = None) -> None:
        self.instances_max = instances_max
        self.processes: dict[tuple[str, InstanceId], MemoryProcess] = {}
        self.starts: list[InstanceId] = []  # every process ever started, in order
        self._failures: dict[InstanceId, deque[StartError]] = defaultdict(deque)
        self._crashes: dict[InstanceId, deque[ExitCause]] = defaultdict(deque)
        self._stop_s: dict[InstanceId, float] = {}

    # -- the script -----------------------------------------------------------------------------

    def fail_next_start(self, instance: InstanceId, cause: StartFailure, text: str = "scripted") -> None:
        """Let the next start or restart of `instance` fail; calls add up."""
        self._failures[instance].append(StartError(cause, text))

    def crash_next_starts(self, instance: InstanceId, times: int, cause: ExitCause) -> None:
        """Let the next `times` processes of `instance` end as soon as they run."""
        self._crashes[instance].extend([cause] * times)

    def slow_stop(self, instance: InstanceId, takes_s: float) -> None:
        """Let `instance` take this long to end after TERM; by default it ends at once."""
        self._stop_s[instance] = takes_s

    def exit(self, instance: InstanceId, cause: ExitCause | None = None) -> None:
        """End the running process of `instance`, by default with exit code 1.

        Raises:
            KeyError: it does not run.
        """
        found = [key for key in self.processes if key[1] == instance]
        if not found:
            raise KeyError(instance)
        for key in found:
            self.end(key, cause or ExitCause(ExitKind.EXIT, 1))

    # -- what drivers use -----------------------------------------------------------------------

    def spawn(self, state_id: str, instance: InstanceId, clock: Clock) -> MemoryProcess:
        """Run a new process.

        Raises:
            StartError: as scripted.
        """
        if self._failures[instance]:
            raise self._failures[instance].popleft()
        self.starts.append(instance)
        number = len(self.starts)
        incarnation = Incarnation(f"{number:032x}")
        process = MemoryProcess(instance, incarnation, FIRST_PID + number, clock.now(), clock.wall())
        key = (state_id, instance)
        self.processes[key] = process
        if self._crashes[instance]:
            cause = self._crashes[instance].popleft()
            asyncio.get_running_loop().call_soon(self.end, key, cause, process)
        return process

    def end(self, key: tuple[str, InstanceId], cause: ExitCause, process: MemoryProcess | None = None) -> None:
        """End what runs under `key`; with `process`, only if that is what runs there."""
        running = self.processes.get(key)
        if running is None or (process is not None and running is not process):
            return
        del self.processes[key]
        if running.ended is not None:
            running.ended(cause)

    def stop_s(self, instance: InstanceId) -> float:
        return self._stop_s.get(instance, 0.0)


class _Entry(Struct):
    """What a driver remembers of one id; the counterpart of the process driver's."""

    id: InstanceId
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    spec: InstanceSpec | None = None
    phase: Phase | None = None
    process: MemoryProcess | None = None  # the latest, also after its end
    failures: int = 0
    recovery: asyncio.Task[None] | None = None
    stopping: asyncio.Task[bool] | None = None
    deadline: float | None = None
    hurried: asyncio.Event = field(default_factory=asyncio.Event)

    def observed(self) -> Observed:
        assert self.phase is not None
        assert self.process is not None
        pid = self.process.pid if self.phase is Phase.RUNNING else 0
        return Observed(self.id, self.process.incarnation, pid, self.phase, self.process.started_wall)

    def cancel_recovery(self) -> None:
        if self.recovery is not None:
            self.recovery.cancel()
            self.recovery = None


class MemoryDriver:
    """The driver `memory`."""

    name = "memory"

    def __init__(
        self,
        host: MemoryHost,
        *,
        state_id: str = "memory",
        chance: Callable[[], float] = lambda: 0.0,
        clock: Clock | None = None,
    ) -> None:
        self.host = host
        self._state_id = state_id
        self._chance = chance
        self._clock = clock or SystemClock()
        self._entries: dict[InstanceId, _Entry] = {}
        self._reports: asyncio.Queue[DriverEvent | BaseException | None] = asyncio.Queue()  # as long as the script
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- the protocol ---------------------------------------------------------------------------

    async def start(self, spec: InstanceSpec) -> Observed:
        self._adopt()
        entry = self._entries.setdefault(spec.id, _Entry(spec.id))
        while entry.stopping is not None:
            await asyncio.wait((entry.stopping,))
        async with entry.lock:
            entry.spec = spec
            if entry.phase is not Phase.RUNNING:
                entry.cancel_recovery()
                entry.phase = None
                entry.failures = 0
                self._launch(entry)
            return entry.observed()

    async def stop(self, instance: InstanceId, grace_s: float) -> bool:
        self._adopt()
        entry = self._entries.get(instance)
        if entry is None:
            return False
        deadline = asyncio.get_running_loop().time() + grace_s
        if entry.deadline is None or deadline < entry.deadline:
            entry.deadline = deadline
            entry.hurried.set()
        if entry.stopping is None:
            entry.stopping = self._run(self._stop(entry))
        return await asyncio.shield(entry.stopping)

    async def list(self) -> tuple[Observed, ...]:
        self._adopt()
        return tuple(entry.observed() for _, entry in sorted(self._entries.items()) if entry.phase is not None)

    async def watch(self) -> AsyncIterator[DriverEvent]:
        while (report := await self._reports.get()) is not None:
            if isinstance(report, BaseException):
                raise report
            yield report

    async def capacity(self) -> Capacity:
        return Capacity(self.host.instances_max, "as scripted")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self._running().values():
            process.ended = None
        self._entries.clear()
        self._reports.put_nowait(None)

    def learn(self, specs: Iterable[InstanceSpec]) -> None:
        """See `Driver.learn`."""
        known = {spec.id: spec for spec in specs}
        for entry in self._entries.values():
            entry.spec = known.get(entry.id)
            if entry.spec is None and entry.phase is Phase.BACKOFF:
                entry.cancel_recovery()
                entry.phase = None

    # -- how it works ---------------------------------------------------------------------------

    def _running(self) -> dict[InstanceId, MemoryProcess]:
        return {key[1]: process for key, process in self.host.processes.items() if key[0] == self._state_id}

    def _adopt(self) -> None:
        for instance, process in self._running().items():
            entry = self._entries.setdefault(instance, _Entry(instance))
            if process.ended is None:
                self._follow(entry, process)

    def _launch(self, entry: _Entry) -> None:
        self._follow(entry, self.host.spawn(self._state_id, entry.id, self._clock))

    def _follow(self, entry: _Entry, process: MemoryProcess) -> None:
        entry.process = process
        entry.phase = Phase.RUNNING
        process.ended = lambda cause: self._ended(entry, process, cause)

    def _ended(self, entry: _Entry, process: MemoryProcess, cause: ExitCause) -> None:
        entry.hurried.set()
        entry.phase = None
        if entry.stopping is None:
            entry.phase = Phase.BACKOFF if entry.spec is not None else None
            entry.recovery = self._run(self._recover(entry, process, cause))

    async def _recover(self, entry: _Entry, process: MemoryProcess, cause: ExitCause) -> None:
        if entry.spec is None:
            self._reports.put_nowait(InstanceExited(entry.id, process.incarnation, cause, restart_in_s=-1.0))
            return
        if self._clock.now() - process.started >= entry.spec.restart.healthy_s:
            entry.failures = 0
        entry.failures += 1
        if entry.failures >= entry.spec.restart.attempts_max:
            text = f"{entry.id} ended {entry.failures} times in a row, the last time with {cause}"
            self._give_up(entry, StartFailure.CRASH_LOOP, text)
            return
        delay_s = entry.spec.restart.delay_s(entry.failures, self._chance())
        self._reports.put_nowait(InstanceExited(entry.id, process.incarnation, cause, delay_s))
        await asyncio.sleep(delay_s)
        while (error := await self._relaunch(entry)) is not None:
            entry.failures += 1
            if error.cause is StartFailure.PORT_TAKEN or entry.failures >= entry.spec.restart.attempts_max:
                self._give_up(entry, error.cause, str(error))
                return
            await asyncio.sleep(entry.spec.restart.delay_s(entry.failures, self._chance()))

    async def _relaunch(self, entry: _Entry) -> StartError | None:
        async with entry.lock:
            try:
                self._launch(entry)
            except StartError as error:
                return error
            assert entry.process is not None
            self._reports.put_nowait(InstanceStarted(entry.id, entry.process.incarnation, entry.process.pid))
        return None

    def _give_up(self, entry: _Entry, cause: StartFailure, text: str) -> None:
        entry.phase = Phase.FAILED
        self._reports.put_nowait(InstanceGaveUp(entry.id, cause, text))

    async def _stop(self, entry: _Entry) -> bool:
        loop = asyncio.get_running_loop()
        try:
            entry.cancel_recovery()
            async with entry.lock:
                ends_at = loop.time() + self.host.stop_s(entry.id)
                forced = False
                while entry.phase is Phase.RUNNING:
                    assert entry.deadline is not None
                    entry.hurried.clear()
                    try:
                        async with asyncio.timeout_at(min(entry.deadline, ends_at)):
                            await entry.hurried.wait()
                    except TimeoutError:
                        forced = entry.deadline < ends_at
                        number = signal.SIGKILL if forced else signal.SIGTERM
                        self.host.end((self._state_id, entry.id), ExitCause(ExitKind.SIGNAL, number))
                return forced
        finally:
            entry.stopping = entry.deadline = entry.phase = None
            entry.failures = 0

    def _run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)
        return task

    def _ran(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._reports.put_nowait(error)

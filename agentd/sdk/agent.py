"""What a program uses to be an agent of agentd.

    async with Agent.from_env() as agent:
        agent.on_drain(stop_accepting)
        ...
        async with agent.task():
            await work()

`Agent` counts the tasks, reports them by heartbeat, says when to stop taking new ones, and tells agentd when the last
is finished. It never ends the process, never handles signals and never fails because agentd is away. Started by hand,
without agentd's environment, the same program runs and reports to nobody.

As a systemd unit it also tells systemd: on entering READY=1 and that it is to be killed when it stands still for 30 s
(or the unit's WatchdogSec=), on leaving that nobody watches it any more, and meanwhile, that a drain takes its time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from agentd.sdk.calling import Caller
from agentd.sdk.checking import check_callback, check_label, queue_length
from agentd.sdk.drain import Drain, Stage, Successor
from agentd.sdk.latch import Latch
from agentd.sdk.notify import Notifier
from agentd.sdk.settings import Settings
from agentd.sdk.workload import Workload

if TYPE_CHECKING:
    from agentd.sdk.reporter import Reporter

log = logging.getLogger("agentd.sdk")

LABELS_MAX = 16


class Task:
    """One task from acceptance to end, as a context manager, plain or `async`; made by `Agent.task`. Use it once."""

    def __init__(self, workload: Workload, since: float) -> None:
        self._workload = workload
        self._since = since
        self._entered = False

    def __enter__(self) -> Self:
        if self._entered:
            raise RuntimeError("cannot enter a task twice: agent.task() makes one for each")
        self._entered = True
        self._workload.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workload.end(self._since)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class Agent:
    """This process as an agent. Use it once, as a context manager: `with` or `async with`.

    The first heartbeat, sent on entering, tells agentd that the agent is ready: enter when the port listens.
    All methods may be called from any thread.

    Attributes:
        instance: the id agentd gave, for example `research-9101`; empty without agentd.
        incarnation: the mark of this one life of the instance; empty without agentd.
        port: the port to serve on; 0 without agentd, which lets the kernel choose one.
        concurrency: tasks to work on at a time, at least 1. agentd may change it: see `on_configure`.
        stopping: set when agentd has no more use for this process and sends no TERM (see `superseded`): finish the
            tasks and exit. A drain, a restart and a scale-down never set it: they end with TERM, at which Python ends
            without cleaning up. So who has something to clean up handles TERM, and waits for either.
        superseded: another incarnation took this one's place, or agentd does not know it.
    """

    def __init__(
        self,
        *,
        endpoint: str = "",
        instance: str = "",
        incarnation: str = "",
        port: int = 0,
        concurrency: int = 1,
        notifier: Notifier | None = None,
    ) -> None:
        """An agent that reports to `endpoint` (gRPC syntax); to nobody when that is empty. `notifier` tells systemd.

        Raises:
            ValueError: a value is out of range, or `endpoint` comes without `instance` and `incarnation`.
        """
        if endpoint and not (instance and incarnation):
            raise ValueError("cannot report to agentd: instance and incarnation are needed with an endpoint")
        if concurrency < 1:
            raise ValueError(f"cannot work on {concurrency} tasks at a time: concurrency must be at least 1")
        if not 0 <= port <= 65535:
            raise ValueError(f"cannot serve on port {port}: expected 0 to 65535")
        self.instance = instance
        self.incarnation = incarnation
        self.port = port
        self.concurrency = concurrency
        self.stopping = Latch()
        self.superseded = False
        self._endpoint = endpoint
        self._notifier = notifier
        self._load: float | None = None
        self._labels: dict[str, str] = {}
        self._workload = Workload(concurrency, self._changed)
        self._reporter: Reporter | None = None
        self._entered = self._left = False
        self._caller = Caller()
        self._drain = Drain(self._workload, self._acknowledge, self._caller)
        self._settings = Settings(concurrency, self._set_concurrency, self._acknowledge, self._caller)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """The agent that agentd started this process as, from the AGENTD_* variables, and systemd's where it did it.

        Raises:
            ValueError: a variable is missing or no number.
        """
        endpoint = env.get("AGENTD_ENDPOINT", "")
        for name in ("AGENTD_INSTANCE", "AGENTD_INCARNATION"):
            if endpoint and not env.get(name):
                raise ValueError(f"cannot report to agentd: {name} is not set, though AGENTD_ENDPOINT is")
        return cls(
            endpoint=endpoint,
            instance=env.get("AGENTD_INSTANCE", ""),
            incarnation=env.get("AGENTD_INCARNATION", ""),
            port=_whole_number(env, "AGENTD_PORT", 0),
            concurrency=_whole_number(env, "AGENTD_CONCURRENCY", 1),
            notifier=Notifier.from_env(env, os.getpid()),
        )

    # -- work ------------------------------------------------------------------------------------

    def task(self, *, queued_at: float | None = None) -> Task:
        """A task, for `with` or `async with`: in flight inside, completed after, also when it raised.

        The response time counts from this call, or from `queued_at` (`time.monotonic()` when it was accepted).

        Raises:
            RuntimeError: the agent's context has been left: nobody would hear of the task or wait for it.
        """
        if self._left:
            raise RuntimeError("cannot begin a task after the agent's context: ask agent.accepting at the door")
        return Task(self._workload, time.monotonic() if queued_at is None else queued_at)

    @property
    def in_flight(self) -> int:
        """Tasks begun and not finished."""
        return self._workload.in_flight

    @property
    def queue_length(self) -> int:
        """Tasks accepted and not begun, as the program last said."""
        return self._workload.queue_length

    @queue_length.setter
    def queue_length(self, tasks: int) -> None:
        self.queue(tasks)

    def queue(self, tasks: int) -> None:
        """Say how many tasks are accepted and not begun; best, one counts until it is in `task`.

        Raises:
            TypeError: `tasks` is not whole.
            ValueError: it is negative or above 10⁹.
        """
        self._workload.set_queue_length(queue_length(tasks))

    @property
    def load(self) -> float | None:
        """The load that the program gives; None: the SDK measures it.

        Measured is the mean over the last interval of min(1, (in flight + queued) / concurrency). A given load
        is limited to 0..1 and reported until it is changed.

        Raises:
            ValueError: on setting it to something that is not a number.
        """
        return self._load

    @load.setter
    def load(self, load: float | None) -> None:
        if load is not None and math.isnan(load):
            raise ValueError("cannot report a load that is not a number")
        self._load = None if load is None else min(1.0, max(0.0, load))
        self._workload.set_load(self._load)

    def label(self, name: str, value: str) -> None:
        """Show `name`=`value` beside the agent, for example its model. At most 16, of at most 128 bytes each.

        Raises:
            TypeError: `name` or `value` is no text.
            ValueError: too many, too long, no name, or no valid Unicode.
        """
        check_label(name, value)
        if name not in self._labels and len(self._labels) >= LABELS_MAX:
            raise ValueError(f"cannot set label {name!r}: there are {LABELS_MAX} already")
        self._labels = {**self._labels, name: value}  # replaced, never changed: the heartbeat thread reads it

    def on_configure(self, callback: Callable[[int], object]) -> None:
        """Have `callback` called with the number of tasks to work on at a time from now on, when agentd changes it.

        In the event loop of `async with`, otherwise in a thread of its own; it may be a coroutine function. When every
        callback has returned, `concurrency` is that number, and agentd is told so. Where one raises, nothing changes
        and agentd is told that; where there is none, it is told that the program cannot. A lower number is for the
        tasks to come: those in flight are finished.

        Raises:
            TypeError: `callback` cannot be called with a number.
        """
        check_callback("on_configure", callback, self.concurrency)
        self._settings.on_configure(callback)

    # -- the end ---------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """agentd asked to finish what is accepted and to take nothing new. It may call that off again."""
        return self._drain.is_on

    @property
    def accepting(self) -> bool:
        """Whether new tasks are welcome: it does not drain, is not to end, and its context has not been left."""
        return not self._drain.is_on and not self.stopping.is_set() and not self._left

    @property
    def successors(self) -> list[Successor]:
        """Who can take over what is queued and not begun: id, host, port, weight. Empty while not draining."""
        return list(self._drain.successors)

    @property
    def drain_left_s(self) -> float | None:
        """Seconds left to finish, at least 0; None while not draining or without a deadline."""
        return self._drain.left_s

    async def wait_draining(self) -> None:
        """Wait until agentd asks to drain."""
        await self._drain.wait()

    def on_drain(self, callback: Callable[[], object]) -> None:
        """Have `callback` called each time draining begins; at once if it has begun.

        In the event loop of `async with`, otherwise in a thread of its own; so it may take its time
        without stopping the heartbeats. It may be a coroutine function. The drain is done, and agentd told so, when
        every callback has returned and no task is in flight or queued.

        Raises:
            TypeError: `callback` cannot be called without arguments.
        """
        check_callback("on_drain", callback)
        self._drain.on_drain(callback)

    def on_resume(self, callback: Callable[[], object]) -> None:
        """Have `callback` called each time a drain is called off: open again what `on_drain` has closed.

        agentd counts on the agent again when every such callback has returned. A program that has `on_drain` or awaits
        `wait_draining`, and has no `on_resume`, cannot be taken back; it drains to its end.

        Raises:
            TypeError: `callback` cannot be called without arguments.
        """
        check_callback("on_resume", callback)
        self._drain.on_resume(callback)

    def drain_done(self) -> None:
        """Say that the drain does not wait for callbacks of `on_drain` that still run; for tasks it does."""
        self._drain.release()

    # -- the context -----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._entered:
            raise RuntimeError("cannot enter an Agent twice: make a new one")
        self._entered = True
        if not self._endpoint:
            log.info("AGENTD_ENDPOINT is not set: running on its own, reporting to nobody")
            if self._notifier is not None:
                self._notifier.ready()
            return self
        # Imported here, so that a program on its own does not pay for gRPC.
        from agentd.sdk.reporter import Listener, Reporter

        self._reporter = Reporter(
            endpoint=self._endpoint,
            instance=self.instance,
            incarnation=self.incarnation,
            workload=self._workload,
            labels=lambda: self._labels,
            listener=Listener(
                drain=self._begin_drain,
                resume=self._resume,
                configure=self._settings.change,
                superseded=self._supersede,
                drain_left_s=lambda: self.drain_left_s,
            ),
            notifier=self._notifier,
            watched=self._caller.loop,
        )
        self._reporter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left = True
        if self._reporter is not None:
            self._reporter.close()
            self._reporter = None
        if self._notifier is not None:
            self._notifier.end(stopping=self.draining)

    async def __aenter__(self) -> Self:
        self._caller.loop = asyncio.get_running_loop()
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # In a thread, for the heartbeat thread may need a moment to end and the loop has other work.
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def _changed(self) -> None:
        if (reporter := self._reporter) is not None:
            reporter.change()
        if self._drain.is_on:
            self._drain.settle()

    def _acknowledge(self, directive: int, stage: Stage, text: str) -> None:
        if (reporter := self._reporter) is not None:
            reporter.acknowledge(directive, stage, text)

    def _set_concurrency(self, concurrency: int) -> None:
        log.info("working on %d tasks at a time", concurrency, extra={"instance": self.instance})
        self.concurrency = concurrency
        self._workload.set_concurrency(concurrency)

    def _begin_drain(self, directive: int, deadline_s: float, successors: tuple[Successor, ...]) -> None:
        if not self.draining:
            log.info("agentd asks to drain", extra={"instance": self.instance})
        self._drain.begin(directive, deadline_s, successors)

    def _resume(self, directive: int) -> None:
        log.info("agentd asks to resume", extra={"instance": self.instance})
        self._drain.resume(directive)

    def _supersede(self, why: str) -> None:
        self.superseded = True
        log.warning("this agent is no longer needed, finishing: %s", why, extra={"instance": self.instance})
        self._drain.begin(0, 0.0, (), final=True)
        self.stopping.set()


def _whole_number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ValueError(f"cannot read {name}={text!r}: expected a whole number")
    return int(text)

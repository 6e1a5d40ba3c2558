"""The heartbeats of an agent: a thread that tells agentd the agent's numbers and hears directives.

A thread with an event loop of its own, so that an agent that is busy still reports, and one whose event loop stands
still says so. Beats are made when they are due and never stored: while agentd is away they are lost without harm (the
totals in the next one catch up), and the agent notices nothing. At most one is unanswered, so memory is bounded.

Under systemd the same thread pings the unit's watchdog, with or without agentd: a process whose threads all stand
still, stopped or locked up, says neither to anybody, and systemd kills it.

`Pace` decides when, `Link` how, `Acks` what is said of directives; none decides what a directive means to the agent.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from agentd.sdk.acks import Acks, Told
from agentd.sdk.drain import Stage, Successor
from agentd.sdk.latch import call_in_loop
from agentd.sdk.link import Link, Lost
from agentd.sdk.notify import PINGS, Notifier
from agentd.sdk.pace import ANSWER_MAX_S, Pace
from agentd.sdk.pulse import Pulse
from agentd.sdk.workload import Workload
from agentd.v1 import agent_pb2, common_pb2

log = logging.getLogger("agentd.sdk")

CLOSE_S = 5.0
UNKNOWN_MAX = 3  # refusals in a row as unknown before the agent believes it

_UINT32_MAX = 2**32 - 1
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Listener:
    """What the reporter calls, from its thread; the calls must return at once."""

    # The directive, seconds left to finish (0: no deadline), who can take over. It says itself when that is done.
    drain: Callable[[int, float, tuple[Successor, ...]], None]
    resume: Callable[[int], None]  # the directive; acknowledges it itself
    configure: Callable[[int, int], None]  # the directive, tasks at a time; acknowledges it itself
    superseded: Callable[[str], None]  # why
    drain_left_s: Callable[[], float | None]  # None: not draining, or no deadline


class Reporter:
    """One thread, one channel. `start` once, `close` once."""

    def __init__(
        self,
        *,
        endpoint: str,
        instance: str,
        incarnation: str,
        workload: Workload,
        labels: Callable[[], Mapping[str, str]],
        listener: Listener,
        notifier: Notifier | None = None,
        watched: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`watched` is the agent's event loop, whose standstill is reported; None: it has none."""
        self._reference = common_pb2.InstanceRef(id=instance, incarnation=incarnation)
        self._endpoint = endpoint
        self._workload = workload
        self._labels = labels
        self._listener = listener
        self._notifier = notifier
        self._lock = threading.Lock()  # guards the pace and the acknowledgements
        # An answer must not take so long that the watchdog misses its pings.
        self._pace = Pace(ANSWER_MAX_S if notifier is None else notifier.watchdog_s / PINGS)
        self._acks = Acks()
        self._pulse = Pulse(watched, self.change) if watched is not None else None
        self._loop = asyncio.SelectorEventLoop()  # whatever kind the program prefers for its own
        self._woken = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="agentd-heartbeat", daemon=True)
        # Below: only touched by the thread.
        self._main: asyncio.Task[None] | None = None
        self._closed = self._retired = False
        self._seq = 0
        self._away = False
        self._unknown = 0
        self._complaint = ""

    def start(self) -> None:
        if self._notifier is not None:
            self._notifier.ready(time.monotonic())
        self._thread.start()

    def change(self) -> None:
        """The agent's numbers changed: tell agentd soon. Called for every task, so mostly a flag check."""
        with self._lock:
            news = self._pace.change()
        if news:
            self._wake()

    def acknowledge(self, directive: int, stage: Stage, text: str = "", *, done_follows: bool = False) -> None:
        """Tell agentd at once how far the agent has come with `directive`. 0 needs no acknowledgement."""
        if not directive:
            return
        with self._lock:
            self._acks.say(directive, stage, text, done_follows=done_follows)
            self._pace.urge()
        self._wake()

    def close(self) -> None:
        """End the thread; what is under way is given up."""
        call_in_loop(self._loop, self._end)
        self._thread.join(CLOSE_S)

    def _wake(self) -> None:
        call_in_loop(self._loop, self._woken.set)

    def _end(self) -> None:
        self._closed = True
        if self._main is not None:
            self._main.cancel()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            try:
                runner.run(self._report())
            except asyncio.CancelledError:
                assert self._closed, "broken invariant: nobody but close cancels this"

    async def _report(self) -> None:
        self._main = asyncio.current_task()
        if self._closed:
            return
        link = Link(self._endpoint, self._hear, self._session_lost)
        try:
            while await self._wait_until_due():
                try:
                    await self._beat(link)
                except Exception:
                    # A beat must never be the reason for an agent to fall silent, which agentd reads as a hang.
                    log.exception("cannot send heartbeat")
                    self._failed()
        finally:
            await link.close()
            await _finished(asyncio.all_tasks() - {self._main})

    async def _wait_until_due(self) -> bool:
        """Wait until a beat is due, pinging the watchdog meanwhile. False: there will be none."""
        while not (self._retired and self._notifier is None):
            ahead_s = min(self._ping_when_due(), self._look_when_due())
            with self._lock:
                now = time.monotonic()
                beat_in_s = math.inf if self._retired else self._pace.due_in_s(now)
                if beat_in_s <= 0.0:
                    self._pace.begin(now)
                    return True
            await self._sleep(min(ahead_s, beat_in_s))
        return False

    async def _sleep(self, most_s: float) -> None:
        try:
            async with asyncio.timeout(None if math.isinf(most_s) else most_s):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def _ping_when_due(self) -> float:
        """Seconds until the next ping, more than 0."""
        if self._notifier is None:
            return math.inf
        now = time.monotonic()
        if self._notifier.due_in_s(now) <= 0.0:
            self._notifier.ping(now, self._listener.drain_left_s())
        return self._notifier.due_in_s(now)

    def _look_when_due(self) -> float:
        """Seconds until the agent's event loop is looked at again, more than 0."""
        if self._pulse is None or self._retired:
            return math.inf
        now = time.monotonic()
        if self._pulse.due_in_s(now) <= 0.0 and self._pulse.look(now):
            with self._lock:
                self._pace.change()
        return self._pulse.due_in_s(now)

    async def _beat(self, link: Link) -> None:
        report = self._workload.report(self._pace.interval_s)
        with self._lock:
            told = self._acks.to_tell(busy=report.in_flight + report.queue_length > 0)
        self._seq += 1
        beat = agent_pb2.Heartbeat(
            instance=self._reference,
            seq=self._seq,
            load=report.load,
            queue_length=min(report.queue_length, _UINT32_MAX),
            in_flight=min(report.in_flight, _UINT32_MAX),
            tasks_completed=report.tasks_completed,
            response_time_p50_s=report.response_time_p50_s,
            response_time_p95_s=report.response_time_p95_s,
            labels=dict(self._labels()),
            acks=told.values(),
            loop_blocked_s=None if self._pulse is None else self._pulse.blocked_s(time.monotonic()),
        )
        try:
            reply = await link.ask(beat, self._pace.answer_s)
        except Lost as lost:
            (self._session_lost if lost.ended else self._not_taken)(lost)
        else:
            self._answered(reply, told)

    # -- what agentd says ------------------------------------------------------------------------

    def _answered(self, reply: agent_pb2.HeartbeatReply, told: Told) -> None:
        if self._away:
            self._away = False
            log.info("agentd is back", extra={"instance": self._reference.id})
        if reply.HasField("refusal"):
            refusal = reply.refusal
            self._not_taken(Lost(_CODES.get(refusal.code, "UNKNOWN"), refusal.message, refusal.reason))
            return
        self._unknown, self._complaint = 0, ""
        with self._lock:
            self._pace.succeed(reply.interval_s, random.random())
            self._acks.answered(told)
        self._obey(reply.directive)

    def _hear(self, reply: agent_pb2.HeartbeatReply) -> None:
        """What agentd says unasked."""
        if reply.HasField("refusal"):
            return  # it is of no heartbeat; what is wrong, the next one's answer tells
        with self._lock:
            self._pace.retime(reply.interval_s)
        try:
            self._obey(reply.directive)
        except Exception:
            log.exception("cannot follow what agentd asks")  # it is asked again
        self._woken.set()

    def _obey(self, directive: agent_pb2.Directive) -> None:
        if directive.kind in _NOTHING_TO_DO:
            return
        with self._lock:
            if self._acks.knows(directive.id):
                return
        match directive.kind:
            case agent_pb2.Directive.KIND_DRAIN:
                # Before it is acted on: it may be done at once.
                self.acknowledge(directive.id, Stage.ACCEPTED, done_follows=True)
                successors = tuple(_successor(message) for message in directive.successors)
                self._listener.drain(directive.id, directive.deadline_s, successors)
            case agent_pb2.Directive.KIND_RESUME:
                with self._lock:
                    self._acks.note(directive.id)
                self._listener.resume(directive.id)
            case agent_pb2.Directive.KIND_CONFIGURE:
                self._configure(directive)
            case agent_pb2.Directive.KIND_SHUT_DOWN:
                self.acknowledge(directive.id, Stage.ACCEPTED)
                self._listener.superseded("agentd asked it to finish and exit")
            case _:
                self.acknowledge(
                    directive.id, Stage.FAILED, f"this agent does not know directives of kind {directive.kind}"
                )

    def _configure(self, directive: agent_pb2.Directive) -> None:
        with self._lock:
            if directive.interval_s:
                self._pace.retime(directive.interval_s)
            self._acks.note(directive.id)
        if directive.concurrency:
            self._listener.configure(directive.id, directive.concurrency)
        else:
            self.acknowledge(directive.id, Stage.ACCEPTED)

    def _session_lost(self, lost: Lost) -> None:
        """A session has ended; whether agentd is away, the next beat tells."""
        log.debug("the session with agentd has ended: %s", lost, extra={"instance": self._reference.id})
        with self._lock:
            self._pace.lose(time.monotonic(), random.random())
        self._woken.set()

    def _not_taken(self, lost: Lost) -> None:
        """A beat was refused, or nobody answered."""
        if lost.reason == "SUPERSEDED" and lost.code == "FAILED_PRECONDITION":
            self._retire(str(lost))
        elif lost.code == "NOT_FOUND":
            self._unknown += 1
            if self._unknown >= UNKNOWN_MAX:
                self._retire(str(lost))
            else:
                with self._lock:
                    self._pace.succeed(0.0, random.random())  # agentd is there: ask again in an interval
        elif lost.away:
            if not self._away:
                self._away = True
                log.warning("agentd is away, going on without it: %s", lost, extra={"instance": self._reference.id})
            self._failed()
        else:
            complaint = f"{lost.code}: {lost}"
            # agentd may hear of an agent before it hears of its start.
            if complaint != self._complaint and lost.reason != "NOT_STARTED":
                self._complaint = complaint
                log.warning("agentd refused a heartbeat: %s", complaint, extra={"instance": self._reference.id})
            self._failed()

    def _failed(self) -> None:
        with self._lock:
            self._pace.fail(random.random())

    def _retire(self, why: str) -> None:
        """agentd counts on another incarnation, or on none: more beats would tell it nothing."""
        self._retired = True
        self._listener.superseded(why)


_NOTHING_TO_DO = (agent_pb2.Directive.KIND_UNSPECIFIED, agent_pb2.Directive.KIND_CONTINUE)


async def _finished(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait for gRPC's own tasks: all event loops of a process share its queue, and what is left in it for one that
    has ended is an error in another."""
    if tasks:
        await asyncio.wait(tasks, timeout=CLOSE_S / 2)


def _successor(message: agent_pb2.Successor) -> Successor:
    # With one node, everybody answers here.
    return Successor(message.instance, message.endpoint.node or "127.0.0.1", message.endpoint.port, message.weight)

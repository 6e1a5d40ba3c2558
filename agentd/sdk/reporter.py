"""The heartbeats of an agent: a thread that tells agentd the agent's numbers and hears directives.

A thread with a blocking gRPC channel, so that an agent whose event loop is busy still reports. Beats are made
when they are due and never stored: while agentd is away they are lost without harm (the totals in the next one
catch up), and the agent notices nothing. At most one call is under way, so memory is bounded.

Under systemd the same thread pings the unit's watchdog, with or without agentd: a process whose threads all stand
still, stopped or locked up, says neither to anybody, and systemd kills it.

`Pace` decides when, `Reporter` what; neither decides what a directive means to the agent.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import grpc

from agentd.sdk.drain import Stage, Successor
from agentd.sdk.notify import PINGS, Notifier
from agentd.sdk.status import error_reason
from agentd.sdk.workload import Report, Workload
from agentd.v1 import agent_pb2, agent_pb2_grpc, common_pb2

log = logging.getLogger("agentd.sdk")

INTERVAL_DEFAULT_S = 5.0  # until agentd has told one
CHANGE_INTERVAL_S = 1.0  # the soonest that a change is told after the last beat
CALL_TIMEOUT_S = 5.0
CALL_TIMEOUT_MAX_S = 10.0  # agentd wants to hear of an agent at least that often
RETRY_FIRST_S = 0.5
RETRY_MAX_S = 5.0
ACKS_MAX = 32  # directives remembered, and acknowledgements in one beat
ACK_TEXT_MAX = 200
UNKNOWN_MAX = 3  # refusals in a row as unknown before the agent believes it

_UINT32_MAX = 2**32 - 1
# gRPC's own reconnection stays faster than `Pace`, so that `Pace` alone spaces the attempts. How long one may take is
# left at the default of 20 s (`min_reconnect_backoff_ms`, whatever its name): while agentd restarts, a connection
# waits in the queue of its socket, and each that is given up stays there as a dead one.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 400),
    ("grpc.enable_retries", 0),
)


@dataclass(frozen=True, slots=True)
class Listener:
    """What the reporter calls, from its thread; the calls must return at once."""

    # The directive, seconds left to finish (0: no deadline), who can take over. It says itself when that is done.
    drain: Callable[[int, float, tuple[Successor, ...]], None]
    resume: Callable[[int], None]  # the directive; acknowledges it itself
    superseded: Callable[[str], None]  # why
    drain_left_s: Callable[[], float | None]  # None: not draining, or no deadline


class Pace:
    """When the next beat is due. Pure: `now` and `chance` in [0, 1) are arguments."""

    def __init__(self) -> None:
        self.interval_s = INTERVAL_DEFAULT_S
        self._last: float | None = None
        self._wait_s = 0.0
        self._failures = 0
        self._changed = False
        self._urgent = False

    def change(self) -> bool:
        """The agent's numbers changed. Whether that is news since the last beat."""
        news = not self._changed
        self._changed = True
        return news

    def urge(self) -> None:
        """The next beat is due at once, for it carries an acknowledgement."""
        self._urgent = True

    def due_in_s(self, now: float) -> float:
        if self._last is None or self._urgent:
            return 0.0
        wait_s = self._wait_s
        if self._changed and self._failures == 0:
            wait_s = min(wait_s, CHANGE_INTERVAL_S)
        return self._last + wait_s - now

    def begin(self, now: float) -> None:
        """A beat is being sent; later changes are news again."""
        self._last = now
        self._changed = self._urgent = False

    def succeed(self, interval_s: float, chance: float) -> None:
        """agentd answered. The wait is up to a tenth shorter than the interval: many agents stay spread."""
        if 0.0 < interval_s < 3600.0:
            self.interval_s = interval_s
        self._failures = 0
        self._wait_s = self.interval_s * (1.0 - 0.1 * chance)

    def fail(self, chance: float) -> None:
        """agentd did not answer: try again after a wait that grows and is spread."""
        self._failures += 1
        base_s = min(RETRY_MAX_S, self.interval_s, RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 10))
        self._wait_s = base_s * (0.5 + 0.5 * chance)


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
    ) -> None:
        self._reference = common_pb2.InstanceRef(id=instance, incarnation=incarnation)
        self._endpoint = endpoint
        self._workload = workload
        self._labels = labels
        self._listener = listener
        self._notifier = notifier
        self._condition = threading.Condition()
        self._pace = Pace()
        self._closed = False
        # What became of the last directives by id (None: nothing to say yet), and those that agentd has yet to hear.
        self._acks: dict[int, agent_pb2.Acknowledgement | None] = {}
        self._owed: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="agentd-heartbeat", daemon=True)
        # Below: only touched by the thread.
        self._retired = False
        self._seq = 0
        self._away = False
        self._unknown = 0
        self._complaint = ""

    def start(self) -> None:
        self._channel = grpc.insecure_channel(self._endpoint, options=_CHANNEL_OPTIONS)
        self._stub = agent_pb2_grpc.AgentServiceStub(self._channel)
        if self._notifier is not None:
            self._notifier.ready(time.monotonic())
        self._thread.start()

    def change(self) -> None:
        """The agent's numbers changed: tell agentd soon. Called for every task, so mostly a flag check."""
        with self._condition:
            if self._pace.change():
                self._condition.notify()

    def acknowledge(self, directive: int, stage: Stage, text: str = "", *, done_follows: bool = False) -> None:
        """Tell agentd at once how far the agent has come with `directive`. 0 needs no acknowledgement."""
        if not directive:
            return
        text = "".join(mark if mark.isprintable() else " " for mark in text)[:ACK_TEXT_MAX]
        ack = agent_pb2.Acknowledgement(id=directive, stage=_STAGES[stage], text=text, done_follows=done_follows)
        with self._condition:
            self._remember(directive, ack)
            self._owed.add(directive)
            self._pace.urge()
            self._condition.notify()

    def close(self) -> None:
        """End the thread; a call under way is cancelled."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._channel.close()
        self._thread.join(CALL_TIMEOUT_S)

    def _run(self) -> None:
        while self._wait_until_due():
            try:
                self._beat()
            except Exception:
                # A beat must never be the reason for an agent to fall silent, which agentd reads as a hang.
                if self._closed:
                    return
                log.exception("cannot send heartbeat")
                self._failed()

    def _wait_until_due(self) -> bool:
        """Wait until a beat is due, pinging the watchdog meanwhile. False: there will be none."""
        while not self._closed and not (self._retired and self._notifier is None):
            ping_in_s = self._ping_when_due()
            with self._condition:
                now = time.monotonic()
                beat_in_s = math.inf if self._retired else self._pace.due_in_s(now)
                if self._closed:
                    break
                if beat_in_s <= 0.0:
                    self._pace.begin(now)
                    return True
                self._condition.wait(min(ping_in_s, beat_in_s))
        return False

    def _ping_when_due(self) -> float:
        """Seconds until the next ping, more than 0. Outside the lock: systemd may let us wait a moment."""
        if self._notifier is None:
            return math.inf
        now = time.monotonic()
        if self._notifier.due_in_s(now) <= 0.0:
            self._notifier.ping(now, self._listener.drain_left_s())
        return self._notifier.due_in_s(now)

    def _call_timeout_s(self) -> float:
        timeout_s = min(max(CALL_TIMEOUT_S, self._pace.interval_s), CALL_TIMEOUT_MAX_S)
        # A call must not take so long that the watchdog misses its pings.
        return timeout_s if self._notifier is None else min(timeout_s, self._notifier.watchdog_s / PINGS)

    def _beat(self) -> None:
        report = self._workload.report(self._pace.interval_s)
        owed = self._to_tell(busy=report.in_flight + report.queue_length > 0)
        self._seq += 1
        beat = self._message(report, owed.values())
        try:
            response = self._stub.Heartbeat(
                agent_pb2.HeartbeatRequest(heartbeats=[beat]), timeout=self._call_timeout_s()
            )
        except grpc.RpcError as error:
            self._refused(error)
            return
        if self._away:
            self._away = False
            log.info("agentd is back", extra={"instance": self._reference.id})
        self._unknown, self._complaint = 0, ""
        reply = response.replies[0] if response.replies else agent_pb2.HeartbeatReply()
        with self._condition:
            self._pace.succeed(reply.interval_s, random.random())
            self._owed -= {ident for ident, ack in owed.items() if self._acks.get(ident) is ack}
        self._obey(reply.directive)

    def _to_tell(self, *, busy: bool) -> dict[int, agent_pb2.Acknowledgement]:
        """The acknowledgements for the next beat, by id. A busy agent is not done, though it was a moment ago.

        A program takes a task off its queue a moment before it begins it, and may have accepted one at the last.
        """
        with self._condition:
            told = {ident: ack for ident in sorted(self._owed) if (ack := self._acks[ident]) is not None}
        for ident, ack in told.items():
            if busy and ack.stage == agent_pb2.Acknowledgement.STAGE_DONE:
                accepted = agent_pb2.Acknowledgement.STAGE_ACCEPTED
                told[ident] = agent_pb2.Acknowledgement(id=ident, stage=accepted, done_follows=True)
        return told

    def _message(self, report: Report, owed: Iterable[agent_pb2.Acknowledgement]) -> agent_pb2.Heartbeat:
        return agent_pb2.Heartbeat(
            instance=self._reference,
            seq=self._seq,
            load=report.load,
            queue_length=min(report.queue_length, _UINT32_MAX),
            in_flight=min(report.in_flight, _UINT32_MAX),
            tasks_completed=report.tasks_completed,
            response_time_p50_s=report.response_time_p50_s,
            response_time_p95_s=report.response_time_p95_s,
            labels=dict(self._labels()),
            acks=owed,
        )

    def _obey(self, directive: agent_pb2.Directive) -> None:
        if directive.kind in _NOTHING_TO_DO or self._known(directive.id):
            return
        match directive.kind:
            case agent_pb2.Directive.KIND_DRAIN:
                # Before it is acted on: it may be done at once.
                self.acknowledge(directive.id, Stage.ACCEPTED, done_follows=True)
                successors = tuple(_successor(message) for message in directive.successors)
                self._listener.drain(directive.id, directive.deadline_s, successors)
            case agent_pb2.Directive.KIND_RESUME:
                with self._condition:
                    self._remember(directive.id, None)
                self._listener.resume(directive.id)
            case agent_pb2.Directive.KIND_SHUT_DOWN:
                self.acknowledge(directive.id, Stage.ACCEPTED)
                self._listener.superseded("agentd asked it to finish and exit")
            case _:
                self.acknowledge(
                    directive.id, Stage.FAILED, f"this agent does not know directives of kind {directive.kind}"
                )

    def _known(self, directive: int) -> bool:
        """Whether a directive was acted on before. Its acknowledgement was lost: the next beat repeats it."""
        with self._condition:
            if directive not in self._acks:
                return False
            self._owed.add(directive)
            return True

    def _remember(self, directive: int, ack: agent_pb2.Acknowledgement | None) -> None:
        self._acks[directive] = ack
        while len(self._acks) > ACKS_MAX:
            oldest = min(self._acks)  # ids count up
            del self._acks[oldest]
            self._owed.discard(oldest)

    def _refused(self, error: grpc.RpcError) -> None:
        assert isinstance(error, grpc.Call), f"an RpcError of a call is a grpc.Call: {error!r}"
        code, details = error.code(), error.details() or ""
        if self._closed or code is grpc.StatusCode.CANCELLED:
            return
        if code is grpc.StatusCode.FAILED_PRECONDITION and error_reason(error) == "SUPERSEDED":
            self._retire(details)
        elif code is grpc.StatusCode.NOT_FOUND:
            self._unknown += 1
            if self._unknown >= UNKNOWN_MAX:
                self._retire(details)
            else:
                with self._condition:
                    self._pace.succeed(0.0, random.random())  # agentd is there: ask again in an interval
        elif code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            if not self._away:
                self._away = True
                log.warning("agentd is away, going on without it: %s", details, extra={"instance": self._reference.id})
            self._failed()
        else:
            complaint = f"{code.name}: {details}"
            if complaint != self._complaint:
                self._complaint = complaint
                log.warning("agentd refused a heartbeat: %s", complaint, extra={"instance": self._reference.id})
            self._failed()

    def _failed(self) -> None:
        with self._condition:
            self._pace.fail(random.random())

    def _retire(self, why: str) -> None:
        """agentd counts on another incarnation, or on none: more beats would tell it nothing."""
        self._retired = True
        self._listener.superseded(why)


_NOTHING_TO_DO = (agent_pb2.Directive.KIND_UNSPECIFIED, agent_pb2.Directive.KIND_CONTINUE)
_STAGES = {
    Stage.ACCEPTED: agent_pb2.Acknowledgement.STAGE_ACCEPTED,
    Stage.DONE: agent_pb2.Acknowledgement.STAGE_DONE,
    Stage.FAILED: agent_pb2.Acknowledgement.STAGE_FAILED,
}


def _successor(message: agent_pb2.Successor) -> Successor:
    # With one node, everybody answers here.
    return Successor(message.instance, message.endpoint.node or "127.0.0.1", message.endpoint.port, message.weight)

"""A virtual agent: its slots, what it has done, and the heartbeat it would send.

It measures as `agentd.sdk` does: the load is the mean of its occupied slots over the last heartbeat interval, the
response times are those of the tasks that ended in it. There may be millions of heartbeats in a run, so an agent has
one `Beat` and fills it in anew each time; the controller keeps the numbers and not the message.

An agent that tells only its load says nothing of tasks: not how many are at work or wait, nor how many it has done, nor
how long they took.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from agentd.core.messages import Beat
from agentd.core.model import Incarnation, InstanceId

# What it measures looks back this far: the heartbeat interval.
WINDOW_S = 10.0


class Agent:
    """One virtual agent; times are the world's. `beat_due`: its only valid heartbeat, others on the way are stale."""

    __slots__ = (
        "beat", "beat_at", "beat_due", "busy_s", "counted_to", "directive", "draining", "finished", "gone", "in_flight",
        "queue", "ready", "seen_at", "seen_busy_s", "slots", "spans", "started_at", "stopping", "tells_tasks", "wake",
    )  # fmt: skip

    def __init__(
        self, ident: InstanceId, incarnation: Incarnation, slots: int, now: float, *, tells_tasks: bool = True
    ) -> None:
        self.beat = Beat(ident, incarnation, 0)
        self.tells_tasks = tells_tasks
        if tells_tasks:
            self.beat.tasks_completed = self.beat.in_flight = self.beat.queue_length = 0
        self.slots = slots
        self.started_at = now  # when its start was asked for
        self.ready = self.draining = self.stopping = self.gone = False
        self.directive = 0  # the drain that it has not finished
        self.in_flight = 0
        self.queue: deque[int] = deque()  # requests that wait for it, by their number
        self.busy_s = 0.0  # slot-seconds of work up to `counted_to`
        self.counted_to = now
        self.seen_busy_s = 0.0  # `busy_s` at the last look of a policy,
        self.seen_at = now  # and when that was
        self.spans: deque[tuple[float, float]] = deque([(now, 0.0)])  # when, and `busy_s` then
        self.finished: deque[tuple[float, float]] = deque()  # when, and what the task took
        self.beat_at = self.beat_due = 0.0
        self.wake: Callable[[], object] = _nothing

    @property
    def id(self) -> InstanceId:
        return self.beat.instance

    def begin(self, now: float) -> None:
        self.busy_s += self.in_flight * (now - self.counted_to)
        self.counted_to = now
        self.in_flight += 1

    def end(self, now: float, took_s: float) -> None:
        self.busy_s += self.in_flight * (now - self.counted_to)
        self.counted_to = now
        self.in_flight -= 1
        completed = self.beat.tasks_completed
        if completed is not None:
            self.finished.append((now, took_s))
            self.beat.tasks_completed = completed + 1

    def busy_until(self, now: float) -> float:
        """Slot-seconds of work since the agent began, up to `now`."""
        return self.busy_s + self.in_flight * (now - self.counted_to)

    def report(self, now: float) -> Beat:
        """Its next heartbeat. It is the same object each time, good until the next call."""
        beat, busy_s = self.beat, self.busy_until(now)
        beat.seq += 1
        beat.load = self._mean_load(now, busy_s)
        if not self.tells_tasks:
            return beat
        beat.in_flight, beat.queue_length = self.in_flight, len(self.queue)
        finished = self.finished
        while finished and finished[0][0] <= now - WINDOW_S:
            finished.popleft()
        if finished:
            times = sorted(took_s for _, took_s in finished)
            beat.response_time_p50_s = times[(len(times) - 1) // 2]
            beat.response_time_p95_s = times[-(-95 * len(times) // 100) - 1]
        else:
            beat.response_time_p50_s = beat.response_time_p95_s = None
        return beat

    def _mean_load(self, now: float, busy_s: float) -> float:
        spans = self.spans
        since = now - WINDOW_S
        while len(spans) > 1 and spans[1][0] <= since:
            spans.popleft()
        at, before_s = spans[0]
        if at < since and len(spans) > 1:
            next_at, next_s = spans[1]
            before_s += (next_s - before_s) * (since - at) / (next_at - at)
            at = since
        if now <= at:
            return self.in_flight / self.slots
        if now > spans[-1][0]:
            spans.append((now, busy_s))
        return min(1.0, max(0.0, (busy_s - before_s) / ((now - at) * self.slots)))


def _nothing() -> None:
    pass

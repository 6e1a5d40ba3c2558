"""When to look at which instance: one alarm per instance on a heap.

An instance's `wake_at` is its only valid alarm; entries left over from earlier alarms are dropped when they
surface. So a heartbeat, which only moves a deadline further away, costs nothing here: the alarm rings at
the old time, finds the new deadline, and is set again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentd.core.model import HealthCheck, InstanceId, State

if TYPE_CHECKING:
    from agentd.core.state import Fleet, Instance

# A loop that wakes later than this after its deadline was stopped or starved, and so perhaps were the
# agents' messages: every deadline moves out by the delay.
GAP_S = 1.0
# How long a directive waits for its answer. An agent hears it with one heartbeat and may answer with the next: one
# interval, and half of one for what is on the way.
ANSWER_INTERVALS = 1.5


class Alarms:
    """A heap of (time, instance id). Entries may be stale; see the module's text."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, InstanceId]] = []

    def push(self, at: float, instance: InstanceId) -> None:
        heapq.heappush(self._heap, (at, instance))

    def next(self, wake_at: Callable[[InstanceId], float]) -> float | None:
        """The earliest valid alarm. `wake_at` gives an instance's valid alarm, 0.0 for none."""
        heap = self._heap
        while heap and wake_at(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now: float, wake_at: Callable[[InstanceId], float]) -> list[InstanceId]:
        """The instances whose alarm has rung, in order of time, then id."""
        due: list[InstanceId] = []
        while (at := self.next(wake_at)) is not None and at <= now:
            due.append(heapq.heappop(self._heap)[1])
        return due


def deadline(fleet: Fleet, instance: Instance) -> float | None:
    """When something must happen to `instance` unless something happens before. None: nothing need."""
    config = fleet.pools[instance.pool].config
    match instance.state:
        case State.STARTING:
            return start_deadline(fleet, instance)
        case State.READY if config.health is not HealthCheck.NONE:
            return instance.heard_at + (instance.missed + 1) * fleet.config.heartbeat_timeout_s
        case State.DRAINING:
            return _drain_deadline(fleet, instance)
        case State.FAILED if instance.retry_at:
            return instance.retry_at
    return None


def _drain_deadline(fleet: Fleet, instance: Instance) -> float:
    silent = instance.heard_at + fleet.config.heartbeat_timeout_s
    if instance.is_resuming:
        return min(silent, answer_deadline(fleet, instance))
    ends = min(silent, drain_end(fleet, instance))
    return ends if instance.stage else min(ends, answer_deadline(fleet, instance))


def drain_end(fleet: Fleet, instance: Instance) -> float:
    """Until when an instance that leaves may finish its work."""
    return instance.leaving_at + fleet.pools[instance.pool].config.drain_timeout_s


def answer_deadline(fleet: Fleet, instance: Instance) -> float:
    """Until when the agent has to acknowledge its directive."""
    return instance.asked_at + ANSWER_INTERVALS * interval_s(fleet, instance)


def interval_s(fleet: Fleet, instance: Instance) -> float:
    """How often `instance` is asked to beat."""
    return instance.own_interval_s or fleet.config.heartbeat_interval_s


def start_deadline(fleet: Fleet, instance: Instance) -> float:
    """Until when `instance` has to be ready. One that was found running was so once: only silence condemns it."""
    timeout_s = fleet.pools[instance.pool].config.start_timeout_s
    if instance.is_adopted:
        silence_s = fleet.config.unhealthy_threshold * fleet.config.heartbeat_timeout_s
        return max(instance.started_at + max(timeout_s, silence_s), fleet.recovering_until)
    return instance.started_at + timeout_s


def set_alarm(fleet: Fleet, instance: Instance) -> None:
    """Make sure that `instance` is looked at by its deadline. An alarm that rings too early is harmless."""
    at = deadline(fleet, instance)
    if at is None:
        instance.wake_at = 0.0
    elif not instance.wake_at or at < instance.wake_at:
        instance.wake_at = at
        fleet.alarms.push(at, instance.id)


def wake_at(fleet: Fleet) -> Callable[[InstanceId], float]:
    """A look-up of the valid alarm of an instance, for `Alarms`."""

    def look(ident: InstanceId) -> float:
        instance = fleet.instances.get(ident)
        return instance.wake_at if instance else 0.0

    return look


def missed_beats(fleet: Fleet, instance: Instance, now: float) -> int:
    """Heartbeat timeouts that have passed in silence. The small term keeps a deadline's own rounding out."""
    return max(0, int((now - instance.heard_at) / fleet.config.heartbeat_timeout_s + 1e-9))


def push_out(fleet: Fleet, gap_s: float, now: float) -> None:
    """Move every deadline out by `gap_s`, for agentd itself did not run for that long until `now`.

    What happened since it runs again is counted from then.
    """
    for instance in fleet.instances.values():
        if instance.state in (State.STARTING, State.READY, State.DRAINING):
            instance.heard_at = min(now, instance.heard_at + gap_s)
            instance.started_at = min(now, instance.started_at + gap_s)
            if instance.state is State.DRAINING:
                instance.asked_at = min(now, instance.asked_at + gap_s)
            instance.wake_at = 0.0
            set_alarm(fleet, instance)
            fleet.touch(instance)

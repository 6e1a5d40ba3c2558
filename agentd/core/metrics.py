"""What a pool's instances report, summed up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct

from agentd.core import signals
from agentd.core.lifecycle import LEAVING, ON_ITS_WAY
from agentd.core.messages import Beat
from agentd.core.model import MIB, HealthCheck, HostSample, State
from agentd.core.rules import QUEUE
from agentd.core.state import Fleet, Instance, Pool

# A learned footprint rises at once and falls by this share of the difference with each host sample.
FOOTPRINT_DECAY_RATIO = 0.02
FOOTPRINT_QUANTILE = 0.9
# A load that was measured, not reported, counts for so long at least: the host is read every 5 s.
MEASURED_S = 15.0
# How fast an agent works is counted over at least so long: it may report every second.
RATE_S = 5.0
# Every evaluation asks each instance for it, and in Python 3.11 to name a member of an enum is a call.
_READY = State.READY
_COMING = ON_ITS_WAY | {State.BACKOFF}


class Totals(Struct):
    """Counts and reports of one pool. `loads`: of ready instances heard within the heartbeat timeout.

    `count` is committed capacity. One that is restarted in place is part of it all the time, and of `draining` until
    its new process is to be started.

    Nobody changes them. All the same they are not frozen: they are made in every evaluation, and frozen ones take three
    times as long to make.
    """

    count: int
    ready: int
    starting: int
    draining: int
    unhealthy: int
    failed: int
    loads: tuple[float, ...]
    queue_length: int
    in_flight: int
    # Tasks begun or waiting, in agents and in the pool's external queue. None: nobody tells.
    demand: float | None = None
    told: bool = False  # an instance tells what it has at work or waiting
    # Tasks at work: by their own word, else what their load comes to. None: neither is known.
    at_work: float | None = None
    completed: float | None = None  # tasks ever, of instances that tell; None: nobody does

    @property
    def load(self) -> float | None:
        """The mean load, or None without a sample."""
        return math.fsum(self.loads) / len(self.loads) if self.loads else None


def totals(fleet: Fleet, pool: Pool, now: float) -> Totals:
    """The totals of `pool` at `now`; starting, draining and late instances are left out of the loads."""
    count = ready = starting = draining = unhealthy = failed = queue_length = in_flight = 0
    told = tells_work = False
    completed, counted = pool.completed_gone, pool.completed_gone > 0
    loads: list[float] = []
    fresh_since = now - fleet.config.heartbeat_timeout_s
    measured_since = min(fresh_since, now - MEASURED_S)
    for instance in pool.instances.values():
        state, begun, queued = instance.state, instance.in_flight, instance.queue_length
        if state is _READY:
            if instance.missed > 0 and instance.heard_at <= fresh_since:
                unhealthy += 1
            else:
                ready += 1
            since = fresh_since if instance.seq else measured_since
            if instance.load is not None and instance.beat_at > since and not instance.replaced_by:
                loads.append(instance.load)
            queue_length += queued or 0
            in_flight += begun or 0
        elif state in _COMING:
            starting += 1
        elif state in LEAVING:
            starting += instance.is_resuming
            draining += not instance.is_resuming
            in_flight += begun or 0
        elif state is State.FAILED:
            failed += 1
        if instance.counts:
            count += 1
        completed += instance.completed
        if instance.tasks_completed is not None:
            counted = True
        if begun is not None:
            tells_work = told = True
        elif queued is not None:
            told = True
    at_work: float | None = float(in_flight) if tells_work else None
    if at_work is None and loads:
        at_work = math.fsum(loads) / len(loads) * ready * pool.config.concurrency
    demand: float | None = float(queue_length + in_flight) if told else None
    if pool.config.collector(QUEUE):
        waiting = signals.reading(pool, QUEUE, now)[0]
        demand = None if waiting is None else (demand or 0.0) + waiting
    return Totals(
        count, ready, starting, draining, unhealthy, failed, tuple(loads), queue_length, in_flight, demand, told,
        at_work, float(completed) if counted else None,
    )  # fmt: skip


def take_report(instance: Instance, beat: Beat, now: float) -> bool:
    """Take over what `beat` says of `instance`; whether its work or load has changed.

    Response times stay until newer ones come.
    """
    _note_work(instance, beat, now)
    changed = (
        beat.in_flight != instance.in_flight
        or beat.load != instance.load
        or beat.queue_length != instance.queue_length
        or beat.tasks_completed != instance.tasks_completed
    )
    instance.seq = beat.seq
    instance.load = beat.load
    instance.queue_length = beat.queue_length
    instance.in_flight = beat.in_flight
    if beat.tasks_completed is not None:
        if instance.completed_told is not None:
            instance.completed += max(0, beat.tasks_completed - instance.completed_told)
        elif not instance.is_adopted:
            instance.completed += beat.tasks_completed
        instance.completed_told = beat.tasks_completed
    instance.tasks_completed = beat.tasks_completed
    if beat.tasks_completed is not None:
        _count(instance, beat.tasks_completed, now)
    instance.beat_at = now
    if beat.response_time_p50_s is not None or beat.response_time_p95_s is not None:
        instance.response_time_p50_s = beat.response_time_p50_s
        instance.response_time_p95_s = beat.response_time_p95_s
        instance.timed_at = now
    if beat.labels is not None:
        instance.labels = beat.labels
    return changed


def _count(instance: Instance, completed: int, now: float) -> None:
    """How fast an instance works, from what it has done: over at least RATE_S."""
    passed_s = now - instance.counted_at
    if not instance.counted_at or completed < instance.counted:
        instance.rate = None
    elif passed_s < RATE_S:
        return
    else:
        instance.rate = (completed - instance.counted) / passed_s
    instance.counted_at, instance.counted = now, completed


def _note_work(instance: Instance, beat: Beat, now: float) -> None:
    """Note since when an instance, by its own word, has had work or none; before the numbers in `beat` are taken."""
    if beat.in_flight is None and beat.queue_length is None:
        instance.turned_at = 0.0
    elif not instance.turned_at or bool(instance.work) != bool(beat.in_flight or beat.queue_length):
        instance.turned_at = now


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest-rank quantile of a non-empty sequence, 0 < q <= 1."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def learn_usage(fleet: Fleet, sample: HostSample, now: float) -> None:
    """Take over what every instance uses, and learn what one more instance of each pool will need.

    The load of an instance that need not send heartbeats, and sends none or none any more, is the CPU it uses, as a
    share of what it may use: its pool's `cpu_quota`, or one core.

    The memory of a pool's footprint is a high quantile over its ready instances: it rises at once and falls
    slowly. Until the first ready instance was measured it is seed A's 100 MiB.
    """
    for ident, usage in sample.instances.items():
        instance = fleet.instances.get(ident)
        if instance is None:
            continue
        instance.usage = usage
        config = fleet.pools[instance.pool].config
        if config.health is HealthCheck.HEARTBEAT:
            continue
        if instance.seq > 0 and instance.beat_at <= now - fleet.config.heartbeat_timeout_s:
            instance.seq, instance.turned_at = 0, 0.0
            instance.queue_length = instance.in_flight = None
        if instance.seq == 0:
            instance.load = min(1.0, usage.cpu_cores / (config.resources.cpu_quota_ratio or 1.0))
            instance.beat_at = now
    for pool in fleet.pools.values():
        measured = [i.usage for i in _ready(pool.instances.values()) if i.usage and i.usage.memory_bytes > 0]
        if not measured:
            continue
        memory = int(quantile([float(usage.memory_bytes) for usage in measured], FOOTPRINT_QUANTILE))
        cores = math.fsum(usage.cpu_cores for usage in measured) / len(measured)
        memory = -(-memory // MIB) * MIB  # whole MiB: not every breath of an instance is worth a write
        if pool.footprint_learned and memory < pool.footprint_bytes:
            fall = max(MIB, (pool.footprint_bytes - memory) * FOOTPRINT_DECAY_RATIO // MIB * MIB)
            memory = max(memory, pool.footprint_bytes - int(fall))
        if memory != pool.footprint_bytes or not pool.footprint_learned:
            fleet.touch_pool(pool.name)
        pool.footprint_bytes = memory
        pool.footprint_cores = cores
        pool.footprint_learned = True


def _ready(instances: Iterable[Instance]) -> list[Instance]:
    return [i for i in instances if i.state is State.READY]

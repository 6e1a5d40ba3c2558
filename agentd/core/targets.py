"""The triggers that follow a number: a target per instance, the demand on the pool, its response time.

Each gives what it wants now; `core.triggers` steadies that by what it has wanted lately.

`target` is the rule of the Kubernetes autoscaler (replica_calculator.go), in floating point: the ratio of what is to
what should be; within the tolerance nothing changes; on the way up who is not ready yet counts as idle, so that a
start under way is not asked for twice; who says nothing counts as idle on the way up and as full on the way down.
"""

from __future__ import annotations

import math

from msgspec import Struct

from agentd.core import signals
from agentd.core.lifecycle import LEAVING
from agentd.core.metrics import Totals
from agentd.core.model import Reason, State
from agentd.core.rules import QUEUE, DemandTrigger, LatencyTrigger, TargetTrigger
from agentd.core.state import Fleet, Instance, Pool

# What floating point makes of a whole number must not cost an instance.
_EPSILON = 1e-9
# A response time far above its target may double the pool, and no more, before that has shown.
GROWTH_MAX = 2.0


class Wish(Struct, frozen=True):
    """The count that is right by what is known now. None: nothing is known, as `reason` says."""

    count: int | None
    reason: Reason


def abstains(code: str, text: str) -> Wish:
    return Wish(None, Reason(code, text))


# -- target ---------------------------------------------------------------------------------------


def target(fleet: Fleet, pool: Pool, rule: TargetTrigger, sums: Totals, now: float) -> Wish:
    """So many that each has `rule.target` of the signal."""
    if rule.signal == "demand":
        if sums.demand is None:
            return unknown_demand(pool, now)
        return _all_told(sums, _of_total(rule, sums.count, sums.demand))
    if pool.config.collector(rule.signal):
        total, why = signals.reading(pool, rule.signal, now)
        return abstains("no_reading", why) if total is None else _of_total(rule, sums.count, total)
    samples = samples_of(fleet, pool, rule.signal, now)
    if not samples.values:
        return abstains("no_sample", f"no ready instance has reported its {named(rule.signal)}")
    usage = math.fsum(samples.values) / len(samples.values)
    return _told(rule, _per_instance(rule, sums.count, samples), sums.count, usage)


class Samples(Struct, frozen=True):
    """What ready instances say of a signal; how many of them say nothing; how many are not ready yet."""

    values: tuple[float, ...]
    missing: int
    unready: int


def _per_instance(rule: TargetTrigger, current: int, samples: Samples) -> int:
    total, number = math.fsum(samples.values), len(samples.values)
    ratio = total / number / rule.target
    idle = samples.unready if ratio > 1.0 else 0
    if not idle and not samples.missing:
        return current if inside(rule, ratio) else _ceil(ratio * number)
    if ratio < 1.0:
        total += samples.missing * (max(1.0, rule.target) if rule.signal == "load" else rule.target)
    number += idle + (samples.missing if ratio != 1.0 else 0)
    filled = total / number / rule.target
    if inside(rule, filled) or (filled > 1.0) != (ratio > 1.0):
        return current
    count = _ceil(filled * number)
    return max(current, count) if filled > 1.0 else min(current, count)


def _of_total(rule: TargetTrigger, current: int, total: float) -> Wish:
    wanted = max(0, _ceil(total / rule.target))
    if current and inside(rule, total / (rule.target * current)):
        wanted = current
    return _told(rule, wanted, current, total / current if current else total)


def _told(rule: TargetTrigger, wanted: int, current: int, usage: float) -> Wish:
    code = "above_target" if wanted > current else "below_target" if wanted < current else "at_target"
    word = {"above_target": "over", "below_target": "under", "at_target": "near"}[code]
    text = f"{named(rule.signal)} {number(usage)} per instance is {word} its target {number(rule.target)}"
    if wanted != current:
        text += f": {wanted} would do"
    return Wish(wanted, Reason(code, text))


def inside(rule: TargetTrigger, ratio: float) -> bool:
    return abs(ratio - 1.0) <= rule.tolerance_ratio + _EPSILON


def turns(rule: TargetTrigger, current: int) -> tuple[float, str]:
    """Above which number per instance `current` become more, and in words from where on they become fewer."""
    inner = rule.target * (1.0 - rule.tolerance_ratio)
    up = rule.target * (1.0 + rule.tolerance_ratio) if current else 0.0
    # Rounded up, the ratio is one fewer only where that many would do.
    enough = rule.target * (current - 1) / current if current else 0.0
    return up, f"at {enough:.4g} or below" if enough < inner else f"below {inner:.4g}"


def samples_of(fleet: Fleet, pool: Pool, signal: str, now: float) -> Samples:
    fresh_since = now - fleet.config.heartbeat_timeout_s
    values: list[float] = []
    missing = unready = 0
    for instance in pool.instances.values():
        if not instance.counts:
            continue
        if instance.state is not State.READY:
            unready += instance.state is not State.FAILED
            continue
        value = _value(instance, signal)
        if value is None or instance.beat_at <= fresh_since:
            missing += 1
        else:
            values.append(value)
    return Samples(tuple(values), missing, unready)


def _value(instance: Instance, signal: str) -> float | None:
    match signal:
        case "load":
            return instance.load
        case "in_flight":
            return None if instance.in_flight is None else float(instance.in_flight)
        case "throughput":
            return instance.rate
    raise AssertionError(f"broken invariant: {signal} is no signal of an instance")


# -- demand ---------------------------------------------------------------------------------------


def demand(pool: Pool, rule: DemandTrigger, sums: Totals, now: float) -> Wish:
    """So many that the tasks begun and waiting fill `rule.target_ratio` of their slots."""
    if sums.demand is None:
        return unknown_demand(pool, now)
    each = rule.target_ratio * pool.config.concurrency
    wanted = _ceil(sums.demand / each)
    code = "high_demand" if wanted > sums.count else "low_demand" if wanted < sums.count else "demand_met"
    tasks = "1 task" if sums.demand == 1.0 else f"{number(sums.demand)} tasks"
    text = f"{tasks} in flight or waiting, {number(each)} per instance: {wanted} wanted"
    return _all_told(sums, Wish(wanted, Reason(code, text)))


def _all_told(sums: Totals, wish: Wish) -> Wish:
    """`wish`, but no fewer where agents do not tell what they have: an empty queue says nothing of who is busy."""
    if sums.told or not sums.ready or wish.count is None or wish.count >= sums.count:
        return wish
    text = f"{wish.reason.text}; no agent tells what it has at work, so none is let go"
    return Wish(sums.count, Reason("unsure", text))


def unknown_demand(pool: Pool, now: float) -> Wish:
    if pool.config.collector(QUEUE):
        return abstains("no_reading", signals.reading(pool, QUEUE, now)[1])
    return abstains("no_sample", "no instance has reported its tasks")


# -- latency --------------------------------------------------------------------------------------


def latency(fleet: Fleet, pool: Pool, rule: LatencyTrigger, sums: Totals, now: float) -> Wish:
    """More in proportion to what the response time is too long; one fewer where it would still be short enough.

    What was started or let go last must have shown first: only reports count that came one interval after it.
    """
    if sums.demand == 0.0 and sums.told and sums.ready:
        return Wish(max(0, sums.count - 1), Reason("idle", "nothing is in flight or waiting"))
    found = response_s(fleet, pool, rule, now)
    if found is None:
        return abstains("no_sample", f"no ready instance has reported its response time ({rule.quantile}) of late")
    ratio = found / rule.target_s
    shown = f"response time {rule.quantile} {number(found)} s"
    if ratio > 1.0 + rule.tolerance_ratio + _EPSILON:
        wanted = max(sums.count, _ceil(sums.ready * min(GROWTH_MAX, ratio)))
        text = f"{shown} is over its target {number(rule.target_s)} s: {wanted} would do"
        return Wish(wanted, Reason("slow", text))
    fewer = _with_one_fewer(found, sums)
    if sums.count and fewer is not None and fewer <= rule.target_s:
        text = f"{shown} is under its target {number(rule.target_s)} s, and about {number(fewer)} s with one fewer"
        return Wish(sums.count - 1, Reason("fast", text))
    return Wish(sums.count, Reason("at_target", f"{shown} is near its target {number(rule.target_s)} s"))


def response_s(fleet: Fleet, pool: Pool, rule: LatencyTrigger, now: float) -> float | None:
    """The mean response time of the pool as it is now; None: nobody has told it of late."""
    since = _changed_at(pool) + fleet.config.heartbeat_interval_s
    fresh_since = now - fleet.config.heartbeat_timeout_s
    times = [
        at
        for instance in pool.instances.values()
        if instance.state is State.READY and instance.timed_at > fresh_since and instance.timed_at >= since
        if (at := _response_s(instance, rule.quantile)) is not None
    ]
    return math.fsum(times) / len(times) if times else None


def _with_one_fewer(found_s: float, sums: Totals) -> float | None:
    """The response time with one ready instance fewer: what waits grows as the free share of the others shrinks."""
    if sums.ready < 2:
        return None
    spread = sums.ready / (sums.ready - 1)
    load = sums.load
    if load is None:
        return found_s * spread
    free = 1.0 - load * spread
    return found_s * max(spread, (1.0 - load) / free) if free > 0.0 else None


def _changed_at(pool: Pool) -> float:
    """When instances of the pool began or ceased to take work last."""
    times = [i.since for i in pool.instances.values() if i.state is State.READY or i.state in LEAVING]
    return max([*times, pool.last_down_at or 0.0], default=0.0)


def _response_s(instance: Instance, quantile: str) -> float | None:
    return instance.response_time_p95_s if quantile == "p95" else instance.response_time_p50_s


def named(signal: str) -> str:
    """A signal in a sentence."""
    return {"in_flight": "tasks in flight", "throughput": "tasks per second"}.get(signal, signal)


def _ceil(value: float) -> int:
    return math.ceil(value - _EPSILON)


def number(value: float) -> str:
    """Two decimals where it has any; three significant digits where it is small."""
    if value == int(value):
        return str(int(value))
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.2g}"

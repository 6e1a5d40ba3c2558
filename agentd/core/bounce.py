"""What a pool would be like with fewer instances, by the rule that wants fewer: whether it would want more again.

The work stays the same and is shared by those who are left. Whom a step down takes is known: one that is not ready
carries nothing. `adaptive` looks ahead itself; a program, a schedule and a person mean what they say.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from agentd.core import planner, signals, targets
from agentd.core.metrics import Totals
from agentd.core.model import State
from agentd.core.rules import DemandTrigger, LatencyTrigger, TargetTrigger, ThresholdTrigger, Trigger
from agentd.core.state import SHRINKING, Fleet, Pool
from agentd.core.triggers import compare

_EPSILON = 1e-9
# What a `target` may look at that each instance says of itself.
_OF_INSTANCES = ("load", "in_flight", "throughput")


def step(
    fleet: Fleet, pool: Pool, rule: Trigger, sums: Totals, wanted: int, now: float
) -> tuple[int, str, float | None]:
    """The lowest count from `wanted` up at which `rule` would not want more; what it would see below that; until when.

    What instances say of their load says nothing of a step down before those who are left have had its share.
    """
    if isinstance(rule, ThresholdTrigger) or (isinstance(rule, TargetTrigger) and rule.signal in _OF_INSTANCES):
        until = _last_step(pool) + fleet.config.heartbeat_interval_s
        if now < until:
            return sums.count, f"the {targets.named(_signal(rule))} of those left is not known yet", until
    steps = range(wanted, sums.count)
    least = wanted + bisect_left(steps, True, key=lambda left: not would_grow(fleet, pool, rule, sums, left, now))
    if least == wanted:
        return wanted, "", None
    seen = would_grow(fleet, pool, rule, sums, least - 1, now)
    return least, f"{seen} with {least - 1}: {rule.kind} would want more again", None


def would_grow(fleet: Fleet, pool: Pool, rule: Trigger, sums: Totals, left: int, now: float) -> str:
    """What `rule` would see with `left` instances, where that makes it want more; else empty."""
    match rule:
        case ThresholdTrigger(scale_up_threshold=up):
            return _over("load", sums.load, _spread(pool, sums, left), up)
        case TargetTrigger():
            total = _total(pool, rule, sums, now)
            if total is not None:
                return _over(targets.named(rule.signal), total, 1.0 / left if left else math.inf, _ceiling(rule))
            values = targets.samples_of(fleet, pool, rule.signal, now).values
            mean = math.fsum(values) / len(values) if values else None
            return _over(targets.named(rule.signal), mean, _spread(pool, sums, left), _ceiling(rule))
        case DemandTrigger():
            each = rule.target_ratio * pool.config.concurrency
            if sums.demand is None or sums.demand <= left * each + _EPSILON:
                return ""
            return f"{targets.number(sums.demand)} tasks would be more than {targets.number(left * each)}"
        case LatencyTrigger() if sums.demand != 0.0:
            found = targets.response_s(fleet, pool, rule, now)
            return _over(
                "response time", found, _spread(pool, sums, left), rule.target_s * (1.0 + rule.tolerance_ratio)
            )
    return ""


def _signal(rule: ThresholdTrigger | TargetTrigger) -> str:
    return rule.signal if isinstance(rule, TargetTrigger) else "load"


def _last_step(pool: Pool) -> float:
    """When the pool was made smaller last."""
    leaving = [i.leaving_at for i in pool.instances.values() if i.stop_purpose in SHRINKING and not i.is_resuming]
    return max([*leaving, -math.inf if pool.last_down_at is None else pool.last_down_at])


def _over(what: str, now: float | None, factor: float, bound: float) -> str:
    """What `what` would be, `factor` times as much as now, where that is above `bound`."""
    if not now or now * factor <= bound + _EPSILON:
        return ""
    if math.isinf(factor):
        return f"nobody would be there for a {what} of {targets.number(now)}"
    return f"{what} would be {compare(now * factor, '>', bound)}"


def _spread(pool: Pool, sums: Totals, left: int) -> float:
    """By how much what each ready instance has to do grows when the pool shrinks to `left`."""
    leaving = sum(1 for victim in planner.victims(pool)[: sums.count - left] if victim.state is State.READY)
    return sums.ready / (sums.ready - leaving) if sums.ready > leaving else math.inf if leaving else 1.0


def _total(pool: Pool, rule: TargetTrigger, sums: Totals, now: float) -> float | None:
    """What the signal says of the whole pool; None where instances say it."""
    if rule.signal == "demand":
        return sums.demand or 0.0
    return (signals.reading(pool, rule.signal, now)[0] or 0.0) if pool.config.collector(rule.signal) else None


def _ceiling(rule: TargetTrigger) -> float:
    return rule.target * (1.0 + rule.tolerance_ratio)

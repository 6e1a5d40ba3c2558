"""What a person might change, from what agentd knows of its pools: advice, which nothing acts on.

Each rule looks at one pool and says at most one thing, with its numbers and the key of the configuration that it is
about. The order is that of the rules, then of the pools by name: the same fleet gives the same advice.

    starts_failing       the last starts of the pool failed
    crash_loop           agents that ended too often and are left alone
    oom_kills            agents that the kernel has killed for want of memory
    no_samples           agents take work and do not say what the pool's triggers look at
    collector_stale      a collector has not been read for so long that nobody decides on it
    held_long            more, or fewer, has been wanted for long, and what stands against it
    start_timeout_tight  starts take nearly as long as start_timeout_sec
    start_timeout_loose  a start that hangs is noticed late: starts take a tenth of start_timeout_sec at most
    memory_max_tight     agents use nearly all that memory_max leaves them
    memory_max_loose     agents use a fifth of memory_max at most
    ports_scarce         nearly all ports of the range are used, and max allows more
    made_it_worse        more agents made each of them slower
    useful_max           there are more agents than add anything
    over_budget          the month's budget will not do
    autoscaling_off      a person switched scaling off long ago
"""

from __future__ import annotations

from collections.abc import Callable

from agentd.core import costs, planner, signals, starts
from agentd.core.effects import Verdict
from agentd.core.metrics import totals
from agentd.core.model import MIB, HealthCheck, State
from agentd.core.rates import money
from agentd.core.rules import DemandTrigger, LatencyTrigger, TargetTrigger, ThresholdTrigger
from agentd.core.state import Fleet, Pool
from agentd.core.views import Advice

FAILED_STARTS = 3
HELD_S = 15 * 60.0
SILENT_S = 60.0
OFF_S = 24 * 3600.0
STARTS_MIN = 5
TIGHT_RATIO, LOOSE_RATIO = 0.8, 0.1
MEMORY_TIGHT_RATIO, MEMORY_LOOSE_RATIO = 0.9, 0.2
PORTS_RATIO = 0.1
# Whoever waits no longer than this for a start that hangs needs no advice.
LOOSE_S_MIN = 60.0


def advise(fleet: Fleet, now: float) -> tuple[Advice, ...]:
    """All that there is to say of `fleet` at `now`."""
    if not fleet.config.enabled:
        return ()
    pools = [pool for _, pool in sorted(fleet.pools.items()) if not pool.removed]
    found = [
        Advice(code, pool.name, text) for code, rule in _RULES for pool in pools if (text := rule(fleet, pool, now))
    ]
    return (*found, *_of_all(fleet, now))


def _starts_failing(_fleet: Fleet, pool: Pool, _now: float) -> str:
    if pool.start_failures < FAILED_STARTS:
        return ""
    return f"the last {pool.start_failures} starts failed: {pool.start_failure or 'it ends again and again'}"


def _crash_loop(_fleet: Fleet, pool: Pool, _now: float) -> str:
    failed = sorted(i.id for i in pool.instances.values() if i.state is State.FAILED and not i.retry_at)
    if not failed:
        return ""
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    cause = pool.instances[failed[0]].cause
    return f"{failed[0]}{more} will not be started again by itself ({cause}): see agentctl logs {failed[0]}"


def _oom_kills(_fleet: Fleet, pool: Pool, _now: float) -> str:
    kills = sum(instance.oom_kills for instance in pool.instances.values())
    if not kills:
        return ""
    most = pool.config.resources.memory_max_bytes
    why = f"memory_max ({_mib(most)} MiB) is too little for them" if most else "the host has too little for so many"
    return f"{kills} {'kill' if kills == 1 else 'kills'} for want of memory: {why}"


def _no_samples(fleet: Fleet, pool: Pool, now: float) -> str:
    """What the triggers look at is not there, although agents have been ready for long enough to say it."""
    config = pool.config
    ready = [i for i in pool.instances.values() if i.state is State.READY and now - i.since >= SILENT_S]
    if not ready or config.health is not HealthCheck.HEARTBEAT:
        return ""
    sums, missing = totals(fleet, pool, now), list[str]()
    for trigger in config.triggers:
        signal = trigger.signal if isinstance(trigger, TargetTrigger) else ""
        if (isinstance(trigger, ThresholdTrigger) or signal == "load") and sums.load is None:
            missing.append("load")
        elif (isinstance(trigger, DemandTrigger) or signal in ("demand", "in_flight")) and sums.demand is None:
            missing.append("in_flight or queue_length")
        elif isinstance(trigger, LatencyTrigger) and all(getattr(i, _TIMES[trigger.quantile]) is None for i in ready):
            missing.append(_TIMES[trigger.quantile])
    what = ", ".join(dict.fromkeys(missing))
    return f"none of its {len(ready)} ready agents reports {what}: nothing can be decided by that" if missing else ""


def _collector_stale(_fleet: Fleet, pool: Pool, now: float) -> str:
    for collector in pool.config.collectors:
        value, why = signals.reading(pool, collector.name, now)
        known = pool.readings.get(collector.name)
        if value is None and known is not None and known.trouble:
            return f"{why}: what looks at {collector.name} decides nothing (agentctl collectors {pool.name})"
    return ""


def _held_long(_fleet: Fleet, pool: Pool, now: float) -> str:
    made = pool.last_decision
    if pool.held_from is None or now - pool.held_from < HELD_S or made is None or not made.held:
        return ""
    against = "; ".join(f"{limit.code}: {limit.text}" for limit in made.limits)
    return f"has wanted {made.wanted} for {_minutes(now - pool.held_from)} and stays at {made.granted}: {against}"


def _start_timeout_tight(_fleet: Fleet, pool: Pool, _now: float) -> str:
    times, most = starts.learned(pool), pool.config.start_timeout_s
    if times.p95_s is None or times.counted < STARTS_MIN or times.p95_s < TIGHT_RATIO * most:
        return ""
    return (
        f"starts take {times.p95_s:.1f} s (p95 of {times.counted}), and start_timeout_sec is {most:g}: "
        f"{2 * times.p95_s:.0f} would leave room"
    )


def _start_timeout_loose(_fleet: Fleet, pool: Pool, _now: float) -> str:
    times, most = starts.learned(pool), pool.config.start_timeout_s
    if times.p95_s is None or times.counted < STARTS_MIN or most <= LOOSE_S_MIN or times.p95_s > LOOSE_RATIO * most:
        return ""
    enough = max(LOOSE_S_MIN, 5 * times.p95_s)
    return (
        f"starts take {times.p95_s:.1f} s (p95 of {times.counted}), and one that hangs is noticed after "
        f"start_timeout_sec {most:g}: {enough:.0f} would do"
    )


def _memory_max_tight(_fleet: Fleet, pool: Pool, _now: float) -> str:
    most = pool.config.resources.memory_max_bytes
    if not most or not pool.footprint_learned or pool.footprint_bytes < MEMORY_TIGHT_RATIO * most:
        return ""
    return f"agents use {_mib(pool.footprint_bytes)} MiB of the {_mib(most)} MiB that memory_max leaves each"


def _memory_max_loose(_fleet: Fleet, pool: Pool, _now: float) -> str:
    most = pool.config.resources.memory_max_bytes
    if not most or not pool.footprint_learned or pool.footprint_bytes > MEMORY_LOOSE_RATIO * most:
        return ""
    used = _mib(pool.footprint_bytes)
    return (
        f"agents use {used} MiB, and memory_max is {_mib(most)} MiB: one that leaks takes that much before it is ended"
    )


def _ports_scarce(fleet: Fleet, pool: Pool, now: float) -> str:
    ports = pool.config.ports
    count = len(pool.committed())
    if ports is None or count >= pool.max:
        return ""
    free = len(planner.free_ports(fleet, pool, now))
    if free > max(1, int(len(ports) * PORTS_RATIO)) or free >= pool.max - count:
        return ""
    lost = sum(1 for port, until in pool.conflicts.items() if port in ports and until > now)
    others = f", {lost} taken by other programs" if lost else ""
    room = f"max {pool.max} would need {pool.max - count}"
    return f"{free} of {len(ports)} ports ({ports.first}-{ports.last}) are free{others}, and {room}"


def _made_it_worse(_fleet: Fleet, pool: Pool, _now: float) -> str:
    effect = pool.history.last
    if effect is None or effect.verdict is not Verdict.MADE_IT_WORSE:
        return ""
    return f"the last scaling that was judged ({effect.decision}) made it worse: {effect.reason}"


def _useful_max(_fleet: Fleet, pool: Pool, _now: float) -> str:
    count = len(pool.committed())
    return f"{pool.law.text}; there are {count}" if pool.law is not None and count > pool.law.useful_max else ""


def _over_budget(fleet: Fleet, pool: Pool, now: float) -> str:
    budget = pool.config.budget.per_month
    cost = costs.of_pool(fleet, pool, now) if budget is not None else None
    return _budget_text(fleet, budget, cost.projected_month if cost else None)


def _of_all(fleet: Fleet, now: float) -> list[Advice]:
    found: list[Advice] = []
    budget = fleet.config.budget.per_month
    cost = costs.of_fleet(fleet, now) if budget is not None else None
    text = _budget_text(fleet, budget, cost.projected_month if cost else None)
    if text:
        found.append(Advice("over_budget", "", f"all pools: {text}"))
    mode = fleet.mode
    off_s = fleet.wall(now) - mode.since_wall
    if not mode.enabled and mode.since_wall and off_s >= OFF_S:
        why = f' ("{mode.reason}")' if mode.reason else ""
        text = f"{mode.owner} switched it off {off_s / 86_400:.0f} days ago{why}: agentctl auto on ends that"
        found.append(Advice("autoscaling_off", "", text))
    return found


def _budget_text(fleet: Fleet, budget: float | None, projected: float | None) -> str:
    if budget is None or projected is None or projected <= budget:
        return ""
    return f"{money(projected)} projected for this month, the budget is {money(budget, fleet.config.currency)}"


def _minutes(duration_s: float) -> str:
    minutes = int(duration_s // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h"


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)


_TIMES = {"p50": "response_time_p50_s", "p95": "response_time_p95_s"}
_RULES: tuple[tuple[str, Callable[[Fleet, Pool, float], str]], ...] = (
    ("starts_failing", _starts_failing),
    ("crash_loop", _crash_loop),
    ("oom_kills", _oom_kills),
    ("no_samples", _no_samples),
    ("collector_stale", _collector_stale),
    ("held_long", _held_long),
    ("start_timeout_tight", _start_timeout_tight),
    ("start_timeout_loose", _start_timeout_loose),
    ("memory_max_tight", _memory_max_tight),
    ("memory_max_loose", _memory_max_loose),
    ("ports_scarce", _ports_scarce),
    ("made_it_worse", _made_it_worse),
    ("useful_max", _useful_max),
    ("over_budget", _over_budget),
)

"""From a wish to a grant: evaluation of one pool, and the guards that may lower or hold it.

Guards are asked in this order, and every one that would grant less leaves its named limit; the least grant
counts. Bounds come first, for the others look at what is left of the wish; headroom comes last, because
physics outranks policy.

    bounds            max_agents, min_agents
    recovery          recovering           agentd has just started, and loads are known in part; people need not wait
    action in flight  action_in_flight     an earlier step in the same direction has not ended; `threshold`, people
    cooldown          up_cooldown, down_cooldown
    drain share       drain_share          so many of the pool drain already
    rolling restart   rolling_restart      the pool is being restarted; fewer when that has ended
    start backoff     start_backoff        the last starts failed
    core              only_core_left       core agents are never let go
    ports             ports_exhausted
    driver            driver_capacity
    headroom          host_memory, slice_memory, host_disk, host_cpu, host_memory_pressure, host_io_pressure,
                      host_unknown

A scale-up takes back draining instances first. What a new start must wait for does not hold those: they are there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from agentd.core import capacity, drain, planner, triggers
from agentd.core.capacity import NOTHING_PROMISED, Promised
from agentd.core.lifecycle import LEAVING, ON_ITS_WAY
from agentd.core.metrics import Totals, totals
from agentd.core.model import Decision, HealthCheck, Limit, Proposal, Reason, State
from agentd.core.rules import ThresholdTrigger
from agentd.core.state import SHRINKING, Fleet, Pool, Purpose

Bound = tuple[int, Limit]


@dataclass(frozen=True, slots=True)
class Situation:
    """What the guards look at. `wanted` is already within the bounds, and differs from `count`."""

    fleet: Fleet
    pool: Pool
    count: int
    wanted: int
    now: float
    extra: Promised
    asked_for: bool  # by a person
    in_the_end: bool
    back: int  # how many draining instances a scale-up could take back
    trigger: str  # whose proposal it is; empty: a person's target, or the bounds

    @property
    def up(self) -> bool:
        return self.wanted > self.count


def evaluate(
    fleet: Fleet, pool: Pool, now: float, *, extra: Promised = NOTHING_PROMISED, target: int | None = None,
    in_the_end: bool = False, between: bool = False, sums: Totals | None = None,
) -> Decision:  # fmt: skip
    """What to do with `pool` now, and why. Changes nothing; the decision has no id yet.

    `target` takes the place of a person's target (for a dry run); `extra` is what other pools were granted.
    `in_the_end`: whatever may drain at once. `between`: it is between two checks, and nobody is shown what would change
    a pool that stays as it is. `sums`: its totals, where they are known.
    """
    sums = sums or totals(fleet, pool, now)
    wanted, reason, proposals = _wish(fleet, pool, sums, target, now, between)
    winner = triggers.highest(proposals).trigger if proposals else ""
    decision = Decision(
        id="", pool=pool.name, at=now, wall=fleet.wall(now), current=sums.count, wanted=wanted, granted=sums.count,
        reasons=(reason,), trigger=winner, proposals=proposals,
    )  # fmt: skip
    if wanted == sums.count:
        return decision if between else replace(decision, counterfactual=_steady(fleet, pool, sums))
    within, bound = _bounds(pool, sums.count, wanted)
    limits = [bound] if bound else []
    granted = within
    if within != sums.count:
        situation = Situation(
            fleet, pool, sums.count, within, now, extra, asked_for=target is not None or pool.target is not None,
            in_the_end=in_the_end,
            back=len(drain.reclaimable(fleet, pool, now)) if within > sums.count else 0,
            trigger=winner,
        )  # fmt: skip
        for guard in _GUARDS:
            for allowed, limit in guard(situation):
                lower = allowed < within if situation.up else allowed > within
                if lower:
                    limits.append(limit)
                    granted = min(granted, allowed) if situation.up else max(granted, allowed)
    let_go = planner.victims(pool)[: max(0, sums.count - granted)]
    decision = replace(decision, granted=granted, limits=tuple(limits), victims=tuple(i.id for i in let_go))
    if decision.at_rest:
        return replace(decision, counterfactual=_steady(fleet, pool, sums))
    return replace(decision, counterfactual=_otherwise(decision, now))


def _wish(
    fleet: Fleet, pool: Pool, sums: Totals, target: int | None, now: float, between: bool
) -> tuple[int, Reason, tuple[Proposal, ...]]:
    """The count asked for: a person's target, else the highest proposal. Above max it is always one less.

    Who abstains wants what is there. The proposals are those that were asked for.
    """
    if target is not None:
        return target, Reason("target", f"{target} asked for"), ()
    wish = pool.target
    if sums.count > pool.max and (wish.count >= sums.count if wish else fleet.mode.enabled):
        text = f"{sums.count} instances, at most {pool.max} allowed"
        return sums.count - 1, Reason("above_max", text), ()
    if wish is not None:
        for_what = f" ({wish.reason})" if wish.reason else ""
        return wish.count, Reason("target", f"{wish.owner} asked for {wish.count}{for_what}"), ()
    if not fleet.mode.enabled:
        return sums.count, Reason("autoscaling_off", f"autoscaling is off ({fleet.mode.owner})"), ()
    proposals = triggers.ask(fleet, pool, sums, now, between=between)
    winner = triggers.highest(proposals)
    return (sums.count if winner.count is None else winner.count), winner.reason, proposals


def _bounds(pool: Pool, count: int, wanted: int) -> tuple[int, Limit | None]:
    if wanted > count and wanted > pool.max:
        return max(count, pool.max), Limit("max_agents", f"its maximum is {pool.max}")
    if wanted < count and wanted < pool.min:
        return min(count, pool.min), Limit("min_agents", f"its minimum is {pool.min}")
    return wanted, None


def _recovery(s: Situation) -> list[Bound]:
    if s.now >= s.fleet.recovering_until or s.asked_for:
        return []
    left = s.fleet.recovering_until - s.now
    return [
        (s.count, Limit("recovering", f"agentd started a moment ago; waits {left:.0f} s", s.fleet.recovering_until))
    ]


def _action_in_flight(s: Situation) -> list[Bound]:
    if not _slow(s.trigger):
        return []  # what starts counts already, and how many drain at once has its own bound
    for instance in s.pool.instances.values():
        coming = instance.purpose is Purpose.SCALE_UP and not instance.ever_ready and instance.state in _COMING
        # Also the way down waits for it: a scale-up that is taken back at once was none. People need not wait.
        if coming and (s.up or s.pool.target is None):
            return [(s.count, Limit("action_in_flight", f"{instance.id} is still starting"))]
        if instance.is_resuming and (s.up or s.pool.target is None):
            return [(s.count, Limit("action_in_flight", f"{instance.id} is being taken back"))]
        if not s.up and instance.stop_purpose in SHRINKING and instance.state in LEAVING:
            return [(s.count, Limit("action_in_flight", f"{instance.id} is still finishing"))]
    return []


def cooldown_until(pool: Pool, *, up: bool, trigger: str = "") -> float:
    """Until when the pool's cooldown lasts in that direction; 0.0 without one.

    That for `threshold` counts for its own decisions, and where the pool has it for people's, too.
    """
    config = pool.config
    slow = _slow(trigger) and config.threshold is not None
    if up:
        cooldown_s = config.scale_up_cooldown_s if slow else config.quick_up_cooldown_s
        return 0.0 if pool.last_up_at is None else pool.last_up_at + cooldown_s
    cooldown_s = config.scale_down_cooldown_s if slow else config.quick_down_cooldown_s
    last = [at for at in (pool.last_up_at, pool.last_down_at, pool.last_resume_at) if at is not None]
    return max(last) + cooldown_s if last else 0.0


def _slow(trigger: str) -> bool:
    """Whether it is one step at a time: `threshold` knows nothing of steps under way, nor do people."""
    return trigger in ("", ThresholdTrigger.kind)


def _cooldown(s: Situation) -> list[Bound]:
    until = cooldown_until(s.pool, up=s.up, trigger=s.trigger)
    if s.now >= until:
        return []
    which = "up" if s.up else "down"
    return [
        (s.count + s.back, Limit(f"{which}_cooldown", f"scale-{which} cooldown: {until - s.now:.0f} s left", until))
    ]


def _start_backoff(s: Situation) -> list[Bound]:
    if not s.up or s.now >= s.pool.backoff_until:
        return []
    left = s.pool.backoff_until - s.now
    text = f"the last {s.pool.start_failures} starts failed; next try in {left:.0f} s"
    return [(s.count + s.back, Limit("start_backoff", text, s.pool.backoff_until))]


def _drain_share(s: Situation) -> list[Bound]:
    """Only so many may drain at once. Who is not ready yet has nothing to finish."""
    if s.up or s.in_the_end:
        return []
    draining, most, size = planner.drain_share(s.pool)
    unready = sum(1 for victim in planner.victims(s.pool) if victim.state is not State.READY)
    text = f"at most {most} of {size} may drain at once" + ("; the others follow" if s.asked_for else "")
    return [(s.count - unready - max(0, most - draining), Limit("drain_share", text))]


def _rolling(s: Situation) -> list[Bound]:
    """Whom a rolling restart has just given a new process, nobody takes away; nor is anybody let go in its midst."""
    rolling = s.pool.rolling
    if s.up or s.in_the_end or rolling is None or not rolling.on:
        return []
    text = f"its restart is under way ({rolling.done} of {rolling.total}); fewer when that has ended"
    return [(s.count, Limit("rolling_restart", text))]


def _core(s: Situation) -> list[Bound]:
    if s.up:
        return []
    left = s.count - len(planner.victims(s.pool))
    return [(left, Limit("only_core_left", f"only core agents left ({left})"))]


def _ports(s: Situation) -> list[Bound]:
    if not s.up:
        return []
    free = len(planner.free_ports(s.fleet, s.pool, s.now))
    ports = s.pool.config.ports
    where = f"{ports.first}-{ports.last}" if ports else "no elastic range"
    return [(s.count + s.back + free, Limit("ports_exhausted", f"{free} free ports ({where})"))]


def _driver(s: Situation) -> list[Bound]:
    most = s.fleet.capacity_max
    if not s.up or most is None:
        return []
    free = max(0, most - len(s.fleet.instances))
    return [(s.count + s.back + free, Limit("driver_capacity", f"the driver can run {most} instances"))]


def _headroom(s: Situation) -> list[Bound]:
    if not s.up:
        return []
    return [(s.count + s.back + more, limit) for more, limit in capacity.room(s.fleet, s.pool, s.extra, s.now)]


_COMING = ON_ITS_WAY | {State.BACKOFF}
_GUARDS: tuple[Callable[[Situation], list[Bound]], ...] = (
    _recovery,
    _action_in_flight,
    _cooldown,
    _drain_share,
    _rolling,
    _start_backoff,
    _core,
    _ports,
    _driver,
    _headroom,
)


def _steady(fleet: Fleet, pool: Pool, sums: Totals) -> str:
    """What would change a pool that is to stay as it is."""
    if not fleet.config.enabled:
        return "multi_agent.enabled is false: nothing is started or stopped"
    if pool.target is not None:
        return f"stays at {sums.count} until the target is changed"
    if not fleet.mode.enabled:
        return "agentctl auto on switches scaling on"
    parts = [triggers.turning(pool, sums)]
    rule = pool.config.threshold
    if rule is not None:
        parts.append(_steady_threshold(pool, rule, sums))
    return "; ".join(part for part in parts if part) or "neither more nor fewer are allowed"


def _steady_threshold(pool: Pool, rule: ThresholdTrigger, sums: Totals) -> str:
    if sums.load is None and pool.config.health is not HealthCheck.HEARTBEAT:
        return "decides when the CPU that a ready instance uses has been measured"
    if sums.load is None:
        return "decides when a ready instance reports its load"
    parts = []
    if sums.count < pool.max:
        parts.append(f"would go to {sums.count + 1} if load rises above {rule.scale_up_threshold:.2f}")
    if sums.count > pool.min and planner.victims(pool):
        parts.append(f"would go to {sums.count - 1} if load falls below {rule.scale_down_threshold:.2f}")
    return "; ".join(parts)


def _otherwise(decision: Decision, now: float) -> str:
    """What would be granted without the limits, or when they lift."""
    if not decision.limits:
        return ""
    codes = ", ".join(limit.code for limit in decision.limits)
    lifts = [limit.until for limit in decision.limits if limit.until is not None]
    if len(lifts) == len(decision.limits):
        return f"would go to {decision.wanted} in {max(lifts) - now:.0f} s if nothing changes; blocked by {codes}"
    return f"would go to {decision.wanted} without {codes}"

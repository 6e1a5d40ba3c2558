"""Evaluation of the pools and what follows from it: the only place where counts change by policy or by people."""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec.structs import replace

from agentd.core import (
    arrival,
    basis,
    conditions,
    costs,
    departure,
    drain,
    forecasting,
    guards,
    planner,
    sharing,
    triggers,
    validation,
)
from agentd.core.capacity import Promised
from agentd.core.lifecycle import COMMITTED
from agentd.core.messages import Check, CheckReply, EventType, Grant, Refusal, SetTarget, TargetReply
from agentd.core.metrics import totals
from agentd.core.model import Decision, Direction, PoolName, Target
from agentd.core.rules import ThresholdTrigger
from agentd.core.state import EVALUATE_S_MAX, Fleet, Pool, Purpose


def check(
    fleet: Fleet, now: float, names: Iterable[PoolName] | None = None, *, between: bool = False
) -> tuple[Decision, ...]:
    """Evaluate pools (None: all) and apply the decisions.

    `between`: it is between two checks.
    """
    if not fleet.acts:
        return ()
    wanted = fleet.pools if names is None else names
    pools = [fleet.pools[name] for name in wanted if not fleet.pools[name].removed]
    fleet.evaluations += len(pools)
    sums = {pool.name: totals(fleet, pool, now) for pool in pools}
    for pool in pools:
        if pool.quick:
            pool.evaluated_at, pool.evaluate_at = now, now + EVALUATE_S_MAX
        forecasting.note(fleet, pool, sums[pool.name], now)
        triggers.note(fleet, pool, sums[pool.name], now)
    decisions, taken = sharing.shared(fleet, pools, now, between=between, sums=sums)
    order = sorted(pools, key=lambda pool: (-pool.config.priority, pool.name))
    for pool in order:  # before any is carried out, for that changes what the others were made from
        decisions[pool.name] = _named(fleet, decisions[pool.name], taken[pool.name], between=between)
    for pool in order:
        decisions[pool.name] = _apply(fleet, pool, decisions[pool.name], now)
    return tuple(decisions[pool.name] for pool in pools)


def asked_for(fleet: Fleet, event: Check, now: float) -> CheckReply | Refusal:
    """A person wants a check now, of one pool or of all."""
    refusal = refuse_check(fleet, event.pool)
    return refusal or CheckReply(check(fleet, now, None if event.pool is None else (event.pool,)))


def refuse_check(fleet: Fleet, name: PoolName | None) -> Refusal | None:
    """Why pool `name`, or None for all, cannot be checked."""
    if not fleet.config.enabled:
        return Refusal("DISABLED", "multi_agent.enabled is false: nothing is started or stopped")
    if name is not None and name not in fleet.config.pools:
        known = ", ".join(fleet.config.pools)
        return Refusal("UNKNOWN_POOL", f"no pool {name!r} (there are {known})", "NOT_FOUND")
    return None


def recheck(fleet: Fleet, now: float) -> None:
    """Look again at people's targets whose limits have lifted."""
    due = [pool.name for pool in rechecked(fleet) if now >= pool.recheck_at]
    if due:
        check(fleet, now, due)


def evaluate_quick(fleet: Fleet, now: float) -> None:
    """Evaluate the pools whose signals have changed since, or that have not been looked at for long."""
    due = [pool.name for pool in quick(fleet) if now >= pool.evaluate_at]
    if due:
        check(fleet, now, due, between=True)


def deadline(fleet: Fleet) -> float | None:
    """When a target expires, or a pool is to be looked at, before the next check."""
    acts, scales = fleet.acts, fleet.mode.enabled
    first = math.inf
    for pool in fleet.pools.values():
        target = pool.target
        if target is not None and target.expires is not None and scales:
            first = min(first, target.expires)
        if acts and pool.recheck_at and not pool.removed:
            first = min(first, pool.recheck_at)
        if acts and scales and pool.quick and pool.evaluate_at and pool.evaluate_at < first:
            first = pool.evaluate_at
    return None if first == math.inf else first


def quick(fleet: Fleet) -> list[Pool]:
    """The pools that are evaluated between the checks, as long as agentd scales at all."""
    if not fleet.acts or not fleet.mode.enabled:
        return []
    return [pool for pool in fleet.pools.values() if pool.quick]


def rechecked(fleet: Fleet) -> list[Pool]:
    """The pools that are to be looked at again before the next check, as long as agentd acts at all."""
    if not fleet.acts:
        return []
    return [pool for pool in fleet.pools.values() if pool.recheck_at and not pool.removed]


def expire_targets(fleet: Fleet, now: float) -> None:
    """Let go of people's targets whose time has passed; while scaling is off they do not expire."""
    for pool in fleet.pools.values():
        target = pool.target
        if target and target.expires is not None and target.expires <= now and fleet.mode.enabled:
            pool.target = None
            fleet.touch_pool(pool.name)
            fleet.tell(EventType.TARGET_EXPIRED, f"target {target.count} of {target.owner}", pool=pool.name)


def set_target(fleet: Fleet, event: SetTarget, now: float) -> TargetReply | Refusal:
    """Take a person's wish, for one pool or divided over all, and evaluate at once."""
    refusal = _refuse_target(fleet, event)
    if refusal:
        return refusal
    wishes = {event.pool: event.count} if event.pool else planner.divide(fleet, event.count, now)
    if event.dry_run:
        return TargetReply(tuple(_preview(fleet, wishes, now)))
    expires = None if event.for_s is None else now + event.for_s
    for name, count in wishes.items():
        fleet.pools[name].target = Target(count, event.owner, event.reason, expires)
        fleet.touch_pool(name)
        why = f" ({event.reason})" if event.reason else ""
        fleet.tell(EventType.TARGET, f"{event.direction} to {count}{why}", pool=name, actor=event.owner)
    in_the_end = {name: guards.evaluate(fleet, fleet.pools[name], now, in_the_end=True) for name in wishes}
    return TargetReply(tuple(_grant(decision, in_the_end[decision.pool]) for decision in check(fleet, now, wishes)))


def _refuse_target(fleet: Fleet, event: SetTarget) -> Refusal | None:
    if not fleet.config.enabled:
        return Refusal("DISABLED", "multi_agent.enabled is false: nothing is started or stopped")
    if event.pool and (event.pool not in fleet.pools or fleet.pools[event.pool].removed):
        known = ", ".join(fleet.config.pools)
        return Refusal("UNKNOWN_POOL", f"no pool {event.pool!r} (there are {known})", "NOT_FOUND")
    pools = [fleet.pools[event.pool]] if event.pool else list(fleet.pools.values())
    present = sum(len(pool.committed()) for pool in pools)
    if event.direction == "up" and event.count < present:
        text = f"cannot go up to {event.count}: there are {present} now"
        return Refusal("TARGET_BELOW_CURRENT", text, "INVALID_ARGUMENT")
    if event.direction == "down" and event.count > present:
        text = f"cannot go down to {event.count}: there are {present} now"
        return Refusal("TARGET_ABOVE_CURRENT", text, "INVALID_ARGUMENT")
    return None


def _preview(fleet: Fleet, wishes: dict[PoolName, int], now: float) -> Iterable[Grant]:
    """What `wishes` would get, together."""
    pools = [fleet.pools[name] for name in wishes]
    decisions = sharing.decide(fleet, pools, now, targets=wishes)
    in_the_end = sharing.decide(fleet, pools, now, targets=wishes, in_the_end=True)
    for name in sorted(wishes, key=lambda name: (-fleet.pools[name].config.priority, name)):
        yield _grant(decisions[name], in_the_end[name])


def _grant(decision: Decision, in_the_end: Decision) -> Grant:
    """What a wish gets. One for fewer that has to wait for other drains goes on by itself: that is granted too."""
    limits = tuple(f"{limit.code}: {limit.text}" for limit in decision.limits)
    granted = in_the_end.granted if _goes_on(decision) else decision.granted
    return Grant(decision.pool, decision.current, decision.wanted, granted, limits)


def _goes_on(decision: Decision) -> bool:
    asked_for = any(reason.code == "target" for reason in decision.reasons)
    return asked_for and any(limit.code in ("drain_share", "rolling_restart") for limit in decision.limits)


def _named(fleet: Fleet, decision: Decision, taken: Promised, *, between: bool) -> Decision:
    """`decision` with its id and what it was made from, if it is to be kept."""
    pool = fleet.pools[decision.pool]
    stays = decision.granted == decision.current
    if stays and (not decision.held or _gist(pool, decision) == pool.last_gist):
        return decision
    kept = basis.take(fleet, pool, decision.at, between=between, extra=taken) if fleet.keeps_basis else ""
    return replace(decision, id=fleet.new_decision_id(), basis=kept, configuration=fleet.config.fingerprint)


def _gist(pool: Pool, decision: Decision) -> list[int | str]:
    """By what a hold is known that repeats the last one."""
    slow = decision.trigger in ("", ThresholdTrigger.kind)
    # What others want moves with every task: there a hold is the same while it holds at the same.
    wanted = decision.wanted if slow else decision.granted
    gist: list[int | str] = [decision.current, wanted, *[limit.code for limit in decision.limits]]
    if not slow and not decision.held and pool.last_gist[:1] == gist[:1]:
        gist = pool.last_gist  # nor is it another one when nothing was wanted in between
    return gist


def _apply(fleet: Fleet, pool: Pool, decision: Decision, now: float) -> Decision:
    """Carry `decision` out and remember it. A hold that repeats the last one is not kept a second time."""
    gist = _gist(pool, decision)
    if decision.id:
        fleet.decisions.append(decision)
        costs.note(fleet, pool, decision)
        _carry_out(fleet, pool, decision, now)
    pool.last_decision = decision
    conditions.note(fleet, pool, decision)
    recheck_before, pool.recheck_at = pool.recheck_at, 0.0
    if not decision.held:
        pool.held_from = None
    else:
        pool.held_from = now if pool.held_from is None else pool.held_from
        lifts = [limit.until for limit in decision.limits if limit.until is not None]
        if len(lifts) == len(decision.limits):
            if pool.target:
                pool.recheck_at = max(lifts)
            if pool.quick:
                pool.evaluate_at = min(pool.evaluate_at, max(lifts))
    if gist != pool.last_gist or pool.recheck_at != recheck_before or pool.target:
        pool.last_gist = gist
        fleet.touch_pool(pool.name)
    return decision


def _carry_out(fleet: Fleet, pool: Pool, decision: Decision, now: float) -> None:
    """Start, take back and let go whom `decision`, which has its id, wants; or tell that it holds."""
    reason = "; ".join(reason.text for reason in decision.reasons)
    match decision.direction:
        case Direction.UP:
            more = decision.granted - decision.current
            back = drain.reclaimable(fleet, pool, now)[:more]
            validation.begin(fleet, pool, decision, now, [draining.id for draining in back])
            for draining in back:
                drain.take_back(fleet, draining, now, reason=reason, decision=decision.id)
            for _ in range(more - len(back)):
                instance = arrival.start_new(fleet, pool, Purpose.SCALE_UP, now, decision=decision.id)
                assert instance is not None, "broken invariant: the ports guard granted a port that is not there"
                instance.reason = reason
        case Direction.DOWN:
            pool.down_in_steps = _goes_on(decision)
            validation.begin(fleet, pool, decision, now)
            fleet.touch_pool(pool.name)
            for ident in decision.victims:
                victim = fleet.instances[ident]
                assert not victim.is_core, f"broken invariant: {ident} is a core agent"
                assert victim.state in COMMITTED, f"broken invariant: {ident} is leaving already"
                fleet.tell(EventType.SCALE_DOWN, reason, victim, decision=decision.id)
                departure.begin(fleet, victim, Purpose.SCALE_DOWN, now, reason=reason, decision=decision.id)
        case Direction.NONE:
            limits = "; ".join(limit.text for limit in decision.limits)
            text = f"{reason}; wanted {decision.wanted}, stays at {decision.granted}: {limits}"
            fleet.tell(EventType.HOLD, text, pool=pool.name, decision=decision.id)

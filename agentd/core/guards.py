"""From a wish to a grant: evaluation of one pool, and the guards that may lower or hold it.

Guards are asked in this order, and every one that would grant less leaves its named limit; the least grant
counts. Bounds come first, for the others look at what is left of the wish; headroom comes last, because
physics outranks policy.

    bounds            max_agents, min_agents
    recovery          recovering           agentd has just started, and loads are known in part; people need not wait
    pause             paused_up, paused_down             a person has paused that direction; people go on
    action in flight  action_in_flight     an earlier step in the same direction has not ended; `threshold`, people
    cooldown          up_cooldown, down_cooldown
    rate              up_rate, down_rate   so many were started or retired in the period
    no bounce         no_bounce            after the step its rule would want one up again
    drain share       drain_share          so many of the pool drain already
    rolling restart   rolling_restart      the pool is being restarted; fewer when that has ended
    start backoff     start_backoff        the last starts failed
    core              only_core_left       core agents are never let go
    ports             ports_exhausted
    driver            driver_capacity
    budget            budget_hour, budget_day, budget_month     what one more would spend is not there
    diminishing       diminishing_returns  more would add little, and that is sure; people may go further
    headroom          host_memory, slice_memory, host_disk, host_cpu, host_memory_pressure, host_io_pressure,
                      host_unknown

A scale-up takes back draining instances first. What a new start must wait for does not hold those: they are there.
`docs/guards.md` has the same for people.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from agentd.core import counterfactual, drain, guards_down, guards_time, guards_up, planner, triggers
from agentd.core.capacity import NOTHING_PROMISED, Promised
from agentd.core.metrics import Totals, totals
from agentd.core.model import Decision, Limit, Proposal, Reason
from agentd.core.rules import Trigger
from agentd.core.situation import Bound, Situation
from agentd.core.state import Fleet, Pool


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
    wanted, reason, proposals, rule = _wish(fleet, pool, sums, target, now, between)
    decision = Decision(
        id="", pool=pool.name, at=now, wall=fleet.wall(now), current=sums.count, wanted=wanted, granted=sums.count,
        reasons=(reason,), trigger=rule.kind if rule else "", proposals=proposals,
    )  # fmt: skip
    if wanted == sums.count:
        if between:
            return decision
        return replace(decision, counterfactual=counterfactual.steady(fleet, pool, sums, proposals, now))
    within, bound = _bounds(pool, sums.count, wanted)
    limits = [bound] if bound else []
    granted = within
    if within != sums.count:
        situation = Situation(
            fleet, pool, sums.count, within, now, extra, asked_for=target is not None or pool.target is not None,
            in_the_end=in_the_end,
            back=len(drain.reclaimable(fleet, pool, now)) if within > sums.count else 0,
            sums=sums, rule=rule,
        )  # fmt: skip
        for guard in _GUARDS:
            for allowed, limit in guard(situation):
                lower = allowed < within if situation.up else allowed > within
                if lower:
                    limits.append(replace(limit, allows=allowed))
                    granted = min(granted, allowed) if situation.up else max(granted, allowed)
    let_go = planner.victims(pool)[: sums.count - granted] if granted < sums.count else []
    decision = replace(decision, granted=granted, limits=tuple(limits), victims=tuple(i.id for i in let_go))
    if decision.at_rest:
        return replace(decision, counterfactual=counterfactual.steady(fleet, pool, sums, proposals, now))
    texts = [counterfactual.otherwise(decision, now, rule)]
    if any(reason.code == "target" for reason in decision.reasons) and target is None:
        texts.append(counterfactual.of_target(fleet, pool, sums, now))
    return replace(decision, counterfactual="; ".join(text for text in texts if text))


def _wish(
    fleet: Fleet, pool: Pool, sums: Totals, target: int | None, now: float, between: bool
) -> tuple[int, Reason, tuple[Proposal, ...], Trigger | None]:
    """The count asked for: a person's target, else the highest proposal. Above max it is always one less.

    Who abstains wants what is there. The proposals are those that were asked for, the trigger is whose is followed.
    """
    if target is not None:
        return target, Reason("target", f"{target} asked for"), (), None
    wish = pool.target
    if sums.count > pool.max and (wish.count >= sums.count if wish else fleet.mode.enabled):
        text = f"{sums.count} instances, at most {pool.max} allowed"
        return sums.count - 1, Reason("above_max", text), (), None
    if wish is not None:
        for_what = f" ({wish.reason})" if wish.reason else ""
        return wish.count, Reason("target", f"{wish.owner} asked for {wish.count}{for_what}"), (), None
    if not fleet.mode.enabled:
        return sums.count, Reason("autoscaling_off", f"autoscaling is off ({fleet.mode.owner})"), (), None
    proposals = triggers.ask(fleet, pool, sums, now, between=between)
    winner = triggers.decisive(proposals, sums.count)
    rule = pool.config.triggers[proposals.index(winner)]
    return (sums.count if winner.count is None else winner.count), winner.reason, proposals, rule


def _bounds(pool: Pool, count: int, wanted: int) -> tuple[int, Limit | None]:
    if wanted > count and wanted > pool.max:
        return max(count, pool.max), Limit("max_agents", f"its maximum is {pool.max}", allows=max(count, pool.max))
    if wanted < count and wanted < pool.min:
        return min(count, pool.min), Limit("min_agents", f"its minimum is {pool.min}", allows=min(count, pool.min))
    return wanted, None


_GUARDS: tuple[Callable[[Situation], list[Bound]], ...] = (
    guards_time.recovery,
    guards_time.paused,
    guards_time.action_in_flight,
    guards_time.cooldown,
    guards_time.rate,
    guards_down.no_bounce,
    guards_down.drain_share,
    guards_down.rolling,
    guards_time.start_backoff,
    guards_down.core_only,
    guards_up.ports,
    guards_up.driver,
    guards_up.budget,
    guards_up.diminishing_returns,
    guards_up.headroom,
)

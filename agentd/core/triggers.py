"""Triggers: rules over a pool's signals. Each looks at the totals and proposes a count, with its reason.

`core.rules` has their parameters. `ask` changes nothing; `note` remembers what they want, for those that go down to the
most, or up to the least, that they have wanted within a window of time.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentd.core import adaptive, planner, schedule, targets
from agentd.core.metrics import Totals
from agentd.core.model import HealthCheck, Proposal, Reason
from agentd.core.recent import Recent
from agentd.core.rules import (
    QUEUE,
    AdaptiveTrigger,
    DemandTrigger,
    ExternalTrigger,
    LatencyTrigger,
    ScheduleTrigger,
    TargetTrigger,
    ThresholdTrigger,
    Trigger,
)
from agentd.core.state import Fleet, Pool
from agentd.core.targets import Wish

_Steady = TargetTrigger | DemandTrigger | LatencyTrigger
_STEADY = (TargetTrigger, DemandTrigger, LatencyTrigger)


def ask(fleet: Fleet, pool: Pool, sums: Totals, now: float, *, between: bool = False) -> tuple[Proposal, ...]:
    """What the triggers of `pool` propose, in their order. `between`: two checks, where `threshold` stays as it is."""
    proposals = []
    for place, trigger in enumerate(pool.config.triggers):
        if isinstance(trigger, _STEADY):
            wish = _wish(fleet, pool, trigger, sums, now)
            proposals.append(_steadied(pool.recent.get(_key(place, trigger)), trigger, wish, sums, now))
        else:
            proposals.append(_ask(pool, trigger, sums, now, between))
    return tuple(proposals)


def note(fleet: Fleet, pool: Pool, sums: Totals, now: float) -> None:
    """Remember what the triggers of `pool` want now."""
    for place, trigger in enumerate(pool.config.triggers):
        if isinstance(trigger, AdaptiveTrigger):
            adaptive.note(fleet, pool, trigger, sums, now)
        if not isinstance(trigger, _STEADY):
            continue
        wish = _wish(fleet, pool, trigger, sums, now)
        if wish.count is None:
            continue
        recent = pool.recent.setdefault(_key(place, trigger), Recent())
        up_s, down_s = _windows(trigger)
        if recent.note(wish.count, sums.count, now, up_window_s=up_s, down_window_s=down_s):
            fleet.touch_pool(pool.name)


def turning(pool: Pool, sums: Totals, proposals: Sequence[Proposal]) -> str:
    """What would change a pool that is to stay as it is, by each of its triggers: more by any, fewer by all.

    `proposals`: what they say, in their order.
    """
    blind = [proposal.reason.code == "no_reading" for proposal in proposals]
    holding = [
        unread or (proposal.count is not None and proposal.count >= sums.count)
        for proposal, unread in zip(proposals, blind, strict=True)
    ]
    parts = []
    for trigger, unread, holds in zip(pool.config.triggers, blind, holding, strict=True):
        # Who wants fewer already says nothing of that: others hold the pool.
        fewer = sums.count > pool.min and (holds or not any(holding))
        text = f"{trigger.kind} decides when {_signal(trigger)} can be read"
        parts.append(text if unread else _turning(pool, trigger, sums, fewer))
    if sums.count > pool.min and sum(holding) > 1:
        parts.append("fewer where all of them agree")
    return "; ".join(part for part in parts if part)


def threshold(totals: Totals, trigger: ThresholdTrigger) -> Proposal:
    """Seed A's rule: one more when the mean load is above, one fewer when it is below; both strictly."""
    load = totals.load
    up, down = trigger.scale_up_threshold, trigger.scale_down_threshold
    if load is None:
        return Proposal("threshold", None, Reason("no_sample", "no ready instance has reported its load"))
    if load > up:
        return Proposal("threshold", totals.count + 1, Reason("high_load", f"High load: {compare(load, '>', up)}"))
    if load < down:
        return Proposal("threshold", totals.count - 1, Reason("low_load", f"Low load: {compare(load, '<', down)}"))
    text = f"load {load:.2f} is between {down:.2f} and {up:.2f}"
    return Proposal("threshold", totals.count, Reason("in_band", text))


def external(pool: Pool, trigger: ExternalTrigger, now: float) -> Proposal:
    """As many as the program asks for that asks for most; ties by name."""
    offers = [
        offer
        for offer in pool.offers.values()
        if offer.expires > now and (not trigger.sources or offer.source in trigger.sources)
    ]
    if not offers:
        return Proposal(trigger.kind, None, Reason("no_offer", "no program asks for a count"))
    most = min(offers, key=lambda offer: (-offer.count, offer.source))
    why = f" ({most.reason})" if most.reason else ""
    return Proposal(trigger.kind, most.count, Reason("offer", f"{most.source} asks for {most.count}{why}"))


def highest(proposals: Sequence[Proposal]) -> Proposal:
    """The proposal with the highest count, ties by order; abstentions count only when nobody else speaks."""
    if len(proposals) == 1:
        return proposals[0]
    counted = [proposal for proposal in proposals if proposal.count is not None]
    return max(counted, key=lambda proposal: proposal.count or 0) if counted else proposals[0]


def decisive(proposals: Sequence[Proposal], current: int) -> Proposal:
    """The highest, but no fewer than there are while a number is missing that a trigger needs.

    A collector that fails says nothing of what waits behind it: the others may let the pool grow, and not shrink
    (so does the Kubernetes autoscaler with several metrics).
    """
    found = highest(proposals)
    if found.count is None or found.count >= current:
        return found
    return next((proposal for proposal in proposals if proposal.reason.code == "no_reading"), found)


def compare(left: float, sign: str, right: float) -> str:
    """`0.88 > 0.75`: two decimals, more when both sides would print alike."""
    for digits in range(2, 17):
        texts = f"{left:.{digits}f}", f"{right:.{digits}f}"
        if texts[0] != texts[1]:
            break
    return f"{texts[0]} {sign} {texts[1]}"


def _ask(pool: Pool, trigger: Trigger, sums: Totals, now: float, between: bool) -> Proposal:
    match trigger:
        case ThresholdTrigger():
            found = threshold(sums, trigger)
            if between and found.count not in (None, sums.count):
                return Proposal(found.trigger, sums.count, Reason("not_due", f"{found.reason.text}; at the next check"))
            return found
        case ExternalTrigger():
            return external(pool, trigger, now)
        case ScheduleTrigger():
            return schedule.proposal(pool)
        case AdaptiveTrigger():
            return adaptive.propose(pool, trigger, sums, now)
    raise AssertionError(f"broken invariant: {trigger.kind} is asked elsewhere")


# -- what is steadied -----------------------------------------------------------------------------


def _wish(fleet: Fleet, pool: Pool, trigger: _Steady, sums: Totals, now: float) -> Wish:
    match trigger:
        case TargetTrigger():
            return targets.target(fleet, pool, trigger, sums, now)
        case DemandTrigger():
            return targets.demand(pool, trigger, sums, now)
        case LatencyTrigger():
            return targets.latency(fleet, pool, trigger, sums, now)


def _windows(trigger: _Steady) -> tuple[float, float]:
    return trigger.up_window_s if isinstance(trigger, TargetTrigger) else 0.0, trigger.down_window_s


def _steadied(recent: Recent | None, trigger: _Steady, wish: Wish, sums: Totals, now: float) -> Proposal:
    """`wish`, held by what has been wanted within the windows. The reason is the wish's own where that is granted."""
    if wish.count is None or recent is None:
        return Proposal(trigger.kind, wish.count, wish.reason)
    up_s, down_s = _windows(trigger)
    held, ago_s = recent.steadied(wish.count, sums.count, now, up_window_s=up_s, down_window_s=down_s)
    if held == wish.count:
        return Proposal(trigger.kind, held, wish.reason)
    window_s = down_s if wish.count < sums.count else up_s
    what = "the most" if wish.count < sums.count else "the least"
    text = f"{wish.reason.text}; {held} is {what} within {window_s:g} s, wanted {ago_s:.0f} s ago"
    return Proposal(trigger.kind, held, Reason("window", text))


def _key(place: int, trigger: _Steady) -> str:
    signal = f" {trigger.signal}" if isinstance(trigger, TargetTrigger) else ""
    return f"{place} {trigger.kind}{signal}"


# -- what would change it -------------------------------------------------------------------------


def _turning(pool: Pool, trigger: Trigger, sums: Totals, fewer: bool) -> str:
    more = sums.count < pool.max
    match trigger:
        case DemandTrigger():
            each = trigger.target_ratio * pool.config.concurrency
            return _both(
                f"would grow above {sums.count * each:g} tasks" if more else "",
                f"would shrink at {(sums.count - 1) * each:g} or fewer{_lasting(trigger)}" if fewer else "",
            )
        case TargetTrigger():
            up, down = targets.turns(trigger, sums.count)
            return _both(
                f"would grow above {up:.4g} of {targets.named(trigger.signal)} per instance" if more else "",
                f"would shrink {down}{_lasting(trigger)}" if fewer else "",
            )
        case LatencyTrigger():
            up = trigger.target_s * (1.0 + trigger.tolerance_ratio)
            return _both(
                f"would grow above a response time {trigger.quantile} of {up:.4g} s" if more else "",
                f"would shrink where one fewer would keep it within {trigger.target_s:g} s" if fewer else "",
            )
        case ExternalTrigger():
            who = f" ({', '.join(trigger.sources)})" if trigger.sources else ""
            return f"follows what programs{who} propose"
        case ScheduleTrigger():
            return schedule.turning(pool)
        case AdaptiveTrigger():
            return adaptive.turning(pool, trigger, sums, fewer)
        case ThresholdTrigger():
            return _turning_threshold(pool, trigger, sums, more, fewer)


def _turning_threshold(pool: Pool, trigger: ThresholdTrigger, sums: Totals, more: bool, fewer: bool) -> str:
    if sums.load is None and pool.config.health is not HealthCheck.HEARTBEAT:
        return "decides when the CPU that a ready instance uses has been measured"
    if sums.load is None:
        return "decides when a ready instance reports its load"
    up, down = (f"{bound:.2f}" for bound in (trigger.scale_up_threshold, trigger.scale_down_threshold))
    parts = [f"would go to {sums.count + 1} if load rises above {up}"] if more else []
    if fewer and planner.victims(pool):
        parts.append(f"would go to {sums.count - 1} if load falls below {down}")
    return "; ".join(parts)


def _signal(trigger: Trigger) -> str:
    """The collector that `trigger` needs."""
    return trigger.signal if isinstance(trigger, TargetTrigger) and trigger.signal != "demand" else QUEUE


def _lasting(trigger: TargetTrigger | DemandTrigger) -> str:
    return f" for {trigger.down_window_s:g} s" if trigger.down_window_s else ""


def _both(*parts: str) -> str:
    return ", ".join(part for part in parts if part)

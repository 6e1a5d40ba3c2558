"""Triggers: rules over a pool's signals. Each looks at the totals and proposes a count, with its reason.

`core.rules` has their parameters. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentd.core.metrics import Totals
from agentd.core.model import Proposal, Reason
from agentd.core.rules import ExternalTrigger, ThresholdTrigger, Trigger
from agentd.core.state import Pool


def ask(pool: Pool, sums: Totals, now: float, *, between: bool = False) -> tuple[Proposal, ...]:
    """What the triggers of `pool` propose, in their order. `between`: two checks, where `threshold` stays as it is."""
    return tuple(_ask(pool, trigger, sums, now, between) for trigger in pool.config.triggers)


def _ask(pool: Pool, trigger: Trigger, sums: Totals, now: float, between: bool) -> Proposal:
    match trigger:
        case ThresholdTrigger():
            found = threshold(sums, trigger)
            if between and found.count not in (None, sums.count):
                return Proposal(found.trigger, sums.count, Reason("not_due", f"{found.reason.text}; at the next check"))
            return found
        case ExternalTrigger():
            return external(pool, trigger, now)
        case _:
            return Proposal(trigger.kind, None, Reason("not_available", f"{trigger.kind} is not there yet"))


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
    counted = [proposal for proposal in proposals if proposal.count is not None]
    return max(counted, key=lambda proposal: proposal.count or 0) if counted else proposals[0]


def compare(left: float, sign: str, right: float) -> str:
    """`0.88 > 0.75`: two decimals, more when both sides would print alike."""
    for digits in range(2, 17):
        texts = f"{left:.{digits}f}", f"{right:.{digits}f}"
        if texts[0] != texts[1]:
            break
    return f"{texts[0]} {sign} {texts[1]}"

"""Triggers: rules over a pool's signals. Each looks at the totals and proposes a count, with its reason."""

from __future__ import annotations

from collections.abc import Sequence

from agentd.core.metrics import Totals
from agentd.core.model import Proposal, Reason, ThresholdTrigger


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

"""What would change a pool that stays as it is, or that got less than was wanted."""

from __future__ import annotations

from collections.abc import Sequence

from agentd.core import triggers
from agentd.core.metrics import Totals
from agentd.core.model import Decision, Proposal
from agentd.core.rules import ThresholdTrigger, Trigger
from agentd.core.situation import lasting
from agentd.core.state import Fleet, Pool


def steady(fleet: Fleet, pool: Pool, sums: Totals, proposals: Sequence[Proposal], now: float) -> str:
    """What would change a pool that is to stay as it is. `proposals`: of its triggers; none: a target is asked for."""
    if not fleet.config.enabled:
        return "multi_agent.enabled is false: nothing is started or stopped"
    if pool.target is not None:
        return f"stays at {sums.count}: {of_target(fleet, pool, sums, now)}"
    if fleet.mode.enabled and not proposals:
        return f"stays at {sums.count} until the target is changed"
    if not fleet.mode.enabled:
        return "agentctl auto on switches scaling on"
    return triggers.turning(pool, sums, proposals) or "neither more nor fewer are allowed"


def of_target(fleet: Fleet, pool: Pool, sums: Totals, now: float) -> str:
    """How long a person's target holds, and what would be wanted without it; empty where there is none."""
    if pool.target is None:
        return ""
    ends = pool.target.expires
    # While scaling is off they do not expire.
    left = f"for {lasting(ends - now)}, or " if ends is not None and fleet.mode.enabled else ""
    text = f"the target holds {left}until it is changed"
    if not fleet.mode.enabled:
        return text
    proposals = triggers.ask(fleet, pool, sums, now)
    if triggers.highest(proposals).count is None:
        return text
    wanted = triggers.decisive(proposals, sums.count).count
    return f"{text}; without it {sums.count if wanted is None else wanted} would be wanted"


def otherwise(decision: Decision, now: float, rule: Trigger | None) -> str:
    """What would be granted without the limits, or when they lift. `rule`: the trigger whose proposal it is."""
    if not decision.limits:
        return ""
    codes = ", ".join(limit.code for limit in decision.limits)
    lifts = [limit.until for limit in decision.limits if limit.until is not None]
    if len(lifts) == len(decision.limits):
        # A rate lets so many through at a time, and a budget pays for so many.
        some = any(limit.code.endswith("_rate") or limit.code.startswith("budget_") for limit in decision.limits)
        what = "go on" if some and abs(decision.wanted - decision.granted) > 1 else "go"
        left = lasting(max(lifts) - now)
        when = f"in {left} if nothing changes"
        if isinstance(rule, ThresholdTrigger):
            up = decision.wanted > decision.current
            bound = f"above {rule.scale_up_threshold:.2f}" if up else f"below {rule.scale_down_threshold:.2f}"
            when = f"if load stays {bound} for {left} more"
        return f"would {what} to {decision.wanted} {when}; blocked by {codes}"
    return f"would go to {decision.wanted} without {codes}"

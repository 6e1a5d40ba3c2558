"""What would change a pool that stays as it is, or that got less than was wanted."""

from __future__ import annotations

from agentd.core import planner, triggers
from agentd.core.metrics import Totals
from agentd.core.model import Decision, HealthCheck
from agentd.core.rules import ThresholdTrigger, Trigger
from agentd.core.state import Fleet, Pool


def steady(fleet: Fleet, pool: Pool, sums: Totals) -> str:
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


def otherwise(decision: Decision, now: float, rule: Trigger | None) -> str:
    """What would be granted without the limits, or when they lift. `rule`: the trigger whose proposal it is."""
    if not decision.limits:
        return ""
    codes = ", ".join(limit.code for limit in decision.limits)
    lifts = [limit.until for limit in decision.limits if limit.until is not None]
    if len(lifts) == len(decision.limits):
        # A rate lets so many through at a time.
        what = "go on" if any(limit.code.endswith("_rate") for limit in decision.limits) else "go"
        left_s = f"{max(lifts) - now:.0f} s"
        when = f"in {left_s} if nothing changes"
        if isinstance(rule, ThresholdTrigger):
            up = decision.wanted > decision.current
            bound = f"above {rule.scale_up_threshold:.2f}" if up else f"below {rule.scale_down_threshold:.2f}"
            when = f"if load stays {bound} for {left_s} more"
        return f"would {what} to {decision.wanted} {when}; blocked by {codes}"
    return f"would go to {decision.wanted} without {codes}"

"""How a pool stands with scaling, in the Kubernetes autoscaler's words and with our codes as reasons.

    AbleToScale    false: nothing can be changed at the moment (a cooldown, a backoff, an action in flight, a pause)
    ScalingActive  false: no trigger decides (scaling is off, a person's target holds, or nothing is known)
    ScalingLimited true: more or fewer were wanted, and a bound or what the host has does not allow it

Each has been so since a moment, which survives restarts: `note` keeps it after every check, `of` shows it.
"""

from __future__ import annotations

from agentd.core.model import Decision, Limit
from agentd.core.state import Fleet, Pool
from agentd.core.views import Condition

ABLE, ACTIVE, LIMITED = "AbleToScale", "ScalingActive", "ScalingLimited"
# Limits that say "not now": they pass by themselves, with time or with what is under way.
PASSING = frozenset(
    {
        "recovering", "action_in_flight", "up_cooldown", "down_cooldown", "up_rate", "down_rate", "paused_up",
        "paused_down", "drain_share", "rolling_restart", "start_backoff", "host_unknown",
    }
)  # fmt: skip
# Reasons of decisions that no trigger made.
_NOBODYS = frozenset({"autoscaling_off", "target"})


def note(fleet: Fleet, pool: Pool, decision: Decision) -> None:
    """Remember since when each is as it is by `decision`, which was just made."""
    for name, status, _ in _conditions(fleet, decision):
        if name not in pool.conditions or pool.conditions[name][0] != status:
            pool.conditions[name] = status, decision.wall
            fleet.touch_pool(pool.name)


def of(fleet: Fleet, pool: Pool, decision: Decision) -> tuple[Condition, ...]:
    """How `pool` stands by `decision`, which an evaluation now would make. Changes nothing."""
    shown = []
    for name, status, why in _conditions(fleet, decision):
        known = pool.conditions.get(name)
        since = known[1] if known and known[0] == status else decision.wall
        shown.append(Condition(name, status, why.code, why.text, since))
    return tuple(shown)


def _conditions(fleet: Fleet, decision: Decision) -> list[tuple[str, bool, Limit]]:
    held = () if decision.at_rest else decision.limits
    passing = _tightest(decision, [limit for limit in held if limit.code in PASSING])
    lasting = _tightest(decision, [limit for limit in held if limit.code not in PASSING])
    return [
        (ABLE, passing is None, passing or Limit("ready", "it may be changed at any time")),
        (ACTIVE, *_active(fleet, decision)),
        (LIMITED, lasting is not None, lasting or Limit("within_limits", "what is wanted is granted")),
    ]


def _active(fleet: Fleet, decision: Decision) -> tuple[bool, Limit]:
    if not fleet.config.enabled:
        return False, Limit("disabled", "multi_agent.enabled is false: nothing is started or stopped")
    why = decision.reasons[0]
    nobody = why.code in _NOBODYS or (
        bool(decision.proposals) and all(proposal.count is None for proposal in decision.proposals)
    )
    return not nobody, Limit(why.code, why.text)


def _tightest(decision: Decision, limits: list[Limit]) -> Limit | None:
    """Of several the one that grants least, the first of equal ones."""
    sign = 1 if decision.wanted > decision.current else -1
    return min(limits, key=lambda limit: sign * (limit.allows or 0), default=None)

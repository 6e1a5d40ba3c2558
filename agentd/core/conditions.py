"""How a pool stands with scaling, in the Kubernetes autoscaler's words and with our codes as reasons.

    AbleToScale    false: nothing can be changed at the moment (a cooldown, a backoff, an action in flight, a pause)
    ScalingActive  false: no trigger decides (scaling is off, a person's target holds, or nothing is known)
    ScalingLimited true: more or fewer were wanted, and a bound or what the host has does not allow it
    ForecastHeeded true: what is usual at this time may raise it (pools with an `adaptive` trigger alone)

Each has been so since a moment, which survives restarts: `note` keeps it after every check, `of` shows it.
"""

from __future__ import annotations

from agentd.core import forecasting
from agentd.core.model import Decision, Limit
from agentd.core.state import Fleet, Pool
from agentd.core.views import Condition

ABLE, ACTIVE, LIMITED, HEEDED = "AbleToScale", "ScalingActive", "ScalingLimited", "ForecastHeeded"
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
    for name, status in _statuses(fleet, pool, decision):
        if name not in pool.conditions or pool.conditions[name][0] != status:
            pool.conditions[name] = status, decision.wall
            fleet.touch_pool(pool.name)


def of(fleet: Fleet, pool: Pool, decision: Decision) -> tuple[Condition, ...]:
    """How `pool` stands by `decision`, which an evaluation now would make. Changes nothing."""
    shown = []
    for (name, status), why in zip(_statuses(fleet, pool, decision), _reasons(fleet, pool, decision), strict=True):
        known = pool.conditions.get(name)
        since = known[1] if known and known[0] == status else decision.wall
        shown.append(Condition(name, status, why.code, why.text, since))
    return tuple(shown)


def _statuses(fleet: Fleet, pool: Pool, decision: Decision) -> tuple[tuple[str, bool], ...]:
    """Each with its status, in their order."""
    codes = [limit.code for limit in _held(decision)]
    found = (
        (ABLE, PASSING.isdisjoint(codes)),
        (ACTIVE, _active(fleet, decision)),
        (LIMITED, not PASSING.issuperset(codes)),
    )
    heeded = forecasting.heeded(pool)
    return found if heeded is None else (*found, (HEEDED, heeded))


def _reasons(fleet: Fleet, pool: Pool, decision: Decision) -> tuple[Limit, ...]:
    """Why each is as it is, in their order."""
    standing = forecasting.standing(pool)
    held, why = _held(decision), decision.reasons[0]
    active = Limit(why.code, why.text)
    if not fleet.config.enabled:
        active = Limit("disabled", "multi_agent.enabled is false: nothing is started or stopped")
    passing = _tightest(decision, [limit for limit in held if limit.code in PASSING])
    lasting = _tightest(decision, [limit for limit in held if limit.code not in PASSING])
    found = (
        passing or Limit("ready", "it may be changed at any time"),
        active,
        lasting or Limit("within_limits", "what is wanted is granted"),
    )
    return (*found, Limit(standing.code, standing.text)) if standing.may_be else found


def _held(decision: Decision) -> tuple[Limit, ...]:
    """The limits that hold back what somebody waits for."""
    return decision.limits if decision.limits and not decision.at_rest else ()


def _active(fleet: Fleet, decision: Decision) -> bool:
    """Whether a trigger decides."""
    if not fleet.config.enabled or decision.reasons[0].code in _NOBODYS:
        return False
    # Where nobody was asked, the bounds have decided.
    return not decision.proposals or any(proposal.count is not None for proposal in decision.proposals)


def _tightest(decision: Decision, limits: list[Limit]) -> Limit | None:
    """Of several the one that grants least, the first of equal ones."""
    sign = 1 if decision.wanted > decision.current else -1
    return min(limits, key=lambda limit: sign * (limit.allows or 0), default=None)

"""What a check would do now: it is done on a copy of the fleet, by the same code, and nothing of it comes about.

The copy goes through the rows, as a restart does, so that nothing in it is shared with the fleet.
"""

from __future__ import annotations

from agentd.core import rows, scaling
from agentd.core.lifecycle import LEAVING
from agentd.core.messages import Refusal
from agentd.core.model import PoolName
from agentd.core.state import Fleet
from agentd.core.views import PoolPlan


def plan(fleet: Fleet, now: float, name: PoolName | None) -> tuple[PoolPlan, ...] | Refusal:
    """For `name`, or for all pools, what a check at `now` would decide, start, take back and let go."""
    refusal = scaling.refuse_check(fleet, name)
    if refusal is not None:
        return refusal
    copy = twin(fleet)
    decisions = scaling.check(copy, now, None if name is None else (name,))
    return tuple(
        PoolPlan(
            decision=decision,
            starts=tuple(
                instance.id for instance in copy.pools[decision.pool].instances.values()
                if instance.id not in fleet.instances
            ),
            takes_back=tuple(
                instance.id for instance in copy.pools[decision.pool].instances.values()
                if instance.is_resuming and not fleet.instances[instance.id].is_resuming
            ),
            stops=tuple(ident for ident in decision.victims if fleet.instances[ident].state not in LEAVING),
        )
        for decision in decisions
    )  # fmt: skip


def twin(fleet: Fleet) -> Fleet:
    """A fleet that goes on exactly as `fleet` would; nothing of it is to be saved."""
    other = Fleet(fleet.config, fleet.epoch)
    other.keeps_basis = False
    rows.load(other, rows.snapshot(fleet))
    # What is learned anew within seconds is in no row.
    other.host, other.host_at, other.capacity_max = fleet.host, fleet.host_at, fleet.capacity_max
    other.mode = fleet.mode
    for ident, instance in fleet.instances.items():
        other.instances[ident].usage = instance.usage
    return other

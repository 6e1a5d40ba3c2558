"""Decisions made again from what they were made from: the same, exactly, or what differs.

`replay` makes one stored decision again, by the code that decides in production. The configuration has to be the one
that held then.
"""

from __future__ import annotations

from msgspec.structs import replace

from agentd.core import basis, guards, relief
from agentd.core.capacity import Promised
from agentd.core.model import Decision, FleetConfig, PoolName
from agentd.errors import AgentdError

# What is compared: all that a decision says, beside its name and what became known later.
COMPARED = (
    "pool", "at", "wall", "current", "wanted", "granted", "reasons", "limits", "counterfactual", "victims", "trigger",
    "proposals", "chain", "binding",
)  # fmt: skip


class NoBasisError(AgentdError):
    """The decision does not carry what it was made from."""


def replay(decision: Decision, config: FleetConfig) -> Decision:
    """The decision that is made from what `decision` was made from, with its id.

    Raises:
        NoBasisError: it carries nothing of that kind, or `config` has no such pool.
    """
    if not decision.basis:
        raise NoBasisError(f"cannot replay decision {decision.id}: it was stored without what it was made from")
    fleet, asked = basis.load(decision.basis, config)
    if asked.get("relief"):
        made = relief.decide(fleet, asked["now"])
        if made is None:
            raise NoBasisError(f"cannot replay decision {decision.id}: nobody is to go with this configuration")
    else:
        pool = fleet.pools.get(PoolName(asked["pool"]))
        if pool is None or pool.removed:
            raise NoBasisError(f"cannot replay decision {decision.id}: no pool {asked['pool']} in this configuration")
        made = guards.evaluate(fleet, pool, asked["now"], extra=Promised(**asked["extra"]), between=asked["between"])
    return replace(made, id=decision.id, basis=decision.basis, effect=decision.effect)


def differences(left: Decision, right: Decision) -> dict[str, tuple[object, object]]:
    """What the two say differently, by the name of the field."""
    pairs = {name: (getattr(left, name), getattr(right, name)) for name in COMPARED}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

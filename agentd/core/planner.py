"""From a granted count to instances: which ports to take, whom to let go, how a total is divided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentd.core.lifecycle import LEAVING
from agentd.core.metrics import totals
from agentd.core.model import PoolName, State
from agentd.core.state import Fleet, Instance, Pool


def free_ports(fleet: Fleet, pool: Pool, now: float) -> list[int]:
    """Ports of the elastic range that nobody of ours uses and nobody else was found on, ascending."""
    if pool.config.ports is None:
        return []
    used = fleet.used_ports()
    reserved = {agent.port for agent in pool.config.core}
    return [
        port
        for port in range(pool.config.ports.first, pool.config.ports.last + 1)
        if port not in used and port not in reserved and pool.conflicts.get(port, 0.0) <= now
    ]


def victims(pool: Pool) -> list[Instance]:
    """Whom a scale-down would take, in order: lowest load first (not ready counts as 0), ties: the youngest.

    Between equal loads, what they say of their work comes before their age: whoever has been idle longest, then who has
    least to finish and has been at it for the shortest time. Core agents are never in it, nor is what is part of a
    replacement or has just been asked to resume.
    """
    candidates = [i for i in pool.committed() if not (i.is_core or i.replaces or i.again or i.is_resuming)]
    # Of those made in one step the last one is the youngest, and has the highest port.
    return sorted(candidates, key=lambda i: (_load(i), *_loss(i), -i.created_at, -i.port))


def drain_share(pool: Pool) -> tuple[int, int, int]:
    """How many of `pool` drain now, how many may at once, and of how many that is the share.

    The share is of those that take work, or finish it.
    """
    draining = sum(1 for i in pool.instances.values() if i.state in LEAVING and not i.is_resuming)
    size = draining + sum(1 for i in pool.committed() if i.state is State.READY)
    return draining, max(1, int(size * pool.config.drain_share_max)), size


def fits(pool: Pool, instance: Instance) -> bool:
    """Whether the instance's port is one that the configuration gives to `pool`."""
    ports = pool.config.ports
    return instance.is_core or (ports is not None and instance.port in ports)


def divide(fleet: Fleet, total: int, now: float) -> dict[PoolName, int]:
    """Divide a fleet-wide `total` between the pools.

    Each begins with its core agents or its minimum, whichever is more; then one instance at a time goes to the
    pool with the highest load x ready / (granted + 1), ties by name, until the total or every limit is
    reached.
    """
    shares: dict[PoolName, int] = {}
    weights: dict[PoolName, float] = {}
    most: Mapping[PoolName, int] = {name: count_max(fleet, pool, now) for name, pool in fleet.pools.items()}
    for name, pool in fleet.pools.items():
        if pool.removed:
            continue
        shares[name] = max(len(pool.config.core), pool.min)
        sums = totals(fleet, pool, now)
        weights[name] = (sums.load or 0.0) * sums.ready
    while sum(shares.values()) < total:
        open_pools = [name for name in shares if shares[name] < most[name]]
        if not open_pools:
            break
        shares[best(open_pools, weights, shares)] += 1
    return shares


def best(names: Sequence[PoolName], weights: Mapping[PoolName, float], shares: Mapping[PoolName, int]) -> PoolName:
    """The pool in which one more instance relieves most, ties by name."""
    return min(names, key=lambda name: (-weights[name] / (shares[name] + 1), name))


def count_max(fleet: Fleet, pool: Pool, now: float) -> int:
    """The most instances `pool` can have: its max, and the ports it has for them."""
    elastic = sum(1 for i in pool.committed() if not i.is_core)
    return min(pool.max, len(pool.config.core) + elastic + len(free_ports(fleet, pool, now)))


def _loss(instance: Instance) -> tuple[int, int, float]:
    """What letting `instance` go would cost beside its load, least first. Who tells nothing of it is in the middle."""
    if instance.state is not State.READY:
        return 0, 0, 0.0
    if instance.work is None or not instance.turned_at:
        return 2, 0, 0.0
    if instance.work == 0:
        return 1, 0, instance.turned_at
    return 3, instance.work, -instance.turned_at


def _load(instance: Instance) -> float:
    return (instance.load or 0.0) if instance.state is State.READY else 0.0

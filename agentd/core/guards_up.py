"""Guards of the way up: what a further instance needs, and what the host can carry."""

from __future__ import annotations

from agentd.core import capacity, costs, planner
from agentd.core.model import Limit
from agentd.core.scalability import CONFIDENCE_GUARD
from agentd.core.situation import Bound, Situation


def ports(s: Situation) -> list[Bound]:
    if not s.up:
        return []
    free = len(planner.free_ports(s.fleet, s.pool, s.now))
    ports = s.pool.config.ports
    where = f"{ports.first}-{ports.last}" if ports else "no elastic range"
    return [(s.count + s.back + free, Limit("ports_exhausted", f"{free} free ports ({where})"))]


def driver(s: Situation) -> list[Bound]:
    most = s.fleet.capacity_max
    if not s.up or most is None:
        return []
    free = max(0, most - len(s.fleet.instances) - s.extra.instances)
    ahead = f"; {s.extra.ahead}" if s.extra.ahead else ""
    return [(s.count + s.back + free, Limit("driver_capacity", f"the driver can run {most} instances{ahead}"))]


def budget(s: Situation) -> list[Bound]:
    return costs.bounds(s.fleet, s.pool, s.count, s.now, promised=s.extra.cost_per_hour) if s.up else []


def diminishing_returns(s: Situation) -> list[Bound]:
    """Not beyond what is of use, where that is known well and the pool is to keep to it. A person may go further."""
    law = s.pool.law
    if not s.up or s.asked_for or law is None or s.pool.config.guards.diminishing_returns != "guard":
        return []
    if law.confidence < CONFIDENCE_GUARD:
        return []
    return [(max(s.count, law.useful_max), Limit("diminishing_returns", law.text))]


def headroom(s: Situation) -> list[Bound]:
    if not s.up:
        return []
    return [(s.count + s.back + more, limit) for more, limit in capacity.room(s.fleet, s.pool, s.extra, s.now)]

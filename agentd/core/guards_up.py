"""Guards of the way up: what a further instance needs, and what the host can carry."""

from __future__ import annotations

from agentd.core import capacity, planner
from agentd.core.model import Limit
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


def headroom(s: Situation) -> list[Bound]:
    if not s.up:
        return []
    return [(s.count + s.back + more, limit) for more, limit in capacity.room(s.fleet, s.pool, s.extra, s.now)]

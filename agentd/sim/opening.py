"""How many agents a simulated pool begins with: right for the opening of its load, and allowed to it.

No budget ever takes back what is there. So a pool begins with no more than its budgets pay for all of the time, from
the beginning of that month on: more would be had for nothing, by those settings that hold on to it.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentd.core import costs, ledger
from agentd.core.ledger import Window
from agentd.core.model import FleetConfig
from agentd.core.state import Fleet
from agentd.traces import Arrival, initial_agents


def opening(config: FleetConfig, load: Sequence[Arrival], wall: float) -> int:
    """For the one pool of `config`, and a `load` that begins at the wall time `wall`."""
    fleet = Fleet(config, epoch=0)
    (pool,) = fleet.pools.values()
    own = pool.config
    most = [count for count, _ in costs.bounds(fleet, pool, 0, ledger.begin(Window.MONTH, wall))]
    return max(own.min, min([initial_agents(load, own.concurrency), own.max, *most]))

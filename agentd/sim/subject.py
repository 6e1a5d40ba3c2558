"""A pool of a configuration as the simulator can run it, or why it cannot."""

from __future__ import annotations

from msgspec.structs import replace

from agentd.config.pools import PORT_MAX, PORT_MIN
from agentd.core.model import FleetConfig, HealthCheck, PoolConfig, PoolName, PortRange
from agentd.core.rules import (
    QUEUE,
    SIGNALS,
    AdaptiveTrigger,
    CollectorConfig,
    ExternalTrigger,
    ScheduleTrigger,
    TargetTrigger,
)

# Ports beyond the most agents: those that drain keep theirs.
_PORTS_PER_AGENT = 4
_DAY_S = 86_400.0


class UnfitError(Exception):
    """A pool that cannot be simulated; the text says why."""


def subject(fleet: FleetConfig, name: str, *, startup_s: float, shows_queue: bool) -> FleetConfig:
    """`fleet` with the pool `name` alone, made for simulation: no processes, all agents on ports of the simulation.

    `shows_queue`: whether the pool knows how much waits; a collector named `queue` says so as well.

    Raises:
        UnfitError: there is no such pool, or it has nothing to choose.
    """
    pool = fleet.pools.get(PoolName(name))
    if pool is None:
        raise UnfitError(f"there is no such pool; the configuration has {', '.join(fleet.pools)}")
    if pool.ports is None or pool.min >= pool.max:
        raise UnfitError("it always has the same number of agents")
    for trigger in pool.triggers:
        if isinstance(trigger, ExternalTrigger):
            raise UnfitError("programs ask for its agents (trigger external): what they would ask for is not known")
        if isinstance(trigger, ScheduleTrigger):
            raise UnfitError("it has a schedule, which a recommendation would take away")
        if isinstance(trigger, TargetTrigger) and trigger.signal not in (*SIGNALS, QUEUE):
            raise UnfitError(f"it looks at {trigger.signal}, whose history is not known")
    queue = pool.collector(QUEUE)
    collectors = (CollectorConfig(QUEUE, "simulated"),) if queue or shows_queue else ()
    most = agents_max(pool)
    made = replace(
        pool,
        core=(),
        min=max(pool.min, len(pool.core)),
        max=most,
        ports=PortRange(PORT_MIN, min(PORT_MAX, PORT_MIN + max(100, _PORTS_PER_AGENT * most) - 1)),
        collectors=collectors,
        command=(),
        health=HealthCheck.HEARTBEAT,
        start_timeout_s=min(_DAY_S, max(60.0, 4.0 * startup_s)),
        drain_timeout_s=_DAY_S,
    )
    return replace(fleet, pools={made.name: made}, enabled=True, autoscaling_enabled=True)


def agents_max(pool: PoolConfig) -> int:
    """How many agents `pool` can have: as many as its `max`, where it has a port for each."""
    return min(pool.max, len(pool.core) + (len(pool.ports) if pool.ports is not None else 0))


def adaptive(pool: PoolConfig) -> AdaptiveTrigger:
    """The adaptive trigger of `pool`, or one with the defaults: what it says of prices counts for all settings."""
    return next((trigger for trigger in pool.triggers if isinstance(trigger, AdaptiveTrigger)), AdaptiveTrigger())

"""Configurations that the core's tests have in common."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck as Worry
from hypothesis import settings
from msgspec.structs import replace

from agentd.core.model import CoreAgent, Decision, FleetConfig, HealthCheck, PoolConfig, PoolName, PortRange
from agentd.core.rates import Budget, Rates

# A story takes some ten milliseconds, and the core's tests shall take three seconds together.
STORIES = settings(
    max_examples=2_000 if os.environ.get("AGENTD_HYPOTHESIS") == "deep" else 40, suppress_health_check=[Worry.too_slow]
)

RESEARCH, EXECUTION = PoolName("research"), PoolName("execution")


def _fleet() -> FleetConfig:
    times: dict[str, Any] = {
        "scale_up_cooldown_s": 40.0,
        "scale_down_cooldown_s": 80.0,
        "start_timeout_s": 25.0,
        "drain_timeout_s": 20.0,
    }
    research = PoolConfig(
        RESEARCH, core=(CoreAgent("researcher", 9002),), min=1, max=4, ports=PortRange(9101, 9106), **times
    )
    execution = PoolConfig(EXECUTION, min=1, max=2, ports=PortRange(9201, 9203), priority=1, **times)
    return FleetConfig(
        pools={EXECUTION: execution, RESEARCH: research},
        enabled=True,
        autoscaling_enabled=True,
        check_interval_s=10.0,
        heartbeat_timeout_s=15.0,
        starting_max=2,
    )


FLEET = _fleet()


def _with(name: PoolName, **changes: object) -> FleetConfig:
    pool = replace(FLEET.pools[name], **changes)
    return replace(FLEET, pools={**FLEET.pools, name: pool})


CONFIGS = (
    FLEET,
    _with(RESEARCH, max=2),
    _with(RESEARCH, min=3),
    _with(RESEARCH, min=0),
    _with(RESEARCH, ports=PortRange(9104, 9108)),
    _with(RESEARCH, core=(CoreAgent("researcher", 9002), CoreAgent("second", 9102))),
    _with(EXECUTION, health=HealthCheck.NONE),
    _with(RESEARCH, rates=Rates(1.0, 1.0, 1.0, 1.0), budget=Budget(per_hour=3.0)),
    replace(FLEET, pools={EXECUTION: FLEET.pools[EXECUTION]}),
    replace(FLEET, autoscaling_enabled=False),
    replace(FLEET, enabled=False),
)


def pool(name: str = "research", **changes: Any) -> PoolConfig:
    """A pool without core agents, seed A's values otherwise."""
    return replace(PoolConfig(PoolName(name), ports=PortRange(9101, 9150)), **changes)


def research(**changes: Any) -> PoolConfig:
    """Seed A's research pool: one core agent on 9002, elastic ones from 9101."""
    return pool(core=(CoreAgent("researcher", 9002),), **changes)


def told(decision: Decision) -> Decision:
    """What is said of it, without what it was made from."""
    return replace(decision, basis="", configuration="")


def fleet(*pools: PoolConfig, **changes: Any) -> FleetConfig:
    """A fleet that is switched on; without `pools`, with `research()` alone."""
    chosen = {config.name: config for config in pools or (research(),)}
    config = FleetConfig(pools=chosen, enabled=True, autoscaling_enabled=True, heartbeat_timeout_s=30.0)
    return replace(config, **changes)

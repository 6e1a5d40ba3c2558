"""The controller in virtual time: what a fleet does, event by event."""

from __future__ import annotations

from dataclasses import replace

from world import World

from agentd.core.model import CoreAgent, FleetConfig, PoolConfig, PoolName, PortRange


def fleet(**pool: object) -> FleetConfig:
    config = PoolConfig(name=PoolName("research"), core=(CoreAgent("researcher", 9002),), ports=PortRange(9101, 9150))
    config = replace(config, **pool)  # type: ignore[arg-type]
    return FleetConfig(pools={config.name: config}, enabled=True, autoscaling_enabled=True)


def test_core_agents_are_started_and_become_ready_with_their_first_heartbeat() -> None:
    world = World(fleet())
    world.boot()
    assert world.instance("research-9002").state == "ready"
    assert world.instance("research-9002").core_name == "researcher"

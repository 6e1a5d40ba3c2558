"""What a pool's diminishing returns are learned from: rounds in which the same agents had work from end to end."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from world import World

from agentd.core.messages import ConfigChanged, HostSampled, Propose
from agentd.core.model import MIB, FleetConfig, HostSample, PoolConfig, PoolName, PortRange
from agentd.core.rules import ExternalTrigger, GuardConfig
from agentd.core.scalability import Level, ScalingLaw
from agentd.sim.replay import differences, replay

RESEARCH = PoolName("research")
HOST = HostSample(64, 1.0, 64_000 * MIB, 60_000 * MIB, 100_000 * MIB)
ROUND_S = 10.0


def fleet(**changes: Any) -> FleetConfig:
    plain = PoolConfig(
        RESEARCH, min=3, max=9, ports=PortRange(9101, 9150), triggers=(ExternalTrigger(),), concurrency=4
    )
    return FleetConfig(pools={RESEARCH: replace(plain, **changes)}, enabled=True, autoscaling_enabled=True)


def rounds(world: World, number: int, *, in_flight: int, queued: int = 5, rate: float = 2.0) -> None:
    """Let so many rounds pass in which each agent has `in_flight` tasks and does `rate` tasks per second."""
    for _ in range(number):
        for agent in world.agents.values():
            agent.in_flight, agent.queue_length = in_flight, queued
            agent.tasks_completed = (agent.tasks_completed or 0) + int(rate * ROUND_S)
        world.run_until(world.now + ROUND_S)
        world.step(HostSampled(HOST))


def booted(**changes: Any) -> World:
    world = World(fleet(**changes))
    world.boot()
    world.run_until(1.0)
    return world


def levels(world: World) -> dict[int, Level]:
    return world.controller._fleet.pools[RESEARCH].history.levels


def test_what_agents_do_that_all_have_work_is_learned() -> None:
    world = booted()
    rounds(world, 10, in_flight=4)
    assert list(levels(world)) == [3]
    assert levels(world)[3].mean == pytest.approx(6.0)


@pytest.mark.parametrize("in_flight", [0, 1, 3])
def test_who_could_have_done_more_says_nothing(in_flight: int) -> None:
    world = booted()
    rounds(world, 10, in_flight=in_flight, queued=0)
    assert levels(world) == {}


def test_a_round_that_began_without_work_says_nothing() -> None:
    world = booted()
    for _ in range(5):
        rounds(world, 1, in_flight=4)
        rounds(world, 1, in_flight=1)
    assert levels(world) == {}


def test_off_learns_nothing() -> None:
    world = booted(guards=GuardConfig(diminishing_returns="off"))
    rounds(world, 10, in_flight=4)
    assert levels(world) == {}


def test_what_was_learned_outlives_agentd() -> None:
    world = booted()
    rounds(world, 10, in_flight=4)
    world.reboot()
    assert levels(world)[3].mean == pytest.approx(6.0)


def test_what_is_learned_is_written_down_however_much_there_is_by_then() -> None:
    world = booted()
    rounds(world, 200, in_flight=4)  # more than count of one number of agents
    world.outcomes.clear()
    rounds(world, 60, in_flight=4, rate=3.0)
    written = [outcome for outcome in world.outcomes if "history/research" in outcome.rows]
    assert 2 <= len(written) <= 3
    world.reboot()
    assert levels(world)[3].mean > 6.5


def test_other_agents_are_learned_anew() -> None:
    world = booted()
    rounds(world, 10, in_flight=4)
    world.step(ConfigChanged(fleet(max=8)))
    assert list(levels(world)) == [3]
    world.step(ConfigChanged(fleet(concurrency=8)))
    assert levels(world) == {}


def test_a_hold_for_it_is_made_again_from_what_it_carries() -> None:
    config = fleet(guards=GuardConfig(diminishing_returns="guard"))
    world = World(config)
    world.boot()
    world.run_until(11.0)
    pool = world.controller._fleet.pools[RESEARCH]
    pool.law = ScalingLaw(3, 5.0, 0.4, 0.02, 0.97, 4)
    world.step(Propose(RESEARCH, "oracle", 7, "alice"))
    world.run_until(30.0)
    (held,) = (it for outcome in world.outcomes for it in outcome.decisions if it.held)
    assert [limit.code for limit in held.limits] == ["diminishing_returns"]
    assert differences(held, replay(held, config)) == {}

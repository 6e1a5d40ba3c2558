"""Decisions are made again from what they carry, exactly; `chaos.Chaos` has every story of the core do so."""

from __future__ import annotations

import json
import random
import zlib

import pytest
from demand import HOST, Demand
from fleets import FLEET, fleet, research
from msgspec.structs import replace
from world import World

from agentd.core.controller import Controller
from agentd.core.messages import Check, HostSampled
from agentd.core.model import MIB, Decision, Direction, FleetConfig, HostSample, InstanceId, PoolName, Usage, Wall
from agentd.core.rates import UNBOUNDED, Budget, Rates
from agentd.core.rules import AdaptiveTrigger, GuardConfig
from agentd.core.scalability import ScalingLaw
from agentd.sim.replay import NoBasisError, differences, replay

RESEARCH = PoolName("research")
SAMPLE = HostSample(
    cores=8, cpu_used_cores=1.0, memory_total_bytes=4096 * MIB, memory_available_bytes=820 * MIB,
    disk_free_bytes=100_000 * MIB, walls={"research": Wall(400 * MIB, 100 * MIB)},
)  # fmt: skip


def decisions(world: World) -> list[Decision]:
    return [made for outcome in world.outcomes for made in outcome.decisions]


def a_hold_and_its_release() -> tuple[World, FleetConfig]:
    """Load is high, memory is short, and then there is enough of it."""
    config = replace(FLEET, pools={RESEARCH: replace(FLEET.pools[RESEARCH], scale_up_cooldown_s=1.0)})
    world = World(config, start_delay_s=2.0)
    world.boot()
    world.usual_load = 0.9
    for available in (600, 600, 2000, 2000):
        for agent in world.agents.values():
            agent.load = 0.9
        world.step(HostSampled(replace(SAMPLE, memory_available_bytes=available * MIB)))
        world.run_until(world.now + 20.0)
    return world, config


def test_a_hold_and_its_release_are_made_again_with_host_and_slices() -> None:
    world, config = a_hold_and_its_release()
    made = decisions(world)
    held = [one for one in made if one.held]
    assert held and any(one.direction is Direction.UP for one in made)
    assert {one.binding for one in held} >= {"host_memory"}
    for one in made:
        assert differences(one, replay(one, config)) == {}


def test_with_another_configuration_another_decision_is_made_and_what_differs_is_named() -> None:
    world, config = a_hold_and_its_release()
    grown = next(one for one in decisions(world) if one.direction is Direction.UP)
    smaller = replace(config, pools={RESEARCH: replace(config.pools[RESEARCH], max=grown.current)})
    again = replay(grown, smaller)
    assert again.granted == grown.current
    assert {"granted", "limits", "binding"} <= differences(grown, again).keys()


def test_an_adaptive_pool_is_made_again_with_what_it_has_learned() -> None:
    config = fleet(
        research(triggers=(AdaptiveTrigger(),), policy="adaptive", max=20, concurrency=4, quick_down_cooldown_s=0.0)
    )
    world = World(config, start_delay_s=3.0)
    world.boot()
    Demand(world, lambda now: 30.0 + 25.0 * (now // 300.0 % 2), random.Random(7)).run_until(1800.0)
    made = decisions(world)
    assert {one.direction for one in made} >= {Direction.UP, Direction.DOWN}
    assert {one.trigger for one in made} == {"adaptive"}
    for one in made:
        assert differences(one, replay(one, config)) == {}


def test_a_relief_is_decided_again() -> None:
    config = fleet(research(min=1, max=5), reserve=replace(FLEET.reserve, cpu_ratio=None))
    world = World(config)
    world.usual_load = 0.0
    for number in range(3):
        world.left_running(f"research-910{number}")
    world.boot()
    world.run_until(40.0)
    before = len(decisions(world))
    short = replace(SAMPLE, memory_available_bytes=100 * MIB, memory_pressure_percent=40.0, walls={})
    world.step(HostSampled(short))
    (relief,) = decisions(world)[before:]
    assert relief.reasons[0].code == "memory_pressure"
    assert differences(relief, replay(relief, config)) == {}


def test_what_came_later_does_not_change_what_a_decision_was_made_from() -> None:
    world, config = a_hold_and_its_release()
    first = decisions(world)[0]
    world.run_until(world.now + 500.0)
    world.reboot()
    assert differences(first, replay(first, config)) == {}


def test_without_what_it_was_made_from_a_decision_is_refused_by_name() -> None:
    bare = Decision("7-3", RESEARCH, 1.0, 2.0, 1, 2, 2, ())
    with pytest.raises(NoBasisError, match=r"^cannot replay decision 7-3: it was stored without"):
        replay(bare, FLEET)


def test_a_pool_that_is_configured_no_more_is_named() -> None:
    world, _ = a_hold_and_its_release()
    with pytest.raises(NoBasisError, match="no pool research in this configuration"):
        replay(decisions(world)[0], replace(FLEET, pools={}))


@pytest.mark.parametrize("start_delay_s", [0.0, 20.0])
def test_what_budgets_hold_is_made_again_also_with_what_other_pools_spend(start_delay_s: float) -> None:
    costly = {name: replace(pool, rates=Rates(1.0, 0.5, 0.5), max=6) for name, pool in FLEET.pools.items()}
    costly[RESEARCH] = replace(costly[RESEARCH], budget=Budget(per_day=9.0), scale_up_cooldown_s=1.0)
    for everybodys in (UNBOUNDED, Budget(per_hour=4.0, per_day=40.0, per_month=3_000.0)):
        config = replace(FLEET, pools=costly, budget=everybodys, currency="EUR")
        world = World(config, start_delay_s=start_delay_s)
        world.usual_load = 0.9
        world.boot()
        for second in range(0, 600, 15):
            usages = {ident: Usage(100 * MIB, 0.25) for ident in world.agents}
            world.step(HostSampled(replace(HOST, instances=usages)))
            world.run_until(second)
        made = decisions(world)
        code = "budget_hour" if everybodys else "budget_day"
        assert any(code in [limit.code for limit in one.limits] for one in made)
        for one in made:
            assert differences(one, replay(one, config)) == {}


def test_a_controller_whose_rows_nobody_keeps_keeps_nothing_for_replays_either() -> None:
    assert not Controller(FLEET, saved=False)._fleet.keeps_basis
    assert Controller(FLEET)._fleet.keeps_basis


@pytest.mark.parametrize(("agents", "bytes_max"), [(5, 1_500), (83, 6_000), (500, 30_000)])
def test_what_a_decision_carries_takes_few_bytes_for_each_instance(agents: int, bytes_max: int) -> None:
    config = fleet(research(max=agents + 5, ports=replace(FLEET.pools[RESEARCH].ports, last=9999)))
    world = World(config)
    for number in range(agents):
        ident = f"research-{9101 + number}"
        world.left_running(ident)
        world.set_load(InstanceId(ident), 0.7 + (number * 7919 % 300) / 1000)
    world.boot()
    world.step(HostSampled(HOST))
    world.run_until(200.0)
    world.step(Check("alice"))
    made = decisions(world)[-1]
    assert len(zlib.compress(made.basis.encode())) < bytes_max
    assert differences(made, replay(made, config)) == {}
    assert "labels" not in json.loads(made.basis)["instances"]


def test_a_hold_by_diminishing_returns_is_made_again_with_what_was_learned() -> None:
    config = fleet(research(max=9, guards=GuardConfig(diminishing_returns="guard"), scale_up_cooldown_s=0.0))
    world = World(config)
    world.boot()
    world.run_until(40.0)
    world.controller._fleet.pools[RESEARCH].law = ScalingLaw(1, 10.0, 0.5, 0.01, 0.99, 5)
    for agent in world.agents.values():
        agent.load = 0.9
    world.run_until(61.0)
    (held,) = decisions(world)
    assert held.binding == "diminishing_returns"
    assert differences(held, replay(held, config)) == {}

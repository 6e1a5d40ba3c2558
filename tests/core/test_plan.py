"""A plan says what a check would do, with whom, and changes nothing."""

from __future__ import annotations

import random

from demand import Demand
from fleets import EXECUTION, FLEET, RESEARCH, fleet, research, told
from msgspec.structs import replace
from world import World

from agentd.core.messages import Check, CheckReply, HostSampled, Refusal, SetTarget
from agentd.core.model import MIB, HostSample, InstanceId, PoolName, Target
from agentd.core.rules import AdaptiveTrigger
from agentd.core.views import PoolPlan

SAMPLE = HostSample(8, 1.0, 4096 * MIB, 3000 * MIB, 100_000 * MIB)


def planned(world: World, pool: PoolName | None = None) -> tuple[PoolPlan, ...]:
    plans = world.controller.plan(world.now, pool)
    assert not isinstance(plans, Refusal)
    return plans


def busy() -> World:
    """Two pools whose load is high, before the first check."""
    world = World(FLEET)
    world.boot()
    world.usual_load = 0.9
    for agent in world.agents.values():
        agent.load = 0.9
    world.run_until(9.0)
    return world


def test_a_plan_names_what_would_be_started_and_the_check_does_just_that() -> None:
    world = busy()
    before, deadline = world.controller.snapshot(), world.controller.deadline
    plans = planned(world)
    assert world.controller.snapshot() == before and world.controller.deadline == deadline
    assert [(plan.decision.pool, plan.decision.granted, plan.starts) for plan in plans] == [
        (EXECUTION, 2, ("execution-9202",)),
        (RESEARCH, 2, ("research-9101",)),
    ]
    reply = world.step(Check("alice"))
    assert isinstance(reply, CheckReply)
    assert tuple(map(told, reply.decisions)) == tuple(plan.decision for plan in plans)
    assert {"execution-9202", "research-9101"} <= {instance.id for instance in world.view().instances}


def test_to_plan_spends_no_cooldown_and_makes_no_decision() -> None:
    world = busy()
    for _ in range(5):
        planned(world)
    (plan, *_) = planned(world)
    assert plan.decision.granted == 2 and not plan.decision.limits
    fleet_now = world.controller._fleet
    assert fleet_now.decisions_made == 0 and not fleet_now.decisions and not fleet_now.records
    assert fleet_now.pools[EXECUTION].last_up_at is None


def test_what_one_pool_would_get_is_promised_when_the_next_is_planned() -> None:
    world = busy()
    # Room for one more; execution has the higher priority.
    world.step(HostSampled(replace(SAMPLE, memory_available_bytes=650 * MIB)))
    execution, research_plan = planned(world)
    assert execution.starts == ("execution-9202",)
    assert research_plan.starts == () and research_plan.decision.binding == "host_memory"


def test_a_plan_names_who_would_be_let_go() -> None:
    world = World(fleet(research(min=1, max=6)))
    world.usual_load = 0.0
    for number in (1, 2):
        world.left_running(f"research-910{number}")
    world.boot()
    world.run_until(45.0)  # recovered, and before the first check
    (plan,) = planned(world)
    assert plan.stops == ("research-9102",) == plan.decision.victims
    assert not plan.starts and not plan.takes_back


def test_a_plan_names_who_would_be_taken_back_before_anybody_is_started() -> None:
    world = World(fleet(research(min=1, max=6, scale_up_cooldown_s=0.0)))
    for number in (1, 2):
        world.left_running(f"research-910{number}")
    world.boot()
    world.run_until(40.0)
    world.work("research-9102", 1)
    world.agents[InstanceId("research-9101")].load = 0.9
    world.run_until(51.0)
    world.step(SetTarget("down", 2, RESEARCH, "alice", "", None, False))
    world.controller._fleet.pools[RESEARCH].target = Target(3, "alice", "", None)
    (plan,) = planned(world)
    assert plan.takes_back == ("research-9102",) and not plan.starts


def test_an_adaptive_pool_learns_nothing_from_being_planned() -> None:
    config = fleet(research(triggers=(AdaptiveTrigger(),), policy="adaptive", max=20, concurrency=4))
    world = World(config)
    world.boot()
    Demand(world, lambda _: 30.0, random.Random(3)).run_until(300.0)
    before = world.controller.snapshot()
    world.now += 7.0
    plans = planned(world)
    assert world.controller.snapshot() == before
    assert plans[0].decision.trigger == "adaptive"


def test_where_nothing_is_ever_checked_there_is_no_plan() -> None:
    world = World(replace(FLEET, enabled=False))
    world.boot()
    plans = world.controller.plan(world.now)
    assert isinstance(plans, Refusal) and plans.reason == "DISABLED"
    unknown = busy().controller.plan(9.0, PoolName("x"))
    assert isinstance(unknown, Refusal) and unknown.reason == "UNKNOWN_POOL"


def test_a_persons_target_is_planned_like_everything_else() -> None:
    world = busy()
    world.step(SetTarget("up", 4, RESEARCH, "alice", "", None, False))
    (plan,) = planned(world, RESEARCH)
    assert plan.decision.reasons[0].code == "target"

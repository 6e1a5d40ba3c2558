"""What people ask for: targets that hold, expire and yield; scaling switched off and on."""

from __future__ import annotations

import pytest
from fleets import RESEARCH, fleet, pool, research
from world import World

from agentd.core.messages import (
    Check,
    CheckReply,
    ConfigChanged,
    EventType,
    Refusal,
    SetAutoscaling,
    SetTarget,
    TargetReply,
)
from agentd.core.model import HealthCheck, PoolName
from agentd.core.views import PoolView

NEW = PoolName("nowhere")


def booted(**changes: object) -> World:
    world = World(fleet(research(**changes)))
    world.boot()
    return world


def up(count: int, *, for_s: float | None = 3600.0, pool: PoolName | None = RESEARCH) -> SetTarget:
    return SetTarget("up", count, pool, "alice", "a demo", for_s)


def down(count: int, *, for_s: float | None = 3600.0) -> SetTarget:
    return SetTarget("down", count, RESEARCH, "alice", "", for_s)


def seen(world: World) -> PoolView:
    return world.view().pools[0]


def told(world: World, kind: EventType) -> list[float]:
    return [at for at, record in world.records if record.type is kind]


def test_a_target_is_shown_with_its_owner_reason_and_time_left() -> None:
    world = booted()
    world.step(up(3))
    world.run_until(600.0)
    target = seen(world).target
    assert target is not None
    assert (target.count, target.owner, target.reason) == (3, "alice", "a demo")
    assert seen(world).target_expires_in_s == 3000.0


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (up(1), "stays at 1: the target holds for 59m, or until it is changed; without it 2 would be wanted"),
        (up(1, for_s=None), "stays at 1: the target holds until it is changed; without it 2 would be wanted"),
        (
            up(9),
            "would go to 9 without max_agents; the target holds for 59m, or until it is changed; "
            "without it 4 would be wanted",
        ),
    ],
)
def test_a_decision_by_a_target_says_how_long_it_holds_and_what_would_be_wanted_without_it(
    event: SetTarget, text: str
) -> None:
    world = booted(max=3, scale_up_cooldown_s=0.0)
    world.usual_load = 0.9
    world.set_load("research-9002", 0.9)
    world.run_until(11.0)
    world.step(event)
    world.run_until(50.0)
    assert seen(world).next.counterfactual == text


def test_a_decision_that_does_all_that_a_target_asks_keeps_its_end_too() -> None:
    world = booted()
    world.run_until(11.0)
    world.step(up(3))
    (made,) = [one for outcome in world.outcomes for one in outcome.decisions]
    assert (made.granted, made.limits) == (3, ())
    assert made.counterfactual == "the target holds for 1h, or until it is changed; without it 1 would be wanted"


def test_a_target_expires_and_the_policy_goes_on() -> None:
    world = booted()
    world.loads = dict.fromkeys(("research-9002", "research-9101", "research-9102"), 0.1)
    world.set_load("research-9002", 0.1)
    world.step(up(3, for_s=1000.0))
    world.run_until(999.9)
    assert (seen(world).count, told(world, EventType.TARGET_EXPIRED)) == (3, [])
    world.run_until(1080.0)
    assert told(world, EventType.TARGET_EXPIRED) == [1000.0]
    assert seen(world).count == 2


def test_a_target_without_an_end_holds() -> None:
    world = booted()
    world.step(up(3, for_s=None))
    world.run_until(100_000.0)
    assert seen(world).count == 3
    assert seen(world).target_expires_in_s is None


def test_a_target_survives_a_restart_and_expires_at_its_time() -> None:
    world = booted()
    world.step(up(2, for_s=100.0))
    world.run_until(50.0)
    world.reboot()
    assert seen(world).target_expires_in_s == 50.0
    world.run_until(101.0)
    assert told(world, EventType.TARGET_EXPIRED) == [100.0]


def test_while_scaling_is_off_targets_do_not_expire() -> None:
    world = booted()
    world.step(SetAutoscaling(False, "bob", "maintenance"))
    world.step(up(2, for_s=100.0))
    world.run_until(1000.0)
    assert told(world, EventType.TARGET_EXPIRED) == []
    assert seen(world).count == 2
    assert world.controller.deadline is not None
    assert world.controller.deadline > 1000.0


def test_switching_scaling_on_ends_targets() -> None:
    world = booted()
    world.step(SetAutoscaling(False, "bob", "maintenance"))
    world.step(up(2))
    mode = world.view().autoscaling
    assert (mode.enabled, mode.owner, mode.reason) == (False, "bob", "maintenance")
    world.step(SetAutoscaling(True, "bob", ""))
    assert seen(world).target is None


def test_a_persons_word_on_scaling_outlives_restarts_and_reloads() -> None:
    world = booted()
    world.step(SetAutoscaling(False, "bob", "maintenance"))
    world.step(ConfigChanged(fleet(research(max=9))))
    world.reboot()
    assert (world.view().autoscaling.enabled, world.view().autoscaling.owner) == (False, "bob")


def test_the_files_word_on_scaling_holds_until_a_person_says_otherwise() -> None:
    world = booted()
    world.step(ConfigChanged(fleet(research(), autoscaling_enabled=False)))
    assert (world.view().autoscaling.enabled, world.view().autoscaling.owner) == (False, "configuration")


def test_while_scaling_is_off_the_next_step_says_how_to_switch_it_on() -> None:
    world = booted()
    world.step(SetAutoscaling(False, "bob", ""))
    world.set_load("research-9002", 1.0)
    world.run_until(100.0)
    decision = seen(world).next
    assert [reason.text for reason in decision.reasons] == ["autoscaling is off (bob)"]
    assert decision.counterfactual == "agentctl auto on switches scaling on"


def test_where_nothing_may_be_started_the_next_step_says_so() -> None:
    world = booted()
    world.step(ConfigChanged(fleet(research(), enabled=False)))
    assert seen(world).next.counterfactual == "multi_agent.enabled is false: nothing is started or stopped"


@pytest.mark.parametrize("auto", [True, False])
def test_a_target_above_a_lowered_max_gives_way_to_it(auto: bool) -> None:
    world = booted()
    world.step(up(4))
    if not auto:
        world.step(SetAutoscaling(False, "bob", ""))
    world.step(ConfigChanged(fleet(research(max=2))))
    world.run_until(2000.0)
    assert seen(world).count == 2


def test_a_target_waits_for_its_cooldown_and_goes_on_by_itself() -> None:
    world = booted()
    world.step(up(2))
    world.run_until(10.0)
    reply = world.step(up(4))
    assert isinstance(reply, TargetReply)
    assert (reply.grants[0].granted, reply.grants[0].limits) == (2, ("up_cooldown: scale-up cooldown: 290 s left",))
    world.run_until(299.9)
    assert seen(world).count == 2
    world.run_until(300.0)
    assert seen(world).count == 4


def test_a_target_below_min_or_the_core_agents_is_granted_down_to_them() -> None:
    world = booted(min=2)
    world.run_until(1.0)
    reply = world.step(down(0))
    assert isinstance(reply, TargetReply)
    assert (reply.grants[0].wanted, reply.grants[0].granted) == (0, 2)
    assert reply.grants[0].limits == ("min_agents: its minimum is 2",)
    world = booted(min=0)
    reply = world.step(down(0))
    assert isinstance(reply, TargetReply)
    assert reply.grants[0].limits == ("only_core_left: only core agents left (1)",)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (up(0), "TARGET_BELOW_CURRENT"),
        (down(2), "TARGET_ABOVE_CURRENT"),
        (up(3, pool=NEW), "UNKNOWN_POOL"),
        (Check("alice", NEW), "UNKNOWN_POOL"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(event: SetTarget | Check, reason: str) -> None:
    world = booted()
    before = world.controller.snapshot()
    reply = world.step(event)
    assert isinstance(reply, Refusal)
    assert reply.reason == reason
    assert world.controller.snapshot() == before


def test_a_dry_run_promises_what_would_be_granted_also_right_after_a_restart() -> None:
    world = booted()
    reply = world.step(SetTarget("up", 3, RESEARCH, "alice", "", None, dry_run=True))
    assert isinstance(reply, TargetReply)
    assert reply == world.step(SetTarget("up", 3, RESEARCH, "alice", "", None))
    assert reply.grants[0].granted == 3


@pytest.mark.parametrize("direction", ["up", "down"])
def test_the_present_count_may_be_asked_for_in_both_directions(direction: str) -> None:
    world = booted()
    reply = world.step(SetTarget(direction, 1, RESEARCH, "alice", "", None))
    assert isinstance(reply, TargetReply)
    assert (reply.grants[0].granted, reply.grants[0].limits) == (1, ())


def test_a_check_of_one_pool_leaves_the_others_alone() -> None:
    world = World(fleet(research(), pool("other", ports=None, min=0, health=HealthCheck.NONE)))
    world.boot()
    reply = world.step(Check("alice", RESEARCH))
    assert isinstance(reply, CheckReply)
    assert [decision.pool for decision in reply.decisions] == ["research"]
    reply = world.step(Check("alice"))
    assert isinstance(reply, CheckReply)
    assert [decision.pool for decision in reply.decisions] == ["other", "research"]

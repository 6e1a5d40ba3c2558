"""No step down after which the same rule would want a step up: of whatever rule, while the work stays the same."""

from __future__ import annotations

import pytest
from fleets import STORIES
from hypothesis import given, settings
from hypothesis import strategies as st
from world import World

from agentd.core.messages import EventType, SetAutoscaling, SetTarget
from agentd.core.model import FleetConfig, PoolConfig, PoolName, PortRange, State
from agentd.core.rules import DemandTrigger, GuardConfig, TargetTrigger, ThresholdTrigger, Trigger

RESEARCH = PoolName("research")
FEWER = settings(STORIES, max_examples=STORIES.max_examples // 2)


def directions(trigger: Trigger, agents: int, work: float, *, no_bounce: bool, seconds: float = 900.0) -> list[str]:
    """What a pool of `agents` does, in order, while `work` (in full agents) stays the same all the time."""
    pool = PoolConfig(
        name=RESEARCH, min=1, max=12, ports=PortRange(9101, 9150), triggers=(trigger,), drain_share_max=1.0,
        scale_up_cooldown_s=0.0, scale_down_cooldown_s=0.0, guards=GuardConfig(no_bounce=no_bounce), concurrency=8,
    )  # fmt: skip
    world = World(FleetConfig(pools={RESEARCH: pool}, enabled=True, autoscaling_enabled=True, check_interval_s=20.0))
    world.boot()
    world.step(SetTarget("up", agents, RESEARCH, "alice", "", None))
    world.run_until(11.0)
    world.step(SetAutoscaling(True, "alice", ""))
    begun = len(world.records)
    while world.now < seconds:
        takers = [i.id for i in world.view().instances if i.state is State.READY]
        for ident, agent in world.agents.items():
            agent.load = min(1.0, work / len(takers)) if ident in takers else 0.0
            agent.in_flight = round(8 * work / len(takers)) if ident in takers else 0
            agent.next_beat = min(agent.next_beat, world.now)
        world.run_until(world.now + 5.0)
    wanted = (EventType.SCALE_UP, EventType.SCALE_DOWN, EventType.RESUME)
    return [record.type for _, record in world.records[begun:] if record.type in wanted]


@FEWER
@given(
    agents=st.integers(1, 8),
    work=st.floats(0.1, 6.0),
    up=st.floats(0.3, 1.0),
    band=st.floats(0.1, 0.99),
)
def test_threshold_never_swings_back_where_it_is_told_not_to(agents: int, work: float, up: float, band: float) -> None:
    found = directions(ThresholdTrigger(up, up * band), agents, work, no_bounce=True)
    assert len(set(found)) <= 1, found


def test_threshold_alone_swings_between_narrow_thresholds() -> None:
    narrow = ThresholdTrigger(0.8, 0.5)
    assert set(directions(narrow, 2, 0.9, no_bounce=False)) == {"scale_up", "scale_down"}
    assert directions(narrow, 2, 0.9, no_bounce=True) == []


@settings(STORIES)
@given(agents=st.integers(2, 12), work=st.floats(0.01, 12.0))
def test_the_thresholds_of_the_seed_need_no_such_guard(agents: int, work: float) -> None:
    """Where the lower one is at most half of the higher, one fewer never has more than the higher."""
    rule, load = ThresholdTrigger(), min(1.0, work / agents)
    if load < rule.scale_down_threshold:
        assert load * agents / (agents - 1) <= rule.scale_up_threshold


@FEWER
@pytest.mark.parametrize("trigger", [DemandTrigger(down_window_s=0.0), TargetTrigger(down_window_s=0.0)], ids=str)
@given(agents=st.integers(1, 8), work=st.floats(0.1, 6.0))
def test_rules_in_proportion_never_swing_back(trigger: Trigger, agents: int, work: float) -> None:
    found = directions(trigger, agents, work, no_bounce=False, seconds=200.0)
    assert "scale_up" not in found[found.index("scale_down") :] if "scale_down" in found else True, found

"""What a scaling brought, through the whole controller in virtual time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from demand import HOST, Demand, effects
from fleets import fleet, pool
from msgspec.structs import replace
from world import World

from agentd.core.effects import Demand as By
from agentd.core.effects import Effect, Metric, Verdict
from agentd.core.messages import ConfigChanged, EventType, HostSampled, SetTarget, Stage
from agentd.core.model import InstanceId, PoolName, State

RESEARCH = PoolName("research")
# A run's scale-up comes at 900 s, or at the first peak after that; by then there are ten minutes of samples.
SCALE_AT_S = 900.0


def booted(**changes: Any) -> World:
    """Three agents, scaled by people alone unless `changes` say otherwise."""
    world = World(
        fleet(pool(**{"min": 3, "max": 6, "scale_up_cooldown_s": 0.0} | changes), autoscaling_enabled=False),
        start_delay_s=2.0,
    )
    world.boot()
    return world


def target(world: World, count: int, direction: str = "up") -> None:
    world.step(SetTarget(direction, count, RESEARCH, "alice", "", None))
    world.run_until(world.now)


def wavy(rng: random.Random, mean: float) -> Callable[[float], float]:
    """Demand that wanders about `mean`, alike from minute to minute."""
    levels = [mean]
    for _ in range(200):
        levels.append(mean + 0.8 * (levels[-1] - mean) + rng.gauss(0.0, 0.12 * mean))
    return lambda now: max(0.1 * mean, levels[int(now / 30.0)])


def scaled(seed: int = 1, *, slower: float = 1.0, until: float = 1400.0, **changes: Any) -> tuple[World, Demand]:
    """Three agents, a fourth at SCALE_AT_S; from four on each is `slower` by that factor."""
    rng, world = random.Random(seed), booted()
    demand = Demand(world, wavy(rng, 18), rng, slower=lambda agents: slower if agents > 3 else 1.0, **changes)
    demand.run_until(SCALE_AT_S)
    target(world, 4)
    demand.run_until(until)
    return world, demand


def only(world: World) -> Effect:
    (made,) = effects(world)
    return made


# -- the verdict --------------------------------------------------------------------------------


def test_agents_that_get_into_each_others_way_made_it_worse() -> None:
    world, _ = scaled(slower=1.8)
    made = only(world)
    assert (made.verdict, made.decision) == (Verdict.MADE_IT_WORSE, "1-1")
    assert made.per_agent is not None
    assert (made.per_agent.metric, made.per_agent.demand) == (Metric.RESPONSE_TIME, By.ARRIVALS)
    assert made.per_agent.low <= 0.8 <= made.per_agent.high, "80 % more is what was planted"
    assert made.reason.startswith("response time +")
    assert made.reason.endswith("at equal demand per agent")


def test_agents_that_do_better_among_more_were_helped() -> None:
    world, _ = scaled(slower=0.5)
    made = only(world)
    assert made.verdict is Verdict.HELPED
    assert made.per_agent is not None
    assert made.per_agent.low <= -0.5 <= made.per_agent.high


def test_a_planted_change_is_nearly_always_found_and_never_with_the_wrong_sign() -> None:
    worse = [only(scaled(seed, slower=2.0)[0]).verdict for seed in range(20)]
    better = [only(scaled(seed, slower=0.5)[0]).verdict for seed in range(20)]
    assert worse.count(Verdict.MADE_IT_WORSE) >= 14
    assert better.count(Verdict.HELPED) >= 14
    assert Verdict.HELPED not in worse
    assert Verdict.MADE_IT_WORSE not in better


@pytest.mark.parametrize("alike", [0.0, 0.8], ids=["noise", "slow noise"])
def test_noise_alone_is_unclear(alike: float) -> None:
    made = [only(scaled(seed, alike=alike, noise=0.3)[0]) for seed in range(30)]
    assert sum(one.verdict is Verdict.UNCLEAR for one in made) >= 29
    assert sum(one.per_agent is not None for one in made) > 15, "most could be compared, and were"


def test_a_peak_that_ends_by_itself_is_no_merit_of_the_scale_up() -> None:
    """The scale-up is the policy's, at a peak; demand then falls by itself, and agents are as good as they were."""
    judged = compared = clear = fell = 0
    for seed in range(90):
        rng = random.Random(seed)
        world = World(fleet(pool(min=3, max=4, scale_down_cooldown_s=9e9)), start_delay_s=2.0)
        world.boot()
        usual = wavy(rng, 15)

        def tasks_per_s(now: float, usual: Callable[[float], float] = usual) -> float:
            return usual(now) * (1.2 if now < 890.0 else 2.0 if now < 930.0 else 0.9)

        demand = Demand(world, tasks_per_s, rng, alike=0.5)
        demand.run_until(SCALE_AT_S - 5.0)
        if len(world.agents) > 3:
            continue  # it peaked before
        demand.run_until(1350.0)
        for one in effects(world):
            assert one.before is not None and one.after is not None
            before, after = one.before.response_time_p50_s, one.after.response_time_p50_s
            assert before is not None and after is not None
            judged += 1
            compared += one.per_agent is not None
            clear += one.verdict is not Verdict.UNCLEAR
            fell += after < before
    assert judged >= 25
    assert clear <= 0.05 * judged
    assert compared >= 0.5 * judged, "most have enough demand in common"
    assert fell >= 0.9 * judged, "plainly before and after, it looks as if the scale-up had helped"


def test_the_whole_pool_at_equal_demand_is_told_beside_the_verdict() -> None:
    """Four do what three did, each as well as before: no difference per agent, and less to do for each."""
    rng, world = random.Random(3), booted()
    demand = Demand(world, wavy(rng, 24), rng, noise=0.05)
    demand.run_until(SCALE_AT_S)
    target(world, 4)
    demand.run_until(1400.0)
    made = only(world)
    assert made.verdict is Verdict.UNCLEAR
    assert made.whole is not None
    assert made.whole.high < 0.0


def test_the_windows_are_told_plainly() -> None:
    made = only(scaled()[0])
    assert made.before is not None
    assert made.after is not None
    assert (made.before.ready, made.after.ready) == (3.0, 4.0)
    assert 30 <= made.before.samples <= 60
    assert made.after.samples == 24
    assert made.before.throughput_per_agent == pytest.approx(6.0, abs=1.5)
    assert made.before.load == pytest.approx(0.6, abs=0.15)
    assert made.after.cpu_used_cores == 1.0
    assert made.after.memory_used_bytes == HOST.memory_total_bytes - HOST.memory_available_bytes
    assert made.after.memory_pressure_percent is None


def test_agents_that_count_no_tasks_are_compared_by_their_work_in_hand() -> None:
    made = only(scaled(slower=2.5, counts=False)[0])
    assert made.per_agent is not None
    assert made.per_agent.demand is By.WORK
    assert made.verdict is Verdict.MADE_IT_WORSE


def test_agents_that_report_no_response_times_are_compared_by_their_work_in_hand() -> None:
    made = only(scaled(times=False)[0])
    assert made.per_agent is not None
    assert (made.per_agent.metric, made.per_agent.relative) == (Metric.WORK, False)
    assert made.verdict is Verdict.UNCLEAR


def test_response_times_from_before_the_scaling_are_no_measurement_after_it() -> None:
    rng, world = random.Random(3), booted()
    demand = Demand(world, wavy(rng, 24), rng)
    demand.run_until(SCALE_AT_S)
    target(world, 4)
    demand.times = False
    for agent in world.agents.values():
        agent.response_time_p50_s = None
    demand.run_until(1400.0)
    made = only(world)
    assert made.before is not None and made.after is not None
    assert made.before.response_time_p50_s is not None
    assert made.after.response_time_p50_s is None


def test_agents_that_say_nothing_of_their_work_are_not_judged() -> None:
    world = booted()
    for at in range(5, 905, 5):
        world.run_until(float(at))
        world.step(HostSampled(HOST))
    target(world, 4)
    for at in range(905, 1400, 5):
        world.run_until(float(at))
        world.step(HostSampled(HOST))
    made = only(world)
    assert made.verdict is Verdict.UNCLEAR
    assert made.reason == "its agents report neither their queue nor their tasks in flight"


# -- windows ------------------------------------------------------------------------------------


def test_the_window_begins_when_the_started_one_is_ready_and_has_settled() -> None:
    rng, world = random.Random(1), booted()
    world.start_delay_s = 50.0
    demand = Demand(world, wavy(rng, 18), rng)
    demand.run_until(SCALE_AT_S)
    target(world, 4)
    history = world.controller._fleet.pools[RESEARCH].history
    demand.run_until(SCALE_AT_S + 45.0)
    assert history.trial is not None
    assert history.trial.in_place_at is None
    demand.run_until(SCALE_AT_S + 70.0)
    assert history.trial.in_place_at == pytest.approx(SCALE_AT_S + 50.0, abs=0.1)
    assert history.samples == [], "tasks that had waited are not held against it"
    demand.run_until(SCALE_AT_S + 120.0)
    assert all(sample.at >= SCALE_AT_S + 80.0 for sample in history.samples)
    assert history.samples
    assert world.view().pools[0].measuring == "1-1"


def test_a_scale_down_is_judged_from_when_the_retired_one_is_gone() -> None:
    rng, world = random.Random(2), booted(min=2, scale_down_cooldown_s=0.0)
    demand = Demand(world, wavy(rng, 12), rng)
    demand.run_until(60.0)
    target(world, 3)
    demand.run_until(SCALE_AT_S)
    target(world, 2, "down")
    leaving = next(i.id for i in world.view().instances if i.state is State.DRAINING)
    history = world.controller._fleet.pools[RESEARCH].history
    demand.run_until(SCALE_AT_S + 20.0)
    assert history.trial is not None
    assert history.trial.in_place_at is None
    world.say(leaving, Stage.DONE)
    demand.run_until(SCALE_AT_S + 40.0)
    assert history.trial.in_place_at is not None
    demand.run_until(SCALE_AT_S + 320.0)
    made = effects(world)[-1]
    assert made.after is not None
    assert made.after.ready == 2.0
    assert world.view().pools[0].measuring == ""


def test_another_scaling_in_the_window_ends_it_unclear() -> None:
    world, demand = scaled(slower=3.0, until=1000.0)
    target(world, 5)
    made = only(world)
    assert (made.verdict, made.decision) == (Verdict.UNCLEAR, "1-1")
    assert made.reason == "another scaling (1-2) came before its effect was measured"
    demand.run_until(1400.0)
    assert effects(world)[-1].decision == "1-2"


def test_soon_after_agentds_start_there_is_no_before() -> None:
    rng, world = random.Random(1), booted()
    demand = Demand(world, wavy(rng, 18), rng)
    demand.run_until(60.0)
    target(world, 4)
    demand.run_until(500.0)
    assert "samples before it" in only(world).reason


def test_a_start_that_fails_has_brought_nothing_and_costs_no_samples() -> None:
    rng, world = random.Random(1), booted()
    world.failing["research-9104"] = "no such file"
    demand = Demand(world, wavy(rng, 18), rng)
    demand.run_until(SCALE_AT_S)
    kept = len(world.controller._fleet.pools[RESEARCH].history.samples)
    target(world, 4)
    demand.run_until(SCALE_AT_S + 10.0)
    assert effects(world)[0].reason == "nothing came of it: no instance became ready"
    assert len(world.controller._fleet.pools[RESEARCH].history.samples) >= kept - 1


def test_a_new_configuration_of_the_pool_ends_the_window_unclear() -> None:
    world, _ = scaled(until=1000.0)
    changed = replace(world.config.pools[RESEARCH], concurrency=7)
    world.step(ConfigChanged(replace(world.config, pools={RESEARCH: changed})))
    assert only(world).reason == "the pool's configuration changed meanwhile"


def test_a_restart_of_agentd_ends_the_window_unclear() -> None:
    world, demand = scaled(until=1000.0)
    world.reboot()
    assert only(world).reason == "agentd was restarted meanwhile"
    demand.run_until(1400.0)
    assert len(effects(world)) == 1


def test_replacing_an_agent_is_not_scaling() -> None:
    rng, world = random.Random(1), booted()
    demand = Demand(world, wavy(rng, 18), rng)
    demand.run_until(300.0)
    world.agents[InstanceId("research-9101")].silent = True
    demand.run_until(900.0)
    assert any(record.type is EventType.REPLACE for _, record in world.records)
    assert effects(world) == []


# -- where it is kept ---------------------------------------------------------------------------


def test_the_verdict_is_an_event_of_the_decision_and_shown_with_the_pool() -> None:
    world, _ = scaled(slower=1.8)
    (record,) = [record for _, record in world.records if record.type is EventType.EFFECT]
    assert (record.pool, record.instance, record.decision) == ("research", "", "1-1")
    assert record.reason == f"made it worse: {only(world).reason}"
    assert world.view().pools[0].effect == only(world)
    world.reboot()
    assert world.view().pools[0].effect == only(world), "it outlives agentd"


def test_an_effect_has_the_time_of_its_scaling_and_not_of_the_verdict() -> None:
    world, _ = scaled()
    (scaling,) = [made for outcome in world.outcomes for made in outcome.decisions if made.id == "1-1"]
    assert only(world).wall == scaling.wall


def test_memory_is_bounded_however_long_a_pool_lives() -> None:
    world, demand = scaled(until=3000.0)
    history = world.controller._fleet.pools[RESEARCH].history
    assert len(history.samples) == 60
    assert len(history.marks) == 4
    assert len(world.saved["history/research"]) < 40_000
    demand.run_until(3100.0)
    assert len(history.samples) == 60


def test_a_sample_costs_no_write() -> None:
    world, demand = scaled(until=2000.0)
    saved = json.loads(world.saved["history/research"])
    demand.run_until(2100.0)
    assert json.loads(world.saved["history/research"]) == saved

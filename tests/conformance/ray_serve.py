"""Ray Serve: flows of a deployment, factors, delays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, repeat

from agentd.sim.peers import ray
from agentd.sim.peers.ray import Config, Delay, Policy
from tests.conformance.cases import Case, Json, same, table

# A deployment's own policy instead of the one by queue length: ongoing requests to replicas.
CUSTOM: dict[str, Callable[[float], float] | None] = {
    "queue_length": None,
    "three_if_busy_else_zero": lambda ongoing: 3.0 if ongoing > 0 else 0.0,
    "always_five": lambda _: 5.0,
}


def cases(document: Json) -> Iterator[Case]:
    yield from table(document["sequences"], _sequence)
    yield from table(document["scaling_factors"], _factors)
    yield from table(document["delay"], _delay)
    yield from table(document["slow_loop"], _slow_loop)
    yield from table(document["queue_policy"], _queue)
    yield from table(document["gang"], _gang)


def _sequence(case: Json) -> int:
    policy = Policy(Config(**case["config"]))
    custom = CUSTOM[case["policy"]]
    clock = case.get("clock")
    now, last, tick = (clock["start_s"] if clock else 0.0), 0, 0
    for call in _calls(case["steps"]):
        if clock:
            now = clock["start_s"] + tick * clock["tick_s"]
            tick += not call.get("cold_start", False)
        else:
            now = call.get("at_s", now + call.get("dt_s", 0.0))
        running, target = (last, last) if call.get("feedback") else (call["current"], call["target"])
        ongoing = call["total_requests"]
        last = policy.decide(running, target, ongoing, now, custom(ongoing) if custom else None)
        if call.get("expect") is not None:
            assert last == call["expect"], (now, call)
    if "expect_last" in case["steps"][-1]:
        assert last == case["steps"][-1]["expect_last"]
    return 1


def _calls(steps: list[Json]) -> Iterator[Json]:
    for step in steps:
        if "alternate" in step:
            pattern = [{**call, "dt_s": step["dt_s"]} for call in step["pattern"]]
            yield from chain.from_iterable(repeat(pattern, step["alternate"]))
        else:
            yield from repeat(step, step.get("repeat", 1))


def _factors(case: Json) -> int:
    config = Config(upscaling_factor=case["upscaling_factor"], downscaling_factor=case["downscaling_factor"])
    return same(case["expect"], {"replicas": ray.scaled(config, case["desired"], case["current"])})


def _delay(case: Json) -> int:
    config, delay = Config(**case["config"]), Delay()
    for step in case["steps"]:
        assert delay.decide(config, step["desired"], step["target"], step["at_s"]) == step["expect"], step
    return 1


def _slow_loop(case: Json) -> int:
    config, delay = Config(**case["config"]), Delay()
    expect = case["expect"]
    tick = 0
    while delay.decide(config, case["desired"], case["target"], tick * case["iteration_s"]) == case["target"]:
        tick += 1
        assert tick * case["iteration_s"] <= expect["fires_not_after_s"], "it does not act"
    fired = tick * case["iteration_s"]
    assert expect["fires_not_before_s"] <= fired <= expect["fires_not_after_s"]
    assert fired <= config.upscale_delay_s * expect["max_overshoot_factor"]
    return 1


def _queue(case: Json) -> int:
    config = Config(target_ongoing_requests=case["target_ongoing_requests"])
    desired = ray.queue_replicas(config, case["current"], case["queue_length"], case["ongoing"])
    return same(case["expect"], {"desired_float": desired})


def _gang(case: Json) -> int:
    return same(case["expect"], {"replicas": ray.in_gangs(case["decision"], case["gang_size"])})

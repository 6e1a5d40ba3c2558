"""Policies by name: what configuration they make, what they refuse, and that others act through the controller."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from msgspec import to_builtins
from worlds import arrivals

from agentd.core.rules import DemandTrigger, ExternalTrigger, ThresholdTrigger
from agentd.sim import policies
from agentd.sim.options import Options
from agentd.sim.outcome import behaviour, document, score
from agentd.sim.policies import OWN, POOL, PolicyError, check, known, make
from agentd.sim.run import simulate
from agentd.traces import read_trace

# For twenty minutes a request of 20 s every 4 s, with a burst after ten minutes; then quiet.
TRACE = arrivals(
    *sorted([*[(4.0 * n, 20.0) for n in range(300)], *[(600.0 + 0.5 * n, 20.0) for n in range(60)], (2400.0, 1.0)])
)
RUNNABLE = [*(name for name in OWN if name != "latency"), *policies.peers.NAMES, "static:8", "clairvoyant"]


def _set(*settings: tuple[str, str]) -> Options:
    return Options(settings=settings)


def test_agentds_own_policies_are_a_configuration() -> None:
    fleet, steered = make("demand", _set(("down_window_sec", "60"), ("min", "2"), ("starting_max", "7")), TRACE)
    pool = fleet.pools[POOL]
    assert steered is None
    assert pool.triggers == (DemandTrigger(down_window_s=60.0),)
    assert (pool.min, pool.max, fleet.starting_max, fleet.enabled, fleet.autoscaling_enabled) == (2, 50, 7, True, True)
    assert pool.collector("queue") is not None, "the queue counts as a collector would read it"


def test_the_seeds_thresholds_are_the_defaults_of_threshold() -> None:
    fleet, _ = make("threshold", Options(), TRACE)
    pool = fleet.pools[POOL]
    assert pool.triggers == (ThresholdTrigger(0.75, 0.25),)
    assert (pool.scale_up_cooldown_s, pool.scale_down_cooldown_s, fleet.check_interval_s) == (300.0, 600.0, 60.0)
    fleet, _ = make("threshold", _set(("scale_up_threshold", "0.8"), ("check_interval_sec", "30")), TRACE)
    assert fleet.pools[POOL].triggers == (ThresholdTrigger(0.8, 0.25),)
    assert fleet.check_interval_s == 30.0


@pytest.mark.parametrize("name", ["hpa", "static:3", "clairvoyant"])
def test_others_ask_from_outside_and_no_guard_of_agentds_is_in_their_way(name: str) -> None:
    fleet, steered = make(name, Options(), TRACE)
    pool = fleet.pools[POOL]
    assert steered is not None
    assert pool.triggers == (ExternalTrigger(),)
    assert (pool.drain_share_max, pool.quick_up_cooldown_s, pool.quick_down_cooldown_s) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([("min", "x")], "--set min=x: pools.sim.min must be a whole number"),
        ([("min", "60")], "pool sim: min 60 is greater than max 50"),
        ([("scale_upthreshold", "1")], "--set scale_upthreshold=1: unknown key .* did you mean scale_up_threshold"),
        ([("down_window_sec", "60")], "--set down_window_sec=60: only a policy that has it .*demand"),
        ([("command", "true")], "--set command=true: it cannot be set in a simulation"),
        ([("min", "1\nmax: 9")], "on one line"),
        ([("scale_up_threshold", "0.2")], "scale_down_threshold 0.25, which must be less than"),
        ([("starting_max", "0")], "--set starting_max=0: host.starting_max must be"),
    ],
)
def test_a_mistake_in_a_setting_is_refused_as_the_file_would_be(settings: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        check(["threshold"], _set(*settings))


def test_a_setting_of_one_policy_is_left_out_for_the_others() -> None:
    fleet = check(["demand", "threshold"], _set(("target_ratio", "0.5"), ("scale_up_threshold", "0.9")))
    assert fleet.pools[POOL].triggers == (ThresholdTrigger(0.9, 0.25),)


@pytest.mark.parametrize("name", ["best", "static:", "static:x", "external", "schedule"])
def test_an_unknown_policy_names_those_that_there_are(name: str) -> None:
    with pytest.raises(PolicyError, match=f"no policy '{name}'; there are .*threshold.*clairvoyant"):
        make(name, Options(), TRACE)


def test_latency_needs_its_target() -> None:
    with pytest.raises(PolicyError, match="latency needs one"):
        check(["latency"], Options())
    assert "latency" in known()


@pytest.mark.parametrize("name", RUNNABLE)
def test_each_policy_runs_and_the_same_seed_gives_the_same_bytes(name: str) -> None:
    options = Options(seed=3, beat_loss_ratio=0.1, beat_jitter_ratio=0.1, dispatch="random")
    found = simulate(name, TRACE, options)
    assert to_builtins(found) == to_builtins(simulate(name, TRACE, options))
    assert found.requests == len(TRACE)
    assert 0.0 <= found.late_share <= 1.0
    assert found.evaluations > 0
    # The work alone, and all that there may be at most.
    assert sum(arrival.service_s for arrival in TRACE) / 3600.0 <= found.agent_hours * 1.001
    assert found.agent_hours <= found.peak * TRACE[-1].offset_s / 3600.0


def test_what_follows_the_demand_is_late_less_often_than_what_does_not() -> None:
    found = {name: simulate(name, TRACE, Options()) for name in RUNNABLE}
    assert found["demand"].late_share < found["threshold"].late_share
    assert found["clairvoyant"].late_share <= 0.01
    assert found["clairvoyant"].agent_hours == min(one.agent_hours for one in found.values() if one.late_share <= 0.01)


def test_the_document_says_what_was_set_and_scores_against_the_plan() -> None:
    options = Options(settings=(("cost", "2.5"),))
    results = [simulate(name, TRACE, options) for name in ("static:8", "clairvoyant")]
    made = document("trace", results, options, agents_min=1, initial=4, service_s=None)
    assert list(made) == ["trace", "settings", "policies"]
    first, plan = json.loads(json.dumps(made))["policies"]
    keys = ["policy", "requests", "unserved", "late_share", "wait_p50_s", "wait_p95_s", "wait_p99_s", "agent_hours",
            "starts", "peak", "cost"]  # fmt: skip
    assert list(first)[: len(keys)] == keys
    assert first["cost"] == pytest.approx(2.5 * first["agent_hours"])
    assert first["j"] == pytest.approx(first["agent_hours"] / plan["agent_hours"] + 10.0 * first["late_share"])
    assert plan["j"] == score(results[1], results[1].agent_hours)
    assert len(first["timeline"]) == 240
    assert sum(moment["arrivals"] for moment in first["timeline"]) == len(TRACE)
    assert len(behaviour(options)) == 4


@pytest.mark.parametrize("pairs", [[(0.0, 1.0)], [(0.0, 0.0), (0.0, 0.0)], [(5.0, 100.0)]])
def test_a_trace_of_a_moment_runs_too(pairs: list[tuple[float, float]]) -> None:
    trace = arrivals(*pairs)
    results = [simulate(name, trace, Options()) for name in RUNNABLE]
    assert all(result.unserved == 0 for result in results)
    json.dumps(document("trace", results, Options(), agents_min=1, initial=1, service_s=None), allow_nan=False)


@pytest.mark.skipif("AGENTD_SHARED" not in os.environ, reason="AGENTD_SHARED names no directory with traces")
def test_threshold_on_a_public_trace_is_where_it_was() -> None:
    trace = read_trace(Path(os.environ["AGENTD_SHARED"]) / "traces/azure-code-2023.csv.gz")
    found = simulate("threshold", trace, Options())
    assert (found.starts, found.peak) == (7, 11)
    assert found.late_share == pytest.approx(0.370, abs=0.001)
    assert found.agent_hours == pytest.approx(8.27, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "first", "count"),
    [
        ((), None, 7),
        ((("budget", "{per_hour: 3}"),), None, 3),
        ((("budget", "{per_hour: 3}"), ("cost", "0.5")), None, 6),
        ((("budget", "{per_hour: 3}"), ("min", "4")), None, 4),
        ((("budget", "{per_hour: 3}"),), 9, 9),
    ],
)
@pytest.mark.parametrize("name", ["demand", "static:7", "clairvoyant"])
def test_a_run_begins_with_what_the_budget_pays_for_unless_a_count_is_given(
    name: str, settings: tuple[tuple[str, str], ...], first: int | None, count: int
) -> None:
    """No budget takes back what is there: whoever began with more would have it for nothing."""
    options = Options(settings=settings, initial=first)
    fleet, _ = make(name, options, TRACE)
    assert policies.initial(fleet, options, TRACE) == count


def test_a_run_stays_within_its_budget_from_its_beginning_on() -> None:
    assert simulate("threshold", TRACE[:100], _set(("budget", "{per_hour: 3}"))).peak == 3

"""Knative: the autoscaler's ticks, and its windows."""

from __future__ import annotations

import math
from collections.abc import Iterator

from agentd.sim.peers.kpa import Autoscaler, Means, Spec
from agentd.sim.peers.kpa_windows import TimeWindowMax, WeightedAverage, WindowAverage, WindowMax, smoothing
from tests.conformance.cases import NOW, Case, Json, table


def cases(document: Json) -> Iterator[Case]:
    tolerance = document["defaults"]["excess_burst_capacity_tolerance"]
    yield from table(document["sequences"], lambda case: _sequence(case, tolerance))
    yield from table(document["initial_state"], _initial)
    yield from table(document["window_max"], _window_max)
    yield from table(document["time_window_max"], _time_window_max)
    yield from table(document["window_average"], _average)
    yield from table(document["smoothing_coefficient"], _coefficient)


def _sequence(case: Json, tolerance: float) -> int:
    autoscaler = Autoscaler(Spec(**case["spec"]), case["initial_ready"], NOW)
    if case["initial_state"] is not None:
        autoscaler.panic_since = case["initial_state"]["panic_since_s"]
        autoscaler.max_panic_pods = case["initial_state"]["max_panic_pods"]
    for step in case["steps"]:
        spec = Spec(**case["spec"] | step.get("spec_override", {}))
        means = None if step.get("error") == "metrics" else Means(step.get("stable", 0.0), step.get("panic", 0.0))
        wish = autoscaler.scale(spec, step["ready"], means, step["at_s"])
        expect = step["expect"]
        assert (wish.valid, wish.desired) == (expect["valid"], expect["desired"]), step
        assert abs(wish.excess_burst_capacity - expect["excess_burst_capacity"]) <= tolerance, step
        if "panic_since_s" in expect:
            assert autoscaler.panic_since == expect["panic_since_s"], step
    return len(case["steps"])


def _initial(case: Json) -> int:
    spec = Spec(target_value=10, total_value=10)
    autoscaler = Autoscaler(spec, case["ready_at_creation"], NOW)
    found = {"panic": autoscaler.panic_since is not None, "max_panic_pods": autoscaler.max_panic_pods}
    assert found == case["expect"]
    return 1


def _window_max(case: Json) -> int:
    window = WindowMax(case["size"])
    found = list[int]()
    for index, value in case["records"]:
        window.record(index, value)
        found.append(window.current())
    assert found == case["expect"]
    return 1


def _time_window_max(case: Json) -> int:
    window = TimeWindowMax(case["window_s"], case["granularity_s"])
    for at, value in case["records"]:
        window.record(at, value)
    assert window.current() == case["expect"]
    return 1


def _average(case: Json) -> int:
    kinds = {"plain": WindowAverage, "weighted": WeightedAverage}
    window = kinds[case["kind"]](case["window_s"], case["granularity_s"])
    queries = 0
    for step in case["steps"]:
        if step["op"] == "record":
            window.record(step["at_s"], step["value"])
            continue
        found = window.average(step["at_s"])
        assert math.isclose(found, step["expect"], rel_tol=0, abs_tol=case.get("tolerance", 1e-9)), (step, found)
        queries += 1
    return queries


def _coefficient(case: Json) -> int:
    assert abs(smoothing(case["buckets"]) - case["expect"]) <= case["tolerance"]
    return 1

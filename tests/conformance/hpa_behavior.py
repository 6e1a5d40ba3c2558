"""HPA: stabilisation, rates and their histories."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agentd.sim.peers import hpa_behavior as behaving
from agentd.sim.peers.hpa_behavior import (
    DEFAULT_DOWN,
    DEFAULT_UP,
    Behavior,
    Bounds,
    Events,
    RatePolicy,
    Recommendation,
    Recommendations,
    Rules,
    ScaleEvent,
    Select,
    Unit,
)
from tests.conformance.cases import NOW, Case, Json, same, table

UPSTREAM_TEST_GROWTH = 8  # the upstream test binary raises the growth factor from 2 to this


def cases(document: Json) -> Iterator[Case]:
    yield from table(document["convert_default_rules"], _default_limit)
    yield from table(document["limits"], _limit_alone)
    yield from table(document["stabilize_default"], _stabilise_default)
    yield from table(document["rate_rules"], _limit)
    yield from table(document["rate_rules_derived"], _limit, "derived")
    yield from table(document["store_scale_event"], _store)
    yield from table(document["stabilize_with_behavior"], _stabilise)


def rules(entry: Json, default: Rules) -> Rules:
    if entry is None:
        return default
    policies = tuple(
        RatePolicy(Unit(policy["type"]), policy["value"], policy["period_s"]) for policy in entry["policies"]
    )
    return Rules(entry["stabilization_window_s"], Select(entry["select_policy"]), policies)


def recommendations(entries: Sequence[Json]) -> Recommendations:
    return tuple(Recommendation(NOW - entry["age_s"], entry["replicas"]) for entry in entries)


def _events(entries: Sequence[Json]) -> tuple[ScaleEvent, ...]:
    return tuple(ScaleEvent(NOW - entry["age_s"], entry["change"], entry.get("outdated", False)) for entry in entries)


def _both(case: Json) -> Events:
    return Events(_events(case["scale_up_events"]), _events(case["scale_down_events"]))


def _default_limit(case: Json) -> int:
    expectations = {2: case["expect"]}
    if "expect_upstream_test_factor_8" in case:
        expectations[UPSTREAM_TEST_GROWTH] = case["expect_upstream_test_factor_8"]
    for growth, expect in expectations.items():
        bounds = Bounds(case["min"], case["max"])
        replicas, why = behaving.limit_default(case["current"], case["desired"], bounds, growth)
        same(expect, {"replicas": replicas, "reason": why.value})
    return 1


def _limit_alone(case: Json) -> int:
    rule = {"up": behaving.up_limit, "down": behaving.down_limit}[case["direction"]]
    return same(case["expect"], {"limit": rule(case["current"], rules(case["rules"], DEFAULT_UP), _both(case), NOW)})


def _stabilise_default(case: Json) -> int:
    history = recommendations(case["recommendations"])
    replicas, after = behaving.stabilise_default(history, case["desired"], NOW, case["window_s"])
    return same(case["expect"], {"replicas": replicas, "history_len": len(after)})


def _limit(case: Json) -> int:
    behavior = Behavior(rules(case["scale_up_rules"], DEFAULT_UP), rules(case["scale_down_rules"], DEFAULT_DOWN))
    bounds = Bounds(case["min"], case["max"])
    replicas, why = behaving.limit(case["current"], case["desired"], bounds, behavior, _both(case), NOW)
    return same(case["expect"], {"replicas": replicas, "reason": why.value})


def _store(case: Json) -> int:
    """The controller keeps no events for a fleet without a behavior; that is not the history's business."""
    before = _events(case["previous_events"])
    after = before
    if case["rules"] is not None:
        after = behaving.store_event(before, case["new_change"], rules(case["rules"], DEFAULT_UP), NOW)
    found = {
        "change_in_period_before": behaving.change_in_period(before, case["period_s"], NOW),
        "events_after": [{"change": event.change, "outdated": event.outdated} for event in after],
    }
    return same(case["expect"], found)


def _stabilise(case: Json) -> int:
    behavior = Behavior(
        Rules(case["scale_up_window_s"], Select.MAX, ()), Rules(case["scale_down_window_s"], Select.MAX, ())
    )
    history = recommendations(case["recommendations"])
    replicas, after = behaving.stabilise(history, case["current"], case["desired"], behavior, NOW)
    return same(case["expect"], {"replicas": replicas, "history": [slot.replicas for slot in after]})

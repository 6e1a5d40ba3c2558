"""Where the tables of the HPA let a wrong rule pass, or hold it by one case alone: cases worked out by hand."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from agentd.sim.peers.hpa import (
    Condition,
    Controller,
    PodsMetric,
    ResourceMetric,
    Settings,
    Source,
    TotalMetric,
    UnknownMetric,
    combine,
)
from agentd.sim.peers.hpa_behavior import (
    DEFAULT_DOWN,
    DEFAULT_UP,
    Behavior,
    Bounds,
    Events,
    RatePolicy,
    Recommendation,
    Rules,
    ScaleEvent,
    Select,
    Unit,
    Why,
    limit,
    store_event,
)
from agentd.sim.peers.hpa_calculator import PodUsage, Scene, Tolerance, plain_count, resource_count
from agentd.sim.peers.hpa_pods import Pod, Sample

WINDOW_S = 15.0
LONG_AGO = -1e6


def fleet(ready: int, unready: int = 0, current: int | None = None, now: float = 0.0) -> Scene:
    """Pods that request one core each."""
    pods = tuple(
        Pod(f"p{n}", ready=n < ready, started_at=LONG_AGO, ready_changed_at=LONG_AGO, requests_m=(("main", 1000),))
        for n in range(ready + unready)
    )
    return Scene(ready + unready if current is None else current, ready + unready, pods, now)


def cpu(*used_m: int) -> tuple[PodUsage, ...]:
    return tuple(PodUsage(f"p{n}", (("main", value),), 0.0, WINDOW_S) for n, value in enumerate(used_m))


def external(total_m: int, target_m: int = 1000) -> TotalMetric:
    return TotalMetric(Source.EXTERNAL, target_m, (total_m,), average=True)


@pytest.mark.parametrize(
    ("tolerance", "used_m", "wanted"),
    [
        (Tolerance(down=0.3, up=0.1), 750, 5),
        (Tolerance(down=0.3, up=0.1), 1150, 6),
        (Tolerance(down=0.1, up=0.3), 1250, 5),
        (Tolerance(down=0.1, up=0.3), 750, 4),
    ],
)
def test_each_direction_has_its_own_tolerance(tolerance: Tolerance, used_m: int, wanted: int) -> None:
    """Five pods against 100 %."""
    scene = replace(fleet(5), tolerance=tolerance)
    assert resource_count(scene, cpu(*[used_m] * 5), 100).replicas == wanted


def test_on_the_way_down_unready_pods_are_left_out_and_not_empty() -> None:
    """Three ready pods at 48 % of a target of 50 % are inside the tolerance, whatever the other two will do."""
    assert resource_count(fleet(3, 2), cpu(480, 480, 480, 0, 0), 50).replicas == 5


def test_on_the_way_up_an_unready_pod_is_empty() -> None:
    """100 % on two of four against 60 %: (100 + 100 + 0 + 0) / 4 = 50 % turns the move around: it stays at four."""
    assert resource_count(fleet(2, 2), cpu(1000, 1000, 1000, 1000), 60).replicas == 4


def test_a_missing_sample_is_full_at_the_target_where_that_is_above_all_that_was_asked_for() -> None:
    """10 % in one of three against 200 %: (10 + 200 + 200) / 3 = 136 %, ceil(0.68 x 3) = 3; at 100 % it would be 2."""
    assert resource_count(fleet(3), cpu(100), 200).replicas == 3


def test_a_plain_number_does_not_look_at_readiness() -> None:
    samples = {f"p{n}": Sample(3000, 0.0, WINDOW_S) for n in range(2)}
    assert plain_count(fleet(1, 1), samples, 1000).replicas == 6


def test_the_largest_count_wins_wherever_it_stands() -> None:
    scene = fleet(3)
    for wishes in ((9000, 5000), (5000, 9000)):
        assert combine([external(total) for total in wishes], scene).replicas == 9


def test_of_two_failures_the_first_is_told() -> None:
    metrics = [PodsMetric(1000, None), UnknownMetric()]
    combined = combine(metrics, fleet(3))
    assert (combined.replicas, combined.failure) == (None, "FailedGetPodsMetric")


@pytest.mark.parametrize("least", [1, 3])
def test_a_fleet_of_none_with_a_minimum_is_switched_off(least: int) -> None:
    look = Controller(Settings(Bounds(least, 10))).look(fleet(0), [external(99_000)])
    assert (look.desired, look.rescaled) == (0, False)
    assert look.conditions[-1] == Condition("ScalingActive", False, "ScalingDisabled")


def test_a_fleet_of_none_without_a_minimum_wakes() -> None:
    assert Controller(Settings(Bounds(0, 10))).look(fleet(0), [external(3000)]).desired == 3


@pytest.mark.parametrize(("events", "current"), [((9,), 100), ((3, 4), 50)])
def test_a_spent_budget_holds_the_size_and_takes_nothing_back(events: tuple[int, ...], current: int) -> None:
    """current - sum + 5 is below current: 96, 48."""
    behavior = Behavior(up=Rules(0.0, Select.MAX, (RatePolicy(Unit.PODS, 5, 60.0),)))
    history = Events(up=tuple(ScaleEvent(-10.0, change) for change in events))
    assert limit(current, 500, Bounds(1, 1000), behavior, history, 0.0) == (current, Why.UP_LIMIT)


def test_a_direction_that_is_switched_off_holds_whatever_its_policies_say() -> None:
    off = (RatePolicy(Unit.PERCENT, 900, 60.0),)
    behavior = Behavior(Rules(0.0, Select.DISABLED, off), Rules(0.0, Select.DISABLED, off))
    assert limit(5, 6, Bounds(1, 9), behavior, Events(), 0.0) == (5, Why.UP_LIMIT)
    assert limit(5, 4, Bounds(1, 9), behavior, Events(), 0.0) == (5, Why.DOWN_LIMIT)


def test_the_last_slot_that_is_too_old_is_written_over() -> None:
    old = (ScaleEvent(-99.0, 1), ScaleEvent(-1.0, 2), ScaleEvent(-98.0, 3))
    rules = Rules(0.0, Select.MAX, (RatePolicy(Unit.PODS, 4, 60.0),))
    assert [event.change for event in store_event(old, 7, rules, 0.0)] == [1, 2, 7]


def test_without_a_behavior_a_step_ends_at_twice_the_size_or_at_four() -> None:
    for size, most in ((1, 4), (2, 4), (3, 6), (20, 40)):
        look = Controller(Settings(Bounds(1, 1000))).look(fleet(size), [external(900_000)])
        assert look.desired == most
        assert look.conditions[-1].reason == "ScaleUpLimit"


def test_the_controller_remembers_what_it_did_within_a_period() -> None:
    """Two pods a minute: 2 to 4 at once, nothing at 59 s, two more at 60 s. Down by one in a minute, likewise."""
    behavior = Behavior(
        up=Rules(0.0, Select.MAX, (RatePolicy(Unit.PODS, 2, 60.0),)),
        down=Rules(0.0, Select.MAX, (RatePolicy(Unit.PODS, 1, 60.0),)),
    )
    controller = Controller(Settings(Bounds(1, 100), behavior))
    sizes, size = list[int](), 2
    for now, total in ((0.0, 9000), (59.0, 9000), (60.0, 9000), (200.0, 1000), (230.0, 1000), (260.0, 1000)):
        size = controller.look(fleet(size, now=now), [external(total)]).desired
        sizes.append(size)
    assert sizes == [4, 4, 6, 5, 5, 4]


def test_with_a_behavior_that_names_no_down_window_it_is_five_minutes() -> None:
    remembered = (Recommendation(0.0, 8),)
    settings = Settings(Bounds(1, 100), Behavior(DEFAULT_UP, DEFAULT_DOWN))
    for now, desired, reason in ((299.0, 8, "ScaleDownStabilized"), (300.0, 2, "SucceededRescale")):
        look = Controller(settings, remembered).look(fleet(8, now=now), [external(2000)])
        assert (look.desired, look.conditions[0].reason) == (desired, reason)


def test_without_a_behavior_a_recommendation_of_five_minutes_ago_still_counts() -> None:
    remembered = (Recommendation(0.0, 8),)
    for now, desired in ((300.0, 8), (300.5, 2)):
        look = Controller(Settings(Bounds(1, 100)), remembered).look(fleet(8, now=now), [external(2000)])
        assert look.desired == desired


def test_a_container_metric_says_that_it_is_one() -> None:
    combined = combine([ResourceMetric(50, None, container="main")], fleet(1))
    assert combined.failure == "FailedGetContainerResourceMetric"

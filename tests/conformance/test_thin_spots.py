"""Where the tables of Knative, Nomad and Ray let a wrong rule pass, or hold it by one case: worked out by hand."""

from __future__ import annotations

import pytest

from agentd.sim.peers import nomad, ray
from agentd.sim.peers.kpa import Autoscaler, Means, Spec, ZeroHold
from agentd.sim.peers.kpa_windows import WindowAverage
from agentd.sim.peers.nomad import NOTHING, Action, Direction, Machine, Phase, Vote
from agentd.sim.peers.ray import Config, Delay, LookBack, Policy

KPA = Spec(target_value=1.0, total_value=1.0)
UP, NONE, DOWN = Direction.UP, Direction.NONE, Direction.DOWN


def desired(autoscaler: Autoscaler, ready: int, stable: float, panic: float, now: float, spec: Spec = KPA) -> int:
    return autoscaler.scale(spec, ready, Means(stable, panic), now).desired


# --- Knative


def test_kpa_in_panic_the_size_never_shrinks_and_the_larger_mean_counts() -> None:
    autoscaler = Autoscaler(KPA, 1, 0.0)
    wishes = [
        desired(autoscaler, 4, 2, 20, 0.0),  # 20 >= 2 x 4: panic
        desired(autoscaler, 20, 5, 3, 10.0),
        desired(autoscaler, 20, 25, 3, 20.0),
        desired(autoscaler, 25, 13, 3, 30.0),
    ]
    assert wishes == [20, 20, 25, 25]


def test_kpa_panic_ends_when_a_stable_window_has_passed_and_not_with_it() -> None:
    autoscaler = Autoscaler(KPA, 1, 0.0)
    assert desired(autoscaler, 4, 8, 8, 0.0) == 8
    assert desired(autoscaler, 8, 5, 5, 60.0) == 8
    assert desired(autoscaler, 8, 5, 5, 60.5) == 5


def test_kpa_a_second_panic_knows_nothing_of_the_first() -> None:
    autoscaler = Autoscaler(KPA, 1, 0.0)
    assert desired(autoscaler, 4, 40, 40, 0.0) == 40
    assert desired(autoscaler, 10, 10, 10, 61.0) == 10
    assert desired(autoscaler, 10, 10, 20, 70.0) == 20


def test_kpa_panic_begins_at_the_threshold_itself() -> None:
    for panic, in_panic in ((8, True), (7, False)):
        autoscaler = Autoscaler(KPA, 1, 0.0)
        desired(autoscaler, 4, 1, panic, 0.0)
        assert (autoscaler.panic_since is not None) is in_panic


@pytest.mark.parametrize(("ready", "rate", "most"), [(1, 1.5, 2), (3, 1.1, 4), (2, 1.5, 3)])
def test_kpa_the_up_rate_is_rounded_up(ready: int, rate: float, most: int) -> None:
    spec = Spec(target_value=1.0, total_value=1.0, max_scale_up_rate=rate, panic_threshold=1e9)
    assert desired(Autoscaler(spec, 1, 0.0), ready, 99, 99, 0.0, spec) == most


@pytest.mark.parametrize(("ready", "least"), [(1, 0), (3, 1), (5, 2)])
def test_kpa_the_down_rate_is_rounded_down(ready: int, least: int) -> None:
    assert desired(Autoscaler(KPA, 1, 0.0), ready, 0, 0, 0.0) == least


def test_kpa_a_new_autoscaler_does_not_shrink_what_it_finds() -> None:
    assert desired(Autoscaler(KPA, 3, 0.0), 3, 1, 1, 2.0) == 3
    assert desired(Autoscaler(KPA, 1, 0.0), 3, 1, 1, 2.0) == 1


def test_kpa_the_activation_scale_is_no_minimum() -> None:
    spec = Spec(target_value=1.0, total_value=1.0, activation_scale=3)
    assert desired(Autoscaler(spec, 1, 0.0), 1, 0, 0, 0.0, spec) == 0
    assert desired(Autoscaler(spec, 1, 0.0), 1, 0.1, 0, 0.0, spec) == 3
    assert desired(Autoscaler(spec, 1, 0.0), 1, 5, 0, 0.0, spec) == 5
    # What the down rate keeps of an idle fleet is no load: half of three or four, and not three.
    assert [desired(Autoscaler(spec, 1, 0.0), ready, 0, 0, 0.0, spec) for ready in (3, 4)] == [1, 2]


def test_kpa_a_young_metric_is_divided_by_its_own_age() -> None:
    window = WindowAverage(60.0, 1.0)
    for at in range(3):
        window.record(float(at), 6.0)
    assert window.average(2.0) == 6.0
    assert window.average(4.0) == pytest.approx(18 / 5)


def test_kpa_the_last_pod_stays_for_a_window_and_a_grace() -> None:
    hold = ZeroHold(stable_window_s=60.0, grace_s=30.0)
    told = [(0.0, 0, 1), (60.0, 0, 1), (89.0, 0, 1), (90.0, 0, 0), (92.0, 0, 0)]
    told += [(100.0, 2, 2), (130.0, 0, 1), (160.0, 0, 1), (189.0, 0, 1), (190.0, 0, 0)]
    told += [(200.0, 1, 1), (300.0, 0, 1), (310.0, 1, 1), (320.0, 0, 1), (349.0, 0, 1), (350.0, 0, 0)]
    assert [hold.hold(wish, now) for now, wish, _ in told] == [size for _, _, size in told]
    keep = ZeroHold(stable_window_s=0.0, grace_s=30.0, retention_s=100.0)
    assert [keep.hold(0, now) for now in (0.0, 99.0, 100.0)] == [1, 1, 0]


# --- Nomad


@pytest.mark.parametrize(("metric", "direction"), [(101.1, UP), (100.9, NONE), (99.1, NONE), (98.9, DOWN)])
def test_nomad_the_threshold_is_one_percent_on_both_sides(metric: float, direction: Direction) -> None:
    action = nomad.target_value({"target": "100"}, [metric], 1000)
    assert action is not None
    assert action.direction is direction


def test_nomad_the_newest_sample_passes_through() -> None:
    assert nomad.pass_through({}, [9.0, 2.0, 4.0], 3) == Action(UP, 4)


@pytest.mark.parametrize(("hits", "wanted"), [(4, NOTHING), (5, Action(UP, 2))])
def test_nomad_five_samples_within_the_bounds_are_enough(hits: int, wanted: Action) -> None:
    metrics = [7.0] * hits + [0.0] * 5
    assert nomad.threshold({"lower_bound": "5", "delta": "1"}, metrics, 1) == wanted


def test_nomad_an_empty_setting_is_an_absent_one() -> None:
    config = {"lower_bound": "5", "upper_bound": "", "delta": "2", "value": "", "within_bounds_trigger": ""}
    assert nomad.threshold(config, [7.0] * 5, 1) == Action(UP, 3)
    assert nomad.threshold(config, [], 1) is None
    with pytest.raises(nomad.ConfigError, match="cannot use value: invalid"):
        nomad.threshold({"lower_bound": "5", "value": "-1"}, [7.0], 1)


def test_nomad_a_fixed_value_is_a_wish_until_it_is_reached() -> None:
    assert [nomad.fixed_value({"value": "3"}, count) for count in (1, 3, 5)] == [
        Action(UP, 3),
        NOTHING,
        Action(DOWN, 3),
    ]
    with pytest.raises(nomad.ConfigError, match="cannot use value: missing"):
        nomad.fixed_value({}, 1)


def test_nomad_none_holds_against_down_but_inside_a_named_group() -> None:
    none, down = Vote("none", NOTHING), Vote("down", Action(DOWN, 1))
    assert nomad.pick_winner({"": [none, down]}) == ("none", NOTHING)
    assert nomad.pick_winner({"g": [none, down]}) == ("down", Action(DOWN, 1))
    assert nomad.pick_winner({"g": [none], "h": [down]}) == ("none", NOTHING)
    assert nomad.pick_winner({"g": [none, Vote("silent", None)], "h": [down]}) == ("down", Action(DOWN, 1))
    assert nomad.pick_winner({"g": [Vote("silent", None)]}) is None


def test_nomad_what_was_said_before_the_cap_is_history() -> None:
    first = nomad.cap_count(Action(UP, 12, reason="busy"), 1, 10)
    assert (first.count, first.original, first.history) == (10, 12, ("busy",))
    assert first.reason == "capped count from 12 to 10 to stay within limits"


def test_nomad_a_policy_cools_down_after_an_action() -> None:
    machine = Machine(cooldown_s=300.0, cooldown_on_up_s=60.0)
    assert machine.may_act(2, 0.0)
    machine.wants()
    machine.begins()
    machine.done(Action(UP, 4), 0.0)
    assert [machine.may_act(4, now) for now in (10.0, 60.0, 60.1)] == [False, False, True]
    machine.wants()
    machine.begins()
    machine.done(Action(DOWN, 3), 70.0)
    assert [machine.may_act(3, now) for now in (140.0, 370.0, 370.1)] == [False, False, True]


def test_nomad_what_somebody_else_did_cools_down_too() -> None:
    machine = Machine(cooldown_s=300.0)
    assert machine.may_act(2, 0.0)
    assert not machine.may_act(5, 10.0)
    assert machine.phase is Phase.COOLDOWN
    assert [machine.may_act(5, now) for now in (310.0, 310.1)] == [False, True]


# --- Ray Serve


def test_ray_a_delay_that_is_reached_but_for_rounding_is_reached() -> None:
    config, delay = Config(upscale_delay_s=0.3), Delay()
    assert 1.2 - 0.9 < 0.3  # what a clock of floats is like
    assert [delay.decide(config, 2, 1, now) for now in (0.9, 1.2)] == [1, 2]


def test_ray_a_load_that_fills_its_last_replica_in_part_takes_none_away() -> None:
    """40.5 of 41 replicas is 41; only a factor can hold what whole replicas would let go."""
    assert ray.scaled(Config(), 40.5, 41) == 41
    assert ray.scaled(Config(downscaling_factor=0.5), 40.0, 41) == 40


def test_ray_while_nothing_runs_no_delay_begins() -> None:
    policy = Policy(Config(max_replicas=9, upscale_delay_s=30.0, target_ongoing_requests=1.0))
    assert policy.decide(1, 1, 2.0, 0.0) == 1  # a wish to go up begins to wait
    assert policy.decide(0, 1, 0.0, 10.0) == 1
    assert policy.decide(1, 1, 2.0, 30.0) == 2


def test_ray_a_wish_beyond_the_bounds_is_no_wish() -> None:
    policy = Policy(Config(max_replicas=3, target_ongoing_requests=1.0, upscale_delay_s=0.0))
    assert [policy.decide(3, 3, 9.0, 0.0), policy.decide(1, 1, 9.0, 1.0)] == [3, 3]


def test_ray_the_delay_begins_anew_after_it_has_acted() -> None:
    config, delay = Config(upscale_delay_s=30.0), Delay()
    wishes = [delay.decide(config, wish, target, now) for now, wish, target in ((0, 2, 1), (30, 2, 1), (31, 3, 2))]
    assert wishes == [1, 2, 2]


def test_ray_what_was_told_holds_until_the_next_and_for_the_window_alone() -> None:
    look = LookBack(30.0)
    assert look.mean(0.0) == 0.0
    look.tell(10.0, 0.0)
    assert look.mean(0.0) == 10.0
    look.tell(4.0, 10.0)
    assert look.mean(20.0) == pytest.approx((10 * 10 + 4 * 10) / 20)  # the window begins with the first number
    assert look.mean(35.0) == pytest.approx((10 * 5 + 4 * 25) / 30)
    look.tell(1.0, 50.0)
    assert look.mean(50.0) == pytest.approx(4.0)

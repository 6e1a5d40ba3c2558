"""The comparison at equal demand: no differences that are none, and the real ones found."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from agentd.core.comparing import GROUP, SAMPLES_MIN, Difference, Point, TooFew, compare

RUNS = 200
Scene = Callable[[random.Random], tuple[list[Point], list[Point]]]


def series(rng: random.Random, count: int, alike: float, spread: float) -> list[float]:
    """Noise in which each value is like the one before by `alike`."""
    value, made = rng.gauss(0.0, spread), []
    for _ in range(count):
        made.append(value)
        value = alike * value + math.sqrt(1.0 - alike * alike) * rng.gauss(0.0, spread)
    return made


def scene(
    *, before: float = 0.6, after: float = 0.6, demand_alike: float = 0.8, alike: float = 0.0, spread: float = 0.1,
    effect: float = 0.0, misread: float = 0.0,
) -> Scene:  # fmt: skip
    """Ten minutes before and four after. Values grow with demand, faster the fuller the agents are, and by `effect`.

    `before`, `after`: the mean demand. `misread`: the noise in which demand is measured, as a share.
    """

    def window(rng: random.Random, count: int, mean: float, more: float) -> list[Point]:
        demand = [min(0.95, max(0.05, mean + off)) for off in series(rng, count, demand_alike, 0.12)]
        noise = series(rng, count, alike, spread)
        return [
            Point(x * math.exp(rng.gauss(0.0, misread)), math.log(0.5 + 0.5 / (1.0 - x)) + off + more)
            for x, off in zip(demand, noise, strict=True)
        ]

    return lambda rng: (window(rng, 60, before, 0.0), window(rng, 24, after, effect))


def clear(made: Scene, runs: int = RUNS) -> tuple[int, int]:
    """How many of `runs` say less, and how many more."""
    less = more = 0
    for seed in range(runs):
        found = compare(*made(random.Random(seed)))
        if isinstance(found, Difference):
            less += found.high < 0.0
            more += found.low > 0.0
    return less, more


@pytest.mark.parametrize(
    "made",
    [
        scene(),
        scene(spread=0.5),
        scene(alike=0.7),
        scene(alike=0.9),
        scene(before=0.75, after=0.5),  # the peak has ended by itself
        scene(before=0.75, after=0.5, alike=0.7),
        scene(before=0.75, after=0.55, misread=0.15),
        scene(before=0.4, after=0.7, misread=0.15),
        scene(demand_alike=0.0, misread=0.3),
    ],
    ids=["noise", "much noise", "slow noise", "slower noise", "peak ends", "peak ends, slow noise",
         "peak ends, demand misread", "demand rises, misread", "demand is nothing but noise"],
)  # fmt: skip
def test_where_nothing_changed_at_least_95_of_100_say_nothing(made: Scene) -> None:
    less, more = clear(made)
    assert less + more <= 0.05 * RUNS, (less, more)


def test_a_plain_difference_of_means_would_have_told_a_story() -> None:
    """What the comparison is for: demand falls by itself, and nearly always it looks as if something had helped."""
    fell = 0
    for seed in range(RUNS):
        before, after = scene(before=0.75, after=0.5)(random.Random(seed))
        fell += sum(p.value for p in after) / len(after) < sum(p.value for p in before) / len(before)
    assert fell >= 0.95 * RUNS


@pytest.mark.parametrize("effect", [-0.5, 0.5])
@pytest.mark.parametrize("mean", [0.6, 0.5], ids=["same demand", "less demand"])
def test_a_real_change_is_found_with_its_sign(effect: float, mean: float) -> None:
    less, more = clear(scene(after=mean, effect=effect, alike=0.3))
    right, wrong = (less, more) if effect < 0 else (more, less)
    assert right >= 0.8 * RUNS, (less, more)
    assert wrong == 0


def test_the_interval_holds_the_truth() -> None:
    found = [compare(*scene(effect=0.3, alike=0.5)(random.Random(seed))) for seed in range(RUNS)]
    intervals = [one for one in found if isinstance(one, Difference)]
    assert len(intervals) >= 0.8 * RUNS, "the demand is the same, so that nearly all can be compared"
    assert sum(one.low <= 0.3 <= one.high for one in intervals) >= 0.95 * len(intervals)


def test_demand_that_only_one_window_has_seen_is_not_compared() -> None:
    low = [Point(0.1 + n / 1000, 1.0) for n in range(40)]
    high = [Point(0.8 + n / 1000, 9.0) for n in range(24)]
    assert compare(low, high) == TooFew(0, 0)
    assert compare([], high) == TooFew(0, 24)


def test_too_few_samples_of_common_demand_are_too_few() -> None:
    many = [Point(n / 40, 1.0) for n in range(40)]
    few = [Point(n / 40, 2.0) for n in range(SAMPLES_MIN - 1)]
    found = compare(many, few)
    assert isinstance(found, TooFew)
    assert found.after == SAMPLES_MIN - 1


def test_two_groups_of_neighbours_are_not_evidence() -> None:
    many = [Point(n / 40, 1.0 + n % 2) for n in range(40)]
    assert isinstance(compare(many, [Point(n / 40, 3.0) for n in range(2 * GROUP)]), TooFew)


def test_constant_demand_compares_plainly() -> None:
    before = [Point(1.0, 1.0 + 0.01 * (n % 2)) for n in range(30)]
    after = [Point(1.0, 2.0 + 0.01 * (n % 2)) for n in range(24)]
    found = compare(before, after)
    assert isinstance(found, Difference)
    assert found.change == pytest.approx(1.0)
    assert (found.before, found.after) == (30, 24)
    same = compare(before, before[:24])
    assert isinstance(same, Difference)
    assert same.low < 0.0 < same.high


def test_demand_that_tells_the_windows_apart_tells_nothing_of_the_values() -> None:
    """Two stray samples of each lie where the other window is; a line through the two clouds would be a guess."""
    before = [Point(0.1 + 0.001 * n, 1.0) for n in range(30)] + [Point(0.95, 1.0)] * 2
    after = [Point(0.9 - 0.001 * n, 2.0) for n in range(22)] + [Point(0.1, 2.0)] * 2
    assert isinstance(compare(before, after), TooFew)

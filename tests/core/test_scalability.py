"""The scalability law: it finds the knee where there is one, and says nothing where there is none."""

from __future__ import annotations

import math
import random

import pytest
from fleets import STORIES
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.core import scalability
from agentd.core.scalability import CONFIDENCE_GUARD, HALF_LIFE_S, LEVELS_MAX, Level, ScalingLaw

COUNT_MAX = 16


def throughput(count: int, sigma: float, kappa: float, per_agent: float = 5.0) -> float:
    return per_agent * count / (1.0 + sigma * (count - 1) + kappa * count * (count - 1))


def knee(sigma: float, kappa: float) -> int:
    """The number of agents after which the next one brings less than a tenth of what the first does."""
    done = [throughput(n, sigma, kappa, 1.0) for n in range(1000)]
    return next(n for n in range(1, 999) if done[n + 1] - done[n] < 0.1)


def story(
    seed: int, sigma: float, kappa: float, *, noise: float, other: float = 0.0, alike: float = 0.5
) -> list[ScalingLaw]:
    """What is said of a pool that grows and shrinks by chance, at the end of each stay.

    `noise` of each sample, of which each is like the one before by `alike`; `other` of each stay as a whole.
    """
    rng = random.Random(seed)
    levels: dict[int, Level] = {}
    said, now, count = [], 0.0, rng.randint(1, 5)
    for _ in range(30):
        count = max(1, min(COUNT_MAX, count + rng.choice((-2, -1, -1, 1, 1, 2, 3))))
        off, error = rng.gauss(0.0, other), 0.0
        for _ in range(rng.randint(3, 30)):
            now += 10.0
            error = alike * error + math.sqrt(1.0 - alike**2) * rng.gauss(0.0, noise)
            scalability.note(levels, count, throughput(count, sigma, kappa) * max(0.05, 1.0 + off + error), now)
        law = scalability.fit(levels)
        said += [law] if law else []
    return said


@pytest.mark.parametrize(("noise", "other", "alike"), [(0.05, 0.0, 0.0), (0.2, 0.05, 0.5), (0.3, 0.05, 0.8)], ids=str)
def test_growth_in_proportion_is_never_called_useless(noise: float, other: float, alike: float) -> None:
    """Of 400 stories each, in less than one of a hundred is anybody ever sure of a knee that is not there."""
    wrong = []
    for seed in range(400):
        said = story(seed, 0.0, 0.0, noise=noise, other=other, alike=alike)
        wrong += [seed] if any(law.confidence >= CONFIDENCE_GUARD for law in said) else []
    assert len(wrong) < 4, wrong


@pytest.mark.parametrize(("sigma", "kappa"), [(0.12, 0.004), (0.3, 0.0), (0.05, 0.01)], ids=str)
def test_the_knee_is_found(sigma: float, kappa: float) -> None:
    found = [said[-1] for seed in range(60) if (said := story(seed, sigma, kappa, noise=0.1, other=0.03))]
    assert len(found) >= 50
    sure = sorted(law.useful_max for law in found if law.confidence >= CONFIDENCE_GUARD)
    assert len(sure) >= 40
    assert abs(sure[len(sure) // 2] - knee(sigma, kappa)) <= 1
    assert knee(sigma, kappa) - 4 <= sure[len(sure) // 10]


def exact(counts: list[int], sigma: float, kappa: float) -> dict[int, Level]:
    return {count: Level(60.0, throughput(count, sigma, kappa), 0.0, 100.0) for count in counts}


def test_without_noise_the_parameters_come_out() -> None:
    law = scalability.fit(exact([1, 2, 4, 8, 12, 16], 0.12, 0.004))
    assert law is not None
    assert (law.useful_max, law.counts) == (9, 6)
    assert law.per_agent == pytest.approx(5.0)
    assert (law.sigma, law.kappa) == (pytest.approx(0.12), pytest.approx(0.004))
    assert law.text == (
        "more than 9 add little: what they share is saturated (sigma 0.12, kappa 0.004, confidence "
        f"{min(99, math.floor(law.confidence * 100))} %)"
    )


@settings(STORIES)
@given(sigma=st.floats(0.05, 0.9), kappa=st.floats(0.0, 0.05))
def test_the_knee_of_an_exact_curve_is_the_laws(sigma: float, kappa: float) -> None:
    counts = [1, 2, 3, 4, 6, 8, 12, 16, 24]
    law = scalability.fit(exact(counts, sigma, kappa))
    if law is not None:
        assert law.useful_max == pytest.approx(knee(sigma, kappa), abs=1)


@pytest.mark.parametrize(
    "levels",
    [
        {},
        exact([1, 8], 0.3, 0.01),  # two numbers of agents make no curve
        exact([1, 2, 3], 0.12, 0.004),  # the gain has not ended in what was seen
        exact([1, 4, 8, 16], 0.0, 0.0),
        {n: Level(60.0, rate, 0.0, 9.0) for n, rate in ((2, 9.0), (4, 2.0), (6, 9.0), (8, 3.0), (9, 9.0))},  # no curve
        {n: Level(3.0, throughput(n, 0.3, 0.01), 0.0, 9.0) for n in (1, 4, 8, 16)},  # too few samples
        {n: Level(60.0, 0.0, 0.0, 9.0) for n in (1, 4, 8, 16)},
    ],
    ids=["none", "two", "below the knee", "in proportion", "poor fit", "few samples", "nothing done"],
)
def test_nothing_is_said_where_nothing_is_known(levels: dict[int, Level]) -> None:
    assert scalability.fit(levels) is None


def test_what_was_proven_useful_is_not_called_useless() -> None:
    """The curve would end the gain at 4; but with 12 agents surely more was done than with any fewer."""
    levels = {n: Level(60.0, rate, 0.0, 9.0) for n, rate in ((1, 5.0), (2, 8.0), (4, 10.0), (8, 10.5), (12, 17.0))}
    law = scalability.fit(levels)
    assert law is None or law.useful_max >= 12


def test_a_level_forgets() -> None:
    level = Level()
    for n in range(1000):
        level.add(5.0, float(n))
    assert level.weight <= 120.0
    for n in range(1000, 1240):
        level.add(10.0, float(n))
    assert level.mean > 9.0
    before = level.weight
    assert level.weight_at(1239.0 + HALF_LIFE_S) == pytest.approx(before / 2)


def test_the_table_is_bounded_and_what_is_old_leaves_it() -> None:
    levels: dict[int, Level] = {}
    for count in range(1, 500):
        scalability.note(levels, count, 5.0, 0.0)
    assert len(levels) == LEVELS_MAX
    scalability.note(levels, 1, 5.0, 20 * HALF_LIFE_S)
    assert list(levels) == [1]


@settings(STORIES)
@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0.0, 1e6), st.floats(0.0, 1e5)), max_size=80))
def test_whatever_is_measured_something_sane_is_said(samples: list[tuple[int, float, float]]) -> None:
    levels: dict[int, Level] = {}
    now = 0.0
    for count, done, passed_s in samples:
        now += passed_s
        scalability.note(levels, count, done, now)
    law = scalability.fit(levels)
    if law is not None:
        assert 1 <= law.useful_max < max(levels)
        assert 0.0 <= law.confidence <= 1.0
        assert law.sigma >= 0.0
        assert law.kappa >= 0.0

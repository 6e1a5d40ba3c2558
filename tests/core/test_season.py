"""Seasons: quantiles that hold what they say, on synthetic days and weeks, and clocks that jump."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.core import season
from agentd.core.season import DAY_SLOTS, DAYS_KEPT, LEVELS, SCORED_MIN, WEEK_SLOTS, Quantiles, Series

FIRST = 5_000 * DAY_SLOTS
_AHEAD = (2, 12, 30, 144, 288)  # also between the leads that are judged
_EVERY = 3  # slots that are looked at: it is quicker, and all times of the day are among them
_DAY = 2.0 * math.pi / DAY_SLOTS


def daily(slot: int) -> float:
    return 20.0 + 15.0 * math.sin(slot * _DAY)


def weekly(slot: int) -> float:
    return daily(slot) * (0.3 if slot // DAY_SLOTS % 7 >= 5 else 1.0)


def jobs(slot: int) -> float:
    return 4.0 + (30.0 if 90 <= slot % DAY_SLOTS < 102 else 0.0)


def growing(slot: int) -> float:
    return 5.0 + (slot - FIRST) / 300.0


def uneven(slot: int) -> float:
    """Days that are a tenth busier or less so than others, in no order."""
    return daily(slot) * (1.0 + 0.1 * random.Random(slot // DAY_SLOTS).gauss(0.0, 1.0))


def flat(_slot: int) -> float:
    return 8.0


def poisson(rng: random.Random, mean: float) -> float:
    """By counting the arrivals of a stream in one unit of time."""
    count, passed = 0, rng.expovariate(mean)
    while passed < 1.0:
        count += 1
        passed += rng.expovariate(mean)
    return float(count)


def seen(shape: Callable[[int], float], days: float) -> Series:
    series = Series()
    for slot in range(FIRST, FIRST + int(days * DAY_SLOTS)):
        series.note(slot, shape(slot))
    return series


@pytest.mark.parametrize(
    ("shape", "noise"),
    [
        (daily, "poisson"),
        (weekly, "poisson"),
        (weekly, "gauss"),
        (jobs, "gauss"),
        (growing, "poisson"),
        (uneven, "poisson"),
        (flat, "gauss"),
    ],
)
def test_so_many_come_out_at_or_below_a_quantile_as_it_says(shape: Callable[[int], float], noise: str) -> None:
    """What was said beforehand, at each lead, against what came: within 5 points, from the second week on."""
    rng = random.Random(4)
    series = Series()
    said: dict[tuple[int, int], Quantiles] = {}
    below = {lead: [0] * len(LEVELS) for lead in _AHEAD}
    scored = 0
    for slot in range(FIRST, FIRST + 3 * WEEK_SLOTS):
        mean = shape(slot)
        came = poisson(rng, mean) if noise == "poisson" else abs(rng.gauss(mean, 1.0 + mean / 5.0))
        if slot >= FIRST + WEEK_SLOTS + DAY_SLOTS and slot % _EVERY == 0:
            scored += 1
            for lead in _AHEAD:
                found = said.pop((lead, slot))
                for place, value in enumerate((found.low, found.middle, found.high)):
                    below[lead][place] += came <= value
        series.note(slot, came)
        for lead in _AHEAD:
            ahead = series.forecast(slot - 1 + lead) if (slot - 1 + lead) % _EVERY == 0 else None
            if ahead is not None:
                said[lead, slot - 1 + lead] = ahead
    for lead in _AHEAD:
        shares = [number / scored for number in below[lead]]
        assert shares == pytest.approx(LEVELS, abs=0.05), f"{lead} slots ahead"


@pytest.mark.parametrize("shape", [daily, weekly, jobs])
def test_a_season_is_known_better_than_from_yesterday(shape: Callable[[int], float]) -> None:
    rng = random.Random(1)
    skills = seen(lambda slot: poisson(rng, shape(slot)), 15).skills
    for skill in skills:
        assert skill.naive_off_by is not None and skill.off_by < 0.9 * skill.naive_off_by


def test_a_job_that_comes_every_day_is_seen_before_it_comes() -> None:
    series = seen(jobs, 5 + 88 / DAY_SLOTS)
    last = FIRST + 5 * DAY_SLOTS + 87
    now, then = series.forecast(last + 1), series.forecast(last + 3)
    assert now is not None and then is not None
    assert now.middle == pytest.approx(4.0, abs=1.0) and then.middle == pytest.approx(34.0, abs=3.0)


def test_nothing_is_said_of_what_is_not_known() -> None:
    series = Series()
    assert series.forecast(FIRST) is None
    series.note(FIRST, 3.0)
    assert series.forecast(FIRST) is None, "no slot has ended"
    for slot in range(FIRST + 1, FIRST + 2 + SCORED_MIN):
        assert series.forecast(slot) is None, "too few have come to judge by"
        series.note(slot, 3.0)
    last = FIRST + 1 + SCORED_MIN
    series.note(last + 1, 3.0)
    assert series.forecast(last + 2) is not None
    assert series.forecast(last + 3) is None, "as far ahead nothing has come yet"
    series = seen(flat, 3)
    end = FIRST + 3 * DAY_SLOTS - 2
    assert series.forecast(end + DAY_SLOTS) is not None
    assert series.forecast(end + DAY_SLOTS + 1) is None, "more than a day ahead"


def test_a_slot_holds_its_peak() -> None:
    series = Series()
    assert [series.note(FIRST, value) for value in (1.0, 7.0, 2.0)] == [False, False, False]
    assert series.note(FIRST + 1, 0.0)
    assert (series.at(FIRST), series.at(FIRST + 1)) == (7.0, None)


def test_what_was_not_seen_is_not_taken_for_nothing() -> None:
    series = seen(flat, 2)
    later = FIRST + 2 * DAY_SLOTS + 40
    series.note(later, 8.0)
    assert series.at(later - 2) is None
    expected = series.forecast(later)
    assert expected is not None and expected.middle == pytest.approx(8.0, abs=0.2)


@pytest.mark.parametrize("wrong", [FIRST * 3, 0, FIRST + 10 * DAY_SLOTS])
def test_a_clock_that_is_wrong_for_a_moment_costs_a_day_at_most(wrong: int) -> None:
    series = seen(daily, 20)
    days = set(series.days)
    for slot in (wrong, wrong + 1, wrong + 2):
        series.note(slot, 1.0)
    at = FIRST + 20 * DAY_SLOTS
    for slot in (at, at + 1):
        series.note(slot, 20.0)
    assert len(days - set(series.days)) <= 1 and len(series.days) <= DAYS_KEPT
    expected = series.forecast(at + 1)
    assert expected is not None and expected.middle == pytest.approx(20.0, abs=2.0)
    for slot in range(at + 2, at + DAYS_KEPT * DAY_SLOTS):
        series.note(slot, daily(slot))
    assert set(series.days) == set(range(at // DAY_SLOTS, at // DAY_SLOTS + DAYS_KEPT)), "what it has left is gone"


def test_no_more_than_two_weeks_are_kept() -> None:
    series = seen(flat, 30)
    assert len(series.days) == DAYS_KEPT
    assert FIRST // DAY_SLOTS in series.changed


def test_it_goes_on_from_the_store_as_it_was() -> None:
    rng = random.Random(2)
    series = seen(lambda slot: poisson(rng, weekly(slot)), 9.4)
    again = season.load(json.loads(json.dumps(season.row(series))))
    again.days = json.loads(
        json.dumps(series.days), object_hook=lambda value: {int(key): it for key, it in value.items()}
    )
    for slot in range(FIRST + int(9.4 * DAY_SLOTS), FIRST + 10 * DAY_SLOTS):
        value = poisson(rng, weekly(slot))
        series.note(slot, value)
        again.note(slot, value)
    series.changed.clear()
    again.changed.clear()
    assert again == series


@given(st.lists(st.floats(0.0, 500.0), min_size=2, max_size=24), st.integers(0, 3))
def test_quantiles_are_in_order_and_never_negative(values: list[float], ahead: int) -> None:
    series = Series()
    for place, value in enumerate(values):
        series.note(FIRST + place, value)
    found = series.forecast(FIRST + len(values) - 1 + ahead)
    assert found is None or 0.0 <= found.low <= found.middle <= found.high
    assert (found is None) == (ahead > 1 or len(values) < SCORED_MIN + 3)

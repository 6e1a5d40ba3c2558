"""One number over the times of the day and the week: what it has been, and what it will be, with error bars.

The number is the peak of a slot of five minutes. Six simple models look at it: the last slot, the last hour, the same
time yesterday, a week ago, and on the last seven days, and that last one moved to the level of today. They are weighted
by how near each has been; so it is short-term where there is no season, and seasonal where there is one. The weights
and all else are kept for four leads: ten minutes, an hour, six hours and a day ahead. What lies between two of them is
forecast from as far back as the longer one is long, for only that has been judged.

Around that, quantiles: each is an offset in units of sqrt(value + 1), the spread of a Poisson stream, and moves after
every slot by whether the slot was at or below it. So a share q of the slots comes out at or below quantile q, whatever
the numbers are like (adaptive conformal inference: Gibbs and Candes, 2021; quantile tracking: Angelopoulos, Candes and
Tibshirani, 2023).

Slots are counted from the epoch; days are UTC. Nothing here knows a clock.
"""

from __future__ import annotations

import math
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

SLOT_S = 300.0
HOUR_SLOTS = 12
DAY_SLOTS = 288
WEEK_SLOTS = 7 * DAY_SLOTS
# Two weeks, and the day that has begun.
DAYS_KEPT = 15
LEVELS = (0.1, 0.5, 0.9)
# How far ahead, in slots: a forecast takes the first that is at least as far.
LEADS = (2, HOUR_SLOTS, 6 * HOUR_SLOTS, DAY_SLOTS)
MODELS = ("last", "hour", "yesterday", "week", "days", "shape")
# Today may be so much above or below the other days.
SHAPE_RATIO_MAX = 3.0
# The nearest models count: a weight is the inverse of the error to this power.
WEIGHT_POWER = 8.0
# Errors and shares are means of about so many slots: two days.
MEMORY_SLOTS = 2 * DAY_SLOTS
# A quantile moves by this share of the mean error, times how surprised it is; the farther ahead, the less: what is
# learned of it comes that much later, and must not chase the level of a single day.
STEP_RATIO = 0.1
STEP_POWER = 0.4
# Before so many slots have come as far ahead, nothing is said of what is that far ahead.
SCORED_MIN = HOUR_SLOTS
SPREAD_RATIO = 0.01
_SPREAD_FIRST = 0.8
_OFFSETS_FIRST = (-1.28, 0.0, 1.28)
_ERROR_LEAST = 0.001


class Quantiles(Struct, frozen=True):
    """One slot's peak: `low` is reached or not passed with probability 0.1, `middle` 0.5, `high` 0.9."""

    low: float
    middle: float
    high: float


class Skill(Struct):
    """What is known of the forecasts of one lead.

    `errors`: of each model, in spreads, on all days and on each day of the week; None: never scored. `counts`: how
    often each model was.

    `at_or_below`: the share of slots at or below each quantile; `off_by`, `naive_off_by`: the mean distance of the
    middle, and of the same time yesterday, from what came. `scored`: slots so far.
    """

    errors: list[list[float | None]] = field(default_factory=lambda: [[None] * len(MODELS) for _ in range(8)])
    counts: list[int] = field(default_factory=lambda: [0] * len(MODELS))
    offsets: list[float] = field(default_factory=lambda: list(_OFFSETS_FIRST))
    spread: float = _SPREAD_FIRST
    at_or_below: list[float] = field(default_factory=lambda: list(LEVELS))
    off_by: float = 0.0
    naive_off_by: float | None = None
    scored: int = 0

    def point(self, slot: int, found: list[float | None]) -> float | None:
        """What the models come to together for `slot`; None: none of them says anything."""
        weighted = total = 0.0
        for usual, that_day, value in zip(self.errors[0], self.errors[_weekday(slot)], found, strict=True):
            error = usual if that_day is None else that_day
            if value is not None and error is not None:
                weight = (error + _ERROR_LEAST) ** -WEIGHT_POWER
                weighted += weight * value
                total += weight
        if total:
            return weighted / total
        known = [value for value in found if value is not None]
        return math.fsum(known) / len(known) if known else None

    def quantiles(self, point: float) -> Quantiles:
        unit = math.sqrt(point + 1.0)
        low, middle, high = sorted(max(0.0, point + offset * unit) for offset in self.offsets)
        return Quantiles(low, middle, high)

    def score(self, slot: int, lead: int, found: list[float | None], came: float) -> None:
        """Learn from `slot`, of which `found` was said `lead` slots before, and to which `came` came."""
        point = self.point(slot, found)
        if point is None:
            return
        unit = math.sqrt(point + 1.0)
        missed = (came - point) / unit
        self.scored += 1
        share = 1.0 / min(self.scored, MEMORY_SLOTS)
        self.off_by += share * (abs(came - self.quantiles(point).middle) - self.off_by)
        self.spread += SPREAD_RATIO * (abs(missed) - self.spread)
        step = STEP_RATIO * (LEADS[0] / lead) ** STEP_POWER
        for place, level in enumerate(LEVELS):
            below = missed <= self.offsets[place]
            self.at_or_below[place] += share * (below - self.at_or_below[place])
            self.offsets[place] += step * self.spread * (level - below)
        usual, that_day = self.errors[0], self.errors[_weekday(slot)]
        for place, value in enumerate(found):
            if value is None:
                continue
            error, before = abs(came - value) / unit, usual[place] or 0.0
            self.counts[place] += 1
            usual[place] = before + (error - before) / min(self.counts[place], MEMORY_SLOTS)
            known = that_day[place]
            that_day[place] = usual[place] if known is None else known + (error - known) / DAY_SLOTS
        naive = found[MODELS.index("yesterday")]
        if naive is not None:
            error, known = abs(came - naive), self.naive_off_by
            self.naive_off_by = error if known is None else known + share * (error - known)


class Series(Struct):
    """`days`: the peaks of each day's slots, None where nothing was told. `slot`: the one that goes on, not yet scored.

    `changed`: days that are not as they were when `changed` was emptied.
    """

    slot: int | None = None
    peak: float = 0.0
    days: dict[int, list[float | None]] = field(default_factory=dict)
    skills: list[Skill] = field(default_factory=lambda: [Skill() for _ in LEADS])
    changed: set[int] = field(default_factory=set)

    def note(self, slot: int, value: float) -> bool:
        """`value` was seen in `slot`; whether a slot has ended by that.

        A clock that is set back is believed: what is known of times that are yet to come is written over as they come.
        """
        if self.slot is None or slot < self.slot:
            self.slot, self.peak = slot, value
            return False
        if slot == self.slot:
            self.peak = max(self.peak, value)
            return False
        self._close(self.slot, self.peak)
        self.slot, self.peak = slot, value
        return True

    def at(self, slot: int) -> float | None:
        """The peak of a slot that has ended. Of one that is yet to come it is what a wrong clock has left there."""
        day = self.days.get(slot // DAY_SLOTS)
        return None if day is None else day[slot % DAY_SLOTS]

    def forecast(self, slot: int) -> Quantiles | None:
        """What is expected of a slot that has not ended, at most a day ahead; None: nothing is known of it."""
        if self.slot is None:
            return None
        last = self.slot - 1
        place = next((place for place, lead in enumerate(LEADS) if slot - last <= lead), None)
        if place is None or self.skills[place].scored < SCORED_MIN:
            return None
        point = self.skills[place].point(slot, self._said(slot, slot - LEADS[place]))
        return None if point is None else self.skills[place].quantiles(point)

    def _close(self, slot: int, value: float) -> None:
        for lead, skill in zip(LEADS, self.skills, strict=True):
            skill.score(slot, lead, self._said(slot, slot - lead), value)
        number = slot // DAY_SLOTS
        if number not in self.days:
            self.days[number] = [None] * DAY_SLOTS
            while len(self.days) > DAYS_KEPT:  # one of them may be of a clock that was wrong
                farthest = max(self.days, key=lambda day: abs(number - day))
                self.changed.add(farthest)
                del self.days[farthest]
        self.days[number][slot % DAY_SLOTS] = round(value, 1)
        self.changed.add(number)

    def _said(self, slot: int, last: int) -> list[float | None]:
        """What each of MODELS says of `slot` when `last` is the last that has ended."""
        hour, days, shape = self._hour(last), _mean([self.at(slot - back) for back in _BACK]), None
        if days is not None and hour is not None:
            usual = _mean([self._hour(last - back) for back in _BACK])
            if usual is not None:
                ratio = (hour + 0.5) / (usual + 0.5)
                shape = days * max(1.0 / SHAPE_RATIO_MAX, min(SHAPE_RATIO_MAX, ratio))
        return [self.at(last), hour, self.at(slot - DAY_SLOTS), self.at(slot - WEEK_SLOTS), days, shape]

    def _hour(self, last: int) -> float | None:
        """The mean of the hour that ends with `last`."""
        number, place = divmod(last + 1, DAY_SLOTS)
        day = self.days.get(number)
        if day is not None and place >= HOUR_SLOTS:
            return _mean(day[place - HOUR_SLOTS : place])
        return _mean([self.at(slot) for slot in range(last - HOUR_SLOTS + 1, last + 1)])


# The same time on each of the last seven days.
_BACK = tuple(number * DAY_SLOTS for number in range(1, 8))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _weekday(slot: int) -> int:
    """1 to 7; which day is the first does not matter."""
    return 1 + slot // DAY_SLOTS % 7


def row(series: Series) -> dict[str, Any]:
    """Its form in the store, without the days."""
    return {"slot": series.slot, "peak": series.peak, "skills": [asdict(skill) for skill in series.skills]}


def load(value: dict[str, Any]) -> Series:
    """What `row` gave; its days come with `Series.days`."""
    skills = [Skill(**skill) for skill in value["skills"]]
    fits = len(skills) == len(LEADS) and all(len(skill.counts) == len(MODELS) for skill in skills)
    return Series(value["slot"], value["peak"], skills=skills if fits else Series().skills)

"""What is remembered of one pool to tell what it will have to do: tasks by the time of the day and the week.

Of the whole pool, and of each value of the labels that agents name their work by. `core.season` is the model of one
number, `core.forecasting` says what is told here and what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from agentd.core import season
from agentd.core.season import DAY_SLOTS, LEADS, SLOT_S, Quantiles, Series

# How many values of labels a pool has at most; who is forgotten for another one has had no task for so long.
LABELLED_MAX = 8
IDLE_S = 86_400.0
# Nothing is expected before a day has been seen.
SEEN_SLOTS = DAY_SLOTS
# The name of the whole pool among its series.
ALL = ""


class Forecast(Struct):
    """`series`: of the pool, and by label (`workload=chat`). `busy_at`: when there was a task of it (wall time).

    `seen`: slots in which something was told of the pool, at most SEEN_SLOTS. `expected`: by slot, what was asked for
    since the last slot ended; it follows from the rest and is not saved.
    """

    series: dict[str, Series] = field(default_factory=lambda: {ALL: Series()})
    busy_at: dict[str, float] = field(default_factory=dict)
    seen: int = 0
    labels_at: float = 0.0
    expected: dict[int, Quantiles | None] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether enough has been seen to expect anything."""
        return self.seen >= SEEN_SLOTS

    @property
    def days(self) -> list[int]:
        return sorted({day for one in self.series.values() for day in one.days})

    def take_changed(self) -> list[int]:
        """The days that are not as they were when this was asked last."""
        changed = sorted({day for one in self.series.values() for day in one.changed})
        for one in self.series.values():
            one.changed.clear()
        return changed

    def note(self, wall: float, tasks: float) -> bool:
        """The pool has so many tasks at the wall time; whether a slot has ended."""
        slot = int(wall // SLOT_S)
        if slot != self.series[ALL].slot:
            self.expected.clear()
        ended = self.series[ALL].note(slot, tasks)
        if ended:
            self.seen = min(self.seen + 1, SEEN_SLOTS)
        return ended

    def note_labels(self, wall: float, tasks: Mapping[str, int]) -> None:
        """So many tasks are at hand of each label's value; of those that are not named, none."""
        for name in dict.fromkeys([*self.series, *tasks]):
            number = tasks.get(name, 0)
            if name == ALL or (name not in self.series and not (number and self._has_room(wall))):
                continue
            self.series.setdefault(name, Series()).note(int(wall // SLOT_S), number)
            if number:
                self.busy_at[name] = wall

    def floor(self, wall: float, ahead_s: float) -> float:
        """The most tasks that are expected at some moment from `wall` on, for `ahead_s`, at most a day; 0: unknown."""
        if not self.ready:
            return 0.0
        first = int(wall // SLOT_S)
        last = min(int((wall + ahead_s) // SLOT_S), first + DAY_SLOTS - 1)
        return max(self._middle(slot) for slot in range(first, last + 1))

    def ahead(self, wall: float) -> list[tuple[int, Quantiles]]:
        """What is expected of the slots at the LEADS, as far as anything is; of a pool that is not told of, nothing."""
        slot = self.series[ALL].slot
        if slot is None or abs(int(wall // SLOT_S) - slot) > 1:
            return []
        expected = ((lead, self.at(slot - 1 + lead)) for lead in LEADS)
        return [(lead, found) for lead, found in expected if found is not None]

    def at(self, slot: int) -> Quantiles | None:
        """What is expected of a slot that has not ended."""
        if slot not in self.expected:
            self.expected[slot] = self.series[ALL].forecast(slot)
        return self.expected[slot]

    def _middle(self, slot: int) -> float:
        found = self.at(slot)
        return found.middle if found else 0.0

    def _has_room(self, wall: float) -> bool:
        """Whether there is room for another label; who had nothing to do for longest leaves it."""
        if len(self.series) <= LABELLED_MAX:
            return True
        oldest = min(self.busy_at, key=lambda name: (self.busy_at[name], name))
        if abs(wall - self.busy_at[oldest]) < IDLE_S:  # a clock that was ahead has left nobody busy for years
            return False
        del self.series[oldest], self.busy_at[oldest]
        self.series[ALL].changed.update(self.days)
        return True


def row(forecast: Forecast) -> dict[str, Any]:
    """Its form in the store, without the days."""
    series = {name: season.row(one) for name, one in forecast.series.items()}
    return {
        "series": series,
        "busy_at": forecast.busy_at,
        "seen": forecast.seen,
        "labels_at": forecast.labels_at,
    }


def day_row(forecast: Forecast, day: int) -> dict[str, list[float | None]] | None:
    """The slots of one day; None: it is not kept."""
    found = {name: one.days[day] for name, one in forecast.series.items() if day in one.days}
    return found or None


def load(value: Mapping[str, Any], days: Mapping[int, Mapping[str, list[float | None]]], shift: float) -> Forecast:
    """What `row` and `day_row` gave; monotonic times are moved by `shift`."""
    series = {name: season.load(one) for name, one in value["series"].items()}
    for day in sorted(days):
        for name, slots in days[day].items():
            if name in series:
                series[name].days[day] = slots
    return Forecast(series, dict(value["busy_at"]), value["seen"], value["labels_at"] + shift)

"""Times that recur, in the five fields of cron, and windows between them. Evaluated on the wall clock of a place.

    minute hour day-of-month month day-of-week

Each field: `*`, a number, a range `9-17`, a step `*/15` or `8-18/2`, or a list of these; months and days of the week
also by their English names' first three letters, Sunday as 0 or 7. Where both days are given, either will do.

A time that a change of the clocks leaves out counts at the moment of the change; of a time that comes twice, the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo

from msgspec import Struct

# Between two 29th of February there may be eight years.
SEARCH_DAYS = 366 * 8 + 2
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...], int], ...] = (
    ("minute", 0, 59, (), 0),
    ("hour", 0, 23, (), 0),
    ("day of month", 1, 31, (), 0),
    ("month", 1, 12, _MONTHS, 1),
    ("day of week", 0, 7, _DAYS, 0),
)
_MONTH_DAYS_MAX = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Cron(Struct, frozen=True):
    """Recurring minutes. `days` and `weekdays` (0 is Sunday) None: any; of both given, either will do."""

    text: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int] | None
    months: frozenset[int]
    weekdays: frozenset[int] | None

    def on(self, day: date) -> bool:
        """Whether there is such a minute on `day`."""
        if day.month not in self.months:
            return False
        by_month = self.days is not None and day.day in self.days
        by_week = self.weekdays is not None and day.isoweekday() % 7 in self.weekdays
        if self.days is None or self.weekdays is None:
            return (self.days is None or by_month) and (self.weekdays is None or by_week)
        return by_month or by_week

    def last(self, wall: float, zone: tzinfo) -> float | None:
        """The last such time at or before `wall`, in seconds since 1970; None: not within eight years."""
        today = datetime.fromtimestamp(wall, zone).date()
        # Across a change of the clocks the order of moments is not that of their names: begin a day later.
        for back in range(-1, SEARCH_DAYS):
            found = [at for at in self._moments(today - timedelta(days=back), zone) if at <= wall]
            if found:
                return max(found)
        return None

    def next(self, wall: float, zone: tzinfo) -> float | None:
        """The first such time after `wall`; None: not within eight years."""
        today = datetime.fromtimestamp(wall, zone).date()
        for ahead in range(-1, SEARCH_DAYS):
            found = [at for at in self._moments(today + timedelta(days=ahead), zone) if at > wall]
            if found:
                return min(found)
        return None

    def _moments(self, day: date, zone: tzinfo) -> Iterator[float]:
        if not self.on(day):
            return
        for hour in self.hours:
            for minute in self.minutes:
                yield _moment(datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone))


class Window(Struct, frozen=True):
    """A time of the week, month or year in which a pool has other bounds; None: that bound stays.

    Active from each `start` (included) for `duration_s`, or until the next `end` (not included): exactly one is set.
    """

    name: str
    start: Cron
    end: Cron | None = None
    duration_s: float | None = None
    zone: tzinfo = UTC
    min: int | None = None
    max: int | None = None

    @property
    def text(self) -> str:
        """When it is active, and the bounds then: `from 0 8 * * 1-5 for 36000 s, UTC: min 4`."""
        ends = f"until {self.end.text}" if self.end else f"for {self.duration_s:g} s"
        bounds = [f"{name} {count}" for name, count in (("min", self.min), ("max", self.max)) if count is not None]
        return f"from {self.start.text} {ends}, {self.zone}: {', '.join(bounds)}"

    def active(self, wall: float) -> bool:
        """Whether it is active at `wall`, seconds since 1970."""
        begun = self.start.last(wall, self.zone)
        if begun is None:
            return False
        if self.duration_s is not None:
            return begun + self.duration_s > wall
        ended = self.end.last(wall, self.zone) if self.end else None
        return ended is None or begun > ended

    def boundary(self, wall: float) -> float | None:
        """The first time after `wall` at which it may begin or end; None: never."""
        times = [self.start.next(wall, self.zone)]
        if self.end is not None:
            times.append(self.end.next(wall, self.zone))
        if self.duration_s is not None:
            begun = self.start.last(wall, self.zone)
            if begun is not None and begun + self.duration_s > wall:
                times.append(begun + self.duration_s)
        return min((at for at in times if at is not None), default=None)


def parse(text: str) -> Cron:
    """The times that `text` names.

    Raises:
        ValueError: it does not have five fields, or one of them is not well written, or no such day exists.
    """
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"has {len(fields)} fields, not 5 (minute hour day-of-month month day-of-week)")
    minutes, hours, days, months, weekdays = (_field(field, *spec) for field, spec in zip(fields, _FIELDS, strict=True))
    weekdays = frozenset(day % 7 for day in weekdays)
    any_day, any_weekday = fields[2].startswith("*"), fields[4].startswith("*")
    if any_weekday and not any_day and all(day > _MONTH_DAYS_MAX[month - 1] for day in days for month in months):
        raise ValueError("names a day that does not exist")
    return Cron(
        text=text,
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=None if fields[2] == "*" else days,
        months=months,
        weekdays=None if fields[4] == "*" else weekdays,
    )


def _field(text: str, name: str, low: int, high: int, names: tuple[str, ...], first: int) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = int(step_text) if step_text.isdecimal() and step_text.isascii() else 0
        if slash and step < 1:
            raise ValueError(f"{name} {text!r}: a step must be a number from 1")
        if span == "*":
            begin, end = low, min(high, 6) if names is _DAYS else high
        else:
            left, dash, right = span.partition("-")
            begin = _number(left, text, name, low, high, names, first)
            end = _number(right, text, name, low, high, names, first) if dash else high if slash else begin
            if end < begin:
                raise ValueError(f"{name} {text!r}: {left} is after {right}")
        found.update(range(begin, end + 1, step if slash else 1))
    return frozenset(found)


def _number(word: str, text: str, name: str, low: int, high: int, names: tuple[str, ...], first: int) -> int:
    if word.lower() in names:
        return names.index(word.lower()) + first
    if not (word.isdecimal() and word.isascii() and low <= int(word) <= high):
        also = f" or {names[0]} to {names[-1]}" if names else ""
        raise ValueError(f"{name} {text!r}: must be numbers from {low} to {high}{also}, ranges, steps or *")
    return int(word)


def _moment(at: datetime) -> float:
    """Seconds since 1970 of a time on the clock of a place; one that is left out: when the clocks change."""
    wall = at.timestamp()
    back = datetime.fromtimestamp(wall, at.tzinfo)
    if back.replace(tzinfo=None) == at.replace(tzinfo=None):
        return wall
    # The gap begins where the offset changes: it is between the two readings of this time.
    early, late = sorted((wall, at.replace(fold=1).timestamp()))
    while late - early > 1.0:
        middle = (early + late) // 2.0
        before = datetime.fromtimestamp(middle, at.tzinfo).replace(tzinfo=None) < at.replace(tzinfo=None)
        early, late = (middle, late) if before else (early, middle)
    return late

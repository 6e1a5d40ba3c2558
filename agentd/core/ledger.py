"""The books of a pool: what it has spent in the hours, days and months of the calendar, in UTC.

Pure values: what is to be entered, and when, is `core.costs`. Of a span of time each hour gets its share, and with it
the day and the month that it lies in. The latest hours, days and months in which something was entered are kept, and
what is older is forgotten.

A clock may be wrong for a while, and corrected. Nothing is forgotten for that. By more than JUMP_S_MIN: what is near
the one date is as near the other then. By less, nothing is moved, for a host that slept looks the same: what would lie
in the future counts in the hour, day and month in which the clock was set, and where it was when the clock is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

from msgspec import Struct, field
from msgspec.structs import astuple, replace

from agentd.core.rates import GIB, HOUR_S, Rates

# The present hour, and those that the last 24 hours reach into.
HOURS_KEPT = 25
# The present one and the one before it, and one that a wrong clock may have put between them.
DAYS_KEPT = MONTHS_KEPT = 3
# So many of each lie at most before, and after, a clock that was set lately: no date says how old they are.
SET_KEPT = 50
SCALINGS_KEPT = 5
# A span of time that is longer was not seen by anybody: only its end is entered.
SPAN_S_MAX = 31 * 86_400.0
# A clock that is set by more than the longest month was wrong, or is: the calendar has not moved on by that.
JUMP_S_MIN = 31 * 86_400.0
# A clock that is off by less was not set, but steered.
SET_S_MIN = 1.0


class Window(StrEnum):
    """A stretch of the calendar that a budget is for."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class Spent(Struct, frozen=True):
    """What was spent, and for what: hours of agents, of busy cores, of used GiB of memory, and tasks done."""

    amount: float = 0.0
    agent_hours: float = 0.0
    cpu_hours: float = 0.0
    gib_hours: float = 0.0
    tasks: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.amount + other.amount,
            self.agent_hours + other.agent_hours,
            self.cpu_hours + other.cpu_hours,
            self.gib_hours + other.gib_hours,
            self.tasks + other.tasks,
        )

    def times(self, share: float) -> Spent:
        return Spent(
            self.amount * share, self.agent_hours * share, self.cpu_hours * share, self.gib_hours * share,
            self.tasks * share,
        )  # fmt: skip


NOTHING_SPENT = Spent()


def agent_time(rates: Rates, duration_s: float) -> Spent:
    hours = duration_s / HOUR_S
    return Spent(hours * rates.per_hour, agent_hours=hours)


def usage(rates: Rates, cores: float, memory_bytes: float, duration_s: float) -> Spent:
    cpu, gib = cores * duration_s / HOUR_S, memory_bytes / GIB * duration_s / HOUR_S
    return Spent(cpu * rates.per_cpu_hour + gib * rates.per_gib_hour, cpu_hours=cpu, gib_hours=gib)


def work(rates: Rates, tasks: int) -> Spent:
    return Spent(tasks * rates.per_task, tasks=float(tasks))


class Scaling(Struct, frozen=True):
    """What a scaling costs, or (below 0) saves, in each hour from then on, by what an agent cost at that moment."""

    decision: str
    wall: float
    change: int
    per_hour: float


class Ledger(Struct):
    """What a pool has spent, by the number of the hour, day and month.

    Times are monotonic but for `since`, the wall time at which the books were opened (0: they never were), and
    `set_at`, the one to which the clock was set last (None: it never was): what lies ahead counts there.
    Invariant: of agents' time everything until `until` is entered, of usage everything until `metered_at`; and of the
    tasks of an instance what `Instance.paid_tasks` says.
    """

    hours: dict[int, Spent] = field(default_factory=dict)
    days: dict[int, Spent] = field(default_factory=dict)
    months: dict[int, Spent] = field(default_factory=dict)
    since: float = 0.0
    until: float | None = None
    metered_at: float | None = None
    set_at: float | None = None
    scalings: list[Scaling] = field(default_factory=list)  # newest at the end

    def enter(self, spent: Spent, start: float, end: float) -> None:
        """Enter what was spent evenly from the wall time `start` until `end`."""
        self.since = min(self.since or start, start)
        if end <= start:
            self._enter(spent, end)
            return
        kept_from = max(start, end - SPAN_S_MAX)
        for hour in range(int(kept_from // HOUR_S), int(-(-end // HOUR_S))):
            within_s = min(end, (hour + 1) * HOUR_S) - max(kept_from, hour * HOUR_S)
            self._enter(spent.times(within_s / (end - start)), hour * HOUR_S)

    def due_from(self, start: float, now: float, wall: float) -> float:
        """From when on the time since the monotonic `start` is not entered; `wall` is the wall time of `now`.

        Where the books were never opened, nobody knows what came before the present month.
        """
        if self.until is not None:
            return max(start, self.until)
        return max(start, now - (wall - begin(Window.MONTH, wall)))

    def forget(self, wall: float) -> None:
        """Let go of what is too old to be asked for.

        Of what a clock that was set has left behind, nothing before so many hours, days or months went by under it.
        """
        for window, book, kept, _ in self._books():
            last = number(window, wall)
            lately = self.set_at is not None and last - number(window, self.set_at) < kept
            most = SET_KEPT if lately else kept
            # By their number, and what is ahead for itself: by a wrong clock's date all of them would be too old.
            for keys in (sorted(key for key in book if key <= last), sorted(key for key in book if key > last)):
                for key, following in list(pairwise(keys))[: max(0, len(keys) - most)]:
                    spent = book.pop(key)
                    if lately:
                        book[following] += spent
        self.since = min(self.since, wall)

    def clock_set(self, before: float, wall: float) -> None:
        """The clock said `before` and now says `wall`.

        Further away than JUMP_S_MIN: what is near the one is then as near the other; what is not was entered by yet
        another clock.
        """
        self.set_at = wall
        if abs(wall - before) <= JUMP_S_MIN:
            return
        for window, book, _, near in self._books():
            old, new = number(window, before), number(window, wall)
            moved = {key - old + new: book.pop(key) for key in list(book) if abs(key - old) <= near}
            for key, spent in moved.items():
                book[key] = book.get(key, NOTHING_SPENT) + spent
        if self.since and abs(before - self.since) <= abs(wall - self.since):
            self.since += wall - before

    def is_ahead(self, wall: float) -> bool:
        """Whether something was entered under a date that is yet to come."""
        return any(key > number(window, wall) for window, book, _, _ in self._books() for key in book)

    def spent(self, window: Window, wall: float) -> Spent:
        """In the present hour, day or month."""
        book, near = next((book, near) for each, book, _, near in self._books() if each is window)
        last = number(window, wall)
        found = book.get(last, NOTHING_SPENT)
        if self._ahead_counts_in(window, wall) == last:
            for key in sorted(key for key in book if last < key <= last + near):
                found += book[key]
        return found

    def mean_per_hour(self, wall: float) -> float | None:
        """The amount per hour of the last 24 hours, or since the books were opened; None: for less than an hour."""
        known_s = min(24 * HOUR_S, wall - self.since) if self.since else 0.0
        if known_s < HOUR_S:
            return None
        first, total, last = wall - known_s, 0.0, number(Window.HOUR, wall)
        ahead_in = self._ahead_counts_in(Window.HOUR, wall)
        for key, spent in self.hours.items():
            hour = key if key <= last else ahead_in
            # Of the oldest hour only the part that lies in the last 24, of what the books know of it.
            begun, ended = max(hour * HOUR_S, self.since), (hour + 1) * HOUR_S
            total += spent.amount * max(0.0, min(1.0, (ended - first) / (ended - begun)))
        return total / (known_s / HOUR_S)

    def copy(self) -> Ledger:
        return replace(self, hours=dict(self.hours), days=dict(self.days), months=dict(self.months))

    def merge(self, other: Ledger) -> None:
        """Take over what another one has spent."""
        for mine, theirs in (
            (self.hours, other.hours), (self.days, other.days), (self.months, other.months),
        ):  # fmt: skip
            for key, spent in theirs.items():
                mine[key] = mine.get(key, NOTHING_SPENT) + spent
        self.since = min(self.since or other.since, other.since or self.since)
        if other.set_at is not None:
            self.set_at = other.set_at if self.set_at is None else max(self.set_at, other.set_at)

    def _ahead_counts_in(self, window: Window, wall: float) -> int:
        """The hour, day or month that has what lies ahead; where a clock was ahead, not every one until then does."""
        return number(window, wall if self.set_at is None else min(self.set_at, wall))

    def _enter(self, spent: Spent, wall: float) -> None:
        for window, book, _, _ in self._books():
            key = number(window, wall)
            book[key] = book.get(key, NOTHING_SPENT) + spent

    def _books(self) -> tuple[tuple[Window, dict[int, Spent], int, int], ...]:
        """Each with how many of its entries are kept, and how many of them JUMP_S_MIN is at most."""
        days = int(JUMP_S_MIN // (24 * HOUR_S))
        return (
            (Window.HOUR, self.hours, HOURS_KEPT, 24 * days),
            (Window.DAY, self.days, DAYS_KEPT, days),
            (Window.MONTH, self.months, MONTHS_KEPT, 2),
        )


def number(window: Window, wall: float) -> int:
    """The number of the hour, day or month that the wall time lies in: they count up."""
    if window is Window.MONTH:
        at = datetime.fromtimestamp(wall, UTC)
        return at.year * 12 + at.month - 1
    return int(wall // (HOUR_S if window is Window.HOUR else 24 * HOUR_S))


def begin(window: Window, wall: float) -> float:
    """When the present hour, day or month has begun, wall time."""
    if window is Window.MONTH:
        return datetime.fromtimestamp(wall, UTC).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        ).timestamp()  # fmt: skip
    length_s = HOUR_S if window is Window.HOUR else 24 * HOUR_S
    return wall // length_s * length_s


def end(window: Window, wall: float) -> float:
    """When the present hour, day or month ends, wall time."""
    if window is Window.MONTH:
        return begin(Window.MONTH, begin(Window.MONTH, wall) + 32 * 24 * HOUR_S)
    return begin(window, wall) + (HOUR_S if window is Window.HOUR else 24 * HOUR_S)


def row(ledger: Ledger) -> dict[str, Any]:
    """Its form in the store."""
    return {
        "hours": {key: astuple(spent) for key, spent in ledger.hours.items()},
        "days": {key: astuple(spent) for key, spent in ledger.days.items()},
        "months": {key: astuple(spent) for key, spent in ledger.months.items()},
        "since": ledger.since,
        "until": ledger.until,
        "metered_at": ledger.metered_at,
        "set_at": ledger.set_at,
        "scalings": [astuple(scaling) for scaling in ledger.scalings],
    }


def load(value: Mapping[str, Any], shift: float) -> Ledger:
    """The ledger that `row` gave, its monotonic times moved by `shift`."""
    return Ledger(
        hours={int(key): Spent(*spent) for key, spent in value["hours"].items()},
        days={int(key): Spent(*spent) for key, spent in value["days"].items()},
        months={int(key): Spent(*spent) for key, spent in value["months"].items()},
        since=value["since"],
        until=None if value["until"] is None else value["until"] + shift,
        metered_at=None if value["metered_at"] is None else value["metered_at"] + shift,
        set_at=value.get("set_at"),
        scalings=[Scaling(*scaling) for scaling in value["scalings"]],
    )

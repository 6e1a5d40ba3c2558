"""The books: what is spent in which hour, day and month of the calendar, in UTC."""

from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.core import ledger
from agentd.core.ledger import Ledger, Spent, Window
from agentd.core.rates import HOUR_S

DAY_S = 24 * HOUR_S


def wall(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


@pytest.mark.parametrize(
    ("window", "at", "begin", "end"),
    [
        (Window.HOUR, "2024-03-10 12:34:56", "2024-03-10 12:00:00", "2024-03-10 13:00:00"),
        (Window.HOUR, "2024-12-31 23:59:59", "2024-12-31 23:00:00", "2025-01-01 00:00:00"),
        (Window.DAY, "2024-02-29 00:00:00", "2024-02-29 00:00:00", "2024-03-01 00:00:00"),
        (Window.MONTH, "2024-02-29 23:00:00", "2024-02-01 00:00:00", "2024-03-01 00:00:00"),
        (Window.MONTH, "2023-12-31 23:59:59", "2023-12-01 00:00:00", "2024-01-01 00:00:00"),
        (Window.MONTH, "2024-01-01 00:00:00", "2024-01-01 00:00:00", "2024-02-01 00:00:00"),
    ],
)
def test_windows_are_those_of_the_calendar(window: Window, at: str, begin: str, end: str) -> None:
    assert (ledger.begin(window, wall(at)), ledger.end(window, wall(at))) == (wall(begin), wall(end))


@given(st.floats(0, 4e9))
def test_a_moment_lies_in_its_window_and_the_end_begins_the_next(at: float) -> None:
    for window in Window:
        assert ledger.begin(window, at) <= at < ledger.end(window, at)
        assert ledger.number(window, ledger.end(window, at)) == ledger.number(window, at) + 1


def test_each_hour_gets_its_share_of_a_span() -> None:
    books = Ledger()
    books.enter(Spent(3.0, agent_hours=6.0), wall("2024-01-31 22:30:00"), wall("2024-02-01 01:30:00"))
    assert [spent.amount for _, spent in sorted(books.hours.items())] == pytest.approx([0.5, 1.0, 1.0, 0.5])
    now = wall("2024-02-01 01:30:00")
    assert books.spent(Window.HOUR, now) == Spent(0.5, agent_hours=1.0)
    assert books.spent(Window.DAY, now) == Spent(1.5, agent_hours=3.0)
    assert books.spent(Window.MONTH, now) == Spent(1.5, agent_hours=3.0)
    assert [spent.amount for _, spent in sorted(books.months.items())] == [1.5, 1.5]


@given(st.floats(0, 40 * DAY_S), st.floats(1.7e9, 1.8e9), st.floats(0, 1000))
def test_nothing_is_lost_between_hours(length_s: float, start: float, amount: float) -> None:
    books = Ledger()
    books.enter(Spent(amount), start, start + length_s)
    kept = min(1.0, ledger.SPAN_S_MAX / length_s) if length_s else 1.0
    for book in (books.hours, books.days, books.months):
        assert sum(spent.amount for spent in book.values()) == pytest.approx(amount * kept, rel=1e-6, abs=1e-6)


def test_of_a_moment_all_is_entered_there() -> None:
    books = Ledger()
    books.enter(Spent(2.0), 1.7e9, 1.7e9)
    assert books.spent(Window.HOUR, 1.7e9).amount == 2.0


def test_what_is_old_is_forgotten_and_what_lies_in_the_future_counts_now() -> None:
    books, now = Ledger(), wall("2024-03-10 12:30:00")
    for day in range(-70, 5):
        books.enter(Spent(1.0), now + day * DAY_S, now + day * DAY_S)
    books.forget(now)
    for book, kept, ahead in ((books.hours, 25, 4), (books.days, 3, 3), (books.months, 3, 0)):
        assert len(book) == kept + ahead
    # The three days after today that are kept are of this month, and entered.
    assert [books.spent(window, now).amount for window in Window] == [5.0, 4.0, 14.0]


def read(books: Ledger, at: float) -> list[float]:
    """Of the hour, the day and the month."""
    return [books.spent(window, at).amount for window in Window]


def test_a_clock_that_is_set_back_and_corrected_leaves_all_where_it_was() -> None:
    books, now = Ledger(), wall("2024-11-05 12:30:00")
    books.enter(Spent(400.0), wall("2024-10-28 12:00:00"), wall("2024-10-28 12:00:00"))
    books.enter(Spent(100.0), now, now)
    books.forget(now)
    books.clock_set(now, now - 10 * DAY_S)
    for minute in range(60):
        at = now - 10 * DAY_S + 60.0 * minute
        books.forget(at)
        assert books.spent(Window.DAY, at).amount == books.spent(Window.MONTH, at).amount == 500.0
    assert read(books, now - 10 * DAY_S) == [500.0] * 3
    books.clock_set(now - 10 * DAY_S + HOUR_S, now + HOUR_S)
    books.forget(now + HOUR_S)
    assert read(books, now + HOUR_S) == [0.0, 100.0, 100.0]
    assert [spent.amount for _, spent in sorted(books.months.items())] == [400.0, 100.0]


def test_a_clock_that_was_ahead_counts_once_in_the_hour_and_day_that_it_is_corrected_in() -> None:
    books, now = Ledger(), wall("2024-11-05 12:30:00")
    books.clock_set(now, now + 10 * DAY_S)
    books.enter(Spent(100.0), now + 10 * DAY_S, now + 10 * DAY_S)
    books.clock_set(now + 10 * DAY_S, now)
    books.forget(now)
    assert read(books, now) == [100.0] * 3
    assert read(books, now + HOUR_S) == [0.0, 100.0, 100.0]
    assert read(books, now + DAY_S) == [0.0, 0.0, 100.0]
    assert books.mean_per_hour(now + 4 * HOUR_S) == pytest.approx(25.0)
    assert books.mean_per_hour(now + 40 * HOUR_S) == 0.0


@given(st.lists(st.integers(-15 * 24, 15 * 24), max_size=120))
def test_no_jumps_of_a_clock_lose_anything(hours: list[int]) -> None:
    """All within a moment, something spent at each: the present has at least what it had, and the sum is the same."""
    books, now = Ledger(), wall("2024-11-05 12:30:00")
    books.enter(Spent(100.0), now, now)
    before = now
    for hour in hours:
        at = now + hour * HOUR_S
        books.clock_set(before, at)
        books.forget(at)
        books.enter(Spent(1.0), at, at)
        if at < now:
            assert min(read(books, at)) >= 101.0
        before = at
    books.clock_set(before, now)
    books.forget(now)
    ahead = sum(hour >= 0 for hour in hours)
    assert all(amount >= 100.0 + ahead for amount in read(books, now))
    for book in (books.hours, books.days, books.months):
        assert sum(spent.amount for spent in book.values()) == 100.0 + len(hours)
        assert len(book) <= 2 * ledger.SET_KEPT + 1


YEARS = st.integers(1971, 2100).filter(lambda year: year != 2024).map(lambda year: wall(f"{year}-07-08 12:30:00"))


@given(st.lists(YEARS, max_size=6), st.booleans())
def test_no_clock_that_is_years_wrong_for_a_while_forgets_or_counts_twice(wrong: list[float], seen: bool) -> None:
    """`seen`: agentd ran while the clock was set the first time; without, it was away."""
    books, now = Ledger(), wall("2024-03-10 12:30:00")
    books.enter(Spent(1.0), now - HOUR_S, now)
    books.enter(Spent(4.0), now - 40 * DAY_S, now - 40 * DAY_S)
    before = now if seen else None
    for number, at in enumerate([*wrong, now], 1):
        if before is not None and at != before:
            books.clock_set(before, at)
        books.forget(at)
        before = at
        books.enter(Spent(10.0), at, at)
        assert [books.spent(window, at).amount >= 10.0 * number for window in Window] == [True] * 3
    total = 10.0 * (len(wrong) + 1)
    assert [books.spent(window, now).amount for window in Window] == pytest.approx([0.5 + total, *[1.0 + total] * 2])
    assert sum(spent.amount for spent in books.months.values()) == pytest.approx(5.0 + total)
    assert len(books.months) == 2


def test_a_clock_that_is_set_back_a_little_forgets_nothing() -> None:
    books, now = Ledger(), wall("2024-04-01 00:00:20")
    books.enter(Spent(60.0), now - 60, now)
    books.forget(now - 40)
    assert [books.spent(window, now - 40).amount for window in Window] == pytest.approx([60.0] * 3)


def test_the_mean_is_of_the_last_24_hours() -> None:
    books, now = Ledger(), wall("2024-03-10 12:30:00")
    books.enter(Spent(48 * 2.0), now - 2 * DAY_S, now)  # 2 an hour
    books.forget(now)
    assert books.mean_per_hour(now) == pytest.approx(2.0)


def test_the_mean_of_a_young_book_is_of_its_own_time() -> None:
    books, now = Ledger(), wall("2024-03-10 12:30:00")
    assert books.mean_per_hour(now) is None
    books.enter(Spent(6.0), now - 3 * HOUR_S, now)
    assert books.mean_per_hour(now) == pytest.approx(2.0)
    assert books.mean_per_hour(now - 2.5 * HOUR_S) is None


def test_books_come_back_as_they_were_and_their_times_move() -> None:
    books = Ledger(until=10.0, metered_at=None)
    books.enter(Spent(1.0, 2.0, 3.0, 4.0, 5.0), 1.7e9, 1.7e9 + 5000)
    again = ledger.load(ledger.row(books), 3.0)
    assert (again.hours, again.days, again.months, again.since) == (books.hours, books.days, books.months, books.since)
    assert (again.until, again.metered_at) == (13.0, None)

"""Recurring times and the windows between them: against another autoscaler's own cases, and at the odd ends."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.core.cron import Window, parse

BERLIN = ZoneInfo("Europe/Berlin")
SHARED = os.environ.get("AGENTD_SHARED")


def cases() -> list[dict[str, Any]]:
    if not SHARED:
        return []
    path = Path(SHARED) / "conformance" / "nomad_schedule.json"
    return list(json.loads(path.read_text())["cases"])


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def utc(wall: float | None) -> str:
    assert wall is not None
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="minutes").removesuffix("+00:00")


def window(start: str, end: str | None = None, duration_s: float | None = None, **more: Any) -> Window:
    return Window("w", parse(start), None if end is None else parse(end), duration_s, **more)


@pytest.mark.skipif(not SHARED, reason="AGENTD_SHARED names no directory with the conformance cases")
def test_the_schedules_of_nomads_autoscaler_are_active_when_it_says_so() -> None:
    found = cases()
    assert len(found) == 28
    for case in found:
        schedule = case["schedule"]
        made = window(schedule["start"], schedule.get("end"), schedule.get("duration_s"))
        assert made.active(at(case["now"])) is case["expect"]["active"], case["id"]


@pytest.mark.parametrize(
    ("text", "now", "last", "following"),
    [
        ("*/15 * * * *", "2026-03-04T10:20Z", "2026-03-04T10:15", "2026-03-04T10:30"),
        ("0 9-17/4 * * *", "2026-03-04T14:00Z", "2026-03-04T13:00", "2026-03-04T17:00"),
        ("0 0 1 jan *", "2026-03-04T00:00Z", "2026-01-01T00:00", "2027-01-01T00:00"),
        ("0 0 29 2 *", "2027-03-04T00:00Z", "2024-02-29T00:00", "2028-02-29T00:00"),
        ("0 0 * * 7", "2026-03-04T00:00Z", "2026-03-01T00:00", "2026-03-08T00:00"),
        ("0 0 * * sun", "2026-03-01T00:00Z", "2026-03-01T00:00", "2026-03-08T00:00"),
        ("0 0 13 * fri", "2026-03-04T00:00Z", "2026-02-27T00:00", "2026-03-06T00:00"),
        ("30 8,20 * * Mon-Fri", "2026-03-07T12:00Z", "2026-03-06T20:30", "2026-03-09T08:30"),
        ("5/20 * * * *", "2026-03-04T10:00Z", "2026-03-04T09:45", "2026-03-04T10:05"),
    ],
)
def test_the_last_and_the_next_time(text: str, now: str, last: str, following: str) -> None:
    cron = parse(text)
    assert (utc(cron.last(at(now), UTC)), utc(cron.next(at(now), UTC))) == (last, following)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("* * * *", "has 4 fields, not 5"),
        ("60 * * * *", "minute '60': must be numbers from 0 to 59"),
        ("* 24 * * *", "hour '24'"),
        ("* * 0 * *", "day of month '0'"),
        ("* * * 13 *", "month '13': must be numbers from 1 to 12 or jan to dec"),
        ("* * * * 8", "day of week '8'"),
        ("*/0 * * * *", "a step must be a number from 1"),
        ("5-1 * * * *", "5 is after 1"),
        ("-1 * * * *", "minute '-1'"),
        ("1, * * * *", "minute '1,'"),
        ("٣ * * * *", "minute"),
        ("0 0 30 2 *", "a day that does not exist"),
        ("0 0 31 4,6 *", "a day that does not exist"),
    ],
)
def test_what_is_no_time_is_refused_with_the_field(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        parse(text)


def test_a_window_is_on_the_clock_of_its_place() -> None:
    made = window("0 8 * * *", "0 18 * * *", zone=BERLIN)
    assert [made.active(at(text)) for text in ("2026-01-10T06:59Z", "2026-01-10T07:00Z")] == [False, True]
    assert [made.active(at(text)) for text in ("2026-07-10T05:59Z", "2026-07-10T06:00Z")] == [False, True]


def test_a_time_that_the_clock_leaves_out_counts_when_the_clock_changes() -> None:
    # On 29 March 2026, 02:00 in Berlin was 03:00.
    cron = parse("30 2 * * *")
    assert utc(cron.next(at("2026-03-28T12:00Z"), BERLIN)) == "2026-03-29T01:00"
    assert utc(cron.next(at("2026-03-29T01:00Z"), BERLIN)) == "2026-03-30T00:30"


def test_a_time_that_comes_twice_counts_the_first_time() -> None:
    # On 25 October 2026, 03:00 in Berlin was 02:00 again.
    cron = parse("30 2 * * *")
    assert utc(cron.next(at("2026-10-24T12:00Z"), BERLIN)) == "2026-10-25T00:30"
    assert utc(cron.next(at("2026-10-25T00:30Z"), BERLIN)) == "2026-10-26T01:30"
    assert utc(cron.last(at("2026-10-25T01:15Z"), BERLIN)) == "2026-10-25T00:30"


MINUTES = st.integers(0, 59)
CRONS = st.builds(
    lambda minute, hour, day, month, weekday: f"{minute} {hour} {day} {month} {weekday}",
    st.sampled_from(["0", "17", "*/20", "5,50"]),
    st.sampled_from(["*", "3", "9-17", "*/6"]),
    st.sampled_from(["*", "1", "13", "28-31"]),
    st.sampled_from(["*", "2", "jan-mar"]),
    st.sampled_from(["*", "mon-fri", "0"]),
)


@given(CRONS, st.integers(0, 4 * 366 * 24 * 60))
def test_last_and_next_agree_with_a_walk_over_the_minutes(text: str, minute: int) -> None:
    cron = parse(text)
    now = at("2024-01-01T00:00Z") + 60.0 * minute

    def walk(step: int) -> float | None:
        moment = now if step < 0 else now + 60.0
        for _ in range(3 * 24 * 60):
            when = datetime.fromtimestamp(moment, UTC)
            if when.minute in cron.minutes and when.hour in cron.hours and cron.on(when.date()):
                return moment
            moment += step * 60.0
        return None

    for found, walked in ((cron.last(now, UTC), walk(-1)), (cron.next(now, UTC), walk(1))):
        assert found is not None
        assert found == walked or (walked is None and abs(found - now) >= timedelta(days=3).total_seconds() - 60.0)


@given(CRONS, CRONS, st.integers(0, 366 * 24 * 60), st.sampled_from([None, 600.0, 90_000.0]))
def test_a_window_changes_only_at_its_boundaries(start: str, end: str, minute: int, duration_s: float | None) -> None:
    made = window(start, end if duration_s is None else None, duration_s, zone=BERLIN)
    now = at("2026-01-01T00:00Z") + 60.0 * minute
    boundary = made.boundary(now)
    assert boundary is not None
    assert boundary > now
    for moment in (now + (boundary - now) / 2.0, boundary - 0.5):
        assert made.active(moment) is made.active(now)

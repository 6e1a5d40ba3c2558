"""Counts, waits and the picture of a run."""

from __future__ import annotations

import pytest

from agentd.demo import report
from agentd.demo.report import Sample, Summary, Tally, Timeline, minutes, sparkline


def sample(at_s: float, ready: int = 1, waiting: int = 0, load: float = 0.5) -> Sample:
    return Sample(at_s=at_s, ready=ready, starting=0, waiting=waiting, in_flight=0, load=load)


def test_waits_are_told_in_trace_time() -> None:
    tally = Tally()
    for wait_s in (0.0, 0.05, 0.15, 0.6):
        tally.sent += 1
        tally.answer(wait_s)
    assert (tally.answered, tally.waited, tally.unanswered) == (4, 2, 0)
    waits = tally.waits(speed=10.0)
    assert waits["mean_s"] == pytest.approx(2.0)
    assert (waits["p50_s"], waits["p95_s"], waits["max_s"], waits["slow_ratio"]) == (0.5, 6.0, 6.0, 0.25)


def test_a_run_without_answers_has_no_waits() -> None:
    assert set(Tally().waits(1.0).values()) == {0.0}
    lines = Summary(Tally(), Timeline(), 1.0, 0.0).lines(unicode=True)
    assert lines[0].startswith("requests: 0 sent, 0 answered")


def test_waits_are_a_bounded_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "WAITS_MAX", 100)
    tally = Tally()
    for number in range(5_000):
        tally.answer(float(number))
    assert len(tally._waits) == 100
    assert 1_500 < tally.waits(1.0)["p50_s"] < 3_500
    assert tally.answered == 5_000


def test_the_timeline_keeps_the_whole_run_in_bounded_memory() -> None:
    timeline = Timeline()
    for tick in range(20_000):
        timeline.add(sample(tick * 0.7))
    assert 500 < len(timeline.samples) < report.SAMPLES_MAX
    assert timeline.samples[0].at_s == 0.0
    assert timeline.samples[-1].at_s > 13_000


def test_sparklines() -> None:
    assert sparkline([], 10) == ""
    assert sparkline([0.0, 0.0], 10) == "▁▁"
    assert sparkline([0.0, 1.0, 2.0, 4.0], 10) == "▁▃▅█"
    assert sparkline([0.0, 9.0, 0.0, 0.0], 2) == "█▁"  # a peak is never averaged away
    assert sparkline([0.0, 1.0], 2, report.SPARK_ASCII) == ".#"


def test_minutes() -> None:
    assert [minutes(s) for s in (-1, 0, 65, 3599, 7265)] == ["0:00", "0:00", "1:05", "59:59", "2:01:05"]


def test_a_summary_for_people_and_for_programs() -> None:
    tally, timeline = Tally(), Timeline()
    tally.sent, tally.retried = 3, 1
    tally.answer(0.0)
    tally.answer(2.0)
    for at_s in range(40):
        timeline.add(sample(float(at_s), ready=1 + at_s // 10, waiting=at_s % 3, load=at_s / 40))
    summary = Summary(tally, timeline, speed=2.0, lasted_s=40.0, events={"scale_up": 3, "replace": 1})
    lines = summary.lines(unicode=True)
    assert lines[0].startswith("requests: 3 sent, 2 answered, 1 unanswered, 0 failed; 1 retried")
    assert "1 of them (50%)" in lines[1]
    assert lines[2] == "agents:   2.50 on average, 4 at most; events: 1 replace, 3 scale up"
    assert all(line.isascii() for line in summary.lines(unicode=False))
    fields = summary.as_json()
    assert fields["waits_trace_time"] == {
        "mean_s": 2.0,
        "p50_s": 0.0,
        "p95_s": 4.0,
        "max_s": 4.0,
        "slow_ratio": 0.0,
    }
    assert (fields["unanswered"], fields["agents_mean"], fields["agents_max"]) == (1, 2.5, 4)

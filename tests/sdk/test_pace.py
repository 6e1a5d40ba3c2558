"""When a beat is due."""

from __future__ import annotations

from agentd.sdk.pace import ANSWER_MAX_S, ANSWER_S, RETRY_MAX_S, Pace


def sent(at: float, interval_s: float = 10.0) -> Pace:
    pace = Pace()
    pace.begin(at)
    pace.succeed(interval_s, chance=0.0)
    return pace


def test_the_first_beat_is_due_at_once() -> None:
    assert Pace().due_in_s(5.0) == 0.0


def test_beats_follow_the_interval_that_agentd_tells() -> None:
    assert sent(100.0, interval_s=3.0).due_in_s(101.0) == 2.0


def test_chance_only_shortens_the_interval() -> None:
    pace = Pace()
    pace.begin(0.0)
    pace.succeed(10.0, chance=0.5)
    assert pace.due_in_s(0.0) == 9.5


def test_a_change_is_told_a_second_after_the_last_beat_and_not_sooner() -> None:
    pace = sent(100.0)
    assert pace.change()
    assert not pace.change()  # only the first is news
    assert pace.due_in_s(100.25) == 0.75
    assert pace.due_in_s(105.0) < 0
    pace.begin(105.0)
    pace.succeed(10.0, chance=0.0)
    assert pace.due_in_s(105.0) == 10.0


def test_an_acknowledgement_is_due_at_once() -> None:
    pace = sent(100.0)
    pace.urge()
    assert pace.due_in_s(100.0) == 0.0


def test_failures_are_spaced_wider_and_wider_up_to_a_bound_whatever_changes() -> None:
    pace = sent(0.0, interval_s=60.0)
    waits = []
    for _ in range(40):
        pace.begin(0.0)
        pace.fail(chance=1.0)
        pace.change()
        waits.append(pace.due_in_s(0.0))
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (0.5, RETRY_MAX_S)


def test_retries_are_never_rarer_than_the_interval() -> None:
    pace = sent(0.0, interval_s=0.2)
    pace.fail(chance=1.0)
    assert pace.due_in_s(0.0) == 0.2


def test_a_senseless_interval_is_ignored() -> None:
    for told in (0.0, -1.0, float("nan"), float("inf")):
        pace = sent(0.0, interval_s=4.0)
        pace.succeed(told, chance=0.0)
        assert pace.interval_s == 4.0


def test_sessions_that_all_end_at_once_are_begun_anew_spread_over_half_an_interval() -> None:
    waits = []
    for chance in (0.0, 0.5, 0.75):
        pace = sent(100.0, interval_s=8.0)
        pace.lose(107.0, chance)
        waits.append(pace.due_in_s(107.0))
    assert waits == [0.0, 2.0, 3.0]


def test_the_wait_for_a_new_session_is_bounded() -> None:
    pace = sent(100.0, interval_s=600.0)
    pace.lose(107.0, chance=1.0)
    assert pace.due_in_s(107.0) == RETRY_MAX_S


def test_a_shorter_interval_counts_at_once() -> None:
    pace = sent(100.0, interval_s=600.0)
    pace.retime(3.0)
    assert pace.due_in_s(101.0) == 2.0
    pace.retime(10.0)
    assert pace.due_in_s(101.0) == 2.0


def test_an_answer_may_take_an_interval_within_bounds() -> None:
    pace = Pace()
    waits = []
    for interval_s in (0.1, 7.0, 600.0):
        pace.succeed(interval_s, chance=0.0)
        waits.append(pace.answer_s)
    assert waits == [ANSWER_S, 7.0, ANSWER_MAX_S]
    assert Pace(answer_max_s=2.0).answer_s == 2.0

"""The rate of arrivals where tasks leave without being done: what has arrived has arrived."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.core.flow import FRESH_PIECES, Flow


def test_a_purge_of_what_came_long_ago_does_not_hide_what_comes() -> None:
    """Four hundred tasks have waited for an hour while half a task a second came and was done; then they are gone."""
    flow, completed = Flow(), 0.0
    for second in range(5_200):
        completed += 0.5
        purged = second >= 4_201
        flow.observe(float(second), 6.0 if purged or second < 600 else 406.0, 6.0, completed)
        if second > 1_300:
            assert flow.rate == pytest.approx(0.5, rel=0.15), second
        flow.take_lately(5.0)
    assert flow.rate == pytest.approx(0.5, rel=0.02)


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 30), st.integers(0, 5)), max_size=60))
def test_a_rate_is_never_negative_and_what_arrived_never_less(story: list[tuple[int, int, int]]) -> None:
    flow, now, done, most = Flow(), 0.0, 0.0, 0.0
    for passed_s, demand, completed in story:
        now, done = now + passed_s, done + completed
        flow.observe(now, float(demand), 1.0, done)
        assert 0.0 <= flow.rate < math.inf
        assert flow.most >= most or flow.began == now
        assert [count for _, count in flow.marks] == sorted(count for _, count in flow.marks)
        most = flow.most


def test_the_last_task_of_several_counts_for_the_service_time() -> None:
    """A task every minute that takes 10 s: when it is done nobody is at work any more."""
    flow = Flow()
    for second in range(7_200):
        at_work = float(second % 60 < 10)
        flow.observe(float(second), at_work, at_work, float((second + 50) // 60))
    assert flow.service_s == pytest.approx(10.0, rel=0.1)


def test_who_came_lately_is_known_in_few_pieces_however_long_a_task_may_wait() -> None:
    flow, tasks = Flow(), 0.0
    for second in range(0, 8_000, 2):
        tasks += 1.0
        flow.observe(float(second), tasks, 1.0, 0.0)
        fresh = flow.take_lately(3_600.0).fresh
        assert len(flow.fresh) <= FRESH_PIECES + 1
    assert fresh == pytest.approx(1_800, rel=1 / FRESH_PIECES)

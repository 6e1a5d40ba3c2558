"""Arrivals out of recorded history: as many requests, with as much work, as the pool had."""

from __future__ import annotations

import pytest

from agentd.sim.history import Sample, arrivals


def test_a_steady_demand_gives_a_steady_rate() -> None:
    samples = [Sample(1000.0 + 10.0 * n, 6.0) for n in range(361)]
    found = list(arrivals(samples, 20.0))
    # Six at work for an hour, twenty seconds each.
    assert len(found) == 6 * 3600 / 20
    assert 0.0 <= found[0].offset_s <= found[-1].offset_s <= 3600.0
    assert sum(arrival.service_s for arrival in found) / len(found) == pytest.approx(20.0, rel=0.1)


def test_requests_come_when_there_was_work_and_gaps_in_the_history_hold_what_was() -> None:
    samples = [Sample(0.0, 0.0), Sample(600.0, 10.0), Sample(1200.0, 0.0), Sample(1800.0, 0.0)]
    found = list(arrivals(samples, 10.0))
    assert len(found) == 600
    assert all(600.0 <= arrival.offset_s < 1200.0 for arrival in found)


def test_parts_of_requests_add_up() -> None:
    samples = [Sample(60.0 * n, 0.1) for n in range(101)]
    assert len(list(arrivals(samples, 30.0))) == 20

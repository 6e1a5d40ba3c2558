"""Arrivals out of recorded history: as many requests, with as much work, as the pool had."""

from __future__ import annotations

import random

import pytest
from worlds import at, fleet

from agentd.sim.history import COMPLETED_MIN, HOLD_S_MAX, Recorded, Sample, arrivals, rebuild
from agentd.sim.world import Setup, World
from agentd.traces import Arrival


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


def test_what_a_queue_grows_by_has_arrived_and_what_it_loses_had_before() -> None:
    # Two at work all the time, ten seconds each; thirty came at once after a minute, and ten minutes took them away.
    samples = [Sample(60.0 * n, 2.0, 0.0 if n == 0 else max(0.0, 33.0 - 3.0 * n)) for n in range(21)]
    found = list(arrivals(samples, 10.0))
    assert len(found) == 20 * 12
    assert sum(1 for one in found if one.offset_s < 60.0) == 12 + 30


def test_after_a_while_without_a_record_nothing_is_made_up() -> None:
    rows = [Recorded(wall, 2, 2, 0.5, 0, 1.0) for wall in (0.0, 60.0, 7200.0, 7260.0)]
    rebuilt = rebuild(rows, 1)
    assert rebuilt.missing_s == 7140.0 - HOLD_S_MAX
    found = list(arrivals(rebuilt.samples, 10.0))
    assert not [one for one in found if 60.0 + HOLD_S_MAX <= one.offset_s < 7200.0]


def test_where_no_tasks_were_reported_the_load_stands_for_them() -> None:
    rebuilt = rebuild([Recorded(60.0 * n, 4, 3, 0.5, 0, 0) for n in range(3)], 2)
    assert rebuilt.by_load
    assert [sample.in_flight for sample in rebuilt.samples] == [3.0, 3.0, 3.0]


def test_another_seed_gives_other_requests_of_the_same_counts() -> None:
    samples = [Sample(60.0 * n, 5.0) for n in range(31)]
    first, second = (list(arrivals(samples, 10.0, seed=seed)) for seed in (1, 2))
    assert len(first) == len(second) == 900
    assert first != second


def test_a_simulated_history_gives_the_load_back_that_it_was_made_of() -> None:
    rng = random.Random(7)
    trace: list[Arrival] = []
    offset_s = 0.0
    while offset_s < 8 * 3600.0:
        busy = 2.0 + 6.0 * (2 * 3600.0 < offset_s < 5 * 3600.0)
        offset_s += rng.expovariate(busy / 20.0)
        trace.append(Arrival(offset_s, rng.expovariate(1.0 / 20.0)))
    rows: list[Recorded] = []
    world = World(fleet(min=5, max=5), trace, Setup(initial=5))

    def record() -> None:
        agents = list(world.agents.values())
        in_flight = sum(one.in_flight for one in agents)
        rows.append(Recorded(world.now, len(agents), len(world.open), None, len(world.queue), in_flight))
        if world.now + 60.0 < world.last_at:
            world.later(world.now + 60.0, record)

    world.later(at(0.0), record)
    world.run()
    assert max(row.queue_length for row in rows) > 100  # five agents were too few for a while
    found = list(arrivals(rebuild(rows, 1).samples, 20.0))
    assert len(found) == pytest.approx(len(trace), rel=0.05)
    for hour in range(7):
        came, rebuilt = (
            sum(1 for one in load if hour <= one.offset_s / 3600.0 < hour + 1) for load in (trace, found)
        )  # fmt: skip
        assert rebuilt == pytest.approx(came, rel=0.15), hour


def test_what_was_done_meanwhile_says_what_a_task_takes() -> None:
    """Four at work for an hour, a task each ten seconds; nothing counts while nobody looked, or when it began anew."""
    hour = [Recorded(60.0 * n, 2, 2, 0.5, 0, 4.0, 100.0 + 6.0 * n) for n in range(61)]
    assert rebuild(hour, 2).service_mean_s == pytest.approx(40.0)
    away = Recorded(3600.0 + 2 * HOLD_S_MAX, 2, 2, 0.5, 0, 4.0, 9000.0)
    anew = [Recorded(away.wall + 60.0 * n, 2, 2, 0.5, 0, 9.0, 0.0) for n in (1, 2)]
    assert rebuild([*hour, away, anew[0]], 2).service_mean_s == pytest.approx(40.0)
    assert rebuild([*hour, away, *anew], 2).completed_work_s == 4.0 * 3600.0 + 9.0 * 60.0


def test_of_too_few_tasks_nobody_says_what_one_takes() -> None:
    few, enough = (
        [Recorded(60.0 * n, 2, 2, 0.5, 0, 4.0, n * done / 60.0) for n in range(61)]
        for done in (COMPLETED_MIN - 1.0, COMPLETED_MIN)
    )
    assert rebuild(few, 2).service_mean_s is None
    assert rebuild(enough, 2).service_mean_s is not None
    assert rebuild([Recorded(60.0 * n, 2, 2, 0.5, 0, 4.0) for n in range(61)], 2).service_mean_s is None

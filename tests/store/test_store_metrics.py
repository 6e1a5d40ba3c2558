"""The metric history: raw for a day, then five-minute means, and never more than its bounds."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
from store_samples import RESEARCH, FakeClock

from agentd import store_metrics
from agentd.store import Bounds, Metric, Store


def test_metrics_are_raw_for_a_day_then_means_then_gone(path: Path) -> None:
    day, base = 86_400.0, 1_000_200.0  # a multiple of five minutes
    clock = FakeClock(base)

    async def main() -> None:
        store = Store.open(path, Bounds(metrics_days=3), clock)
        for number in range(10):
            load = None if number == 0 else 0.1 * number
            row = Metric(base + 60.0 * number, RESEARCH, number, 1, load, number, 0, 10.0 * number)
            await store.add_metrics((row,))
        assert len(await store.metrics("research", 0.0)) == 10
        assert [row.wall for row in await store.metrics("research", base + 500.0)] == [base + 540.0]

        clock.time = base + day + 300.0
        await store.add_metrics((Metric(clock.time, RESEARCH, 3, 3, 0.5, 0, 0),))
        mean, *raw = await store.metrics("research", 0.0)
        assert mean.load == pytest.approx(0.25), "samples without a load are left out of the mean"
        assert (mean.wall, mean.count, mean.ready, mean.queue_length, mean.in_flight) == (base, 2.0, 1.0, 2.0, 0.0)
        assert mean.completed == 0.0, "tasks are counted up to the moment of the row"
        assert [row.completed for row in raw] == [50.0, 60.0, 70.0, 80.0, 90.0, None]
        assert [row.wall for row in raw] == [base + 60.0 * n for n in range(5, 10)] + [clock.time]

        clock.time = base + 3 * day + 1.0
        await store.add_metrics(())
        assert mean not in await store.metrics("research", 0.0)
        assert await store.metrics("testing", 0.0) == ()
        await store.close()

    asyncio.run(main())


def test_raw_metrics_beyond_their_bound_become_means_before_their_day_is_over(path: Path) -> None:
    base = 1_000_200.0
    clock = FakeClock(base)

    async def main() -> None:
        store = Store.open(path, Bounds(metrics_raw_max=100), clock)
        for number in range(1_000):
            clock.time = base + number * 10.0
            await store.add_metrics((Metric(clock.time, RESEARCH, 1, 1, 0.5, 0, 0),))
        rows = await store.metrics("research", 0.0)
        assert len(rows) <= 100 + 1_000 * 10 // 300 + 1
        assert rows[0].wall == base
        await store.close()

    asyncio.run(main())


def test_metrics_of_a_clock_that_ran_ahead_do_not_stay(path: Path) -> None:
    clock = FakeClock()

    async def main() -> None:
        store = Store.open(path, Bounds(), clock)
        await store.add_metrics((Metric(clock.time + 1e9, RESEARCH, 1, 1, 0.5, 0, 0),))
        await store.add_metrics((Metric(clock.time, RESEARCH, 1, 1, 0.5, 0, 0),))
        assert [row.wall for row in await store.metrics("research", 0.0)] == [clock.time]
        await store.close()

    asyncio.run(main())


def test_what_an_older_agentd_wrote_is_read_without_the_tasks_that_it_did_not_count() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as file:
        for table in ("metrics", "metric_means"):
            file.execute(f"CREATE TABLE {table} (pool, wall, count, ready, load, queue_length, in_flight)")
        file.execute("INSERT INTO metrics VALUES ('research', 60.0, 3, 2, 0.5, 1, 4)")
        assert store_metrics.select(file, "research", 0.0) == (Metric(60.0, RESEARCH, 3, 2, 0.5, 1, 4, None),)

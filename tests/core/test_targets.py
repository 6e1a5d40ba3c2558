"""The triggers that follow a number, at their edges: what they want, and why they abstain."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.core import signals, targets
from agentd.core.messages import Collected
from agentd.core.metrics import totals
from agentd.core.model import FleetConfig, PoolConfig, PoolName, PortRange, State
from agentd.core.recent import Recent
from agentd.core.rules import CollectorConfig, DemandTrigger, LatencyTrigger, TargetTrigger
from agentd.core.state import Fleet, Instance, Pool, Purpose

RESEARCH = PoolName("research")
NOW = 1000.0
QUEUE = CollectorConfig("queue", "test")


def made(*, ready: int = 0, starting: int = 0, **pool: Any) -> tuple[Fleet, Pool]:
    """A pool with instances, ready for long, that have said nothing."""
    config = PoolConfig(RESEARCH, ports=PortRange(9101, 9999), max=500, **pool)
    fleet = Fleet(FleetConfig(pools={RESEARCH: config}, enabled=True), epoch=1)
    for n in range(ready + starting):
        state = State.READY if n < ready else State.STARTING
        instance = fleet.add(fleet.pools[RESEARCH], 9101 + n, state, Purpose.SCALE_UP, 100.0)
        instance.heard_at = NOW
    return fleet, fleet.pools[RESEARCH]


def reports(pool: Pool, name: str, *values: float | None) -> list[Instance]:
    instances = list(pool.instances.values())
    for instance, value in zip(instances, values, strict=False):
        if value is not None:
            setattr(instance, name, value)
            instance.beat_at = instance.timed_at = NOW - 1.0
    return instances


def target(fleet: Fleet, pool: Pool, **rule: Any) -> int | None:
    return targets.target(fleet, pool, TargetTrigger(**rule), totals(fleet, pool, NOW), NOW).count


class TestTarget:
    @pytest.mark.parametrize(
        ("load", "count"),
        [(0.7, 4), (0.77, 4), (0.771, 5), (0.9, 6), (1.0, 6), (0.63, 4), (0.629, 4), (0.5, 3), (0.1, 1), (0.0, 0)],
    )
    def test_the_ratio_to_the_target_rounded_up_and_nothing_within_a_tenth(self, load: float, count: int) -> None:
        fleet, pool = made(ready=4)
        reports(pool, "load", *[load] * 4)
        assert target(fleet, pool) == count

    @pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 11, 40])
    @pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.3])
    def test_where_it_turns_is_told(self, count: int, tolerance: float) -> None:
        fleet, pool = made(ready=count)
        rule = TargetTrigger("in_flight", 1000.0, tolerance_ratio=tolerance)

        def wanted(each: float) -> int:
            reports(pool, "in_flight", *[each] * count)
            return targets.target(fleet, pool, rule, totals(fleet, pool, NOW), NOW).count or 0

        up, words = targets.turns(rule, count)
        down = float(words.removeprefix("at ").removeprefix("below ").removesuffix(" or below"))
        assert (wanted(up), wanted(up + 1.0) > count) == (count, True)
        assert wanted(down + 1.0) == count
        assert wanted(down - 1.0) < count
        if down == int(down):  # others are rounded as they are told
            assert (wanted(down) < count) == words.startswith("at ")

    def test_of_nobody_anything_makes_one(self) -> None:
        assert targets.turns(TargetTrigger("jobs", 10.0), 0)[0] == 0.0

    def test_who_starts_counts_as_idle_on_the_way_up(self) -> None:
        fleet, pool = made(ready=2, starting=2)
        reports(pool, "load", 1.0, 1.0)
        assert target(fleet, pool) == 4  # 2.0 of load over 4 is below the target: what starts will do
        reports(pool, "in_flight", 9, 9)
        assert target(fleet, pool, signal="in_flight", target=3.0) == 6

    def test_who_starts_says_nothing_on_the_way_down(self) -> None:
        fleet, pool = made(ready=3, starting=1)
        reports(pool, "load", 0.3, 0.3, 0.3)
        assert target(fleet, pool) == 2

    def test_who_says_nothing_is_full_on_the_way_down_and_idle_on_the_way_up(self) -> None:
        fleet, pool = made(ready=4)
        reports(pool, "load", 0.2, 0.2, 0.2, None)
        assert target(fleet, pool) == 3  # (0.6 + 1.0) / 0.7
        reports(pool, "load", 1.0, 1.0, 1.0, None)
        assert target(fleet, pool) == 4  # 3.0 / 4 is near the target
        reports(pool, "in_flight", 12, 12, 12, None)
        assert target(fleet, pool, signal="in_flight", target=4.0) == 9

    def test_an_old_report_is_none(self) -> None:
        fleet, pool = made(ready=2)
        for instance in reports(pool, "load", 0.2, 0.2)[1:]:
            instance.beat_at = NOW - fleet.config.heartbeat_timeout_s
        assert target(fleet, pool) == 2

    def test_without_a_report_it_abstains(self) -> None:
        fleet, pool = made(ready=2)
        wish = targets.target(fleet, pool, TargetTrigger(), totals(fleet, pool, NOW), NOW)
        assert (wish.count, wish.reason.code) == (None, "no_sample")

    def test_a_total_is_divided_by_the_target(self) -> None:
        fleet, pool = made(ready=4)
        reports(pool, "in_flight", 5, 5, 5, 6)
        assert target(fleet, pool, signal="demand", target=5.0) == 4  # 21 is within a tenth of 20
        assert target(fleet, pool, signal="demand", target=3.0) == 7

    def test_a_collector_is_a_total_and_abstains_when_it_is_old(self) -> None:
        fleet, pool = made(ready=1, collectors=(CollectorConfig("gpu", "test"),))
        rule = TargetTrigger(signal="gpu", target=10.0)
        assert target(fleet, pool, signal="gpu", target=10.0) is None
        signals.take(fleet, Collected(RESEARCH, "gpu", 55.0), NOW - 29.0)
        assert target(fleet, pool, signal="gpu", target=10.0) == 6
        signals.take(fleet, Collected(RESEARCH, "gpu", None, "no answer"), NOW - 1.0)
        assert target(fleet, pool, signal="gpu", target=10.0) == 6
        wish = targets.target(fleet, pool, rule, totals(fleet, pool, NOW + 1.0), NOW + 1.0)
        assert (wish.count, wish.reason.text) == (None, "gpu was last read 30 s ago: no answer")

    def test_throughput_is_what_agents_have_done_since(self) -> None:
        fleet, pool = made(ready=2)
        reports(pool, "rate", 3.0, 5.0)
        assert target(fleet, pool, signal="throughput", target=2.0) == 4


class TestDemand:
    def wanted(self, fleet: Fleet, pool: Pool, ratio: float = 0.95, now: float = NOW) -> int | None:
        return targets.demand(pool, DemandTrigger(ratio), totals(fleet, pool, now), now).count

    @pytest.mark.parametrize(("tasks", "count"), [(0, 0), (1, 1), (19, 5), (20, 6), (38, 10), (39, 11)])
    def test_the_tasks_fill_the_slots_to_the_ratio(self, tasks: int, count: int) -> None:
        fleet, pool = made(ready=2, concurrency=4)
        reports(pool, "in_flight", tasks, 0)
        assert self.wanted(fleet, pool) == count

    def test_what_a_draining_and_a_late_agent_have_counts(self) -> None:
        fleet, pool = made(ready=3)
        instances = reports(pool, "in_flight", 2, 3, 4)
        instances[1].state, instances[2].missed = State.DRAINING, 1
        instances[2].heard_at = 0.0
        assert self.wanted(fleet, pool, 1.0) == 9

    def test_the_external_queue_counts_and_nothing_is_known_without_it(self) -> None:
        fleet, pool = made(ready=1, collectors=(QUEUE,))
        reports(pool, "in_flight", 1)
        assert self.wanted(fleet, pool, 1.0) is None
        signals.take(fleet, Collected(RESEARCH, "queue", 8.0), NOW)
        assert self.wanted(fleet, pool, 1.0) == 9
        assert self.wanted(fleet, pool, 1.0, NOW + 30.0) is None

    def test_the_external_queue_alone_is_demand(self) -> None:
        fleet, pool = made(collectors=(QUEUE,))
        signals.take(fleet, Collected(RESEARCH, "queue", 3.0), NOW)
        assert self.wanted(fleet, pool, 1.0) == 3

    def test_nobody_tells_is_not_no_demand(self) -> None:
        fleet, pool = made(ready=2)
        assert self.wanted(fleet, pool) is None

    @given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 16), st.floats(0.05, 1.0))
    def test_more_tasks_never_want_fewer_and_the_slots_suffice(self, a: int, b: int, slots: int, ratio: float) -> None:
        fleet, pool = made(ready=1, concurrency=slots)
        counts = []
        for tasks in sorted((a, b)):
            reports(pool, "in_flight", tasks)
            counts.append(self.wanted(fleet, pool, ratio) or 0)
            assert counts[-1] * slots * ratio >= tasks - 1e-6
            assert counts[-1] == 0 or (counts[-1] - 1) * slots * ratio < tasks
        assert counts[0] <= counts[1]


class TestLatency:
    def wish(self, fleet: Fleet, pool: Pool, **rule: Any) -> targets.Wish:
        return targets.latency(fleet, pool, LatencyTrigger(2.0, **rule), totals(fleet, pool, NOW), NOW)

    @pytest.mark.parametrize(("found", "count"), [(2.0, 4), (2.2, 4), (2.3, 5), (3.0, 6), (4.0, 8), (60.0, 8)])
    def test_more_in_proportion_and_at_most_twice_as_many(self, found: float, count: int) -> None:
        fleet, pool = made(ready=4)
        reports(pool, "response_time_p95_s", *[found] * 4)
        assert self.wish(fleet, pool).count == count

    @pytest.mark.parametrize(
        ("found", "load", "count"), [(1.5, None, 3), (1.6, None, 4), (1.0, 0.3, 3), (1.0, 0.65, 4)]
    )
    def test_one_fewer_where_the_rest_would_still_be_fast_enough(
        self, found: float, load: float | None, count: int
    ) -> None:
        fleet, pool = made(ready=4)
        reports(pool, "response_time_p95_s", *[found] * 4)
        reports(pool, "load", *[load] * 4)
        assert self.wish(fleet, pool).count == count

    def test_the_quantile_is_the_one_asked_for(self) -> None:
        fleet, pool = made(ready=2)
        reports(pool, "response_time_p95_s", 9.0, 9.0)
        assert self.wish(fleet, pool, quantile="p50").count is None

    def test_what_was_reported_before_the_last_start_had_shown_does_not_count(self) -> None:
        fleet, pool = made(ready=2)
        instances = reports(pool, "response_time_p95_s", 9.0, 9.0)
        instances[1].since = NOW - 5.0
        assert self.wish(fleet, pool).reason.code == "no_sample"
        instances[1].since = NOW - 11.0
        assert self.wish(fleet, pool).count == 4

    def test_an_idle_pool_shrinks_without_response_times(self) -> None:
        fleet, pool = made(ready=3)
        reports(pool, "in_flight", 0, 0, 0)
        assert (self.wish(fleet, pool).count, self.wish(fleet, pool).reason.code) == (2, "idle")

    @given(st.integers(2, 40), st.floats(0.01, 100.0), st.one_of(st.none(), st.floats(0.0, 1.0)))
    def test_it_does_not_bounce(self, ready: int, found: float, load: float | None) -> None:
        """Where the response time is as projected after a step down, no step up follows."""
        fleet, pool = made(ready=ready)
        reports(pool, "response_time_p95_s", *[found] * ready)
        reports(pool, "load", *[load] * ready)
        if self.wish(fleet, pool).count != ready - 1:
            return
        after = targets._with_one_fewer(found, totals(fleet, pool, NOW))
        assert after is not None
        fleet, pool = made(ready=ready - 1)
        reports(pool, "response_time_p95_s", *[after] * (ready - 1))
        count = self.wish(fleet, pool).count
        assert count is not None
        assert count <= ready - 1


class TestRecent:
    WINDOWS: ClassVar[dict[str, float]] = {"up_window_s": 0.0, "down_window_s": 300.0}

    def test_nothing_known_of_the_window_holds_what_is_there(self) -> None:
        recent = Recent()
        recent.note(2, 6, 0.0, **self.WINDOWS)
        assert recent.steadied(2, 6, 299.9, **self.WINDOWS) == (6, pytest.approx(299.9))
        assert recent.steadied(2, 6, 300.0, **self.WINDOWS) == (2, 0.0)

    @given(st.lists(st.tuples(st.floats(0.0, 60.0), st.integers(0, 30)), min_size=1, max_size=60))
    def test_it_holds_what_a_list_of_all_wishes_would(self, wishes: list[tuple[float, int]]) -> None:
        windows = {"up_window_s": 45.0, "down_window_s": 120.0}
        recent, now, current = Recent(), 0.0, 10
        highs: list[tuple[float, int]] = []
        lows: list[tuple[float, int]] = []
        for passed_s, wanted in wishes:
            now += passed_s
            for history, window_s in ((highs, 120.0), (lows, 45.0)):
                history[:] = [each for each in history if each[0] > now - window_s] or [(now, current)]
                history.append((now, wanted))
            recent.note(wanted, current, now, **windows)
            held = recent.steadied(wanted, current, now, **windows)[0]
            if wanted < current:
                assert held == min(current, max(count for _, count in highs))
            else:
                assert held == max(current, min(count for _, count in lows))
            assert len(recent.highs) <= 32
            assert recent.highs == sorted(recent.highs, key=lambda each: -each[1])
            current = held

    def test_only_what_holds_the_pool_is_worth_saving(self) -> None:
        recent = Recent()
        assert recent.note(3, 3, 0.0, **self.WINDOWS)
        assert not recent.note(3, 3, 10.0, **self.WINDOWS)
        assert not recent.note(2, 3, 20.0, **self.WINDOWS)
        assert not recent.note(3, 3, 30.0, **self.WINDOWS)
        assert recent.note(4, 3, 40.0, **self.WINDOWS)


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12), st.floats(0.0, 1.0), st.integers(0, 4), st.integers(0, 4)
)
def test_more_load_never_wants_fewer(loads: list[float], more: float, starting: int, silent: int) -> None:
    counts = []
    for extra in (0.0, more):
        fleet, pool = made(ready=len(loads) + silent, starting=starting)
        reports(pool, "load", *[min(1.0, load + extra) for load in loads])
        count = target(fleet, pool)
        assert count is not None
        counts.append(count)
    assert counts[0] <= counts[1]
    assert not math.isnan(counts[1])

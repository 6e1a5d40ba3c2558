"""How many may be started and retired in a period: the rule of the Kubernetes autoscaler, of what came about."""

from __future__ import annotations

import pytest
from fleets import STORIES
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.core import rate
from agentd.core.model import PoolConfig, PoolName, PortRange
from agentd.core.rules import GuardConfig, RateLimit
from agentd.core.state import Pool

NOW = 1000.0


def pool(up: RateLimit | None = None, down: RateLimit | None = None) -> Pool:
    config = PoolConfig(PoolName("research"), ports=PortRange(9101, 9150), guards=GuardConfig(up, down))
    return Pool(config=config)


@pytest.mark.parametrize(
    ("limit", "count", "ups", "downs", "allowed"),
    [
        (RateLimit(60.0, 2), 4, [], [], 6),
        (RateLimit(60.0, 2), 4, [950.0], [], 5),
        (RateLimit(60.0, 2), 4, [940.0], [], 6),  # a period ago is not within it
        (RateLimit(60.0, 2), 4, [990.0, 995.0, 999.0], [], 4),
        (RateLimit(60.0, 2), 4, [], [990.0], 7),  # what was there at the beginning counts
        (RateLimit(60.0, None, 50.0), 5, [], [], 8),
        (RateLimit(60.0, None, 100.0), 7, [990.0], [], 12),
        (RateLimit(60.0, 4, 100.0), 1, [], [], 5),  # the one that allows more
        (RateLimit(60.0, 4, 100.0), 10, [], [], 20),
        (RateLimit(60.0, None, 10.0), 10, [], [], 11),  # 1.1 times 10 is 11, whatever floating point says
        (RateLimit(60.0, 0), 4, [], [], 4),
    ],
    ids=str,
)  # fmt: skip
def test_up(limit: RateLimit, count: int, ups: list[float], downs: list[float], allowed: int) -> None:
    it = pool(up=limit)
    it.ups, it.downs = ups, downs
    assert rate.allowed(it, limit, count, NOW, up=True)[0] == allowed


@pytest.mark.parametrize(
    ("limit", "count", "ups", "downs", "allowed"),
    [
        (RateLimit(60.0, 2), 4, [], [], 2),
        (RateLimit(60.0, 2), 4, [], [990.0], 3),
        (RateLimit(60.0, 2), 4, [990.0], [], 1),
        (RateLimit(60.0, None, 50.0), 5, [], [], 2),
        (RateLimit(60.0, None, 10.0), 5, [], [], 4),
        (RateLimit(60.0, None, 70.0), 10, [], [], 3),
        (RateLimit(60.0, 1, 50.0), 10, [], [], 5),
        (RateLimit(60.0, 0), 4, [], [], 4),
    ],
    ids=str,
)  # fmt: skip
def test_down(limit: RateLimit, count: int, ups: list[float], downs: list[float], allowed: int) -> None:
    it = pool(down=limit)
    it.ups, it.downs = ups, downs
    assert rate.allowed(it, limit, count, NOW, up=False)[0] == allowed


def test_it_goes_on_when_the_oldest_leaves_the_period() -> None:
    limit = RateLimit(60.0, 2)
    it = pool(up=limit)
    it.ups = [950.0, 970.0]
    assert rate.allowed(it, limit, 4, NOW, up=True) == (4, 2, 1010.0)
    assert rate.allowed(it, limit, 4, 1010.0, up=True) == (5, 1, 1030.0)


def test_what_no_rate_looks_at_is_not_kept() -> None:
    it = pool(up=RateLimit(60.0, 2), down=RateLimit(10.0, 2))
    for at in range(1000):
        rate.note(it, float(at), up=True)
    assert len(it.ups) == 60
    it.config = PoolConfig(PoolName("research"))
    rate.note(it, 1000.0, up=True)
    assert it.ups == []


@settings(STORIES)
@given(
    st.integers(1, 5), st.floats(5.0, 50.0), st.lists(st.tuples(st.floats(0.1, 30.0), st.integers(1, 9)), max_size=30)
)  # fmt: skip
def test_in_no_period_more_than_the_count_are_started(
    most: int, period_s: float, wishes: list[tuple[float, int]]
) -> None:
    limit = RateLimit(period_s, most)
    it, count, now, started = pool(up=limit), 1, 0.0, []
    for passed_s, more in wishes:
        now += passed_s
        granted = min(count + more, rate.allowed(it, limit, count, now, up=True)[0])
        for _ in range(granted - count):
            rate.note(it, now, up=True)
            started.append(now)
        count = granted
    for at in started:
        assert sum(1 for each in started if at - period_s < each <= at) <= most

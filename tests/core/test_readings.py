"""What people are shown of a collector: the last number, its age, whether it still counts, and the trouble."""

from __future__ import annotations

from agentd.core.controller import Controller
from agentd.core.messages import Collected
from agentd.core.model import FleetConfig, PoolConfig, PoolName
from agentd.core.rules import CollectorConfig
from agentd.core.views import ReadingView

POOL = PoolName("research")


def test_a_reading_is_shown_with_its_age_and_its_trouble() -> None:
    config = PoolConfig(POOL, collectors=(CollectorConfig("queue", "redis-list", 10.0),))
    controller = Controller(FleetConfig(pools={POOL: config}, enabled=True), 1)

    def shown(now: float) -> ReadingView:
        (reading,) = controller.view(now).pools[0].readings
        return reading

    assert shown(100) == ReadingView("queue", "redis-list", None, None, 10.0, stale=True, trouble="")
    controller.step(Collected(POOL, "queue", None, "answered 503"), 100)
    assert shown(101) == ReadingView("queue", "redis-list", None, None, 10.0, stale=True, trouble="answered 503")
    controller.step(Collected(POOL, "queue", 12.0), 110)
    assert shown(112) == ReadingView("queue", "redis-list", 12.0, 2.0, 10.0, stale=False, trouble="")
    controller.step(Collected(POOL, "queue", None, "answered 503"), 120)
    assert shown(121) == ReadingView("queue", "redis-list", 12.0, 11.0, 10.0, stale=False, trouble="answered 503")
    assert shown(140).stale

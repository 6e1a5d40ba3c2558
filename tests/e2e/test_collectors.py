"""Work that waits in Redis makes a pool grow before any agent has heard of it; when it is done, the pool shrinks."""

from __future__ import annotations

from typing import Any

import pytest
from e2e_fleet import Fleet
from server_fixtures import RedisServer

pytestmark = pytest.mark.host

DEMAND = {"concurrency": 8, "triggers": [{"type": "demand", "target_ratio": 0.95, "down_window_sec": 1}]}


def queue(server: RedisServer, key: str, **more: Any) -> dict[str, Any]:
    return {"type": "redis-list", "url": server.url, "key": key, "every_sec": 0.5, **more}


def test_tasks_in_redis_make_the_pool_grow_and_shrink(fleet: Fleet, redis_server: RedisServer) -> None:
    key = "e2e:grow"
    fleet.configure(
        {"research": fleet.elastic(**DEMAND, collectors={"queue": queue(redis_server, key)})}, autoscaling=True
    )
    fleet.start()
    first = f"research-{fleet.ports[2]}"
    fleet.ready(first)
    fleet.until("the empty queue is read", lambda: [one["value"] for one in fleet.ctl("collectors")] == [0])

    redis_server.redis.rpush(key, *range(20))
    fleet.until("20 tasks have an agent for each 8", lambda: fleet.pool("research")["ready"] == 3)
    (read,) = fleet.ctl("collectors", "research")
    assert (read["name"], read["type"], read["value"], read["trouble"]) == ("queue", "redis-list", 20, "")
    assert fleet.pool("research")["count"] == 3
    assert "20" in fleet.event("scale_up")["reason"]

    redis_server.redis.delete(key)
    fleet.until("nothing waits and one is enough", lambda: len(fleet.ps()) == 1)
    assert fleet.events("stop_forced", "exit") == []


def test_a_queue_that_cannot_be_read_is_told_and_holds_up_nothing(fleet: Fleet, redis_server: RedisServer) -> None:
    key = "e2e:trouble"
    redis_server.redis.set(key, "no list")
    pool = fleet.elastic(**DEMAND, collectors={"queue": queue(redis_server, key)})
    fleet.configure({"research": pool}, autoscaling=True)
    tried = fleet.run("config", "check", "--try-collectors", str(fleet.file))
    assert tried.returncode == 1
    assert "research.queue: Redis answers LLEN e2e:trouble with an error" in tried.stdout

    fleet.start()
    fleet.ready(f"research-{fleet.ports[2]}")
    text = "cannot read research.queue: Redis answers LLEN e2e:trouble with an error"
    fleet.until("it is told", lambda: any(text in line for line in fleet.status()["degraded"]))
    assert "DEGRADED" in fleet.run("status").stdout

    redis_server.redis.delete(key)
    redis_server.redis.rpush(key, *range(12))
    fleet.until("it is read, and agents come", lambda: fleet.pool("research")["ready"] == 2)
    assert fleet.status()["degraded"] == []

    pool["collectors"]["queue"] = queue(redis_server, "e2e:trouble:other")
    redis_server.redis.rpush("e2e:trouble:other", *range(20))
    fleet.configure({"research": pool}, autoscaling=True)
    assert fleet.ctl("reload")["changes"] == ["pools.research.collectors.queue changed"]
    fleet.until("the other queue counts", lambda: fleet.pool("research")["ready"] == 3)

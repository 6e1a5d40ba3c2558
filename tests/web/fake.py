"""A fleet that exists in memory only, with something of everything a page can show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from starlette.testclient import TestClient

from agentd.clock import SystemClock
from agentd.core.effects import Comparison, Demand, Effect, Measured, Metric, Verdict
from agentd.core.messages import (
    Check,
    CheckReply,
    Done,
    Event,
    EventType,
    Record,
    Reply,
    SetAutoscaling,
    StoredRecord,
)
from agentd.core.model import (
    AutoscalingMode,
    Decision,
    FleetConfig,
    HealthCheck,
    HostSample,
    Incarnation,
    InstanceId,
    Limit,
    PoolConfig,
    PoolName,
    Reason,
    RollingState,
    State,
    Target,
    Watched,
    instance_id,
)
from agentd.core.views import FleetView, Headroom, InstanceView, PoolPlan, PoolView, RollingView, StartTimes
from agentd.errors import Refused

MIB = 1024 * 1024
GIB = 1024 * MIB
NOW = 5000.0
WALL = 1708612345.67
ConnectAs = Callable[[int | None], TestClient]
HOSTILE = '<img src=x onerror="document.title=1">'


HELPED = Effect(
    decision="d-research-1",
    pool="research",
    wall=WALL,
    verdict=Verdict.HELPED,
    reason="response time -31 % (-42 % to -18 %) at equal demand per agent",
    before=Measured(samples=41, ready=3.0, load=0.88, response_time_p50_s=2.5),
    after=Measured(samples=24, ready=4.0, load=0.7, response_time_p50_s=1.5),
    per_agent=Comparison(Metric.RESPONSE_TIME, Demand.ARRIVALS, True, -0.31, -0.42, -0.18, 30, 22),
)


@dataclass
class FakeClock:
    monotonic: float = NOW
    since_epoch: float = WALL

    def now(self) -> float:
        return self.monotonic

    def wall(self) -> float:
        return self.since_epoch


@dataclass
class FakeAbout:
    version: str = "0.1.0"
    driver: str = "process"
    state_dir: Path = Path("/var/lib/agentd")
    config_file: Path | None = Path("/etc/agentd/agentd.yaml")
    http_address: str = "127.0.0.1:8766"
    agents_address: str = "unix:/run/agentd/agents.sock"
    started: float = NOW - 3600.0
    operators: frozenset[int] = frozenset({4242})


def decided(
    pool: str, current: int, wanted: int, granted: int, why: Reason, *limits: Limit, unless: str = ""
) -> Decision:
    return Decision(
        id=f"d-{pool}-1",
        pool=PoolName(pool),
        at=NOW,
        wall=WALL,
        current=current,
        wanted=wanted,
        granted=granted,
        reasons=(why,),
        limits=limits,
        counterfactual=unless,
    )


def grown(pool: str) -> Decision:
    return decided(pool, 3, 4, 4, Reason("high_load", "High load: 0.88 > 0.75"))


def rich_config() -> FleetConfig:
    names = ("primary", "research", "execution", "analysis", "planning", "testing")
    pools = {PoolName(name): PoolConfig(PoolName(name)) for name in names}
    return FleetConfig(pools=pools, enabled=True, autoscaling_enabled=True)


def pool_view(name: str, count: int, next_: Decision, **changes: Any) -> PoolView:
    view = PoolView(
        name=PoolName(name),
        count=count,
        ready=count,
        starting=0,
        draining=0,
        unhealthy=0,
        failed=0,
        min=1,
        max=5,
        capacity=5,
        core=1,
        load=None,
        queue_length=0,
        in_flight=0,
        concurrency=2,
        policy="threshold",
        scale_up_threshold=0.75,
        scale_down_threshold=0.25,
        target=None,
        target_expires_in_s=None,
        headroom=Headroom(14, "memory", "memory for 14 more"),
        footprint_bytes=96 * MIB,
        footprint_learned=True,
        next=next_,
        up_cooldown_s=0.0,
        down_cooldown_s=0.0,
        bundled_agent=False,
        cost_per_hour=0.0,
        start_failure="",
        rolling=RollingView(
            state=RollingState.ROLLING,
            owner="alice",
            total=3,
            done=1,
            max_unavailable=0,
            away=(InstanceId("research-9101"),),
            stand_in="research-9103",
            text="restarting 2 of 3, waiting for research-9101 to be ready",
            no_stand_in="",
        ),
        start_times=StartTimes(),
        effect=None,
        measuring="",
    )
    return replace(view, **changes)


def instance_view(pool: str, port: int, state: State = State.READY, **changes: Any) -> InstanceView:
    view = InstanceView(
        id=instance_id(PoolName(pool), port),
        pool=PoolName(pool),
        port=port,
        core_name=None,
        incarnation=Incarnation(f"{port}a7"),
        pid=20000 + port,
        state=state,
        cause="",
        age_s=1800.0,
        state_age_s=1790.0,
        load=None,
        queue_length=None,
        in_flight=None,
        tasks_completed=None,
        response_time_p50_s=None,
        response_time_p95_s=None,
        last_beat_age_s=None,
        missed_beats=0,
        restarts=0,
        oom_kills=0,
        memory_bytes=97 * MIB,
        cpu_cores=0.12,
        labels={},
        health=HealthCheck.HEARTBEAT,
        concurrency=2,
        loop_blocked_s=None,
    )
    return replace(view, **changes)


def busy(load: float, queue: int = 0, tasks: int = 420) -> dict[str, Any]:
    return {
        "load": load,
        "queue_length": queue,
        "in_flight": round(load * 2),
        "tasks_completed": tasks,
        "response_time_p50_s": 0.4 + load,
        "response_time_p95_s": 0.9 + 3 * load,
        "last_beat_age_s": 2.4,
    }


def rich_pools() -> tuple[PoolView, ...]:
    steady = Reason("within", "load is between 0.25 and 0.75")
    headroom = Limit("headroom_memory", "memory headroom allows 4: 310 MiB more are needed for 5")
    cooldown = Limit("down_cooldown", "scaled 388 s ago, scale-down waits 600 s", until=NOW + 212.0)
    high = Reason("high_load", "High load: 0.88 > 0.75")
    low = Reason("low_load", "Low load: 0.11 < 0.25")
    target = Target(3, "alice", "regression run tonight", NOW + 2400.0)
    return (
        pool_view("primary", 1, decided("primary", 1, 1, 1, steady), max=1, capacity=1, load=0.42, in_flight=1),
        pool_view(
            "research",
            4,
            decided("research", 4, 5, 4, high, headroom, unless="grows once 310 MiB of memory are free"),
            ready=3,
            starting=1,
            capacity=4,
            load=0.88,
            queue_length=17,
            in_flight=6,
            headroom=Headroom(0, "memory", "310 MiB short of one more"),
            start_times=StartTimes(1.25, 4.0, 12, 2),
            effect=HELPED,
            measuring="d-research-2",
            up_cooldown_s=42.0,
            bundled_agent=True,
        ),
        pool_view(
            "execution",
            3,
            decided("execution", 3, 2, 3, low, cooldown, unless="shrinks in 212 s if the load stays below 0.25"),
            load=0.11,
            in_flight=1,
            draining=1,
            down_cooldown_s=212.0,
        ),
        pool_view("analysis", 2, decided("analysis", 2, 2, 2, steady), ready=1, unhealthy=1, load=0.55, in_flight=1),
        pool_view(
            "planning", 1, decided("planning", 1, 1, 1, Reason("no_samples", "no agent has reported a load yet"))
        ),
        pool_view(
            "testing",
            2,
            decided("testing", 2, 3, 3, Reason("target", "alice asks for 3: regression run tonight")),
            failed=1,
            load=0.61,
            target=target,
            target_expires_in_s=2400.0,
        ),
    )


def rich_instances() -> tuple[InstanceView, ...]:
    return (
        instance_view("primary", 9001, core_name="primary", **busy(0.42)),
        instance_view("research", 9002, core_name="researcher", **busy(0.91, queue=9), restarts=1),
        instance_view("research", 9101, **busy(0.86, queue=5), labels={"model": "llama3:8b"}),
        instance_view("research", 9102, **busy(0.87, queue=3), labels={"model": HOSTILE}),
        instance_view("research", 9103, State.STARTING, age_s=3.0, state_age_s=3.0),
        instance_view("execution", 9003, core_name="executor", **busy(0.15)),
        instance_view("execution", 9201, **busy(0.10)),
        instance_view("execution", 9202, **busy(0.08)),
        instance_view("execution", 9203, State.DRAINING, **busy(0.5), cause="scale-down", state_age_s=12.0),
        instance_view("analysis", 9004, core_name="analyst", **busy(0.55)),
        instance_view(
            "analysis", 9301, **{**busy(0.55), "last_beat_age_s": 251.0}, missed_beats=2, cause="silent for 251 s"
        ),
        instance_view("planning", 9005, core_name="planner"),
        instance_view("testing", 9006, core_name="tester", **busy(0.7)),
        instance_view(
            "testing", 9501, State.BACKOFF, pid=0, cause="exit code 1; restarts in 3.2 s", restarts=4, memory_bytes=None
        ),
        instance_view(
            "testing", 9502, State.FAILED, pid=0, cause=f"crash loop: {HOSTILE}", restarts=10, memory_bytes=None
        ),
    )


def rich_view() -> FleetView:
    watched = (
        Watched("ollama", running=True, pids=2, memory_bytes=6 * GIB, cpu_cores=3.4),
        Watched("qdrant", running=False, pids=0, memory_bytes=0, cpu_cores=0.0),
    )
    host = HostSample(
        cores=8,
        cpu_used_cores=5.2,
        memory_total_bytes=32 * GIB,
        memory_available_bytes=int(3.1 * GIB),
        disk_free_bytes=211 * GIB,
        memory_pressure_percent=1.7,
        cpu_pressure_percent=14.2,
        io_pressure_percent=0.0,
        disk_write_bytes_per_s=3.5 * MIB,
        load_average=6.1,
        watched=watched,
    )
    return FleetView(
        enabled=True,
        autoscaling=AutoscalingMode(enabled=True),
        pools=rich_pools(),
        instances=rich_instances(),
        host=host,
        recovering_s=0.0,
        next_check_s=23.0,
        scaling_events=5,
        unhealthy=1,
        epoch=7,
    )


def rich_records() -> list[StoredRecord]:
    told = [
        Record(EventType.AGENTD_START, "agentd 0.1.0 started, epoch 7"),
        Record(EventType.ADOPT, "runs already, pid 29101", pool="research", instance="research-9101"),
        Record(EventType.SCALE_DOWN, "Low load: 0.15 < 0.25", pool="execution", instance="execution-9204"),
        Record(EventType.READY, "ready after 1.2 s", pool="research", instance="research-9102"),
        Record(EventType.TARGET, "3 instances for 1 h: regression run tonight", pool="testing", actor="alice"),
        Record(EventType.EXIT, "exit code 1", pool="testing", instance="testing-9502"),
        Record(EventType.CRASH_LOOP, f"gave up after 10 failures: {HOSTILE}", pool="testing", instance="testing-9502"),
        Record(EventType.REPLACE, "missed 3 heartbeats", pool="analysis", instance="analysis-9302"),
        Record(EventType.LATE, "silent for 130 s", pool="analysis", instance="analysis-9301"),
        Record(EventType.SCALE_UP, "High load: 0.87 > 0.75", pool="research", instance="research-9103"),
        Record(EventType.HOLD, "memory headroom allows 4: 310 MiB more are needed for 5", pool="research"),
    ]
    first = WALL - 60.0 * len(told)
    return [StoredRecord(at + 1, first + 60.0 * at, record) for at, record in enumerate(told)]


@dataclass
class FakeRuntime:
    """Satisfies `agentd.web.fleet.Fleet`; what it shows is what a test has put into it."""

    clock: FakeClock | SystemClock = field(default_factory=FakeClock)
    config: FleetConfig = field(default_factory=rich_config)
    shown: FleetView = field(default_factory=rich_view)
    wrong: tuple[str, ...] = ()
    records: list[StoredRecord] = field(default_factory=rich_records)
    history: list[Decision] = field(default_factory=lambda: [grown("research")])
    submitted: list[Event] = field(default_factory=list)
    refusal: Refused | None = None
    oldest_kept: int = 1
    watchers: int = 0
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    def view(self) -> FleetView:
        return self.shown

    def degraded(self) -> tuple[str, ...]:
        return self.wrong

    async def submit(self, event: Event) -> Reply:
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append(event)
        match event:
            case SetAutoscaling():
                mode = AutoscalingMode(event.enabled, event.owner, event.reason, self.clock.wall())
                self.shown = replace(self.shown, autoscaling=mode)
                switched = "switched on" if event.enabled else "switched off"
                await self.add(Record(EventType.AUTOSCALING, f"autoscaling {switched}", actor=event.owner))
                return Done()
            case Check():
                return CheckReply(tuple(pool.next for pool in self.shown.pools))
            case _:
                raise AssertionError(event)

    async def events(
        self, *, limit: int, pool: str = "", instance: str = "", types: tuple[EventType, ...] = ()
    ) -> list[StoredRecord]:
        found = [
            each
            for each in reversed(self.records)
            if (not pool or each.record.pool == pool)
            and (not instance or each.record.instance == instance)
            and (not types or each.record.type in types)
        ]
        return found[:limit]

    async def decisions(self, pool: PoolName, limit: int) -> list[Decision]:
        return [each for each in self.history if each.pool == pool][:limit]

    def plan(self, pool: PoolName | None = None) -> tuple[PoolPlan, ...]:
        if pool is not None and pool not in [each.name for each in self.shown.pools]:
            raise Refused("UNKNOWN_POOL", f"no pool {pool!r}", status="NOT_FOUND")
        return tuple(
            PoolPlan(each.next, starts=(InstanceId(f"{each.name}-9107"),))
            for each in self.shown.pools
            if pool in (None, each.name)
        )

    async def watch(self, after: int | None) -> AsyncIterator[StoredRecord]:
        if after is not None and after < self.oldest_kept - 1:
            raise Refused("TOKEN_EXPIRED", f"cannot resume after event {after}: it is gone", status="OUT_OF_RANGE")
        last = self.last_id() if after is None else after
        self.watchers += 1
        try:
            while True:
                async with self.arrived:
                    while self.last_id() <= last:
                        await self.arrived.wait()
                for each in [each for each in self.records if each.id > last]:
                    yield each
                    last = each.id
        finally:
            self.watchers -= 1

    async def add(self, record: Record) -> StoredRecord:
        stored = StoredRecord(self.last_id() + 1, self.clock.wall(), record)
        self.records.append(stored)
        async with self.arrived:
            self.arrived.notify_all()
        return stored

    def last_id(self) -> int:
        return self.records[-1].id if self.records else 0

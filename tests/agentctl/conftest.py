"""A fake agentd on a Unix socket with a busy fleet, and a way to run agentctl against it in this process."""

from __future__ import annotations

import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from agentd.agentctl import following
from agentd.agentctl.app import run
from agentd.v1 import common_pb2, control_pb2_grpc, discovery_pb2, discovery_pb2_grpc
from agentd.v1 import control_pb2 as pb

WALL = 1_700_000_000.0


def refused(reason: str, text: str, code: grpc.StatusCode) -> Any:
    """A google.rpc status as agentd answers it."""
    detail = AnyMessage()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="agentd"))
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=text, details=[detail]))


class FakeControl(control_pb2_grpc.ControlServiceServicer, discovery_pb2_grpc.DiscoveryServiceServicer):
    """Answers from its attributes and keeps every request. `refusals`: method name -> status to abort with."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.requests: list[Message] = []
        self.refusals: dict[str, Any] = {}
        self.status = fleet()
        self.grants = [pb.Grant(pool="research", current=2, wanted=4, granted=4)]
        self.past = [event(n) for n in range(1, 6)]
        self.streams: list[list[pb.Event] | Any] = []
        self.watched: queue.SimpleQueue[Message] = queue.SimpleQueue()  # for whoever waits until somebody follows
        self.restarted = pb.RestartResponse(instances=["research-9101"])
        self.pools_only: Any = None  # the status that a rolling restart is refused with
        self.gone = False
        self.following: pb.Decision | None = decision("d-99", wall=WALL + 40)
        self.plans = [
            pb.PoolPlan(
                decision=limited("d-9"),
                starts=[pb.PlannedInstance(id="research-9103", port=9103)],
                takes_back=[pb.PlannedInstance(id="research-9104", port=9104)],
            )
        ]
        self.forecast = pb.GetForecastResponse(pool="research")
        self.log = b"one\ntwo\nthree\n"
        self.endpoints = endpoints()
        self.changes = [discovery_pb2.WatchResponse(revision="7.1.", snapshot=True, endpoints=self.endpoints)]
        self.changes_later: list[discovery_pb2.WatchResponse] = []
        self.reloaded = pb.ReloadResponse(config_file="/etc/agentd.yaml")

    def _take(self, name: str, request: Message, context: grpc.ServicerContext) -> None:
        self.requests.append(request)
        if name in self.refusals:
            context.abort_with_status(self.refusals[name])

    def GetStatus(self, request: Any, context: Any) -> Any:
        self._take("GetStatus", request, context)
        return pb.GetStatusResponse(status=self.status)

    def ListInstances(self, request: Any, context: Any) -> Any:
        self._take("ListInstances", request, context)
        if self.gone:
            left = [one for one in self.status.instances if one.state != common_pb2.INSTANCE_STATE_DRAINING]
            del self.status.instances[:]
            self.status.instances.extend(left)
        wanted = [one for one in self.status.instances if request.pool in ("", one.pool)]
        return pb.ListInstancesResponse(instances=wanted)

    def Scale(self, request: Any, context: Any) -> Any:
        self._take("Scale", request, context)
        return pb.ScaleResponse(grants=self.grants)

    def SetAutoscaling(self, request: Any, context: Any) -> Any:
        self._take("SetAutoscaling", request, context)
        mode = pb.AutoscalingMode(enabled=request.enabled, owner=request.owner, reason=request.reason, since_wall=WALL)
        pause = pb.Pause(direction=request.direction, owner=request.owner, reason=request.reason)
        if request.HasField("for_s"):
            pause.expires_in_s = request.for_s
        held = pb.PoolPauses(pool=request.pool or "research", pauses=[pause])
        return pb.SetAutoscalingResponse(autoscaling=mode, pools=[] if request.enabled else [held])

    def Propose(self, request: Any, context: Any) -> Any:
        self._take("Propose", request, context)
        offer = pb.Offer(source=request.source, count=request.count, reason=request.reason, expires_in_s=540.0)
        return pb.ProposeResponse(offers=[] if request.withdraw else [offer])

    def Check(self, request: Any, context: Any) -> Any:
        self._take("Check", request, context)
        return pb.CheckResponse(decisions=[pool.next for pool in self.status.pools])

    def Explain(self, request: Any, context: Any) -> Any:
        self._take("Explain", request, context)
        pool = next(pool for pool in self.status.pools if pool.name == request.pool)
        past = [decision(f"d-{n}", wall=WALL - n) for n in range(request.history)]
        if request.HasField("at_wall"):
            past = [one for one in past if one.wall <= request.at_wall]
            return pb.ExplainResponse(pool=pool, decisions=past, following=self.following)
        return pb.ExplainResponse(pool=pool, decisions=past)

    def Plan(self, request: Any, context: Any) -> Any:
        self._take("Plan", request, context)
        return pb.PlanResponse(plans=self.plans)

    def GetForecast(self, request: Any, context: Any) -> Any:
        self._take("GetForecast", request, context)
        return self.forecast

    def ListEvents(self, request: Any, context: Any) -> Any:
        self._take("ListEvents", request, context)
        wanted = [
            one
            for one in reversed(self.past)
            if request.pool in ("", one.pool)
            and request.instance in ("", one.instance)
            and (not request.types or one.type in request.types)
        ]
        return pb.ListEventsResponse(events=wanted[: request.limit or 100])

    def WatchEvents(self, request: Any, context: Any) -> Any:
        """Each call plays the next of `streams`: events, or a status to end with; then the stream ends.

        An event of the type "endless" keeps it open.
        """
        self._take("WatchEvents", request, context)
        self.watched.put(request)
        for one in self.streams.pop(0) if self.streams else []:
            if isinstance(one, pb.Event) and one.type == "endless":
                ended = threading.Event()
                context.add_callback(ended.set)
                ended.wait()
                return
            if not isinstance(one, pb.Event):
                context.abort_with_status(one)
            yield pb.WatchEventsResponse(event=one)

    def ReadLogs(self, request: Any, context: Any) -> Any:
        self._take("ReadLogs", request, context)
        for start in range(0, len(self.log), 3):
            yield pb.ReadLogsResponse(data=self.log[start : start + 3])

    def Resolve(self, request: Any, context: Any) -> Any:
        self._take("Resolve", request, context)
        wanted = [one for one in self.endpoints if request.pool in ("", one.pool)]
        return discovery_pb2.ResolveResponse(endpoints=wanted, revision="7.1.")

    def Watch(self, request: Any, context: Any) -> Any:
        """Plays `changes`, the next time `changes_later`; then the stream ends."""
        self._take("Watch", request, context)
        yield from self.changes
        self.changes, self.changes_later = self.changes_later, []

    def Drain(self, request: Any, context: Any) -> Any:
        """The instance drains, and is no longer there when `gone`."""
        self._take("Drain", request, context)
        for one in self.status.instances:
            if request.name in (one.id, one.core_name):
                one.state = common_pb2.INSTANCE_STATE_DRAINING
                return pb.DrainResponse(instance=one)
        raise AssertionError(request.name)

    def Configure(self, request: Any, context: Any) -> Any:
        self._take("Configure", request, context)
        return pb.ConfigureResponse(instances=[one for one in self.status.instances if one.pool == "research"])

    def Restart(self, request: Any, context: Any) -> Any:
        self._take("Restart", request, context)
        if request.rolling and self.pools_only is not None:
            context.abort_with_status(self.pools_only)
        return self.restarted

    def Reload(self, request: Any, context: Any) -> Any:
        self._take("Reload", request, context)
        return self.reloaded

    def Shutdown(self, request: Any, context: Any) -> Any:
        self._take("Shutdown", request, context)
        return pb.ShutdownResponse(stopping=0 if request.keep_agents else 3)


def event(number: int, **changes: str) -> pb.Event:
    """Event `number` of the fake's history."""
    values = {
        "type": "scale_up",
        "pool": "research",
        "instance": f"research-{9100 + number}",
        "reason": "High load: 0.88 > 0.75",
    } | changes
    return pb.Event(resume_token=f"t{number}", wall=WALL + number, decision=f"d-{number}", **values)


def decision(name: str, *, wall: float = WALL) -> pb.Decision:
    """A scale-up that headroom cut short."""
    return pb.Decision(
        id=name,
        pool="research",
        wall=wall,
        current=2,
        wanted=4,
        granted=3,
        reasons=[pb.Reason(code="threshold", text="High load: 0.88 > 0.75")],
        limits=[
            pb.Limit(code="headroom", text="memory headroom allows 3 (needs 310 MiB more)"),
            pb.Limit(code="up_cooldown", text="last scale-up 90 s ago", lifts_in_s=210.0),
        ],
        counterfactual="with 310 MiB more memory it would grow to 4",
    )


def limited(name: str) -> pb.Decision:
    """A scale-up that its maximum and then memory cut short, with all numbers."""
    return pb.Decision(
        id=name,
        pool="research",
        wall=WALL,
        current=2,
        wanted=7,
        granted=4,
        reasons=[pb.Reason(code="high_demand", text="21 tasks in flight or waiting")],
        limits=[
            pb.Limit(code="max_agents", text="its maximum is 5", allows=5),
            pb.Limit(code="host_memory", text="memory: 12 MiB more needed", allows=4),
        ],
        counterfactual="would go to 7 without max_agents, host_memory",
        binding="host_memory",
        chain=[
            pb.Link(code="wanted", count=7),
            pb.Link(code="max_agents", count=5),
            pb.Link(code="host_memory", count=4),
            pb.Link(code="granted", count=4),
        ],
    )


def fleet() -> pb.Status:
    """Two pools, one of them hot, limited and with a target; four instances in various states."""
    return pb.Status(
        version="0.1.0",
        controller_epoch=7,
        driver="process",
        uptime_s=11_520.0,
        enabled=True,
        autoscaling=pb.AutoscalingMode(enabled=False, owner="bob", reason="measuring", since_wall=WALL),
        pools=[hot_pool(), calm_pool()],
        instances=instances(),
        host=host(),
        recovering_s=8.0,
        next_check_s=42.0,
        scaling_events=5,
        unhealthy_agents=1,
        degraded=["the store is read-only: disk full; history is not kept"],
        state_dir="/var/lib/agentd",
        config_file="/etc/agentd/agentd.yaml",
        http_address="127.0.0.1:8766",
        agents_address="unix:/run/agentd/agents.sock",
        cost=cost(),
        advice=[
            pb.Advice(code="held_long", pool="research", text="has wanted 4 for 40 min and stays at 3: host_memory"),
            pb.Advice(code="autoscaling_off", text="bob switched it off 3 days ago: agentctl auto on ends that"),
        ],
    )


def cost() -> pb.Cost:
    """Of the hot pool, and so of all."""
    return pb.Cost(
        currency="EUR",
        per_hour=1.5,
        one_more_per_hour=0.5,
        hour=pb.Spent(amount=0.75, agent_hours=1.5),
        day=pb.Spent(amount=21.0, agent_hours=40.0, cpu_hours=2.0),
        month=pb.Spent(amount=340.25, agent_hours=640.0, cpu_hours=31.5, gib_hours=0.02, tasks=12_345),
        projected_month=812.5,
        budgets=[
            pb.Budget(window="day", amount=20.0, spent=21.0, left=-1.0, ends_in_s=3600.0),
            pb.Budget(window="month", amount=1000.0, spent=340.25, left=659.75, ends_in_s=864_000.0),
        ],
        scalings=[pb.ScalingCost(decision="7-3", wall=WALL, change=-2, per_hour=-1.0)],
    )


def rules() -> list[pb.Rule]:
    return [
        pb.Rule(
            type="threshold",
            parameters=[
                pb.Parameter(name="scale_up_threshold", value="0.75"),
                pb.Parameter(name="scale_down_threshold", value="0.25"),
            ],
            up_cooldown_s=300.0,
            down_cooldown_s=600.0,
        ),
        pb.Rule(type="adaptive"),
    ]


def hot_pool() -> pb.Pool:
    """A pool at work: overloaded, cut short by headroom, with a person's target."""
    return pb.Pool(
        name="research",
        count=3,
        ready=2,
        starting=1,
        draining=1,
        unhealthy=1,
        failed=1,
        min=1,
        max=5,
        capacity=3,
        core=1,
        load=0.88,
        queue_length=12,
        in_flight=3,
        concurrency=3,
        policy="threshold",
        scale_up_threshold=0.75,
        scale_down_threshold=0.25,
        target=pb.Target(count=4, owner="alice", reason="batch run", expires_in_s=2520.0),
        headroom=pb.Headroom(instances=1, resource="memory", text="memory allows 1 more"),
        footprint_bytes=104_857_600,
        footprint_learned=True,
        next=decision("d-9"),
        up_cooldown_s=210.0,
        cost_per_hour=1.5,
        cost=cost(),
        rules=rules(),
        guards=[pb.Parameter(name="rate.up", value="count 4 in 60 s")],
        pauses=[pb.Pause(direction="down", owner="carol", reason="release", expires_in_s=60.0)],
        held_s=2400.0,
    )


def calm_pool() -> pb.Pool:
    """A pool with nothing to do, which runs the bundled sample agent."""
    return pb.Pool(
        name="execution",
        count=1,
        ready=1,
        min=1,
        max=5,
        capacity=5,
        core=1,
        concurrency=1,
        policy="threshold",
        scale_up_threshold=0.75,
        scale_down_threshold=0.25,
        headroom=pb.Headroom(resource="unknown"),
        footprint_bytes=104_857_600,
        next=pb.Decision(id="d-8", pool="execution", current=1, wanted=1, granted=1),
        bundled_agent=True,
    )


def instances() -> list[pb.Instance]:
    """A busy core agent, one that has not spoken yet, one late, one failed."""
    young = pb.Instance(
        id="research-9101",
        pool="research",
        endpoint=common_pb2.Endpoint(port=9101),
        incarnation="b2",
        pid=4243,
        state=common_pb2.INSTANCE_STATE_STARTING,
        age_s=1.0,
        health="heartbeat",
    )
    late = pb.Instance(
        id="execution-9003",
        pool="execution",
        endpoint=common_pb2.Endpoint(port=9003),
        core_name="executor",
        incarnation="c3",
        pid=4244,
        state=common_pb2.INSTANCE_STATE_READY,
        age_s=90_000.0,
        load=0.1,
        last_beat_age_s=130.0,
        missed_beats=1,
        health="heartbeat",
        loop_blocked_s=41.2,
    )
    failed = pb.Instance(
        id="research-9102",
        pool="research",
        endpoint=common_pb2.Endpoint(port=9102),
        incarnation="d4",
        state=common_pb2.INSTANCE_STATE_FAILED,
        cause="crash_loop: exit code 1,\n10 times in a row",
        age_s=60.0,
        restarts=10,
        health="heartbeat",
    )
    return [late, busy_instance(), young, failed]


def endpoints() -> list[discovery_pb2.InstanceEndpoint]:
    """One at work, one that has said nothing yet, one that drains."""
    busy = discovery_pb2.InstanceEndpoint(
        id="research-9002",
        pool="research",
        endpoint=common_pb2.Endpoint(port=9002),
        host="127.0.0.1",
        incarnation="a1",
        state=common_pb2.INSTANCE_STATE_READY,
        weight=0.5263,
        load=0.9,
        queue_length=7,
        in_flight=1,
        concurrency=3,
        response_time_p50_s=0.4,
        response_time_p95_s=1.25,
    )
    young, leaving = discovery_pb2.InstanceEndpoint(), discovery_pb2.InstanceEndpoint()
    for one, port, state, weight in (
        (young, 9101, common_pb2.INSTANCE_STATE_READY, 1.0),
        (leaving, 9102, common_pb2.INSTANCE_STATE_DRAINING, 0.0),
    ):
        one.MergeFrom(discovery_pb2.InstanceEndpoint(id=f"research-{port}", pool="research", host="127.0.0.1"))
        one.endpoint.port, one.incarnation, one.state, one.weight, one.concurrency = port, "b2", state, weight, 3
    return [busy, young, leaving]


def busy_instance() -> pb.Instance:
    return pb.Instance(
        id="research-9002",
        pool="research",
        endpoint=common_pb2.Endpoint(port=9002),
        core_name="researcher",
        incarnation="a1",
        pid=4242,
        state=common_pb2.INSTANCE_STATE_READY,
        age_s=3700.0,
        state_age_s=3690.0,
        load=0.9,
        queue_length=7,
        in_flight=1,
        tasks_completed=2**53 + 1,
        response_time_p50_s=0.4,
        response_time_p95_s=1.25,
        last_beat_age_s=3.2,
        restarts=2,
        memory_bytes=2**33,
        cpu_cores=0.5,
        labels={"model": "small", "gpu": "none"},
        health="heartbeat",
    )


def host() -> pb.Host:
    return pb.Host(
        cores=4,
        cpu_used_cores=1.5,
        memory_total_bytes=16 * 2**30,
        memory_available_bytes=3 * 2**30,
        memory_reserve_bytes=int(1.6 * 2**30),
        disk_free_bytes=20 * 2**30,
        memory_pressure_percent=2.5,
        io_pressure_percent=0.0,
        disk_read_bytes_per_s=1024.0,
        disk_write_bytes_per_s=2_000_000.0,
        load_average=1.75,
        watched=[
            pb.WatchedProcess(name="ollama", running=True, pids=2, memory_bytes=4 * 2**30, cpu_cores=1.25),
            pb.WatchedProcess(name="redis"),
        ],
    )


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Daemon:
    """The fake and where it answers."""

    fake: FakeControl
    address: str
    refused: Callable[[str, str, grpc.StatusCode], Any] = field(default=refused)
    event: Callable[..., pb.Event] = field(default=event)


@pytest.fixture(scope="session")
def _served() -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="agentctl-"))  # short: a socket's path has at most 107 bytes
    fake = FakeControl()
    server = grpc.server(ThreadPoolExecutor(4))
    control_pb2_grpc.add_ControlServiceServicer_to_server(fake, server)
    discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(fake, server)
    address = f"unix:{directory}/control.sock"
    server.add_insecure_port(address)
    server.start()
    yield Daemon(fake, address)
    server.stop(0).wait()
    shutil.rmtree(directory)


@pytest.fixture
def daemon(_served: Daemon, monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """Whoever follows has no patience with a daemon that goes away: the end of the fake's stream is the end."""
    monkeypatch.setattr(following, "AWAY_MAX_S", 0.0)
    _served.fake.reset()
    return _served


@pytest.fixture
def agentctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run agentctl in this process, with an environment in which only the test's options decide."""
    for name in ("AGENTD_ADDRESS", "SUDO_USER", "NO_COLOR", "COLUMNS", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)

    def invoke(*arguments: str) -> Result:
        code = run(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return invoke


@pytest.fixture
def ctl(agentctl: Callable[..., Result], daemon: Daemon) -> Callable[..., Result]:
    """Run agentctl against the fake."""
    return lambda *arguments: agentctl("--address", daemon.address, *arguments)


@pytest.fixture
def own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who follows waits in a time that passes while it waits for agentd, and not while this machine is busy."""
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))

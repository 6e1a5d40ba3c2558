"""A whole agentd but for its processes: the runtime on scripted instances, behind its real gRPC servers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status
from msgspec import structs

from agentd.about import About
from agentd.core.controller import Controller
from agentd.core.messages import Probed
from agentd.core.model import (
    CoreAgent,
    FleetConfig,
    Incarnation,
    InstanceId,
    PoolConfig,
    PoolName,
    PortRange,
    RestartPolicy,
    State,
)
from agentd.core.views import InstanceView
from agentd.discovery import Discovery
from agentd.drivers.memory import MemoryDriver, MemoryHost
from agentd.errors import Refused
from agentd.logfiles import LogFiles
from agentd.rpc.agents import AgentService
from agentd.rpc.control import ControlService
from agentd.rpc.discovery import DiscoveryService
from agentd.rpc.identity import PeerOf, unverified
from agentd.rpc.operations import Reloaded
from agentd.rpc.server import Inherited, Servers
from agentd.rpc.services import Services
from agentd.runtime import Runtime
from agentd.store import Bounds, Store
from agentd.v1 import agent_pb2, agent_pb2_grpc, common_pb2, control_pb2_grpc, discovery_pb2_grpc

P = ParamSpec("P")
Listeners = tuple[socket.socket, socket.socket]  # of agents, of control
EPOCH = 1
POOL = PoolConfig(PoolName("research"), core=(CoreAgent("researcher", 9002),), min=3, ports=PortRange(9101, 9150))
FLEET = FleetConfig(pools={POOL.name: POOL}, enabled=True, autoscaling_enabled=True, heartbeat_timeout_s=30.0)
# Who exits is seen to wait for its restart: that takes longer than any test.
FLEET_OF_LONG_WAITS = structs.replace(
    FLEET, pools={POOL.name: structs.replace(POOL, restart=RestartPolicy(initial_s=3600.0, max_s=3600.0))}
)


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test on an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class HandClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return 1_700_000_000.0 + self.at


@dataclass
class FakeOperations:
    """What the daemon would do, noted down."""

    reloads: list[str] = field(default_factory=list)
    shutdowns: list[tuple[bool, str]] = field(default_factory=list)
    reload_fails: str = ""
    gate: asyncio.Event | None = None  # a reload waits for it

    async def reload(self, owner: str) -> Reloaded:
        self.reloads.append(owner)
        if self.gate is not None:
            await self.gate.wait()
        if self.reload_fails:
            raise Refused("CONFIG_INVALID", self.reload_fails, status="INVALID_ARGUMENT")
        return Reloaded("/etc/agentd.yaml", ("a warning",), ("max: 5 -> 6",))

    async def shutdown(self, *, keep_agents: bool, owner: str) -> int:
        self.shutdowns.append((keep_agents, owner))
        return 0 if keep_agents else 3


@dataclass
class Serving:
    """What a test talks to, and what it looks at."""

    runtime: Runtime
    controller: Controller
    clock: HandClock
    host: MemoryHost
    operations: FakeOperations
    logs: LogFiles
    agents: agent_pb2_grpc.AgentServiceAsyncStub
    control: control_pb2_grpc.ControlServiceAsyncStub
    directory: Discovery
    discovery: discovery_pb2_grpc.DiscoveryServiceAsyncStub  # on the agents' socket
    channels: tuple[aio.Channel, aio.Channel]
    service: AgentService

    def instance(self, ident: str) -> InstanceView:
        return next(view for view in self.runtime.view().instances if view.id == ident)

    def beat(self, ident: str = "research-9101", seq: int = 1, **values: Any) -> agent_pb2.Heartbeat:
        """A heartbeat of the present process of `ident`."""
        incarnation = self.instance(ident).incarnation
        ref = common_pb2.InstanceRef(id=ident, incarnation=incarnation)
        return agent_pb2.Heartbeat(instance=ref, seq=seq, **values)

    async def heartbeat(self, *beats: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatResponse:
        return await self.agents.Heartbeat(agent_pb2.HeartbeatRequest(heartbeats=beats))

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for what the runtime does in the background."""
        async with asyncio.timeout(60.0):
            while not true():
                await asyncio.sleep(0)

    async def stored(self) -> None:
        """Wait until all that has happened is in the store: this is taken after it, and changes nothing."""
        await self.runtime.submit(Probed(InstanceId("nobody-1"), Incarnation("")))

    async def everyone_ready(self) -> None:
        await self.until(lambda: all(view.state is State.STARTING for view in self.runtime.view().instances))
        for view in self.runtime.view().instances:
            await self.heartbeat(self.beat(view.id, load=0.5))
        assert all(view.state is State.READY for view in self.runtime.view().instances)
        await self.stored()


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    config: FleetConfig = FLEET,
    *,
    listeners: Listeners | None = None,
    peer_of: PeerOf | None = None,
    agents_peer: PeerOf = unverified,
) -> AsyncIterator[Serving]:
    """Agentd, with its sockets in `directory`, or on `listeners`.

    `peer_of`, `agents_peer`: whom to take callers for, on the control socket and on that of agents.
    """
    clock, host, operations = HandClock(), MemoryHost(), FakeOperations()
    store = Store.open(directory / "agentd.db", Bounds(), clock)
    driver, controller = MemoryDriver(host, clock=clock), Controller(config, EPOCH)
    discovery = Discovery(controller.endpoints, clock, EPOCH)
    runtime = Runtime(controller, driver, store, clock, epoch=EPOCH, on_change=discovery.stir)
    logs = LogFiles(directory / "logs")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        stack.push_async_callback(driver.close)
        await runtime.start()
        servers = make_servers(directory, listeners)
        about = About("9.9", "memory", directory, None, "127.0.0.1:1", servers.agents_address, clock.now())
        control = ControlService(runtime, about, operations, logs, peer_of=peer_of or servers.control_peer)
        service = AgentService(runtime, EPOCH, agents_peer)
        services = Services(service, control, DiscoveryService(discovery))
        await services.serve(servers)
        stack.push_async_callback(servers.stop)
        stack.callback(discovery.close)
        stack.push_async_callback(services.close)
        for part in (runtime.run(), discovery.run()):
            stack.push_async_callback(_cancelled, asyncio.create_task(part))
        channels = (
            await stack.enter_async_context(aio.insecure_channel(servers.agents_address)),
            await stack.enter_async_context(aio.insecure_channel(servers.control_address)),
        )
        made = Serving(
            runtime, controller, clock, host, operations, logs,
            agent_pb2_grpc.AgentServiceStub(channels[0]),
            control_pb2_grpc.ControlServiceStub(channels[1]),
            discovery,
            discovery_pb2_grpc.DiscoveryServiceStub(channels[0]),
            channels,
            service,
        )  # fmt: skip
        if config.enabled:
            await made.everyone_ready()
        yield made


def make_servers(directory: Path, listeners: Listeners | None) -> Servers:
    if listeners is None:
        return Servers(f"unix:{directory}/agents.sock", f"unix:{directory}/control.sock")
    private = directory / "private"
    private.mkdir(mode=0o700, exist_ok=True)
    # Duplicates: what the service manager has stays open, whatever we do to ours.
    agents, control = (Inherited((one.dup(),), private / f"{n}.sock") for n, one in enumerate(listeners))
    return Servers(agents, control)


@contextlib.contextmanager
def listening(directory: Path) -> Iterator[Listeners]:
    """What a service manager would have opened and would pass on: agents.sock and control.sock in `directory`."""
    with contextlib.ExitStack() as stack:
        agents, control = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for listener, name in ((agents, "agents.sock"), (control, "control.sock")):
            listener.bind(str(directory / name))
            listener.listen(4096)
        yield agents, control


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@dataclass(frozen=True)
class Told:
    """What a refusal says besides its status and reason."""

    text: str
    metadata: dict[str, str]


async def refused(call: Awaitable[Any], status: grpc.StatusCode, reason: str) -> Told:
    """The call must fail with exactly this status and this machine-readable reason; returns what else it says."""
    with pytest.raises(aio.AioRpcError) as raised:
        await call
    error = raised.value
    assert error.code() is status, f"{error.code()}: {error.details()}"
    rich = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert rich is not None, "no google.rpc.Status came with it"
    assert rich.code == status.value[0]
    assert rich.message == error.details()
    (detail,) = rich.details
    info = error_details_pb2.ErrorInfo()
    assert detail.Unpack(info)
    assert info.domain == "agentd"
    assert info.reason == reason
    return Told(rich.message, dict(info.metadata))

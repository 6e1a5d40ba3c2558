"""Stand-ins for agentd on a Unix socket: one answers heartbeats as a test scripts it, one tells endpoints."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from agentd.v1 import agent_pb2, agent_pb2_grpc, common_pb2, discovery_pb2, discovery_pb2_grpc

Answer = Callable[[agent_pb2.Heartbeat], agent_pb2.HeartbeatReply]


class Refuse(Exception):
    """Raised by an answer: the call fails with this status."""

    def __init__(self, code: int, reason: str) -> None:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="agentd"))
        self.status = status_pb2.Status(code=code, message=f"refused: {reason}", details=[detail])
        super().__init__(reason)


class FakeAgentd(agent_pb2_grpc.AgentServiceServicer):
    """Keeps every heartbeat; `answer` makes the reply. Tests wait with `until`.

    `sessions` False: it is an agentd that knows none. `mute`: heartbeats get no answer.
    """

    def __init__(self, socket: Path) -> None:
        self.endpoint = f"unix:{socket}"
        self.beats: list[agent_pb2.Heartbeat] = []
        self.answer: Answer = lambda _beat: reply()
        self.sessions = True
        self.mute = False
        self.sessions_begun = 0
        self.epoch = 0
        self._streams: list[queue.Queue[agent_pb2.SessionResponse | grpc.StatusCode | None]] = []
        self._arrived = threading.Condition()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self.epoch += 1
        self._server = grpc.server(ThreadPoolExecutor(8))
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.endpoint)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None

    def tell(self, told: agent_pb2.HeartbeatReply) -> None:
        """Say something unasked in every session."""
        with self._arrived:
            for stream in self._streams:
                stream.put(agent_pb2.SessionResponse(replies=[told], controller_epoch=self.epoch, unasked=True))

    def end_sessions(self) -> None:
        with self._arrived:
            for stream in self._streams:
                stream.put(None)

    def Heartbeat(
        self, request: agent_pb2.HeartbeatRequest, context: grpc.ServicerContext
    ) -> agent_pb2.HeartbeatResponse:
        (beat,) = request.heartbeats
        try:
            answer = self.answer(beat)
        except Refuse as refusal:
            context.abort_with_status(rpc_status.to_status(refusal.status))
        finally:
            self._note(beat)
        return agent_pb2.HeartbeatResponse(replies=[answer], controller_epoch=self.epoch)

    def Session(
        self, requests: Iterator[agent_pb2.SessionRequest], context: grpc.ServicerContext
    ) -> Iterator[agent_pb2.SessionResponse]:
        if not self.sessions:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        stream: queue.Queue[agent_pb2.SessionResponse | grpc.StatusCode | None] = queue.Queue()
        context.add_callback(lambda: stream.put(None))
        with self._arrived:
            self._streams.append(stream)
            self.sessions_begun += 1
        threading.Thread(target=self._listen, args=(requests, stream), daemon=True).start()
        while (said := stream.get()) is not None:
            if isinstance(said, grpc.StatusCode):
                context.abort(said, "refused")
            yield said
        with self._arrived:
            self._streams.remove(stream)

    def _listen(
        self,
        requests: Iterator[agent_pb2.SessionRequest],
        stream: queue.Queue[agent_pb2.SessionResponse | grpc.StatusCode | None],
    ) -> None:
        with suppress(grpc.RpcError, Exception):  # gRPC ends the iterator of a cancelled call with a bare Exception
            for request in requests:
                (beat,) = request.heartbeats
                try:
                    answer = self.answer(beat)
                except Refuse as refusal:
                    if refusal.status.code == code_pb2.INVALID_ARGUMENT:
                        stream.put(grpc.StatusCode.INVALID_ARGUMENT)
                        return
                    told = agent_pb2.Refusal(
                        code=refusal.status.code, reason=str(refusal), message=refusal.status.message
                    )
                    answer = agent_pb2.HeartbeatReply(refusal=told)
                finally:
                    self._note(beat)
                if not self.mute:
                    stream.put(agent_pb2.SessionResponse(replies=[answer], controller_epoch=self.epoch))

    def _note(self, beat: agent_pb2.Heartbeat) -> None:
        with self._arrived:
            self.beats.append(beat)
            self._arrived.notify_all()

    def until(self, condition: Callable[[list[agent_pb2.Heartbeat]], bool]) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: self.beats and condition(self.beats), timeout=30), self.beats[-3:]

    def env(self) -> dict[str, str]:
        return {
            "AGENTD_ENDPOINT": self.endpoint,
            "AGENTD_INSTANCE": "research-9101",
            "AGENTD_INCARNATION": "life-1",
            "AGENTD_PORT": "9101",
            "AGENTD_CONCURRENCY": "2",
        }


class FakeDiscovery(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Tells every reader what the test says (`tell`), and keeps what readers asked for (`requests`)."""

    def __init__(self, socket: Path) -> None:
        self.address = f"unix:{socket}"
        self.requests: queue.Queue[discovery_pb2.WatchRequest] = queue.Queue()
        self.refusal: Refuse | None = None
        self._streams: list[queue.Queue[discovery_pb2.WatchResponse | None]] = []
        self._first: discovery_pb2.WatchResponse | None = None
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(4))
        discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self.end_streams()
            self._server.stop(grace=None).wait()
            self._server = None

    def end_streams(self) -> None:
        with self._lock:
            for stream in self._streams:
                stream.put(None)
            self._streams.clear()

    def tell(
        self, *endpoints: discovery_pb2.InstanceEndpoint, removed: tuple[str, ...] = (), revision: str = "1.1.research"
    ) -> None:
        """A change for all who read; for those who come later a snapshot of these endpoints."""
        change = discovery_pb2.WatchResponse(revision=revision, endpoints=endpoints, removed=removed)
        with self._lock:
            self._first = discovery_pb2.WatchResponse(revision=revision, snapshot=True, endpoints=endpoints)
            for stream in self._streams:
                stream.put(change)

    def Watch(
        self, request: discovery_pb2.WatchRequest, context: grpc.ServicerContext
    ) -> Iterator[discovery_pb2.WatchResponse]:
        self.requests.put(request)
        if self.refusal is not None:
            context.abort_with_status(rpc_status.to_status(self.refusal.status))
        stream: queue.Queue[discovery_pb2.WatchResponse | None] = queue.Queue()
        context.add_callback(lambda: stream.put(None))
        with self._lock:
            if self._first is not None:
                stream.put(self._first)
            self._streams.append(stream)
        while (change := stream.get()) is not None:
            yield change


def endpoint(
    port: int = 9101, weight: float = 1.0, incarnation: str = "a", **values: float
) -> discovery_pb2.InstanceEndpoint:
    return discovery_pb2.InstanceEndpoint(
        id=f"research-{port}",
        pool="research",
        endpoint=common_pb2.Endpoint(port=port),
        host="127.0.0.1",
        incarnation=incarnation,
        state=common_pb2.INSTANCE_STATE_READY if weight else common_pb2.INSTANCE_STATE_DRAINING,
        weight=weight,
        **values,  # type: ignore[arg-type]
    )


def reply(
    kind: agent_pb2.Directive.Kind.ValueType = agent_pb2.Directive.KIND_CONTINUE,
    directive: int = 0,
    interval_s: float = 0.05,
    deadline_s: float = 0.0,
) -> agent_pb2.HeartbeatReply:
    return agent_pb2.HeartbeatReply(
        directive=agent_pb2.Directive(kind=kind, id=directive, deadline_s=deadline_s), interval_s=interval_s
    )


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeAgentd]:
    agentd = FakeAgentd(tmp_path / "agents.sock")
    agentd.start()
    yield agentd
    agentd.stop()


@pytest.fixture(params=["session", "calls"])
def either(fake: FakeAgentd, request: pytest.FixtureRequest) -> FakeAgentd:
    """With sessions and without: an agent is the same on both."""
    fake.sessions = request.param == "session"
    return fake


@pytest.fixture
def make_reply() -> Callable[..., agent_pb2.HeartbeatReply]:
    return reply


@pytest.fixture
def make_refusal() -> Callable[[int, str], Refuse]:
    return Refuse


@pytest.fixture
def discovery(tmp_path: Path) -> Iterator[FakeDiscovery]:
    agentd = FakeDiscovery(tmp_path / "d.sock")
    agentd.start()
    yield agentd
    agentd.stop()


@pytest.fixture
def make_endpoint() -> Callable[..., discovery_pb2.InstanceEndpoint]:
    return endpoint

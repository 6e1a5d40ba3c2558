"""A stand-in for agentd: answers heartbeats as a test scripts it, on a Unix socket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from agentd.v1 import agent_pb2, agent_pb2_grpc

Answer = Callable[[agent_pb2.Heartbeat], agent_pb2.HeartbeatReply]


class Refuse(Exception):
    """Raised by an answer: the call fails with this status."""

    def __init__(self, code: int, reason: str) -> None:
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="agentd"))
        self.status = status_pb2.Status(code=code, message=f"refused: {reason}", details=[detail])
        super().__init__(reason)


class FakeAgentd(agent_pb2_grpc.AgentServiceServicer):
    """Keeps every heartbeat; `answer` makes the reply. Tests wait with `until`."""

    def __init__(self, socket: Path) -> None:
        self.endpoint = f"unix:{socket}"
        self.beats: list[agent_pb2.Heartbeat] = []
        self.answer: Answer = lambda _beat: reply()
        self._arrived = threading.Condition()
        self._server: grpc.Server | None = None

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(2))
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.endpoint)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None

    def Heartbeat(
        self, request: agent_pb2.HeartbeatRequest, context: grpc.ServicerContext
    ) -> agent_pb2.HeartbeatResponse:
        (beat,) = request.heartbeats
        try:
            answer = self.answer(beat)
        except Refuse as refusal:
            context.abort_with_status(rpc_status.to_status(refusal.status))
        finally:
            with self._arrived:
                self.beats.append(beat)
                self._arrived.notify_all()
        return agent_pb2.HeartbeatResponse(replies=[answer], controller_epoch=1)

    def until(self, condition: Callable[[list[agent_pb2.Heartbeat]], bool]) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: condition(self.beats), timeout=30), self.beats[-3:]

    def env(self) -> dict[str, str]:
        return {
            "AGENTD_ENDPOINT": self.endpoint,
            "AGENTD_INSTANCE": "research-9101",
            "AGENTD_INCARNATION": "life-1",
            "AGENTD_PORT": "9101",
            "AGENTD_CONCURRENCY": "2",
        }


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


@pytest.fixture
def make_reply() -> Callable[..., agent_pb2.HeartbeatReply]:
    return reply


@pytest.fixture
def make_refusal() -> Callable[[int, str], Refuse]:
    return Refuse

"""An agentd that says on a session what a test wants said, and keeps what the agent says."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from e2e_hosts import PATIENCE_S

from agentd.v1 import agent_pb2, agent_pb2_grpc

INTERVAL_S = 0.2
_CODES = {"NOT_STARTED": 14, "SUPERSEDED": 9, "UNKNOWN_INSTANCE": 5}


def directive(kind: int, ident: int = 0) -> agent_pb2.HeartbeatReply:
    told = agent_pb2.Directive(id=ident)
    told.kind = kind  # also one that there is not
    return agent_pb2.HeartbeatReply(directive=told, interval_s=INTERVAL_S)


def refusal(reason: str) -> agent_pb2.HeartbeatReply:
    told = agent_pb2.Refusal(code=_CODES[reason], reason=reason, message=f"refused: {reason}")
    return agent_pb2.HeartbeatReply(refusal=told)


class Script(agent_pb2_grpc.AgentServiceServicer):
    """Serves one agent, which it runs. `answer` is the reply to every heartbeat."""

    def __init__(self, directory: Path) -> None:
        self.answer = directive(agent_pb2.Directive.KIND_CONTINUE)
        self.beats: list[agent_pb2.Heartbeat] = []
        self._endpoint = f"unix:{directory}/agents.sock"
        self._arrived = threading.Condition()
        self._agents: list[subprocess.Popen[bytes]] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        agent_pb2_grpc.add_AgentServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(self._endpoint)
        self._server.start()

    def run(self, command: Sequence[str], *, port: int) -> subprocess.Popen[bytes]:
        """Start an agent as agentd does, with one slot."""
        identity = {"INSTANCE": f"research-{port}", "INCARNATION": "life-1", "PORT": str(port), "CONCURRENCY": "1"}
        env = {f"AGENTD_{name}": value for name, value in {**identity, "ENDPOINT": self._endpoint}.items()}
        self._agents.append(subprocess.Popen(command, env={**os.environ, **env}))
        return self._agents[-1]

    def Session(
        self, request_iterator: Iterator[agent_pb2.SessionRequest], _context: grpc.ServicerContext
    ) -> Iterator[agent_pb2.SessionResponse]:
        for request in request_iterator:
            with self._arrived:
                self.beats.extend(request.heartbeats)
                self._arrived.notify_all()
            yield agent_pb2.SessionResponse(replies=[self.answer], controller_epoch=1)

    def until(self, what: str, condition: Callable[[agent_pb2.Heartbeat], bool]) -> agent_pb2.Heartbeat:
        """Wait for a heartbeat that is so; that heartbeat."""
        with self._arrived:
            met = self._arrived.wait_for(lambda: self.beats and condition(self.beats[-1]), PATIENCE_S)
            assert met, f"waited {PATIENCE_S:g} s for: {what}\n{self.beats[-3:]}"
            return self.beats[-1]

    def close(self) -> None:
        for agent in self._agents:
            agent.kill()
            agent.wait()
        self._server.stop(grace=None).wait()


def acks(beat: agent_pb2.Heartbeat) -> dict[int, tuple[int, bool]]:
    """What a heartbeat says of directives: stage and `done_follows` by id."""
    return {ack.id: (ack.stage, ack.done_follows) for ack in beat.acks}

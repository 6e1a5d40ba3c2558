"""The command heartbeat, against an agents' socket that notes what it hears."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentd.v1 import agent_pb2, agent_pb2_grpc, common_pb2

Stage = agent_pb2.Acknowledgement
DRAIN = agent_pb2.Directive(
    kind=agent_pb2.Directive.KIND_DRAIN,
    id=7,
    deadline_s=118.4,
    successors=[agent_pb2.Successor(instance="research-9102", endpoint=common_pb2.Endpoint(port=9102), weight=1.0)],
)


class FakeAgents(agent_pb2_grpc.AgentServiceServicer):
    def __init__(self) -> None:
        self.beats: list[agent_pb2.Heartbeat] = []
        self.directive = agent_pb2.Directive(kind=agent_pb2.Directive.KIND_CONTINUE)
        self.refusal = ""

    def Heartbeat(self, request: Any, context: Any) -> Any:
        self.beats.extend(request.heartbeats)
        if self.refusal:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.refusal)
        return agent_pb2.HeartbeatResponse(replies=[agent_pb2.HeartbeatReply(directive=self.directive, interval_s=10)])


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAgents]:
    fake = FakeAgents()
    server = grpc.server(ThreadPoolExecutor(1))
    agent_pb2_grpc.add_AgentServiceServicer_to_server(fake, server)
    server.add_insecure_port(f"unix:{tmp_path}/agents.sock")
    server.start()
    monkeypatch.setenv("AGENTD_INSTANCE", "research-9101")
    monkeypatch.setenv("AGENTD_INCARNATION", "abc")
    monkeypatch.setenv("AGENTD_ENDPOINT", f"unix:{tmp_path}/agents.sock")
    yield fake
    server.stop(None)


def test_it_reports_who_the_environment_says_it_is(ctl: Callable[..., Any], agents: FakeAgents) -> None:
    result = ctl("heartbeat", "--load", "0.4", "--queue", "2", "--in-flight", "1", "--completed", "9")
    assert (result.code, result.out) == (0, "continue; next heartbeat within 10 s\n")
    (beat,) = agents.beats
    assert (beat.instance.id, beat.instance.incarnation) == ("research-9101", "abc")
    assert (beat.load, beat.queue_length, beat.in_flight, beat.tasks_completed) == (0.4, 2, 1, 9)


def test_what_is_not_said_is_not_known_and_each_counts_up(ctl: Callable[..., Any], agents: FakeAgents) -> None:
    for _ in range(2):
        assert ctl("heartbeat").code == 0
    first, second = agents.beats
    assert not any(first.HasField(field) for field in ("load", "queue_length", "in_flight", "tasks_completed"))
    assert second.seq > first.seq > 0


def test_a_drain_is_shown_with_the_way_to_acknowledge_it(ctl: Callable[..., Any], agents: FakeAgents) -> None:
    agents.directive = DRAIN
    said = ctl("heartbeat").out
    assert said == "drain; 118 s left; acknowledge it with --ack 7; next heartbeat within 10 s\n"
    assert json.loads(ctl("heartbeat", "-o", "json").out) == {
        "directive": "drain",
        "id": 7,
        "deadline_s": 118.4,
        "successors": [{"id": "research-9102", "port": 9102, "weight": 1.0}],
        "concurrency": None,
        "interval_s": 10.0,
    }


def test_a_directive_of_a_later_agentd_is_not_taken_for_go_on(ctl: Callable[..., Any], agents: FakeAgents) -> None:
    agents.directive = agent_pb2.Directive(kind=99, id=7)  # type: ignore[arg-type]
    assert ctl("heartbeat").out == "unknown; acknowledge it with --ack 7:failed; next heartbeat within 10 s\n"


@pytest.mark.parametrize(
    ("word", "stage"),
    [("7", Stage.STAGE_ACCEPTED), ("7:accepted", Stage.STAGE_ACCEPTED), ("7:done", Stage.STAGE_DONE)],
)
def test_acknowledgements_are_sent(ctl: Callable[..., Any], agents: FakeAgents, word: str, stage: int) -> None:
    ctl("heartbeat", "--ack", word, "--ack", "8:failed")
    assert [(ack.id, ack.stage, ack.done_follows) for ack in agents.beats[0].acks] == [
        (7, stage, False),
        (8, Stage.STAGE_FAILED, False),
    ]


def test_a_refusal_is_told(ctl: Callable[..., Any], agents: FakeAgents) -> None:
    agents.refusal = "research-9101 was started anew; finish your task and exit"
    result = ctl("heartbeat")
    assert (result.code, result.err) == (1, f"agentctl: {agents.refusal}\n")


@pytest.mark.usefixtures("agents")
def test_nobody_there_is_told(ctl: Callable[..., Any], tmp_path: Path) -> None:
    result = ctl("heartbeat", "--endpoint", f"unix:{tmp_path}/nowhere.sock")
    assert (result.code, result.err) == (3, f"agentctl: no agentd answers at unix:{tmp_path}/nowhere.sock\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--load", "1.5"), "1.5 is not in the range 0.0<=x<=1.0"),
        (("--queue", "-1"), "-1 is not in the range"),
        (("--ack", "seven"), "'seven' is no acknowledgement; write 7, 7:done or 7:failed"),
        (
            ("--instance", ""),
            "there is no AGENTD_INSTANCE in the environment: run it as an agent does, or say --instance",
        ),
    ],
)
def test_wrong_words_are_told(ctl: Callable[..., Any], agents: FakeAgents, words: tuple[str, ...], said: str) -> None:
    result = ctl("heartbeat", *words)
    assert result.code == 2
    assert said in result.err
    assert agents.beats == []

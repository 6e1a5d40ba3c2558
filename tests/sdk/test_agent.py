"""The SDK against a stand-in for agentd, over real gRPC."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentd.sdk import Agent
from agentd.v1 import agent_pb2

MakeReply = Callable[..., agent_pb2.HeartbeatReply]

DRAIN = agent_pb2.Directive.KIND_DRAIN
DONE = agent_pb2.Acknowledgement.STAGE_DONE
SHUT_DOWN = agent_pb2.Directive.KIND_SHUT_DOWN
FAILED_PRECONDITION, NOT_FOUND, INVALID_ARGUMENT = 9, 5, 3


def told(beat: agent_pb2.Heartbeat) -> dict[int, int]:
    """The stages of directives that a heartbeat tells, by id."""
    return {ack.id: ack.stage for ack in beat.acks}


def test_a_program_started_by_hand_runs_unchanged_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentd.sdk")

    async def program() -> None:
        async with Agent.from_env({}) as agent:
            agent.queue_length = 3
            async with agent.task():
                assert agent.in_flight == 1
            assert (agent.instance, agent.port, agent.concurrency) == ("", 0, 1)
            assert not agent.draining

    asyncio.run(program())
    assert len(caplog.records) == 1


def test_a_program_on_its_own_does_not_load_grpc() -> None:
    code = "import sys; from agentd.sdk import Agent\nwith Agent.from_env({}): print('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"AGENTD_ENDPOINT": "unix:/x", "AGENTD_INCARNATION": "i"}, "AGENTD_INSTANCE is not set"),
        ({"AGENTD_ENDPOINT": "unix:/x", "AGENTD_INSTANCE": "a-1"}, "AGENTD_INCARNATION is not set"),
        ({"AGENTD_PORT": "http"}, "AGENTD_PORT='http'"),
        ({"AGENTD_PORT": "65536"}, "port 65536"),
        ({"AGENTD_CONCURRENCY": "0"}, "0 tasks at a time"),
    ],
)
def test_a_wrong_environment_is_named(env: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Agent.from_env(env)


def test_heartbeats_carry_the_numbers_and_count_up(either: Any) -> None:
    with Agent.from_env(either.env()) as agent:
        agent.label("model", "small")
        agent.queue(4)
        with agent.task():
            either.until(lambda beats: beats and beats[-1].in_flight == 1)
        either.until(lambda beats: beats[-1].tasks_completed == 1 and beats[-1].in_flight == 0)
    last = either.beats[-1]
    assert (last.instance.id, last.instance.incarnation) == ("research-9101", "life-1")
    assert last.queue_length == 4
    assert last.labels == {"model": "small"}
    assert last.response_time_p50_s == last.response_time_p95_s > 0
    assert 0 < last.load <= 1
    assert [beat.seq for beat in either.beats] == list(range(1, len(either.beats) + 1))


@pytest.mark.parametrize(("given", "told"), [(0.25, 0.25), (7.0, 1.0), (-1.0, 0.0)])
def test_a_given_load_is_limited_to_its_range(fake: Any, given: float, told: float) -> None:
    with Agent.from_env(fake.env()) as agent:
        agent.load = given
        fake.until(lambda beats: len(beats) > 2)
    assert fake.beats[-1].load == told


def test_a_load_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        Agent().load = float("nan")


def test_labels_and_queue_are_bounded() -> None:
    agent = Agent()
    for number in range(16):
        agent.label(f"label{number}", "x")
    agent.label("label0", "again")
    for name, value in (("one more", "x"), ("", "x"), ("label1", "ü" * 65)):
        with pytest.raises(ValueError, match="cannot set label"):
            agent.label(name, value)
    for tasks in (-1, 10**9 + 1):
        with pytest.raises(ValueError, match="at least 0 and at most 1000000000"):
            agent.queue(tasks)


@pytest.mark.parametrize("tasks", [1.5, 2.0, "3", None])
def test_a_queue_that_is_no_whole_number_is_refused_where_it_is_said(tasks: Any) -> None:
    agent = Agent()
    with pytest.raises(TypeError, match="must be a whole number"):
        agent.queue(tasks)
    with pytest.raises(TypeError, match="must be a whole number"):
        agent.queue_length = tasks
    assert agent.queue_length == 0


def test_a_drain_is_acknowledged_and_called_once_though_repeated(either: Any, make_reply: MakeReply) -> None:
    either.answer = lambda _beat: make_reply(DRAIN, 7, deadline_s=60.0)
    called = threading.Semaphore(0)
    with Agent.from_env(either.env()) as agent:
        agent.on_drain(called.release)
        either.until(lambda beats: len([beat for beat in beats if 7 in told(beat)]) > 2)
        assert agent.draining
        assert 0 < (agent.drain_left_s or 0) <= 60
        assert not agent.stopping.is_set()
        assert called.acquire(timeout=30)
        agent.on_drain(called.release)  # registered late: called all the same
        assert called.acquire(timeout=30)
    assert not called.acquire(blocking=False)


def test_the_acknowledgement_does_not_wait_for_the_interval(either: Any, make_reply: MakeReply) -> None:
    # With an interval of half an hour a second beat within the test is the acknowledgement's.
    either.answer = lambda beat: make_reply(DRAIN if beat.seq == 1 else 1, 7 if beat.seq == 1 else 0, interval_s=1800.0)
    with Agent.from_env(either.env()):
        either.until(lambda beats: len(beats) == 2)
    assert told(either.beats[1]) == {7: DONE}


def test_a_drain_reaches_the_event_loop(either: Any, make_reply: MakeReply) -> None:
    either.answer = lambda _beat: make_reply(DRAIN, 1)
    threads: list[str] = []

    async def program() -> None:
        async with Agent.from_env(either.env()) as agent:
            called = asyncio.Event()

            def callback() -> None:
                threads.append(threading.current_thread().name)
                called.set()

            agent.on_drain(callback)
            async with asyncio.timeout(30):
                await agent.wait_draining()
                await called.wait()

    asyncio.run(program())
    assert threads == ["MainThread"]


def test_shut_down_sets_stopping_after_draining(either: Any, make_reply: MakeReply) -> None:
    either.answer = lambda _beat: make_reply(SHUT_DOWN, 3)
    with Agent.from_env(either.env()) as agent:
        assert agent.stopping.wait(30)
        assert agent.draining
        assert agent.superseded
        either.until(lambda beats: any(3 in told(beat) for beat in beats))


def test_a_superseded_agent_stops_and_sends_no_more(either: Any, make_refusal: Any) -> None:
    def answer(_beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatReply:
        raise make_refusal(FAILED_PRECONDITION, "SUPERSEDED")

    either.answer = answer
    with Agent.from_env(either.env()) as agent:
        assert agent.stopping.wait(30)
        assert agent.superseded
        assert agent.draining
        with agent.task():
            pass
    assert len(either.beats) == 1


def test_an_agent_that_is_unknown_for_a_moment_goes_on(either: Any, make_reply: MakeReply, make_refusal: Any) -> None:
    def answer(beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatReply:
        if beat.seq in (2, 3, 5, 6):
            raise make_refusal(NOT_FOUND, "UNKNOWN_INSTANCE")
        return make_reply()

    either.answer = answer
    with Agent.from_env(either.env()) as agent:
        either.until(lambda beats: len(beats) > 7)
        assert not agent.stopping.is_set()


def test_an_agent_that_stays_unknown_stops(either: Any, make_reply: MakeReply, make_refusal: Any) -> None:
    def answer(beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatReply:
        if beat.seq > 1:
            raise make_refusal(NOT_FOUND, "UNKNOWN_INSTANCE")
        return make_reply()

    either.answer = answer
    with Agent.from_env(either.env()) as agent:
        assert agent.stopping.wait(30)
    assert len(either.beats) == 4


def until(condition: Callable[[], bool]) -> None:
    """Wait for what the agent's own thread does, without being told of it."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_agentd_away_and_back_is_no_matter_to_the_agent(either: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentd.sdk")

    def told(text: str) -> bool:
        return any(record.getMessage().startswith(text) for record in caplog.records)

    either.stop()
    with Agent.from_env(either.env()) as agent:
        with agent.task():
            pass
        until(lambda: told("agentd is away"))
        either.start()
        either.until(lambda beats: beats and beats[-1].tasks_completed == 1)
        until(lambda: told("agentd is back"))
        assert not agent.stopping.is_set()


def test_a_refused_heartbeat_is_told_once_and_tried_again(
    either: Any, make_reply: MakeReply, make_refusal: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatReply:
        if beat.seq in (2, 3):
            raise make_refusal(INVALID_ARGUMENT, "BAD_LABEL")
        return make_reply()

    either.answer = answer
    with Agent.from_env(either.env()):
        either.until(lambda beats: len(beats) > 4)
    assert [record.levelname for record in caplog.records if "refused a heartbeat" in record.getMessage()] == [
        "WARNING"
    ]


def test_leaving_ends_the_thread_though_agentd_does_not_answer(either: Any, make_reply: MakeReply) -> None:
    release = threading.Event()

    def answer(_beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatReply:
        release.wait(30)
        return make_reply()

    either.answer = answer
    with Agent.from_env(either.env()):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "agentd-heartbeat"]
    release.set()


def test_an_agent_is_entered_once() -> None:
    with Agent() as agent:
        pass
    with pytest.raises(RuntimeError, match="twice"), agent:
        pass


def test_the_sdk_imports_nothing_else_of_agentd(tmp_path: Path) -> None:
    code = (
        "import sys; import agentd.sdk.reporter\n"
        "print(sorted(m for m in sys.modules if m.startswith('agentd.') and m.split('.')[1] not in ('sdk', 'v1')))\n"
        "print([m for m in ('psutil', 'yaml', 'rich', 'click', 'starlette', 'google.rpc') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "[]\n[]\n"

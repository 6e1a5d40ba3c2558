"""What a session adds: directives the moment they are sent, over lost streams and through agentds without sessions."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from agentd.sdk import Agent, pace
from agentd.v1 import agent_pb2, agent_pb2_grpc

MakeReply = Callable[..., agent_pb2.HeartbeatReply]

DRAIN = agent_pb2.Directive.KIND_DRAIN
DONE = agent_pb2.Acknowledgement.STAGE_DONE
FAILED = agent_pb2.Acknowledgement.STAGE_FAILED
FAILED_PRECONDITION = 9
NEVER_S = 1800.0  # an interval with which no second beat comes of itself within a test


def told(beat: agent_pb2.Heartbeat) -> dict[int, int]:
    return {ack.id: ack.stage for ack in beat.acks}


def test_a_directive_is_heard_the_moment_it_is_sent(fake: Any, make_reply: MakeReply) -> None:
    fake.answer = lambda _beat: make_reply(interval_s=NEVER_S)
    drained = threading.Event()
    with Agent.from_env(fake.env()) as agent:
        agent.on_drain(drained.set)
        fake.until(lambda beats: len(beats) == 1)
        fake.tell(make_reply(DRAIN, 7, interval_s=NEVER_S, deadline_s=60.0))
        assert drained.wait(30)
        fake.until(lambda beats: told(beats[-1]) == {7: DONE})
    assert fake.sessions_begun == 1


def test_an_interval_told_unasked_counts_from_then(fake: Any, make_reply: MakeReply) -> None:
    fake.answer = lambda beat: make_reply(interval_s=NEVER_S if beat.seq == 1 else 0.05)
    with Agent.from_env(fake.env()):
        fake.until(lambda beats: len(beats) == 1)
        fake.tell(make_reply(interval_s=0.05))
        fake.until(lambda beats: len(beats) > 2)


def test_what_is_not_answered_is_acknowledged_again_in_the_next_session(fake: Any, make_reply: MakeReply) -> None:
    called = threading.Semaphore(0)

    def answer(beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatReply:
        if told(beat) == {7: DONE} and fake.sessions_begun == 1:
            fake.mute = True
            fake.tell(make_reply(DRAIN, 7))  # no answer, though it comes while one is awaited
            fake.end_sessions()
        elif fake.sessions_begun > 1:
            fake.mute = False
        return make_reply(DRAIN if beat.seq == 1 else 1, 7 if beat.seq == 1 else 0)

    fake.answer = answer
    with Agent.from_env(fake.env()) as agent:
        agent.on_drain(called.release)
        fake.until(lambda beats: fake.sessions_begun > 1 and told(beats[-1]) == {7: DONE})
        fake.until(lambda beats: not told(beats[-1]))
    assert called.acquire(timeout=30)
    assert not called.acquire(blocking=False), "it was followed twice"


def test_a_session_that_falls_silent_is_begun_anew(
    fake: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pace, "ANSWER_S", 0.2)
    monkeypatch.setattr(pace, "INTERVAL_DEFAULT_S", 0.1)
    fake.mute = True
    with Agent.from_env(fake.env()) as agent:
        fake.until(lambda _beats: fake.sessions_begun > 2)
        # From the first answer on it is not away any more, however long the stand-in takes for the next ones.
        monkeypatch.setattr(pace, "ANSWER_S", pace.ANSWER_MAX_S)
        fake.mute = False
        count = len(fake.beats)
        fake.until(lambda beats: len(beats) > count + 3)
        assert not agent.stopping.is_set()
    assert [record.levelname for record in caplog.records] == ["WARNING"], "that it was away is said once"


def test_one_beat_at_a_time_is_unanswered(fake: Any) -> None:
    fake.mute = True
    with Agent.from_env(fake.env()) as agent:
        for _ in range(50):
            with agent.task():
                pass
        fake.until(lambda beats: len(beats) == 1)
        agent.queue(1)
    assert len(fake.beats) == 1


def test_an_end_of_the_session_is_nothing_to_speak_of(fake: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agentd.sdk")
    with Agent.from_env(fake.env()):
        for session in range(1, 4):
            fake.until(lambda _beats, session=session: fake.sessions_begun == session)
            fake.end_sessions()
        fake.until(lambda _beats: fake.sessions_begun > 3)
    assert not caplog.records


def test_an_agentd_that_knows_no_sessions_is_asked_again_after_its_restart(fake: Any) -> None:
    fake.sessions = False
    with Agent.from_env(fake.env()) as agent:
        fake.until(lambda beats: len(beats) > 3)
        fake.stop()
        fake.sessions = True
        fake.start()
        fake.until(lambda _beats: fake.sessions_begun > 0)
        assert not agent.stopping.is_set()


def test_a_superseded_agent_finishes_its_task_and_goes(fake: Any, make_reply: MakeReply, make_refusal: Any) -> None:
    def answer(beat: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatReply:
        if beat.in_flight:
            raise make_refusal(FAILED_PRECONDITION, "SUPERSEDED")
        return make_reply()

    fake.answer = answer
    finished = False

    async def program() -> None:
        nonlocal finished
        async with Agent.from_env(fake.env()) as agent:
            async with agent.task(), asyncio.timeout(30):
                await agent.stopping.wait_async()
                assert not agent.accepting
                assert agent.in_flight == 1
            finished = True

    asyncio.run(program())
    assert finished
    assert fake.beats[-1].in_flight == 1, "more beats would tell agentd nothing"


def test_a_directive_of_a_kind_to_come_is_answered(fake: Any, make_reply: MakeReply) -> None:
    fake.answer = lambda beat: make_reply(99 if beat.seq == 1 else 1, 4 if beat.seq == 1 else 0)
    with Agent.from_env(fake.env()):
        fake.until(lambda beats: told(beats[-1]) == {4: FAILED})
    (ack,) = fake.beats[-1].acks
    assert ack.text == "this agent does not know directives of kind 99"


def test_the_loop_of_the_program_is_left_alone_though_it_uses_grpc_itself(fake: Any, tmp_path: Path) -> None:
    troubles: list[dict[str, Any]] = []

    async def program() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: troubles.append(context))
        server = aio.server()
        agent_pb2_grpc.add_AgentServiceServicer_to_server(agent_pb2_grpc.AgentServiceServicer(), server)
        address = f"unix:{tmp_path}/own.sock"
        server.add_insecure_port(address)
        await server.start()
        async with aio.insecure_channel(address) as channel:
            for life in range(5):
                async with Agent.from_env(fake.env()):
                    while len(fake.beats) < 3 * (life + 1):
                        with pytest.raises(aio.AioRpcError, match="UNIMPLEMENTED"):
                            await agent_pb2_grpc.AgentServiceStub(channel).Heartbeat(agent_pb2.HeartbeatRequest())
        await server.stop(None)

    asyncio.run(program())
    assert not troubles


def test_many_agents_in_one_process_do_not_mind_each_other(fake: Any) -> None:
    def life() -> None:
        with Agent.from_env(fake.env()) as agent, agent.task():
            fake.until(lambda beats: len(beats) > 20)

    threads = [threading.Thread(target=life) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)

"""Sessions over the wire: heartbeats answered in order, directives unasked, ends that mean nothing by themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from serving import EPOCH, Serving, asynchronous, refused, serving

from agentd.core.messages import Restart
from agentd.core.model import InstanceId, State
from agentd.rpc import sessions
from agentd.rpc.identity import Peer
from agentd.v1 import agent_pb2

Directive = agent_pb2.Directive
Stream = aio.StreamStreamCall[agent_pb2.SessionRequest, agent_pb2.SessionResponse]
RESTART = Restart((InstanceId("research-9101"),), "alice")


@contextlib.asynccontextmanager
async def session(agentd: Serving) -> AsyncIterator[Stream]:
    stream = agentd.agents.Session()
    try:
        yield stream
    finally:
        stream.cancel()


async def send(stream: Stream, *beats: agent_pb2.Heartbeat) -> None:
    await stream.write(agent_pb2.SessionRequest(heartbeats=beats))


async def hear(stream: Stream) -> agent_pb2.SessionResponse:
    async with asyncio.timeout(10.0):
        response = await stream.read()
    assert isinstance(response, agent_pb2.SessionResponse), "the session ended"
    return response


async def ask(stream: Stream, *beats: agent_pb2.Heartbeat) -> Sequence[agent_pb2.HeartbeatReply]:
    await send(stream, *beats)
    return (await hear(stream)).replies


async def end_of(stream: Stream) -> grpc.StatusCode:
    async with asyncio.timeout(10.0):
        return await stream.code()


@asynchronous
async def test_every_heartbeat_is_answered_in_order(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd, session(agentd) as stream:
        for seq in range(2, 12):
            await send(stream, agentd.beat(seq=seq, load=seq / 100))
        for _ in range(10):
            response = await hear(stream)
            (reply,) = response.replies
            assert not response.unasked
            assert (reply.instance_id, reply.directive.kind) == ("research-9101", Directive.KIND_CONTINUE)
            assert (reply.interval_s, response.controller_epoch) == (10.0, EPOCH)
        assert agentd.instance("research-9101").load == 0.11


@asynchronous
async def test_one_message_carries_beats_of_several_and_a_refusal_ends_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd, session(agentd) as stream:
        stale = agentd.beat("research-9102", seq=2)
        stale.instance.incarnation = "of-yesterday"
        first, second = await ask(stream, agentd.beat("research-9101", seq=2, load=0.7), stale)
        assert (first.instance_id, first.HasField("refusal")) == ("research-9101", False)
        assert (second.instance_id, second.refusal.reason) == ("research-9102", "SUPERSEDED")
        (third,) = await ask(stream, agentd.beat("research-9102", seq=2))
        assert (third.instance_id, third.HasField("refusal")) == ("research-9102", False)


@asynchronous
async def test_a_directive_comes_unasked_and_again_until_it_is_acknowledged(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd, session(agentd) as stream:
        await ask(stream, agentd.beat("research-9101", seq=2, load=0.1), agentd.beat("research-9102", seq=2, load=0.9))
        await agentd.runtime.submit(RESTART)
        response = await hear(stream)
        assert response.unasked
        (told,) = response.replies
        assert (told.instance_id, told.directive.kind) == ("research-9101", Directive.KIND_DRAIN)
        (again,) = await ask(stream, agentd.beat("research-9101", seq=3))
        assert again.directive.id == told.directive.id


@asynchronous
async def test_after_a_reconnect_the_directive_is_said_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd, session(agentd) as old, session(agentd) as new:
        await ask(old, agentd.beat("research-9101", seq=2))
        await agentd.runtime.submit(RESTART)
        (told,) = (await hear(old)).replies
        (again,) = await ask(new, agentd.beat("research-9101", seq=3))
        assert (again.directive.kind, again.directive.id) == (Directive.KIND_DRAIN, told.directive.id)


@asynchronous
async def test_an_instance_listens_where_it_was_heard_last(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd, session(agentd) as old, session(agentd) as new:
        await ask(old, agentd.beat("research-9101", seq=2))
        await ask(new, agentd.beat("research-9101", seq=3))
        await agentd.runtime.submit(RESTART)
        (heard,) = (await hear(new)).replies
        assert (heard.instance_id, heard.directive.kind) == ("research-9101", Directive.KIND_DRAIN)


@asynchronous
async def test_that_a_session_ends_says_nothing_of_its_agents(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        async with session(agentd) as stream:
            await ask(stream, agentd.beat("research-9101", seq=2))
            await stream.done_writing()
            assert await stream.read() is aio.EOF  # type: ignore[attr-defined]
            assert await end_of(stream) is grpc.StatusCode.OK
        view = agentd.instance("research-9101")
        assert (view.state, view.missed_beats) == (State.READY, 0)
        await agentd.runtime.submit(RESTART)  # nobody listens, and nothing breaks
        await agentd.stored()


@pytest.mark.parametrize(
    ("beats", "reason", "text"),
    [
        ([], "INVALID_HEARTBEAT", "heartbeats: 0 heartbeats; expected 1 to 1000"),
        ([{"load": 1.5}], "INVALID_HEARTBEAT", "heartbeats[0].load: 1.5 is not between 0 and 1"),
    ],
)
def test_a_message_that_cannot_be_taken_ends_the_session(
    tmp_path: Path, beats: list[dict[str, Any]], reason: str, text: str
) -> None:
    @asynchronous
    async def test() -> None:
        async with serving(tmp_path) as agentd, session(agentd) as stream:
            await send(stream, *(agentd.beat(seq=2, **values) for values in beats))
            told = await refused(stream.read(), grpc.StatusCode.INVALID_ARGUMENT, reason)
            assert told.text == text
            assert agentd.instance("research-9101").load == 0.5

    test()


@asynchronous
async def test_bytes_that_are_no_message_are_answered(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        method = agentd.channels[0].stream_stream("/agentd.v1.AgentService/Session")
        stream = method()
        await stream.write(b"\xff\xff\xff")
        told = await refused(stream.read(), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
        assert told.text == "the bytes received are no agentd.v1.SessionRequest"


@asynchronous
async def test_a_session_speaks_for_so_many_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "INSTANCES_MAX", 1)
    async with serving(tmp_path) as agentd, session(agentd) as stream:
        await ask(stream, agentd.beat("research-9101", seq=2))
        await ask(stream, agentd.beat("research-9101", seq=3))
        await send(stream, agentd.beat("research-9102", seq=2))
        await refused(stream.read(), grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_INSTANCES")


@asynchronous
async def test_a_message_of_a_session_holds_one_to_a_thousand_beats(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for count in (0, 1001):
            async with session(agentd) as stream:
                await send(stream, *[agentd.beat("research-9101", seq=2)] * count)
                await refused(stream.read(), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_HEARTBEAT")


@asynchronous
async def test_nobody_is_reported_in_the_session_of_another_unit(tmp_path: Path) -> None:
    peers = [Peer(0, 1)]
    async with serving(tmp_path, agents_peer=lambda _: peers[0]) as agentd:
        peers[0] = Peer(4711, 42, InstanceId("research-9102"))
        async with session(agentd) as stream:
            (reply,) = await ask(stream, agentd.beat("research-9101", seq=2))
            assert reply.refusal.reason == "NOT_ITS_UNIT"
            (reply,) = await ask(stream, agentd.beat("research-9102", seq=2))
            assert not reply.HasField("refusal")


@asynchronous
async def test_the_end_of_agentd_ends_every_session_at_once(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        agentd = await stack.enter_async_context(serving(tmp_path))
        streams = [agentd.agents.Session() for _ in range(20)]
        for number, stream in enumerate(streams):
            await ask(stream, agentd.beat("research-9101", seq=number + 2))
        agentd.service.close()
        assert [await end_of(stream) for stream in streams] == [grpc.StatusCode.OK] * 20
        late = agentd.agents.Session()
        assert await end_of(late) is grpc.StatusCode.OK

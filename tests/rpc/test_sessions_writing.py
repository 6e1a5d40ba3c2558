"""Sessions against a stream that takes its time: one message at a time, nothing queued, an end at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from grpc import aio
from serving import asynchronous

from agentd.core.messages import BeatReply
from agentd.core.model import Directive, DirectiveKind, InstanceId
from agentd.rpc.sessions import Session, Sessions
from agentd.v1 import agent_pb2, common_pb2

AGENT = InstanceId("research-9101")
GO_ON = BeatReply(Directive(DirectiveKind.CONTINUE), 10.0)
DRAIN = BeatReply(Directive(DirectiveKind.DRAIN, id=7), 10.0)
Kind = agent_pb2.Directive


class SlowStream:
    """A servicer's context. It takes a message when the test lets it, and never two at once, as gRPC does."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[agent_pb2.SessionRequest | object] = asyncio.Queue()
        self.taken: list[list[agent_pb2.Directive.Kind.ValueType]] = []
        self.writing = False
        self.room = asyncio.Semaphore(0)

    async def read(self) -> object:
        return await self.requests.get()

    async def write(self, message: bytes) -> None:
        assert not self.writing, "a message while another is being written"
        self.writing = True
        try:
            await self.room.acquire()
        finally:
            self.writing = False
        replies = agent_pb2.SessionResponse.FromString(message).replies
        self.taken.append([reply.directive.kind for reply in replies])


class Talk:
    """A session on a slow stream, of an agent that is to drain whenever somebody asks."""

    def __init__(self) -> None:
        self.stream = SlowStream()
        self.sessions = Sessions(lambda _beat, _peer: GO_ON, lambda _instance: DRAIN, epoch=1)
        session = Session(cast("aio.ServicerContext[agent_pb2.SessionRequest, bytes]", self.stream), None)
        self.served = asyncio.create_task(self.sessions.serve(session))

    def beat(self) -> None:
        who = common_pb2.InstanceRef(id=AGENT, incarnation="1")
        beat = agent_pb2.Heartbeat(instance=who, seq=1)
        self.stream.requests.put_nowait(agent_pb2.SessionRequest(heartbeats=[beat]))

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10.0):
            while not true():
                await asyncio.sleep(0)

    async def until_writing(self) -> None:
        await self.until(lambda: self.stream.writing)

    async def until_quiet(self) -> None:
        await self.until(lambda: not self.stream.writing)

    async def hear_one_answer(self) -> None:
        self.beat()
        self.stream.room.release()
        await self.until(lambda: len(self.stream.taken) == 1)

    async def end(self) -> list[list[agent_pb2.Directive.Kind.ValueType]]:
        """Let everything through and hang up; what came through, message by message."""
        for _ in range(10):
            self.stream.room.release()
        self.stream.requests.put_nowait(aio.EOF)  # type: ignore[attr-defined]
        async with asyncio.timeout(10.0):
            await self.served
        return self.stream.taken


@asynchronous
async def test_what_is_new_while_an_answer_is_written_is_said_once_after_it() -> None:
    talk = Talk()
    talk.beat()
    await talk.until_writing()
    for _ in range(100):  # nobody reads, and nothing is queued
        talk.sessions.tell(AGENT)
    assert await talk.end() == [[Kind.KIND_CONTINUE], [Kind.KIND_DRAIN]]


@asynchronous
async def test_an_answer_waits_for_what_is_being_told() -> None:
    talk = Talk()
    await talk.hear_one_answer()
    talk.sessions.tell(AGENT)
    await talk.until_writing()
    talk.beat()
    talk.sessions.tell(AGENT)
    assert await talk.end() == [[Kind.KIND_CONTINUE], [Kind.KIND_DRAIN], [Kind.KIND_DRAIN], [Kind.KIND_CONTINUE]]


@asynchronous
async def test_the_end_of_agentd_waits_for_nobody_who_does_not_read() -> None:
    answering, telling = Talk(), Talk()
    answering.beat()
    await telling.hear_one_answer()
    telling.sessions.tell(AGENT)
    for talk in (answering, telling):
        await talk.until_writing()
        talk.sessions.close()
        async with asyncio.timeout(10.0):
            await talk.served
        await talk.until_quiet()


@asynchronous
async def test_when_the_other_side_is_gone_its_session_is_cancelled_and_forgotten() -> None:
    talk = Talk()
    talk.beat()
    await talk.until_writing()
    talk.served.cancel()  # as gRPC does
    (ended,) = await asyncio.gather(talk.served, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError)
    talk.sessions.tell(AGENT)
    await asyncio.sleep(0)
    assert not talk.stream.writing

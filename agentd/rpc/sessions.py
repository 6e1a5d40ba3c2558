"""Sessions: the heartbeats of agents on a stream, and their directives unasked.

Owns who listens where: an instance belongs to the session it was last heard in. A session is a way to talk and no
sign of life: when it ends, nothing is concluded, and what was not acknowledged is said again in the next one, in the
answer to a heartbeat. Nothing is queued for a client that does not read: of each instance only that it has a
directive is remembered, and which one that is, is asked for when there is room to say it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from grpc import aio

from agentd.core.messages import Beat, BeatReply, Refusal
from agentd.core.model import InstanceId
from agentd.rpc import convert
from agentd.rpc.errors import abort
from agentd.rpc.identity import Peer
from agentd.rpc.reading import unreadable
from agentd.v1 import agent_pb2

# A relay may speak for all agents of a node.
INSTANCES_MAX = 1_000

_Context = aio.ServicerContext[agent_pb2.SessionRequest, bytes]
_Take = Callable[[Beat, Peer | None], BeatReply | Refusal]


class Unacceptable(Exception):
    """A message that ends its call or session, and how that is said."""

    def __init__(
        self, reason: str, text: str, *, status: str = "INVALID_ARGUMENT", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.status = status
        self.metadata = metadata

    async def abort(self, context: aio.ServicerContext[Any, Any]) -> NoReturn:
        await abort(context, status=self.status, reason=self.reason, text=str(self), metadata=self.metadata)


def checked(request: agent_pb2.HeartbeatRequest | agent_pb2.SessionRequest | None, kind: str) -> list[Beat]:
    """The beats of a message of `kind`; None: what was received is no such message.

    Raises:
        Unacceptable: nothing of it is taken.
    """
    if request is None:
        raise Unacceptable("INVALID_MESSAGE", unreadable(kind))
    try:
        return convert.beats(request)
    except convert.Invalid as error:
        raise Unacceptable("INVALID_HEARTBEAT", str(error), metadata={"field": error.field}) from None


class Session:
    """One stream, of one process."""

    def __init__(self, context: _Context, peer: Peer | None) -> None:
        self.context = context
        self.peer = peer
        self.instances: set[InstanceId] = set()
        self.untold: dict[InstanceId, None] = {}  # that have a new directive, in order
        # gRPC takes one message at a time: either an answer is being written, or something is being told.
        self.answering = False
        self.telling: asyncio.Task[None] | None = None
        # Nearly every answer is the last one again: it is kept as it goes over the wire.
        self.reply: BeatReply | None = None
        self.response = b""


class Sessions:
    """All sessions of an agentd. `take` takes a heartbeat, `directive` gives what an instance is to be told now."""

    def __init__(self, take: _Take, directive: Callable[[InstanceId], BeatReply | None], epoch: int) -> None:
        self._take = take
        self._directive = directive
        self._epoch = epoch
        self._of: dict[InstanceId, Session] = {}
        self._serving: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def serve(self, session: Session) -> None:
        """Answer until the other side ends, or `close`. The calling task must do nothing else."""
        if self._closed:
            return
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._listen(session)
        except asyncio.CancelledError:
            if not self._closed:  # the other side is gone
                raise
        finally:
            self._serving.discard(task)
            if session.telling is not None:
                session.telling.cancel()
            for instance in session.instances:
                if self._of.get(instance) is session:
                    del self._of[instance]

    def close(self) -> None:
        """End all sessions, those that begin from now on too."""
        self._closed = True
        for task in self._serving:
            task.cancel()

    def tell(self, instance: InstanceId) -> None:
        """`instance` has a new directive: say it at once where it listens."""
        session = self._of.get(instance)
        if session is None:
            return
        session.untold[instance] = None
        if not session.answering and session.telling is None:
            session.telling = asyncio.create_task(self._tell(session))

    async def _listen(self, session: Session) -> None:
        read, write = session.context.read, session.context.write
        try:
            while (request := await read()) is not aio.EOF:  # type: ignore[attr-defined]  # the stubs lack it
                response = self._answer(session, request)
                if session.telling is not None:
                    await session.telling
                session.answering = True
                await write(response)
                if session.untold:
                    await self._say(session)
                session.answering = False
        except Unacceptable as error:
            await error.abort(session.context)

    def _answer(self, session: Session, request: agent_pb2.SessionRequest | None) -> bytes:
        """Take the beats of a message.

        Raises:
            Unacceptable: the message ends the session.
        """
        beats = checked(request, "SessionRequest")
        if len(beats) == 1:
            reply = self._take(beats[0], session.peer)
            if reply is session.reply and self._of.get(beats[0].instance) is session:
                return session.response
            replies = [reply]
        else:
            replies = [self._take(beat, session.peer) for beat in beats]
        for beat, reply in zip(beats, replies, strict=True):
            if isinstance(reply, BeatReply):
                self._register(session, beat.instance)
        # The same answer again is good only where it cannot be another instance's.
        session.reply = replies[0] if len(session.instances) == 1 and isinstance(replies[0], BeatReply) else None
        named = zip(beats, replies, strict=True)
        session.response = self._response(convert.heartbeat_reply(reply, beat.instance) for beat, reply in named)
        return session.response

    def _response(self, replies: Iterable[agent_pb2.HeartbeatReply], *, unasked: bool = False) -> bytes:
        told = agent_pb2.SessionResponse(replies=replies, controller_epoch=self._epoch, unasked=unasked)
        return told.SerializeToString()

    def _register(self, session: Session, instance: InstanceId) -> None:
        if len(session.instances) >= INSTANCES_MAX and instance not in session.instances:
            text = f"one session speaks for at most {INSTANCES_MAX} instances"
            raise Unacceptable("TOO_MANY_INSTANCES", text, status="RESOURCE_EXHAUSTED")
        session.instances.add(instance)
        self._of[instance] = session

    async def _tell(self, session: Session) -> None:
        """Say what is new while no answer is being written."""
        try:
            await self._say(session)
        except (asyncio.InvalidStateError, aio.InternalError):  # it has ended meanwhile
            return
        finally:
            session.telling = None

    async def _say(self, session: Session) -> None:
        while session.untold:
            instances, session.untold = tuple(session.untold), {}
            told = [(instance, self._directive(instance)) for instance in instances]
            replies = [convert.heartbeat_reply(reply, instance) for instance, reply in told if reply is not None]
            if replies:
                await session.context.write(self._response(replies, unasked=True))

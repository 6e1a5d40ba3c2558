"""Sessions: the heartbeats of agents on a stream, and their directives unasked.

Owns who listens where: an instance belongs to the session it was last heard in. A session is a way to talk and no
sign of life: when it ends, nothing is concluded, and what was not acknowledged is said again in the next one, in the
answer to a heartbeat. Nothing is queued for a client that does not read: of each instance only that it has a
directive is remembered, and which one that is, is asked for when there is room to say it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NoReturn

from grpc import aio

from agentd.core.messages import Beat, BeatReply, Refusal
from agentd.core.model import InstanceId
from agentd.rpc import convert
from agentd.rpc.errors import abort
from agentd.rpc.identity import Peer
from agentd.v1 import agent_pb2

# A relay may speak for all agents of a node.
INSTANCES_MAX = 1_000

_Context = aio.ServicerContext[agent_pb2.SessionRequest, agent_pb2.SessionResponse]
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
        raise Unacceptable("INVALID_MESSAGE", f"the bytes received are no agentd.v1.{kind}")
    try:
        return convert.beats(request)
    except convert.Invalid as error:
        raise Unacceptable("INVALID_HEARTBEAT", str(error), metadata={"field": error.field}) from None


class Session:
    """One stream, of one process."""

    def __init__(self, requests: AsyncIterator[Any], context: _Context, peer: Peer | None) -> None:
        self.requests = requests
        self.context = context
        self.peer = peer
        self.instances: set[InstanceId] = set()
        self.untold: dict[InstanceId, None] = {}  # that have a new directive, in order
        self.telling: asyncio.Task[None] | None = None
        self.writing = asyncio.Lock()  # gRPC takes one message at a time
        # Nearly every answer is the last one again.
        self.reply: BeatReply | None = None
        self.response = agent_pb2.SessionResponse()


class Sessions:
    """All sessions of an agentd. `take` takes a heartbeat, `directive` gives what an instance is to be told now."""

    def __init__(self, take: _Take, directive: Callable[[InstanceId], BeatReply | None], epoch: int) -> None:
        self._take = take
        self._directive = directive
        self._epoch = epoch
        self._of: dict[InstanceId, Session] = {}
        self._closed = asyncio.Event()

    async def serve(self, session: Session) -> None:
        """Answer until the other side ends, or `close`."""
        listening = asyncio.create_task(self._listen(session))
        closed = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait((listening, closed), return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
        finally:
            closed.cancel()
            listening.cancel()
            if session.telling is not None:
                session.telling.cancel()
            for instance in session.instances:
                if self._of.get(instance) is session:
                    del self._of[instance]

    def close(self) -> None:
        """End all sessions, those that begin from now on too."""
        self._closed.set()

    def tell(self, instance: InstanceId) -> None:
        """`instance` has a new directive: say it at once where it listens."""
        session = self._of.get(instance)
        if session is None:
            return
        session.untold[instance] = None
        if session.telling is None or session.telling.done():
            session.telling = asyncio.create_task(self._say(session))

    async def _listen(self, session: Session) -> None:
        try:
            async for request in session.requests:
                response = self._answer(session, request)
                async with session.writing:
                    await session.context.write(response)
        except Unacceptable as error:
            await error.abort(session.context)

    def _answer(self, session: Session, request: agent_pb2.SessionRequest | None) -> agent_pb2.SessionResponse:
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
        response = agent_pb2.SessionResponse(
            replies=[convert.heartbeat_reply(reply, beat.instance) for beat, reply in zip(beats, replies, strict=True)],
            controller_epoch=self._epoch,
        )
        # The same answer again is good only where it cannot be another instance's.
        session.reply = replies[0] if len(session.instances) == 1 and isinstance(replies[0], BeatReply) else None
        session.response = response
        return response

    def _register(self, session: Session, instance: InstanceId) -> None:
        if len(session.instances) >= INSTANCES_MAX and instance not in session.instances:
            text = f"one session speaks for at most {INSTANCES_MAX} instances"
            raise Unacceptable("TOO_MANY_INSTANCES", text, status="RESOURCE_EXHAUSTED")
        session.instances.add(instance)
        self._of[instance] = session

    async def _say(self, session: Session) -> None:
        while session.untold:
            async with session.writing:
                instances, session.untold = tuple(session.untold), {}
                told = [(instance, self._directive(instance)) for instance in instances]
                replies = [convert.heartbeat_reply(reply, instance) for instance, reply in told if reply is not None]
                if not replies:
                    continue
                try:
                    await session.context.write(
                        agent_pb2.SessionResponse(replies=replies, controller_epoch=self._epoch, unasked=True)
                    )
                except (asyncio.InvalidStateError, aio.InternalError):  # it has ended meanwhile
                    return

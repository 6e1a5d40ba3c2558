"""AgentService: heartbeats in, directives out. The hot path: no disk, no lock, no await between the two.

A session is the same on a stream (sessions.py), which also carries new directives unasked.

Where the kernel says who calls, an instance is reported only out of its own unit, and by root, who speaks for whom he
likes. That is asked first: a stranger learns nothing of an instance, not even whether there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc import aio

from agentd import log, units
from agentd.core.messages import Beat, BeatReply, Refusal
from agentd.core.model import InstanceId
from agentd.rpc import convert, identity, reading
from agentd.rpc.errors import abort
from agentd.rpc.identity import Peer, PeerOf
from agentd.rpc.sessions import Session, Sessions, Unacceptable, checked
from agentd.runtime import Runtime
from agentd.v1 import agent_pb2, agent_pb2_grpc

SERVICE: str = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name
# A warning of who reports others is repeated after so long.
STRANGER_TOLD_AGAIN_S = 60.0
_log = log.get("agents")
_Context = aio.ServicerContext[agent_pb2.HeartbeatRequest, bytes]
_SessionContext = aio.ServicerContext[agent_pb2.SessionRequest, bytes]


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """See proto/agentd/v1/agent.proto."""

    def __init__(self, runtime: Runtime, epoch: int, peer_of: PeerOf = identity.unverified) -> None:
        """`peer_of` says who calls: `Servers.agents_peer` where agents are units."""
        self._runtime = runtime
        self._peer_of = peer_of
        self._told: dict[InstanceId | int, float] = {}  # who reported others (instance, or uid), and when it was told
        self._epoch = epoch
        # Nearly every answer is "go on", for which the controller gives the same reply each time: it is kept as it goes
        # over the wire.
        self._reply: BeatReply | None = None
        self._response = b""
        self._sessions = Sessions(self._take, runtime.next_directive, epoch)
        runtime.on_directive(self._sessions.tell)

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The service as a server takes it.

        Unlike the generated one it answers bytes that are no message, and serializes by itself.
        """
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Heartbeat": grpc.unary_unary_rpc_method_handler(
                self.Heartbeat, request_deserializer=reading.reader(agent_pb2.HeartbeatRequest)
            ),
            "Session": grpc.stream_stream_rpc_method_handler(
                self.Session, request_deserializer=reading.reader(agent_pb2.SessionRequest)
            ),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def close(self) -> None:
        """End all sessions: agents find the next agentd, if there is one."""
        self._sessions.close()

    async def Session(  # type: ignore[override]  # it reads and writes by itself: no generator
        self, request_iterator: AsyncIterator[Any], context: _SessionContext
    ) -> None:
        del request_iterator
        await self._sessions.serve(Session(context, self._peer_of(context.peer())))

    async def Heartbeat(  # type: ignore[override]  # serialized already
        self, request: agent_pb2.HeartbeatRequest | None, context: _Context
    ) -> bytes:
        try:
            beats = checked(request, "HeartbeatRequest")
        except Unacceptable as error:
            await error.abort(context)
        peer = self._peer_of(context.peer())
        if len(beats) > 1:
            return self._answer([self._take(beat, peer) for beat in beats])
        reply = self._take(beats[0], peer)
        if isinstance(reply, Refusal):
            metadata = {"instance": beats[0].instance}
            await abort(context, status=reply.status, reason=reply.reason, text=reply.text, metadata=metadata)
        if reply is not self._reply:
            self._response = self._answer([reply])
            self._reply = reply
        return self._response

    def _answer(self, replies: Iterable[BeatReply | Refusal]) -> bytes:
        told = map(convert.heartbeat_reply, replies)
        return agent_pb2.HeartbeatResponse(replies=told, controller_epoch=self._epoch).SerializeToString()

    def _take(self, beat: Beat, peer: Peer | None) -> BeatReply | Refusal:
        if peer is not None and peer.instance != beat.instance and peer.uid != 0:
            return _malformed(beat) or self._not_its_own(beat, peer)
        reply = self._runtime.beat(beat)
        if isinstance(reply, BeatReply):
            return reply
        assert isinstance(reply, Refusal)
        if reply.reason == "UNKNOWN_INSTANCE":
            return _malformed(beat) or reply
        return reply

    def _not_its_own(self, beat: Beat, peer: Peer) -> Refusal:
        unit = units.unit_name(peer.instance) if peer.instance else "no agent's unit"
        text = f"{beat.instance} is reported only from its own unit; pid {peer.pid} is of {unit}"
        # By who does it, not by whom it names: it can name as many as it likes.
        who, now = peer.instance or peer.uid, asyncio.get_running_loop().time()
        if now - self._told.get(who, -STRANGER_TOLD_AGAIN_S) >= STRANGER_TOLD_AGAIN_S:
            self._told[who] = now
            _log.warning("heartbeat refused", instance=peer.instance or "", uid=peer.uid, cause=text)
        return Refusal("NOT_ITS_UNIT", text, "PERMISSION_DENIED")


def _malformed(beat: Beat) -> Refusal | None:
    """Why `beat` is of no instance that could be, or None."""
    try:
        convert.check_id(beat.instance)
    except convert.Invalid as error:
        return Refusal("INVALID_HEARTBEAT", str(error), "INVALID_ARGUMENT")
    return None

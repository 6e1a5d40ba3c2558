"""AgentService: heartbeats in, directives out. The hot path: no disk, no lock, no await between the two."""

from __future__ import annotations

from grpc import aio

from agentd.core.messages import Beat, BeatReply, Refusal
from agentd.core.model import Directive, DirectiveKind
from agentd.rpc import convert
from agentd.rpc.errors import abort
from agentd.runtime import Runtime
from agentd.v1 import agent_pb2, agent_pb2_grpc

_Context = aio.ServicerContext[agent_pb2.HeartbeatRequest, agent_pb2.HeartbeatResponse]
_CONTINUE = Directive(DirectiveKind.CONTINUE)


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """See proto/agentd/v1/agent.proto."""

    def __init__(self, runtime: Runtime, epoch: int) -> None:
        self._runtime = runtime
        self._epoch = epoch
        # Nearly every answer is "go on"; it is made once for each interval.
        self._go_on: dict[float, agent_pb2.HeartbeatResponse] = {}

    async def Heartbeat(self, request: agent_pb2.HeartbeatRequest, context: _Context) -> agent_pb2.HeartbeatResponse:
        try:
            beats = convert.beats(request)
        except convert.Invalid as error:
            await abort(
                context,
                status="INVALID_ARGUMENT",
                reason="INVALID_HEARTBEAT",
                text=str(error),
                metadata={"field": error.field},
            )
        if len(beats) == 1:
            return await self._one(beats[0], context)
        replies = [convert.heartbeat_reply(self._take(beat)) for beat in beats]
        return agent_pb2.HeartbeatResponse(replies=replies, controller_epoch=self._epoch)

    async def _one(self, beat: Beat, context: _Context) -> agent_pb2.HeartbeatResponse:
        reply = self._take(beat)
        if isinstance(reply, Refusal):
            metadata = {"instance": beat.instance}
            await abort(context, status=reply.status, reason=reply.reason, text=reply.text, metadata=metadata)
        if reply.directive == _CONTINUE and (response := self._go_on.get(reply.interval_s)):
            return response
        response = agent_pb2.HeartbeatResponse(replies=[convert.heartbeat_reply(reply)], controller_epoch=self._epoch)
        if reply.directive == _CONTINUE:
            self._go_on = {reply.interval_s: response}
        return response

    def _take(self, beat: Beat) -> BeatReply | Refusal:
        reply = self._runtime.beat(beat)
        if isinstance(reply, Refusal) and reply.reason == "UNKNOWN_INSTANCE":
            try:
                convert.check_id(beat.instance)
            except convert.Invalid as error:
                return Refusal("INVALID_HEARTBEAT", str(error), "INVALID_ARGUMENT")
        assert isinstance(reply, BeatReply | Refusal)
        return reply

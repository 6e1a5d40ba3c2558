"""AgentService: heartbeats in, directives out. The hot path: no disk, no lock, no await between the two."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from agentd.core.messages import Beat, BeatReply, Refusal
from agentd.rpc import convert
from agentd.rpc.errors import abort
from agentd.runtime import Runtime
from agentd.v1 import agent_pb2, agent_pb2_grpc

SERVICE: str = agent_pb2.DESCRIPTOR.services_by_name["AgentService"].full_name
_Context = aio.ServicerContext[agent_pb2.HeartbeatRequest, agent_pb2.HeartbeatResponse]


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """See proto/agentd/v1/agent.proto."""

    def __init__(self, runtime: Runtime, epoch: int) -> None:
        self._runtime = runtime
        self._epoch = epoch
        # Nearly every answer is "go on", for which the controller gives the same reply each time.
        self._reply: BeatReply | None = None
        self._response = agent_pb2.HeartbeatResponse()

    def handler(self) -> grpc.GenericRpcHandler[agent_pb2.HeartbeatRequest, agent_pb2.HeartbeatResponse]:
        """The service as a server takes it. Unlike the generated one it answers bytes that are no message."""
        heartbeat = grpc.unary_unary_rpc_method_handler(
            self.Heartbeat,
            request_deserializer=_read,
            response_serializer=agent_pb2.HeartbeatResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Heartbeat": heartbeat})

    async def Heartbeat(
        self, request: agent_pb2.HeartbeatRequest | None, context: _Context
    ) -> agent_pb2.HeartbeatResponse:
        if request is None:
            text = "the bytes received are no agentd.v1.HeartbeatRequest"
            await abort(context, status="INVALID_ARGUMENT", reason="INVALID_MESSAGE", text=text)
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
        if len(beats) > 1:
            replies = [convert.heartbeat_reply(self._take(beat)) for beat in beats]
            return agent_pb2.HeartbeatResponse(replies=replies, controller_epoch=self._epoch)
        reply = self._take(beats[0])
        if isinstance(reply, Refusal):
            metadata = {"instance": beats[0].instance}
            await abort(context, status=reply.status, reason=reply.reason, text=reply.text, metadata=metadata)
        if reply is not self._reply:
            replies = [convert.heartbeat_reply(reply)]
            self._response = agent_pb2.HeartbeatResponse(replies=replies, controller_epoch=self._epoch)
            self._reply = reply
        return self._response

    def _take(self, beat: Beat) -> BeatReply | Refusal:
        reply = self._runtime.beat(beat)
        if isinstance(reply, BeatReply):
            return reply
        assert isinstance(reply, Refusal)
        if reply.reason == "UNKNOWN_INSTANCE":
            try:
                convert.check_id(beat.instance)
            except convert.Invalid as error:
                return Refusal("INVALID_HEARTBEAT", str(error), "INVALID_ARGUMENT")
        return reply


def _read(message: bytes) -> agent_pb2.HeartbeatRequest | None:
    try:
        return agent_pb2.HeartbeatRequest.FromString(message)
    except DecodeError:
        return None

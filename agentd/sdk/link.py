"""The way to agentd: an agent's heartbeats up and what agentd says down, on a session, or call by call.

A session is opened with the first heartbeat, and again with the next one after it has ended. An agentd that knows no
sessions is asked call by call until another one answers: that may know them. Whichever way it came, an answer is one
message, refusals too, and at most one is awaited; nothing is stored.

For one event loop, which is not the agent's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grpc import aio

from agentd.sdk.status import error_reason
from agentd.v1 import agent_pb2, agent_pb2_grpc

# gRPC's own reconnection stays faster than `Pace`, so that `Pace` alone spaces the attempts. How long one may take is
# left at the default of 20 s (`min_reconnect_backoff_ms`, whatever its name): while agentd restarts, a connection
# waits in the queue of its socket, and each that is given up stays there as a dead one.
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 400),
    ("grpc.enable_retries", 0),
    # By default each answer is followed by a ping that finds out how much may be under way at once. It is never much.
    ("grpc.http2.bdp_probe", 0),
)
_Session = aio.StreamStreamCall[agent_pb2.SessionRequest, agent_pb2.SessionResponse]


class Lost(Exception):
    """No answer came. `code` is the name of a gRPC status; `reason` agentd's, empty where it said none."""

    def __init__(self, code: str, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason
        self.ended = False  # a session that worked has ended; whether anybody is there, nobody knows

    @property
    def away(self) -> bool:
        """Nobody was there to answer."""
        return self.code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED") and not self.reason


class Link:
    """One channel. Make, use and `close` it in one event loop."""

    def __init__(
        self, endpoint: str, hear: Callable[[agent_pb2.HeartbeatReply], None], lose: Callable[[Lost], None]
    ) -> None:
        """`hear` gets what comes unasked, `lose` the end of a session in which no answer was awaited."""
        self._hear = hear
        self._lose = lose
        self._channel = aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
        self._stub = agent_pb2_grpc.AgentServiceStub(self._channel)
        self._sessions = True  # agentd knows them, as far as we know
        self._epoch: int | None = None  # of the agentd that does not
        self._session: _Session | None = None
        self._answer: asyncio.Future[agent_pb2.HeartbeatReply] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def ask(self, beat: agent_pb2.Heartbeat, timeout_s: float) -> agent_pb2.HeartbeatReply:
        """Send `beat` and wait for its answer, which may be a refusal.

        Raises:
            Lost: none came; the next heartbeat begins a new session.
        """
        if self._sessions:
            try:
                return await self._ask_in_session(beat, timeout_s)
            except Lost as lost:
                # INTERNAL: gRPC could not send any more, and has forgotten what agentd had said before. A call tells.
                if lost.code not in ("UNIMPLEMENTED", "INTERNAL"):
                    raise
                self._sessions = lost.code == "INTERNAL"
        return await self._ask_alone(beat, timeout_s)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [task for task in (self._reader, self._writer) if task is not None]
        self._drop()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._channel.close(None)

    async def _ask_alone(self, beat: agent_pb2.Heartbeat, timeout_s: float) -> agent_pb2.HeartbeatReply:
        try:
            response = await self._stub.Heartbeat(agent_pb2.HeartbeatRequest(heartbeats=[beat]), timeout=timeout_s)
        except aio.AioRpcError as error:
            lost = _lost(error)
            if lost.away:
                raise lost from error
            code: int = error.code().value[0]
            return agent_pb2.HeartbeatReply(refusal=agent_pb2.Refusal(code=code, reason=lost.reason, message=str(lost)))
        # Another agentd than the one that knew no sessions may know them.
        self._sessions |= self._epoch not in (None, response.controller_epoch)
        self._epoch = response.controller_epoch
        return response.replies[0] if response.replies else agent_pb2.HeartbeatReply()

    async def _ask_in_session(self, beat: agent_pb2.Heartbeat, timeout_s: float) -> agent_pb2.HeartbeatReply:
        if self._session is None:
            self._session = self._stub.Session()  # type: ignore[call-arg]  # without an iterator, it is written to
            self._reader = asyncio.create_task(self._read(self._session))
        self._answer = asyncio.get_running_loop().create_future()
        request = agent_pb2.SessionRequest(heartbeats=[beat])
        self._writer = asyncio.create_task(_write(self._session, request))
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer
        except TimeoutError:
            self._drop()
            raise Lost("DEADLINE_EXCEEDED", f"no answer within {timeout_s:g} s") from None
        finally:
            self._answer = None

    async def _read(self, session: _Session) -> None:
        """Hear what comes until the session ends. Cancelled, it was ended here."""
        lost = Lost("UNAVAILABLE", "agentd has ended the session")
        worked = False
        try:
            async for response in session:
                worked = True
                for reply in response.replies:
                    if response.unasked:
                        self._hear(reply)
                    elif self._answer is not None and not self._answer.done():
                        self._answer.set_result(reply)
        except aio.AioRpcError as error:
            lost = _lost(error)
        self._session = None
        self._stop_writing()
        lost.ended = worked and lost.away
        if self._answer is None or self._answer.done():
            self._lose(lost)
        else:
            self._answer.set_exception(lost)

    def _drop(self) -> None:
        """End the session, if there is one, without another word."""
        if self._session is not None:
            self._session.cancel()
            self._session = None
            assert self._reader is not None, "broken invariant: nobody reads the session"
            self._reader.cancel()
            self._stop_writing()

    def _stop_writing(self) -> None:
        # A write that has not begun when its call ends waits for ever.
        if self._writer is not None:
            self._writer.cancel()


async def _write(session: _Session, request: agent_pb2.SessionRequest) -> None:
    try:
        await session.write(request)
    except (aio.AioRpcError, asyncio.InvalidStateError):
        return  # it has ended; whoever reads it learns why


def _lost(error: aio.AioRpcError) -> Lost:
    return Lost(error.code().name, error.details() or error.code().name, error_reason(error))

"""ControlService: what people and programs ask of agentd.

Calls that change something are done once per `request_id`: a repetition, also one that comes while the first
is under way, gets the first one's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message
from grpc import aio

from agentd.about import About
from agentd.core.messages import (
    CancelRestart,
    Check,
    CheckReply,
    Configure,
    ConfigureReply,
    Drain,
    EventType,
    Propose,
    Restart,
    RollingRestart,
    SetAutoscaling,
    SetTarget,
    TargetReply,
)
from agentd.core.model import InstanceId, PoolName
from agentd.core.views import FleetView
from agentd.errors import Refused
from agentd.rpc import convert, identity
from agentd.rpc import convert_decisions as decisions
from agentd.rpc.errors import abort
from agentd.rpc.identity import PeerOf
from agentd.rpc.operations import Operations
from agentd.runtime import Runtime
from agentd.v1 import control_pb2 as pb
from agentd.v1 import control_pb2_grpc

EVENTS_DEFAULT, EVENTS_MAX = 100, 10_000
HISTORY_DEFAULT, HISTORY_MAX = 10, 1_000
LINES_MAX = 100_000
TARGET_S_DEFAULT = 3600.0
OFFER_S_DEFAULT = 600.0
COUNT_MAX = 100_000
TEXT_MAX = 200
REQUEST_ID_MAX = 64
# Answers are remembered for repetitions; the oldest go first.
REQUESTS_MAX = 1_000

_Answer = TypeVar("_Answer", bound=Message)
_Context = aio.ServicerContext[Any, Any]
_DIRECTIONS = {pb.ScaleRequest.DIRECTION_UP: "up", pb.ScaleRequest.DIRECTION_DOWN: "down"}


class Logs(Protocol):
    """What instances have written. Raises ValueError for what is no instance id."""

    async def has(self, instance: str) -> bool:
        """Whether `instance` has written anything."""

    def read(self, instance: str, lines: int, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """The last `lines` lines in pieces of any size; with `follow` also what is written from then on.

        Raises:
            FileNotFoundError: there is nothing to read of `instance`.
            Refused: what there is cannot be read.
        """


def _answers(
    method: Callable[[ControlService, Any, _Context], Awaitable[_Answer]],
) -> Callable[[ControlService, Any, _Context], Awaitable[_Answer]]:
    """A unary method whose Refused becomes the call's status."""

    @functools.wraps(method)
    async def answer(self: ControlService, request: Any, context: _Context) -> _Answer:
        try:
            return await method(self, request, context)
        except Refused as refused:
            await abort(context, status=refused.status, reason=refused.reason, text=str(refused))

    return answer


def _once(
    method: Callable[[ControlService, Any, _Context], Awaitable[_Answer]],
) -> Callable[[ControlService, Any, _Context], Awaitable[_Answer]]:
    """A method that changes something: done once per request_id."""

    @functools.wraps(method)
    async def answer(self: ControlService, request: Any, context: _Context) -> _Answer:
        if not request.request_id:
            return await method(self, request, context)
        if len(request.request_id) > REQUEST_ID_MAX:
            text = f"request_id: {len(request.request_id)} characters; at most {REQUEST_ID_MAX}"
            raise Refused("REQUEST_ID_TOO_LONG", text, status="INVALID_ARGUMENT")
        body = _digest(request)
        known = self._requests.get(request.request_id)
        if known is None:
            known = body, asyncio.ensure_future(method(self, request, context))
            self._requests[request.request_id] = known
            while len(self._requests) > REQUESTS_MAX:
                self._requests.popitem(last=False)
        if known[0] != body:
            text = f"request_id {request.request_id!r} was used for another request"
            raise Refused("REQUEST_ID_REUSED", text, status="INVALID_ARGUMENT")
        # The client may go away; what was begun is finished, and a repetition finds its answer.
        return await asyncio.shield(known[1])

    return _answers(answer)


class ControlService(control_pb2_grpc.ControlServiceServicer):
    """See proto/agentd/v1/control.proto."""

    def __init__(
        self,
        runtime: Runtime,
        about: About,
        operations: Operations,
        logs: Logs | None,
        *,
        peer_of: PeerOf = identity.unverified,
    ) -> None:
        """`peer_of` says who calls: `Servers.control_peer`."""
        self._runtime = runtime
        self._about = about
        self._operations = operations
        self._logs = logs
        self._peer_of = peer_of
        self._requests: OrderedDict[str, tuple[bytes, asyncio.Future[Any]]] = OrderedDict()

    # -- looking --------------------------------------------------------------------------------

    @_answers
    async def GetStatus(self, request: pb.GetStatusRequest, context: _Context) -> pb.GetStatusResponse:
        del request, context
        runtime = self._runtime
        status = convert.status(
            runtime.view(), runtime.config, self._about, now=runtime.clock.now(), degraded=runtime.degraded()
        )
        return pb.GetStatusResponse(status=status)

    @_answers
    async def ListInstances(self, request: pb.ListInstancesRequest, context: _Context) -> pb.ListInstancesResponse:
        del context
        view = self._runtime.view()
        if request.pool:
            self._known_pool(view, request.pool)
        shown = [item for item in view.instances if request.pool in ("", item.pool)]
        return pb.ListInstancesResponse(instances=[convert.instance(item) for item in shown])

    @_answers
    async def Explain(self, request: pb.ExplainRequest, context: _Context) -> pb.ExplainResponse:
        del context
        view = self._runtime.view()
        self._known_pool(view, request.pool)
        now = self._runtime.clock.now()
        pool = next(item for item in view.pools if item.name == request.pool)
        limit = min(request.history or HISTORY_DEFAULT, HISTORY_MAX)
        at = request.at_wall if request.HasField("at_wall") else None
        history = await self._runtime.decisions(request.pool, limit, at)
        after = None if at is None else await self._runtime.store.decision_after(request.pool, at)
        return pb.ExplainResponse(
            pool=convert.pool(pool, now),
            decisions=[decisions.decision(decision, now) for decision in history],
            following=decisions.decision(after, now) if after else None,
        )

    @_answers
    async def Plan(self, request: pb.PlanRequest, context: _Context) -> pb.PlanResponse:
        del context
        plans = self._runtime.plan(PoolName(request.pool) if request.pool else None)
        return pb.PlanResponse(plans=decisions.plans(plans, self._runtime.clock.now()))

    @_answers
    async def GetForecast(self, request: pb.GetForecastRequest, context: _Context) -> pb.GetForecastResponse:
        del context
        return decisions.forecast(self._runtime.forecast(PoolName(request.pool), request.label))

    @_answers
    async def ListEvents(self, request: pb.ListEventsRequest, context: _Context) -> pb.ListEventsResponse:
        del context
        stored = await self._runtime.events(
            limit=_at_most("limit", request.limit or EVENTS_DEFAULT, EVENTS_MAX),
            pool=request.pool,
            instance=request.instance,
            types=tuple(_event_type(name) for name in request.types),
        )
        return pb.ListEventsResponse(events=[convert.event(item) for item in stored])

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: _Context
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        try:
            async for stored in self._runtime.watch(_resume_token(request.resume_token)):
                if request.pool in ("", stored.record.pool):
                    yield pb.WatchEventsResponse(event=convert.event(stored))
        except Refused as refused:
            await abort(context, status=refused.status, reason=refused.reason, text=str(refused))

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: _Context) -> AsyncIterator[pb.ReadLogsResponse]:
        try:
            if self._logs is None:
                raise Refused("LOGS_ELSEWHERE", f"the {self._about.driver} driver keeps no log files")
            ident = await self._resolve_log(self._logs, request.instance)
            lines = _at_most("lines", request.lines, LINES_MAX)
            async with contextlib.aclosing(self._logs.read(ident, lines, follow=request.follow)) as pieces:
                async for data in pieces:
                    for chunk in _chunks(data):
                        yield pb.ReadLogsResponse(data=chunk)
        except FileNotFoundError:
            text = f"{request.instance} has written nothing yet"
            await abort(context, status="NOT_FOUND", reason="NO_LOG", text=text)
        except Refused as refused:
            await abort(context, status=refused.status, reason=refused.reason, text=str(refused))

    # -- changing -------------------------------------------------------------------------------

    @_once
    async def Scale(self, request: pb.ScaleRequest, context: _Context) -> pb.ScaleResponse:
        if request.direction not in _DIRECTIONS:
            raise Refused("DIRECTION_MISSING", "direction must be UP or DOWN", status="INVALID_ARGUMENT")
        _at_most("count", request.count, COUNT_MAX)
        for_s = request.for_s if request.HasField("for_s") else TARGET_S_DEFAULT
        if not 0.0 < for_s < 10 * 366 * 86400:
            text = f"for_s: {for_s} is not a duration in seconds, more than 0"
            raise Refused("INVALID_DURATION", text, status="INVALID_ARGUMENT")
        reply = await self._runtime.submit(
            SetTarget(
                direction=_DIRECTIONS[request.direction],
                count=request.count,
                pool=PoolName(request.pool) if request.pool else None,
                owner=await self._owner(request, context),
                reason=_text("reason", request.reason),
                for_s=for_s,
                dry_run=request.dry_run,
            )
        )
        assert isinstance(reply, TargetReply)
        return pb.ScaleResponse(grants=decisions.grants(reply.grants))

    @_once
    async def SetAutoscaling(
        self, request: pb.SetAutoscalingRequest, context: _Context
    ) -> pb.SetAutoscalingResponse:  # fmt: skip
        owner = await self._owner(request, context)
        await self._runtime.submit(
            SetAutoscaling(
                request.enabled,
                owner,
                _text("reason", request.reason),
                pool=PoolName(request.pool) if request.pool else None,
                direction=request.direction,
                for_s=request.for_s if request.HasField("for_s") else None,
            )
        )
        return convert.switched(self._runtime.view(), request.pool)

    @_once
    async def Propose(self, request: pb.ProposeRequest, context: _Context) -> pb.ProposeResponse:
        if request.HasField("count") == request.withdraw:
            text = "count and withdraw: expected one of them"
            raise Refused("COUNT_MISSING", text, status="INVALID_ARGUMENT")
        await self._runtime.submit(
            Propose(
                pool=PoolName(request.pool),
                source=request.source,
                count=None if request.withdraw else request.count,
                owner=await self._owner(request, context),
                reason=_text("reason", request.reason),
                for_s=request.for_s if request.HasField("for_s") else OFFER_S_DEFAULT,
            )
        )
        pool = next((pool for pool in self._runtime.view().pools if pool.name == request.pool), None)
        return pb.ProposeResponse(offers=decisions.offers(pool.offers if pool else ()))

    @_once
    async def Check(self, request: pb.CheckRequest, context: _Context) -> pb.CheckResponse:
        owner = await self._owner(request, context)
        reply = await self._runtime.submit(Check(owner, PoolName(request.pool) if request.pool else None))
        assert isinstance(reply, CheckReply)
        now = self._runtime.clock.now()
        return pb.CheckResponse(decisions=[decisions.decision(decision, now) for decision in reply.decisions])

    @_once
    async def Restart(self, request: pb.RestartRequest, context: _Context) -> pb.RestartResponse:
        owner = await self._owner(request, context)
        pools = [pool.name for pool in self._runtime.view().pools]
        found = [] if request.rolling else self._named(request.name)
        if not found and request.name in pools:
            return await self._restart_pool(request, PoolName(request.name), owner)
        if request.rolling:
            raise Refused(
                "UNKNOWN_POOL", f"no pool {request.name!r} (there are {', '.join(pools)})", status="NOT_FOUND"
            )
        if not found:
            raise _unknown(request.name, "instance, core agent or pool")
        if request.cancel or request.HasField("max_unavailable"):
            text = f"{request.name} is an instance: max_unavailable and cancel are for a pool"
            raise Refused("NOT_A_POOL", text, status="INVALID_ARGUMENT")
        await self._runtime.submit(Restart(tuple(found), owner))
        return pb.RestartResponse(instances=found)

    async def _restart_pool(self, request: pb.RestartRequest, name: PoolName, owner: str) -> pb.RestartResponse:
        if request.cancel:
            await self._runtime.submit(CancelRestart(name, owner))
        else:
            has = request.HasField("max_unavailable")
            most = _at_most("max_unavailable", request.max_unavailable, COUNT_MAX) if has else None
            await self._runtime.submit(RollingRestart(name, owner, most))
        view = self._runtime.view()
        rolling = next((pool.rolling for pool in view.pools if pool.name == name), None)
        if rolling is None:  # nothing was there, or nothing is left to do
            return pb.RestartResponse()
        members = [item.id for item in view.instances if item.pool == name and item.id != rolling.stand_in]
        return pb.RestartResponse(instances=members, restart=convert.rolling(rolling))

    @_once
    async def Drain(self, request: pb.DrainRequest, context: _Context) -> pb.DrainResponse:
        found = self._named(request.name)
        if not found:
            raise _unknown(request.name, "instance or core agent")
        owner = await self._owner(request, context)
        before = next((item for item in self._runtime.view().instances if item.id == found[0]), None)
        await self._runtime.submit(Drain(found[0], owner, request.force))
        now = next((item for item in self._runtime.view().instances if item.id == found[0]), before)
        return pb.DrainResponse(instance=convert.instance(now) if now else None)

    @_once
    async def Configure(self, request: pb.ConfigureRequest, context: _Context) -> pb.ConfigureResponse:
        found = self._named(request.name)
        found = found or [item.id for item in self._runtime.view().instances if item.pool == request.name]
        if not found:
            raise _unknown(request.name, "instance, core agent or pool")
        reply = await self._runtime.submit(
            Configure(
                instances=tuple(found),
                owner=await self._owner(request, context),
                concurrency=request.concurrency if request.HasField("concurrency") else None,
                interval_s=request.interval_s if request.HasField("interval_s") else None,
            )
        )
        assert isinstance(reply, ConfigureReply)
        shown = [item for item in self._runtime.view().instances if item.id in reply.instances]
        return pb.ConfigureResponse(instances=[convert.instance(item) for item in shown])

    @_once
    async def Reload(self, request: pb.ReloadRequest, context: _Context) -> pb.ReloadResponse:
        done = await self._operations.reload(await self._owner(request, context))
        return pb.ReloadResponse(config_file=done.config_file, warnings=done.warnings, changes=done.changes)

    @_once
    async def Shutdown(self, request: pb.ShutdownRequest, context: _Context) -> pb.ShutdownResponse:
        owner = await self._owner(request, context)
        stopping = await self._operations.shutdown(keep_agents=request.keep_agents, owner=owner)
        return pb.ShutdownResponse(stopping=stopping)

    async def _owner(self, request: Any, context: _Context) -> str:
        """Who asks: by the kernel's word where it is known, else as the caller says. Root may speak for others."""
        said = _text("owner", request.owner)
        peer = self._peer_of(context.peer())
        if peer is None:
            return said or "somebody"
        if peer.uid == 0 and said:
            return said
        return await asyncio.to_thread(identity.user_name, peer.uid)

    # -- names ----------------------------------------------------------------------------------

    async def _resolve_log(self, logs: Logs, name: str) -> InstanceId:
        """The instance whose log is meant by `name`: it may be gone, what it wrote is not."""
        if found := self._named(name):
            return found[0]
        try:
            if await logs.has(name):
                return InstanceId(name)
        except ValueError:
            pass  # no instance id, and nobody's name
        raise _unknown(name, "instance or core agent")

    def _named(self, name: str) -> list[InstanceId]:
        return [item.id for item in self._runtime.view().instances if name and name in (item.id, item.core_name)]

    @staticmethod
    def _known_pool(view: FleetView, name: str) -> None:
        if name not in [pool.name for pool in view.pools]:
            known = ", ".join(pool.name for pool in view.pools)
            raise Refused("UNKNOWN_POOL", f"no pool {name!r} (there are {known})", status="NOT_FOUND")


def _unknown(name: str, what: str) -> Refused:
    return Refused("UNKNOWN_INSTANCE", f"no {what} is called {name!r}", status="NOT_FOUND")


def _digest(request: Message) -> bytes:
    """What tells requests apart, in few bytes however large they are."""
    content = request.SerializeToString(deterministic=True)
    return hashlib.sha256(type(request).__name__.encode() + b"\0" + content).digest()


def _at_most(field: str, value: int, most: int) -> int:
    if value > most:
        raise Refused("OUT_OF_BOUNDS", f"{field}: {value} is more than {most}", status="INVALID_ARGUMENT")
    return value


def _text(field: str, value: str) -> str:
    if len(value) > TEXT_MAX or not value.isprintable():
        text = f"{field}: must be one printable line of at most {TEXT_MAX} characters"
        raise Refused("INVALID_TEXT", text, status="INVALID_ARGUMENT")
    return value


def _event_type(name: str) -> EventType:
    try:
        return EventType(name)
    except ValueError:
        known = ", ".join(EventType)
        text = f"no event type {name!r} (there are {known})"
        raise Refused("UNKNOWN_EVENT_TYPE", text, status="INVALID_ARGUMENT") from None


def _resume_token(token: str) -> int | None:
    if not token:
        return None
    if not (token.isascii() and token.isdecimal() and len(token) <= 18):
        raise Refused("INVALID_TOKEN", f"{token[:40]!r} is no resume token", status="INVALID_ARGUMENT")
    return int(token)


def _chunks(data: bytes, size: int = 64 * 1024) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]

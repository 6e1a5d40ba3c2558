"""DiscoveryService: where pools take work, on both sockets.

A change is made into a message once, and that into bytes, however many read it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from weakref import WeakKeyDictionary

import grpc
from grpc import aio

from agentd.core.directory import Change
from agentd.discovery import Discovery
from agentd.errors import Refused
from agentd.rpc import convert, reading
from agentd.rpc.errors import abort
from agentd.v1 import discovery_pb2 as pb

_SERVICE = pb.DESCRIPTOR.services_by_name["DiscoveryService"]
_Context = aio.ServicerContext[Any, Any]


class DiscoveryService:
    """See proto/agentd/v1/discovery.proto."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        # The directory gives readers of one pool at one revision the same change.
        self._made: WeakKeyDictionary[Change, bytes] = WeakKeyDictionary()

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The service as a server takes it. Unlike the generated one, its stream is of bytes."""
        return reading.handler(_SERVICE, self, writer=bytes)

    async def Resolve(self, request: pb.ResolveRequest, context: _Context) -> pb.ResolveResponse:
        try:
            change = self._discovery.resolve(request.pool)
        except Refused as refused:
            await abort(context, status=refused.status, reason=refused.reason, text=str(refused))
        message = convert.change(change, self._discovery.revision(request.pool, change))
        return pb.ResolveResponse(endpoints=message.endpoints, revision=message.revision)

    async def Watch(self, request: pb.WatchRequest, context: _Context) -> AsyncIterator[bytes]:
        """A stream of `WatchResponse`s."""
        try:
            async with contextlib.aclosing(self._discovery.watch(request.pool, request.revision)) as changes:
                async for change in changes:
                    yield self._message(request.pool, change)
        except Refused as refused:
            await abort(context, status=refused.status, reason=refused.reason, text=str(refused))

    def _message(self, pool: str, change: Change) -> bytes:
        message = self._made.get(change)
        if message is None:
            message = convert.change(change, self._discovery.revision(pool, change)).SerializeToString()
            self._made[change] = message
        return message

"""Services whose every error is ours, those of bytes which are no message and of unknown methods as well.

grpc itself answers such bytes with UNKNOWN, no reason, and a traceback in the log, and an unknown method without saying
what there is. What is left to it are messages that are too large, which it refuses before they are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from agentd.rpc.errors import abort

M = TypeVar("M", bound=Message)
_Context = aio.ServicerContext[Any, Any]


def reader(kind: type[M]) -> Callable[[bytes], M | None]:
    """What makes a `kind` of bytes, and None of bytes that are none."""
    parse = kind.FromString

    def read(message: bytes) -> M | None:
        try:
            return parse(message)
        except DecodeError:
            return None

    return read


def unreadable(kind: str) -> str:
    """What is said to bytes that are no message of `kind`."""
    return f"the bytes received are no agentd.v1.{kind}"


def handler(
    service: ServiceDescriptor, servicer: object, *, writer: Callable[[Any], bytes] | None = None
) -> grpc.GenericRpcHandler[Any, Any]:
    """`service` as a server takes it, of methods with one request each; streams are written by `writer`, if any."""
    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in service.methods:
        call, write = getattr(servicer, method.name), GetMessageClass(method.output_type).SerializeToString
        read, kind = reader(GetMessageClass(method.input_type)), method.input_type.name
        if method.server_streaming:
            methods[method.name] = grpc.unary_stream_rpc_method_handler(
                _stream(call, kind), request_deserializer=read, response_serializer=writer or write
            )
        else:
            methods[method.name] = grpc.unary_unary_rpc_method_handler(
                _unary(call, kind), request_deserializer=read, response_serializer=write
            )
    return grpc.method_handlers_generic_handler(service.full_name, methods)


class UnknownMethods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs alone
    """Refuses whatever is asked of a server; to be added after `services`, those that it serves."""

    def __init__(self, services: Iterable[str]) -> None:
        self._served = ", ".join(services)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        text = f"there is no {handler_call_details.method} here; this address serves {self._served}"

        async def refuse(_: object, context: _Context) -> NoReturn:
            await abort(context, status="UNIMPLEMENTED", reason="UNKNOWN_METHOD", text=text)

        return grpc.stream_stream_rpc_method_handler(refuse)


def _unary(call: Callable[[Any, _Context], Any], kind: str) -> Callable[[Any, _Context], Any]:
    async def answer(request: Message | None, context: _Context) -> Any:
        return await (_refuse(context, kind) if request is None else call(request, context))

    return answer


def _stream(call: Callable[[Any, _Context], Any], kind: str) -> Callable[[Any, _Context], Any]:
    async def answer(request: Message | None, context: _Context) -> AsyncIterator[Any]:
        if request is None:
            await _refuse(context, kind)
        async with contextlib.aclosing(call(request, context)) as messages:
            async for message in messages:
                yield message

    return answer


async def _refuse(context: _Context, kind: str) -> NoReturn:
    await abort(context, status="INVALID_ARGUMENT", reason="INVALID_MESSAGE", text=unreadable(kind))

"""Refusals as gRPC statuses: a google.rpc.Status with one ErrorInfo, whose reason is for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc import aio

DOMAIN = "agentd"
# The text travels twice in the trailing metadata, of which clients take 8 KiB; beyond that they see no status at all.
TEXT_BYTES_MAX = 3_000


async def abort(
    context: aio.ServicerContext[Any, Any],
    *,
    status: str,
    reason: str,
    text: str,
    metadata: Mapping[str, str] | None = None,
) -> NoReturn:
    """End the call with the gRPC status named `status`, and say why in a form that programs can read."""
    text = _bounded(text)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=dict(metadata or {})))
    rich = status_pb2.Status(code=code(status), message=text, details=[detail])
    trailer = (("grpc-status-details-bin", rich.SerializeToString()),)
    await context.abort(grpc.StatusCode[status], text, trailer)
    raise AssertionError("broken invariant: abort does not return")


def code(status: str) -> int:
    """The number of the google.rpc.Code named `status`."""
    return int(code_pb2.Code.Value(status))


def _bounded(text: str) -> str:
    """`text`, cut where its bytes in a trailer (three for each that is not printable ASCII) pass TEXT_BYTES_MAX."""
    size = 0
    for at, character in enumerate(text):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        if size > TEXT_BYTES_MAX:
            return f"{text[:at]}..."
    return text

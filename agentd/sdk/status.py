"""The machine-readable reason in an error of agentd."""

from __future__ import annotations

from typing import Any

import grpc


def error_reason(call: grpc.Call | grpc.aio.AioRpcError) -> str:
    """The reason of the google.rpc.ErrorInfo in a failed call's details; empty where there is none."""
    metadata: Any = call.trailing_metadata() or ()
    for key, value in metadata:
        if key != "grpc-status-details-bin":
            continue
        # Only errors need these modules; most programs never meet one.
        from google.protobuf.message import DecodeError
        from google.rpc.error_details_pb2 import ErrorInfo
        from google.rpc.status_pb2 import Status

        info = ErrorInfo()
        try:
            if any(detail.Unpack(info) for detail in Status.FromString(value).details):
                return str(info.reason)
        except DecodeError:
            return ""  # details of another make; the status code and text remain
    return ""

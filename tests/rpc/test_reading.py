"""Bytes that are no message and unknown methods are refused like all else: with a reason, and without noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from grpc import StatusCode, aio
from serving import asynchronous, refused, serving

from agentd.v1 import agent_pb2, control_pb2, discovery_pb2

NO_MESSAGE = b"\xff"
AGENTS, CONTROL = 0, 1
FILES = {
    agent_pb2.DESCRIPTOR: (AGENTS,),
    control_pb2.DESCRIPTOR: (CONTROL,),
    discovery_pb2.DESCRIPTOR: (AGENTS, CONTROL),
}


@asynchronous
async def test_bytes_that_are_no_message_are_refused_by_every_method(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as agentd:
        for file, sockets in FILES.items():
            for method in (each for service in file.services_by_name.values() for each in service.methods):
                for socket in sockets:
                    call = answer(agentd.channels[socket], method)
                    told = await refused(call, StatusCode.INVALID_ARGUMENT, "INVALID_MESSAGE")
                    assert method.input_type.full_name in told.text
    assert not caplog.records


@asynchronous
async def test_methods_that_are_unknown_are_refused_whatever_their_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as agentd:
        for channel, path in (
            (agentd.channels[AGENTS], "/agentd.v1.AgentService/Hartbeat"),
            (agentd.channels[CONTROL], "/x/Y"),
        ):
            for call in (
                channel.unary_unary(path)(b""),
                channel.unary_stream(path)(b"").read(),
                channel.stream_stream(path)(iter([b"", b""])).read(),
            ):
                told = await refused(call, StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD")
                assert told.text.startswith(f"there is no {path} here; this address serves agentd.v1.")
    assert not caplog.records


async def answer(channel: aio.Channel, method: MethodDescriptor) -> Any:
    path = f"/{method.containing_service.full_name}/{method.name}"
    if method.client_streaming:
        return await channel.stream_stream(path)(iter([NO_MESSAGE])).read()
    if method.server_streaming:
        return await channel.unary_stream(path)(NO_MESSAGE).read()
    return await channel.unary_unary(path)(NO_MESSAGE)

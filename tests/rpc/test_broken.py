"""A broken invariant ends agentd, also when it breaks in the call of an agent or a person."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from grpc import aio
from serving import asynchronous, serving

from agentd.v1 import control_pb2 as pb


@pytest.mark.parametrize("who", ["agent", "person"])
@asynchronous
async def test_a_broken_invariant_ends_the_runtime_whoever_brought_the_event(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*_: object) -> object:
        raise AssertionError("broken invariant")

    async def call() -> None:
        async with serving(tmp_path) as agentd:
            beat = agentd.beat(seq=50)
            monkeypatch.setattr(agentd.controller, "step", step)
            with pytest.raises(aio.AioRpcError):
                await (agentd.heartbeat(beat) if who == "agent" else agentd.control.Check(pb.CheckRequest()))
            await asyncio.sleep(0)  # the turn in which `run` sees it; leaving the block takes its result

    with pytest.raises(ExceptionGroup) as ended:
        await call()
    assert ended.group_contains(AssertionError, match="broken invariant")

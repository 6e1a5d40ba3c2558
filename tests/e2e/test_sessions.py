"""Hundreds of sessions at once, each over a connection of its own, and the storm when agentd dies under them."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from e2e_fleet import Fleet
from grpc import aio

from agentd.v1 import agent_pb2, agent_pb2_grpc, common_pb2

pytestmark = pytest.mark.host

AGENTS, SESSIONS = 12, 300
# Fewer than the sessions: agentd raises its own.
OPEN_FILES_SOFT = 200
CHANNEL_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 400))
BOUND_S = 90.0


class Caller:
    """One connection, and a session of `agent` on it. Several callers speak for the same agent: nobody minds."""

    def __init__(self, channel: aio.Channel, agent: dict[str, Any]) -> None:
        self._stub = agent_pb2_grpc.AgentServiceStub(channel)
        self._who = common_pb2.InstanceRef(id=agent["id"], incarnation=agent["incarnation"])
        self._stream: Any = None
        self._seq = 0

    async def beat_in_a_new_session(self) -> int:
        """The epoch of the agentd that answers."""
        self._seq += 1
        self._stream = self._stub.Session()
        beat = agent_pb2.Heartbeat(instance=self._who, seq=self._seq, load=0.5)
        await self._stream.write(agent_pb2.SessionRequest(heartbeats=[beat]))
        answer = await self._stream.read()
        assert isinstance(answer, agent_pb2.SessionResponse), "the session ended"
        (reply,) = answer.replies
        assert not reply.HasField("refusal"), reply.refusal.message
        return int(answer.controller_epoch)

    async def wait_for_the_end(self) -> None:
        with pytest.raises(aio.AioRpcError):
            await self._stream.read()

    async def come_back(self) -> int:
        """Try again and again, as agents do: after a wait that differs from the others'."""
        while True:
            try:
                return await self.beat_in_a_new_session()
            except aio.AioRpcError:
                await asyncio.sleep(random.uniform(0.1, 0.5))


def test_all_are_served_and_all_are_back_when_agentd_was_killed(fleet: Fleet) -> None:
    sleeping = {"command": ["sleep", "infinity"], "core": {f"a{n}": fleet.ports[1 + n] for n in range(AGENTS)}}
    fleet.configure({"research": {**sleeping, "max": AGENTS}}, rules={"heartbeat_timeout_sec": 60})
    fleet.prefix = ("sh", "-c", f'ulimit -S -n {OPEN_FILES_SOFT}; exec "$@"', "sh")
    fleet.start()
    fleet.until("all run", lambda: sum(bool(one["pid"]) for one in fleet.ps().values()) == AGENTS)
    before = fleet.ps()
    asyncio.run(storm(fleet, list(before.values())))
    states = {ident: (one["pid"], one["state"]) for ident, one in fleet.ps().items()}
    assert states == {ident: (one["pid"], "ready") for ident, one in before.items()}


async def storm(fleet: Fleet, agents: list[dict[str, Any]]) -> None:
    address = f"unix:{fleet.state_dir}/run/agents.sock"
    async with asyncio.timeout(BOUND_S), AsyncExitStack() as stack:
        callers = []
        for number in range(SESSIONS):
            channel = await stack.enter_async_context(aio.insecure_channel(address, options=CHANNEL_OPTIONS))
            callers.append(Caller(channel, agents[number % AGENTS]))
        (first,) = set(await asyncio.gather(*(caller.beat_in_a_new_session() for caller in callers)))
        await asyncio.to_thread(fleet.kill)
        await asyncio.gather(*(caller.wait_for_the_end() for caller in callers))
        starting = asyncio.create_task(asyncio.to_thread(fleet.start))
        epochs = await asyncio.gather(*(caller.come_back() for caller in callers))
        await starting
        assert len(set(epochs)) == 1
        assert epochs[0] > first

"""Light agents for the other benchmarks: they beat, and do nothing else.

Started by agentd without arguments it is one agent: one process, one channel, one real RPC per interval. With
arguments (agentd's control address, a number, the address for agents) it beats for that many agents, over a channel
for each; an empty control address means a server that takes any name.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time

import grpc
from grpc import aio

from agentd.v1 import agent_pb2, agent_pb2_grpc, common_pb2

# Without the first, all channels of a process to one address would share one connection. The last as in the SDK.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.http2.bdp_probe", 0))
RETRY_S = 1.0
LOOK_S = 0.5


def request(ident: str, incarnation: str, seq: int, load: float = 0.5) -> agent_pb2.HeartbeatRequest:
    """A heartbeat as a real agent's; `tasks_completed` is its number, by which beats are counted in the status."""
    beat = agent_pb2.Heartbeat(
        instance=common_pb2.InstanceRef(id=ident, incarnation=incarnation),
        seq=seq,
        load=load,
        queue_length=2,
        in_flight=1,
        tasks_completed=seq,
        response_time_p50_s=0.2,
        response_time_p95_s=0.9,
    )
    return agent_pb2.HeartbeatRequest(heartbeats=[beat])


def be_one(ident: str, incarnation: str, endpoint: str) -> None:
    """Beat until the process is ended."""
    stub = agent_pb2_grpc.AgentServiceStub(grpc.insecure_channel(endpoint, options=OPTIONS))
    seq = 0
    while True:
        seq += 1
        try:
            time.sleep(stub.Heartbeat(request(ident, incarnation, seq), timeout=5.0).replies[0].interval_s)
        except grpc.RpcError:
            time.sleep(RETRY_S)


async def be_many(control: str, count: int, endpoint: str) -> None:
    """Beat for `count` instances, each as soon as it runs, until the process is ended; "": for names made up."""
    agents: dict[tuple[str, str], asyncio.Task[None]] = {}
    while len(agents) < count:  # from then on nobody is asked any more: that would cost agentd time
        for who in await asyncio.to_thread(_running, control) if control else _made_up(count):
            if who not in agents:
                agents[who] = asyncio.create_task(_be_one_of_many(*who, endpoint))
        await asyncio.sleep(LOOK_S)
    await asyncio.gather(*agents.values())


def _running(control: str) -> list[tuple[str, str]]:
    from agentd.sdk.control import ControlClient  # not for the light agents, which are many

    with ControlClient(control) as client:
        return [(instance.id, instance.incarnation) for instance in client.instances() if instance.pid]


def _made_up(count: int) -> list[tuple[str, str]]:
    return [(f"bench-{10_000 + number}", "0" * 32) for number in range(count)]


async def _be_one_of_many(ident: str, incarnation: str, endpoint: str) -> None:
    stub = agent_pb2_grpc.AgentServiceStub(aio.insecure_channel(endpoint, options=OPTIONS))
    seq = 0
    while True:
        seq += 1
        try:
            answer = await stub.Heartbeat(request(ident, incarnation, seq), timeout=5.0)
            # The first beat comes at once; the later ones are spread over the interval.
            await asyncio.sleep(answer.replies[0].interval_s * (1.0 if seq > 1 else random.random()))
        except aio.AioRpcError:
            await asyncio.sleep(RETRY_S)


def main() -> None:
    if len(sys.argv) == 4:
        asyncio.run(be_many(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
    elif "AGENTD_INSTANCE" in os.environ:
        env = os.environ
        be_one(env["AGENTD_INSTANCE"], env["AGENTD_INCARNATION"], env["AGENTD_ENDPOINT"])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()

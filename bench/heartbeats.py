"""Heartbeats per second through the whole daemon, against a bare grpc.aio server.

A real agentd, with agents that do nothing by themselves, and a bare grpc.aio server that answers the same message
with the same answer, each in a process of its own on a Unix socket. In turns, one load generator (a third process)
calls first one, then the other, with the same callers. The beats of agentd are counted where its core has seen them:
by the count that each instance's last beat carried into the status.

Where there are two cores or more, the servers are kept on one of them and the load generator on the others: else the
scheduler's choices move the figures more than the servers do.

Two ratios are shown. `beats/s` is what came through in the wall time. It can be the load generator that is the limit,
and then it flatters agentd; so `CPU` compares the processor time that each server took for one beat.

With --session every caller has one session, a stream in both directions, against a bare stream of the same messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from grpc import aio
from harness import BenchError, Report, cpu_s, free_ports, parser, pin, positive, raise_open_files, running
from own_agentd import Daemon, fleet_settings, own_agentd

from agentd.v1 import agent_pb2, agent_pb2_grpc, common_pb2

INTERVAL_S = 10.0
BEATS_MIN = 200  # of a burst, however short: a few take no processor time that can be counted
# By default a burst of new calls is dropped.
BARE_OPTIONS = (
    ("grpc.server.max_pending_requests", 20_000),
    ("grpc.server.max_pending_requests_hard_limit", 40_000),
)


# -- the bare server ------------------------------------------------------------------------------


class Bare(agent_pb2_grpc.AgentServiceServicer):
    """Says "go on" to everybody, from an answer that was made once."""

    def __init__(self) -> None:
        directive = agent_pb2.Directive(kind=agent_pb2.Directive.KIND_CONTINUE)
        reply = agent_pb2.HeartbeatReply(directive=directive, interval_s=INTERVAL_S)
        self._answer = agent_pb2.HeartbeatResponse(replies=[reply], controller_epoch=int(time.time()))

    async def Heartbeat(
        self,
        request: agent_pb2.HeartbeatRequest,
        context: aio.ServicerContext[agent_pb2.HeartbeatRequest, agent_pb2.HeartbeatResponse],
    ) -> agent_pb2.HeartbeatResponse:
        del request, context
        return self._answer

    async def Session(
        self,
        request_iterator: AsyncIterator[agent_pb2.SessionRequest],
        context: aio.ServicerContext[agent_pb2.SessionRequest, agent_pb2.SessionResponse],
    ) -> AsyncIterator[agent_pb2.SessionResponse]:
        del context
        answer = agent_pb2.SessionResponse(replies=self._answer.replies, controller_epoch=self._answer.controller_epoch)
        async for _ in request_iterator:
            yield answer


async def serve_bare(address: str) -> None:
    raise_open_files()
    server = aio.server(options=BARE_OPTIONS)
    agent_pb2_grpc.add_AgentServiceServicer_to_server(Bare(), server)
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


# -- the load generator ---------------------------------------------------------------------------


async def generate() -> None:
    """For each line of JSON that comes in (where, for whom, for how long) a line that says what was answered."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        burst = _burst(order["address"], order["who"], order["seconds"], session=order["session"])
        print(json.dumps(await burst), flush=True)


async def _burst(address: str, who: list[tuple[str, str, int]], seconds: float, *, session: bool) -> tuple[int, float]:
    """Let every instance of `who` (id, incarnation, beats so far) beat as fast as it is answered.

    How many beats were answered, and in what time.
    """
    answered = 0
    async with aio.insecure_channel(address) as channel:
        stub = agent_pb2_grpc.AgentServiceStub(channel)
        began = time.monotonic()

        async def call(ident: str, incarnation: str, seq: int) -> None:
            nonlocal answered
            ref = common_pb2.InstanceRef(id=ident, incarnation=incarnation)
            stream = stub.Session(timeout=seconds + 30) if session else None
            while answered < BEATS_MIN or time.monotonic() < began + seconds:
                seq += 1
                # The status shows tasks_completed: by it the beats are counted afterwards.
                beat = agent_pb2.Heartbeat(
                    instance=ref, seq=seq, load=0.5, queue_length=3, in_flight=1, tasks_completed=seq
                )
                if stream is not None:
                    await stream.write(agent_pb2.SessionRequest(heartbeats=[beat]))
                    if not isinstance(await stream.read(), agent_pb2.SessionResponse):
                        raise BenchError("a session ended")
                else:
                    await stub.Heartbeat(agent_pb2.HeartbeatRequest(heartbeats=[beat]), timeout=30)
                answered += 1
            if stream is not None:
                await stream.done_writing()

        await asyncio.gather(*(call(*one) for one in who))
        return answered, time.monotonic() - began


# -- the measurement ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Burst:
    """What a server did in one round: beats it has seen per second, and its processor time for each."""

    per_s: float
    cpu_us: float


class Bench:
    """Sends bursts at one of the two servers."""

    def __init__(
        self,
        daemon: Daemon,
        bare: tuple[int, str],
        generator: subprocess.Popen[str],
        seconds: float,
        *,
        session: bool,
    ) -> None:
        self._daemon = daemon
        self._session = session
        self._bare_pid, self._bare_address = bare
        self._generator = generator
        self._seconds = seconds

    def burst(self, *, bare: bool, seconds: float | None = None) -> Burst:
        pid, address = (self._bare_pid, self._bare_address) if bare else (self._daemon.pid, self._daemon.agents_address)
        who = [(instance.id, instance.incarnation, instance.tasks_completed) for instance in self._daemon.instances()]
        order = {"address": address, "who": who, "seconds": seconds or self._seconds, "session": self._session}
        before = cpu_s(pid)
        assert self._generator.stdin is not None and self._generator.stdout is not None
        self._generator.stdin.write(json.dumps(order) + "\n")
        self._generator.stdin.flush()
        answer = self._generator.stdout.readline()
        if not answer:
            raise BenchError("the load generator ended")
        used = cpu_s(pid) - before
        answered, took = json.loads(answer)
        seen = answered if bare else self._seen() - sum(beats for _, _, beats in who)
        if abs(seen - answered) > 0.05 * seen + len(who):
            raise BenchError(f"{answered} beats were answered, the core has seen {seen}")
        return Burst(seen / took, used / seen * 1e6)

    def _seen(self) -> int:
        return sum(instance.tasks_completed for instance in self._daemon.instances())


def main() -> int:
    made = parser(__doc__, rounds=15)
    made.add_argument("--callers", type=positive, default=64, metavar="N", help="instances that beat at once (64)")
    made.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of one burst (1)")
    made.add_argument("--session", action="store_true", help="over sessions instead of calls")
    made.add_argument("--role", choices=("bare", "generator"), help=argparse.SUPPRESS)
    made.add_argument("--address", help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.role == "bare":
        asyncio.run(serve_bare(options.address))
    elif options.role == "generator":
        asyncio.run(generate())
    else:
        return measure(options)
    return 0


def measure(options: argparse.Namespace) -> int:
    report = Report(options)
    first, last = free_ports(options.callers)
    pool = {"command": ["sleep", "infinity"], "core": {f"a{n}": first + n for n in range(last - first + 1)}}
    settings = fleet_settings({"bench": {**pool, "start_timeout_sec": 86_400}})
    with (
        own_agentd(settings) as daemon,
        running(__file__, "--role", "bare", "--address", f"unix:{daemon.directory}/bare.sock") as bare,
        running(__file__, "--role", "generator") as generator,
    ):
        daemon.wait_running(options.callers, 60.0)
        assert bare.stdout is not None and bare.stdout.readline().strip() == "ready"
        other = bare.pid, f"unix:{daemon.directory}/bare.sock"
        bench = Bench(daemon, other, generator, options.seconds, session=options.session)
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            pin(generator.pid, set(cores[1:]))
            pin(daemon.pid, {cores[0]})
            pin(bare.pid, {cores[0]})
        for side in (True, False):
            bench.burst(bare=side, seconds=min(1.0, options.seconds))
        bursts: dict[bool, list[Burst]] = {True: [], False: []}
        for number in range(options.rounds):
            for side in (True, False) if number % 2 == 0 else (False, True):
                bursts[side].append(bench.burst(bare=side))
    pairs = list(zip(bursts[False], bursts[True], strict=True))
    report.add("beats/s, agentd's core", [burst.per_s for burst in bursts[False]], "/s")
    report.add("beats/s, bare grpc.aio", [burst.per_s for burst in bursts[True]], "/s")
    report.add("ratio of beats/s", [ours.per_s / bare.per_s for ours, bare in pairs], at_least=0.8)
    report.add("CPU per beat, agentd", [burst.cpu_us for burst in bursts[False]], "us")
    report.add("CPU per beat, bare grpc.aio", [burst.cpu_us for burst in bursts[True]], "us")
    report.add("ratio of CPU, bare to agentd", [bare.cpu_us / ours.cpu_us for ours, bare in pairs])
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

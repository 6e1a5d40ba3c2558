"""From a drain to the moment at which all who watch the pool's endpoints know of it, and send nothing more there.

A real agentd with as many instances as are drained, and --watchers streams of DiscoveryService.Watch, each on a
connection of its own, all read by one process. Timed is from just before `ControlClient.drain` is called to the
moment at which the last stream has brought an endpoint of weight 0, or its removal.

The reference is a bare grpc.aio server with as many streams, read by the same program in a process of its own: a call
has it write one message of the same content to each stream. The two take turns. What agentd does beyond that: it
decides, looks at the fleet, stores the decision, and answers the caller when that is on the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import select
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
from beater import OPTIONS
from grpc import aio
from harness import BenchError, Report, free_ports, parser, positive, running, wait_until
from own_agentd import READY, Daemon, fleet_settings, own_agentd

from agentd.v1 import agent_pb2, agent_pb2_grpc, common_pb2, discovery_pb2, discovery_pb2_grpc

POOL = "bench"
BEAT_S = 3.0
BEATS_MAX = 1_000
DRAINING = common_pb2.INSTANCE_STATE_DRAINING
# agentd looks at the fleet this often at the most; a drain that came sooner would wait for the one before.
PAUSE_S = 0.1
ANSWER_S = 30.0


# -- the bare server ------------------------------------------------------------------------------


class Bare(discovery_pb2_grpc.DiscoveryServiceServicer):
    """Tells all streams that an endpoint is to get nothing more, when `Resolve` names it."""

    def __init__(self) -> None:
        self._streams: list[asyncio.Queue[discovery_pb2.WatchResponse]] = []

    async def Resolve(self, request: discovery_pb2.ResolveRequest, context: Any) -> discovery_pb2.ResolveResponse:
        del context
        message = discovery_pb2.WatchResponse(revision="1.1.bench", endpoints=[_endpoint(request.pool)])
        for stream in self._streams:
            stream.put_nowait(message)
        return discovery_pb2.ResolveResponse()

    async def Watch(
        self, request: discovery_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[discovery_pb2.WatchResponse]:
        del request, context
        stream: asyncio.Queue[discovery_pb2.WatchResponse] = asyncio.Queue()
        self._streams.append(stream)
        yield discovery_pb2.WatchResponse(revision="1.0.bench", snapshot=True)
        while True:
            yield await stream.get()


def _endpoint(ident: str) -> discovery_pb2.InstanceEndpoint:
    return discovery_pb2.InstanceEndpoint(
        id=ident,
        pool=POOL,
        endpoint=common_pb2.Endpoint(port=9101),
        host="127.0.0.1",
        incarnation="0" * 32,
        state=DRAINING,
        load=0.5,
        concurrency=1,
    )


async def serve_bare(address: str) -> None:
    server = aio.server()
    discovery_pb2_grpc.add_DiscoveryServiceServicer_to_server(Bare(), server)
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


# -- those who watch --------------------------------------------------------------------------------


async def watch(address: str, count: int) -> None:
    """Read `count` streams: a line when all have begun, and one for each endpoint that is gone for all of them."""
    told: Counter[str] = Counter()
    begun = 0

    async def read() -> None:
        nonlocal begun
        async with aio.insecure_channel(address, options=OPTIONS) as channel:
            known: set[str] = set()
            stub = discovery_pb2_grpc.DiscoveryServiceStub(channel)
            async for change in stub.Watch(discovery_pb2.WatchRequest(pool=POOL)):
                if change.snapshot:
                    begun += 1
                    if begun == count:
                        print("ready", flush=True)
                for ident in (*(one.id for one in change.endpoints if one.weight == 0.0), *change.removed):
                    if ident not in known:
                        known.add(ident)
                        told[ident] += 1
                        if told[ident] == count:
                            print(json.dumps({"id": ident, "at": time.monotonic()}), flush=True)

    await asyncio.gather(*(read() for _ in range(count)))


# -- the agents -------------------------------------------------------------------------------------


class Agents(threading.Thread):
    """Beats for all instances, which are `sleep infinity`; those that are to drain accept, and never end that."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._who: list[tuple[str, str]] = []
        self._stub = agent_pb2_grpc.AgentServiceStub(grpc.insecure_channel(daemon.agents_address))
        self._acks: dict[str, agent_pb2.Acknowledgement] = {}
        self._seqs = itertools.count(1)
        self._ended = threading.Event()

    def are_ready(self, count: int) -> bool:
        """Beat for whoever runs; whether `count` were ready before."""
        present = self._daemon.running()
        self._who = [(one.id, one.incarnation) for one in present]
        if self._who:
            self.beat()
        return sum(one.state == READY for one in present) == count

    def beat(self) -> None:
        seq = next(self._seqs)
        beats = [
            agent_pb2.Heartbeat(
                instance=common_pb2.InstanceRef(id=ident, incarnation=incarnation),
                seq=seq,
                load=0.5,
                in_flight=1,
                acks=[self._acks[ident]] if ident in self._acks else [],
            )
            for ident, incarnation in self._who
        ]
        answer = self._stub.Heartbeat(agent_pb2.HeartbeatRequest(heartbeats=beats), timeout=30.0)
        for (ident, _), reply in zip(self._who, answer.replies, strict=True):
            if reply.directive.kind == agent_pb2.Directive.KIND_DRAIN:
                accepted = agent_pb2.Acknowledgement.STAGE_ACCEPTED
                self._acks[ident] = agent_pb2.Acknowledgement(id=reply.directive.id, stage=accepted, done_follows=True)

    def run(self) -> None:
        while not self._ended.wait(BEAT_S):
            self.beat()

    def end(self) -> None:
        self._ended.set()
        self.join()


# -- the measurement --------------------------------------------------------------------------------


class Side:
    """One of the two servers, and the process that watches it."""

    def __init__(self, watchers: subprocess.Popen[str]) -> None:
        assert watchers.stdout is not None
        self._lines = watchers.stdout
        self.times_ms: list[float] = []

    def wait(self) -> None:
        """Wait until all streams have begun."""
        if self._line() != "ready":
            raise BenchError("the watchers did not begin")

    def gone(self, ident: str, began: float) -> None:
        """Wait until all watchers know that `ident` is gone; the time since `began`."""
        found = json.loads(self._line())
        if found["id"] != ident:
            raise BenchError(f"{found['id']} is gone, and {ident} was to go")
        self.times_ms.append((found["at"] - began) * 1e3)

    def _line(self) -> str:
        # They say one thing at a time, so that none waits in a buffer where `select` does not see it.
        if not select.select([self._lines], [], [], ANSWER_S)[0]:
            raise BenchError(f"not all watchers heard of it within {ANSWER_S:g} s")
        line = self._lines.readline().strip()
        if not line:
            raise BenchError("the watchers ended")
        return line


def quantile(values: list[float], share: float) -> float:
    """The nearest-rank quantile."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def main() -> int:
    made = parser(__doc__, rounds=5)
    made.add_argument("--drains", type=positive, default=40, metavar="N", help="drains in a round (40)")
    made.add_argument("--watchers", type=positive, default=100, metavar="N", help="streams that watch (100)")
    made.add_argument("--role", choices=("bare", "watchers"), help=argparse.SUPPRESS)
    made.add_argument("--address", help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.role == "bare":
        asyncio.run(serve_bare(options.address))
    elif options.role == "watchers":
        asyncio.run(watch(options.address, options.watchers))
    elif options.rounds * options.drains > BEATS_MAX:
        made.error(f"at most {BEATS_MAX} drains in all: so many agents beat in one message")
    else:
        return measure(options)
    return 0


def measure(options: argparse.Namespace) -> int:
    report = Report(options)
    count = options.rounds * options.drains
    first, last = free_ports(count)
    # A range that is full: nobody is started for those who drain.
    pool = {"command": ["sleep", "infinity"], "ports": [first, last], "min": count, "max": count}
    pool |= {"drain_timeout_sec": 86_400, "start_timeout_sec": 600}
    settings = fleet_settings({POOL: pool}, enabled=False, heartbeat_timeout_sec=60)
    with own_agentd(settings) as daemon:
        agents = Agents(daemon)
        wait_until(f"{count} instances are ready", lambda: agents.are_ready(count), 120.0, 0.1)
        agents.start()
        bare_address = f"unix:{daemon.directory}/bare.sock"
        words = ("--role", "watchers", "--watchers", str(options.watchers), "--address")
        with (
            running(__file__, "--role", "bare", "--address", bare_address) as bare_server,
            running(__file__, *words, daemon.agents_address) as of_agentd,
        ):
            assert bare_server.stdout is not None and bare_server.stdout.readline() == "ready\n"
            with running(__file__, *words, bare_address) as of_bare:
                rounds = _rounds(daemon, bare_address, Side(of_agentd), Side(of_bare), options)
        agents.end()
    _add(report, rounds, options.watchers)
    return report.finish()


def _rounds(
    daemon: Daemon, bare_address: str, ours: Side, bare: Side, options: argparse.Namespace
) -> list[tuple[list[float], list[float]]]:
    """The times of each round in milliseconds, agentd's and the bare server's."""
    ours.wait()
    bare.wait()
    found = []
    with grpc.insecure_channel(bare_address, options=OPTIONS) as channel:
        tell = discovery_pb2_grpc.DiscoveryServiceStub(channel).Resolve
        tell(discovery_pb2.ResolveRequest(pool="bench-1"))  # the first call connects
        bare.gone("bench-1", time.monotonic())
        idents = iter([one.id for one in daemon.instances()])
        for _ in range(options.rounds):
            ours.times_ms, bare.times_ms = [], []
            for number, ident in enumerate(itertools.islice(idents, options.drains)):
                for side in (ours, bare) if number % 2 == 0 else (bare, ours):
                    time.sleep(PAUSE_S)
                    began = time.monotonic()
                    if side is ours:
                        daemon.control.drain(ident)
                    else:
                        tell(discovery_pb2.ResolveRequest(pool=ident))
                    side.gone(ident, began)
            found.append((ours.times_ms, bare.times_ms))
    return found


def _add(report: Report, rounds: list[tuple[list[float], list[float]]], watchers: int) -> None:
    gone = f"drain to gone for {watchers} watchers"
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        ours = [quantile(mine, share) for mine, _ in rounds]
        bare = [quantile(theirs, share) for _, theirs in rounds]
        report.add(f"{gone}, {name}", ours, "ms")
        report.add(f"bare fan-out, {name}", bare, "ms")
        report.add(f"ratio of {name}", [mine / theirs for mine, theirs in zip(ours, bare, strict=True)])


if __name__ == "__main__":
    sys.exit(main())

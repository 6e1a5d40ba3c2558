"""Heartbeats per second over sessions, against the keepalives of leases in etcd.

etcd's LeaseKeepAlive is what a session is: a stream in both directions, a message per sign of life, an answer to each.
A real agentd and a real etcd, and a third process that keeps --callers streams on one connection to each, in turns,
with the same code: the next message goes out when the last was answered. agentd takes a whole heartbeat (load, queue,
work in flight) and decides what to answer; etcd renews a lease of an hour, in memory.

Both listen on a Unix socket. Where there are two cores or more, both are kept on one and the load generator on
the others. etcd is Debian's etcd-server, or whatever `etcd` is in the PATH; without it nothing is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from beater import request
from grpc import aio
from harness import BenchError, Report, cpu_s, end, free_ports, parser, pin, plain_environment, positive, running
from own_agentd import fleet_settings, own_agentd

from agentd.v1 import agent_pb2

SESSION = "/agentd.v1.AgentService/Session"
GRANT, KEEP_ALIVE = "/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Lease/LeaseKeepAlive"
LEASE_S = 3_600
START_S_MAX = 30.0
CORES = sorted(os.sched_getaffinity(0))


# -- messages of etcd: two numbers each ------------------------------------------------------------


def number(field: int, value: int) -> bytes:
    """A field of a protobuf message that holds `value`, 0 or more."""
    encoded = bytearray([field << 3])
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def lease_grant(lease: int) -> bytes:
    """A LeaseGrantRequest: TTL, ID."""
    return number(1, LEASE_S) + number(2, lease)


def is_alive(answer: bytes) -> bool:
    """Whether a LeaseKeepAliveResponse (header, ID, TTL) says that there is such a lease."""
    return answer.endswith(number(3, LEASE_S))


def is_taken(answer: bytes) -> bool:
    """Whether a SessionResponse says that the heartbeat was not refused."""
    return not agent_pb2.SessionResponse.FromString(answer).replies[0].HasField("refusal")


# -- the load generator ---------------------------------------------------------------------------


async def generate() -> None:
    """For each line of JSON that comes in (where, what, for whom, for how long) a line that says what was answered."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        order = json.loads(line)
        kinds = {"etcd": (KEEP_ALIVE, _keep_alives, is_alive), "agentd": (SESSION, _heartbeats, is_taken)}
        method, say, is_well = kinds[order["kind"]]
        talks = [say(*who) for who in order["who"]]
        print(json.dumps(await _burst(order["address"], method, talks, is_well, order["seconds"])), flush=True)


def _keep_alives(lease: int) -> Callable[[], bytes]:
    message = number(1, lease)
    return lambda: message


def _heartbeats(ident: str, incarnation: str) -> Callable[[], bytes]:
    seq = time.monotonic_ns() // 1_000  # beyond those of the burst before

    def say() -> bytes:
        nonlocal seq
        seq += 1
        heartbeats = request(ident, incarnation, seq).heartbeats
        return agent_pb2.SessionRequest(heartbeats=heartbeats).SerializeToString()

    return say


async def _burst(
    address: str, method: str, talks: list[Callable[[], bytes]], is_well: Callable[[bytes], bool], seconds: float
) -> float:
    """A stream for each of `talks`, each as fast as it is answered; answers per second."""
    answered = 0
    async with aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.stream_stream(method)
        began = time.monotonic()

        async def talk(say: Callable[[], bytes]) -> None:
            nonlocal answered
            stream = call(timeout=seconds + 30)
            while time.monotonic() < began + seconds:
                await stream.write(say())
                answer = await stream.read()
                if not isinstance(answer, bytes) or not is_well(answer):
                    raise BenchError(f"{method}: a message was not taken")
                answered += 1
            await stream.done_writing()

        await asyncio.gather(*map(talk, talks))
        return answered / (time.monotonic() - began)


# -- the measurement ------------------------------------------------------------------------------


@contextmanager
def own_etcd(directory: Path) -> Iterator[tuple[int, str]]:
    """An etcd of one member: its pid, its address."""
    # It takes no path, but a host and a port, and makes a socket of that name where it runs.
    client, peer = "unix://etcd:1", "unix://etcd:2"
    words = (
        *("etcd", "--name", "bench", "--data-dir", "etcd", "--initial-cluster", f"bench={peer}"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
    )
    with (directory / "etcd.log").open("wb") as log:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=plain_environment(), cwd=directory
        )
    try:
        yield process.pid, f"unix:{directory}/etcd:1"
    finally:
        end(process)


def grant(address: str, leases: range) -> None:
    """Have etcd make the leases, once it answers."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(GRANT)
        for lease in leases:
            call(lease_grant(lease), timeout=START_S_MAX, wait_for_ready=True)


class Side:
    """One of the two, with its streams. `who` begins each of them."""

    def __init__(self, kind: str, pid: int, address: str, who: list[list[object]]) -> None:
        self.kind, self.pid, self.address, self.who = kind, pid, address, who
        self.per_s: list[float] = []
        self.cpu_us: list[float] = []

    def burst(self, generator: subprocess.Popen[str], seconds: float) -> None:
        order = {"kind": self.kind, "address": self.address, "who": self.who, "seconds": seconds}
        assert generator.stdin is not None and generator.stdout is not None
        before, began = cpu_s(self.pid), time.monotonic()
        generator.stdin.write(json.dumps(order) + "\n")
        generator.stdin.flush()
        if not (answer := generator.stdout.readline()):
            raise BenchError("the load generator ended")
        count = float(answer) * (time.monotonic() - began)
        self.per_s.append(float(answer))
        self.cpu_us.append((cpu_s(self.pid) - before) / count * 1e6)


def main() -> int:
    made = parser(__doc__, rounds=15)
    made.add_argument("--callers", type=positive, default=64, metavar="N", help="streams at once (64)")
    made.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of one burst (1)")
    made.add_argument("--role", choices=("generator",), help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.role:
        asyncio.run(generate())
        return 0
    if shutil.which("etcd") is None:
        print("skipped: etcd is not installed (Debian, Ubuntu: apt-get install etcd-server)")
        return 0
    return measure(options)


def measure(options: argparse.Namespace) -> int:
    report = Report(options)
    first, last = free_ports(options.callers)
    pool = {"command": ["sleep", "infinity"], "core": {f"a{n}": first + n for n in range(last - first + 1)}}
    settings = fleet_settings({"bench": {**pool, "start_timeout_sec": 86_400}})
    with (
        own_agentd(settings) as daemon,
        own_etcd(daemon.directory) as (etcd_pid, etcd_address),
        running(__file__, "--role", "generator") as generator,
    ):
        daemon.wait_running(options.callers, 60.0)
        leases = range(1, options.callers + 1)
        grant(etcd_address, leases)
        instances = daemon.instances()
        ours = Side("agentd", daemon.pid, daemon.agents_address, [[one.id, one.incarnation] for one in instances])
        theirs = Side("etcd", etcd_pid, etcd_address, [[lease] for lease in leases])
        if len(CORES) > 1:
            pin(generator.pid, set(CORES[1:]))
            pin(daemon.pid, {CORES[0]})
            pin(etcd_pid, {CORES[0]})
        for turn in range(options.rounds + 1):
            for side in (ours, theirs) if turn % 2 == 0 else (theirs, ours):
                side.burst(generator, options.seconds)
    for side in (ours, theirs):
        del side.per_s[0], side.cpu_us[0]  # while all of it was still being warmed up
        report.add(f"beats/s, {side.kind}", side.per_s, "/s")
        report.add(f"CPU per beat, {side.kind}", side.cpu_us, "us")
    report.add("ratio of beats/s, agentd to etcd", [a / b for a, b in zip(ours.per_s, theirs.per_s, strict=True)])
    if all(theirs.cpu_us):
        pairs = zip(theirs.cpu_us, ours.cpu_us, strict=True)
        report.add("ratio of CPU, etcd to agentd", [etcd / agentd for etcd, agentd in pairs if agentd])
    version = subprocess.run(("etcd", "--version"), capture_output=True, text=True, check=True).stdout.splitlines()[0]
    report.note(version)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

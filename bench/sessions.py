"""What 5,000 sessions cost agentd, and how soon all are back when it was restarted.

A real agentd with --count instances of `sleep infinity`, and for each of them an agent in another process that keeps a
session and beats every 10 s, over a connection of its own as agents do (--per-connection for more sessions on each).
CPU is agentd's processor time over the wall time of the steady state; memory is what it has more than before the first
session, when all instances ran. The beats that were answered are counted where the agents are.

Then agentd is restarted, as its service manager would, and all agents come back as the SDK paces them, spread over
seconds on purpose; they are counted when the new agentd has answered a heartbeat. The agents are Python as well and
share the machine: a part of that time is theirs.

In the same run a bare grpc.aio server (of heartbeats.py) is given the same sessions, and is restarted too: what it uses
is the price of gRPC.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import (
    KIB,
    MIB,
    BenchError,
    Report,
    cpu_s,
    free_ports,
    memory,
    parser,
    positive,
    raise_open_files,
    running,
    wait_until,
)
from own_agentd import Daemon, fleet_settings, own_agentd

AGENTS = str(Path(__file__).with_name("session_agents.py"))
HEARTBEATS = str(Path(__file__).with_name("heartbeats.py"))
AGENTS_OF_A_PROCESS = 2_500
CORE_OF_A_POOL = 100
# Of agentd, for each agent: its pidfd and its connection; and what it needs besides.
FILES_OF_AN_AGENT, FILES_BESIDES = 2, 256
PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Steady:
    """A server with all its sessions. `bytes`: what it has more than without them; `cpu_ratio`: of one core."""

    cpu_ratio: float
    rss: int
    bytes: int
    beats_per_s: float
    served_s: float
    back_s: float


class Agents:
    """The processes that hold the sessions."""

    def __init__(self, stack: ExitStack, address: str, who: list[tuple[str, str]], per_connection: int) -> None:
        self.count = len(who)
        self._processes: list[subprocess.Popen[str]] = []
        for start in range(0, len(who), AGENTS_OF_A_PROCESS):
            process = stack.enter_context(running(AGENTS))
            part = who[start : start + AGENTS_OF_A_PROCESS]
            self._say(process, json.dumps({"address": address, "who": part, "per_connection": per_connection}))
            self._processes.append(process)

    @staticmethod
    def _say(process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()

    def _ask(self) -> list[dict[str, Any]]:
        for process in self._processes:
            self._say(process, "?")
        answers = [process.stdout.readline() if process.stdout else "" for process in self._processes]
        if not all(answers):
            raise BenchError("a process with agents ended")
        return [json.loads(answer) for answer in answers]

    def answered(self) -> int:
        return sum(int(answer["answered"]) for answer in self._ask())

    def epoch(self) -> int:
        """Of the newest server that has answered; 0: none."""
        return max((int(epoch) for answer in self._ask() for epoch in answer["back"]), default=0)

    def wait_all(self, after_epoch: int, what: str) -> None:
        """Return when all were answered by a server of a later epoch."""

        def all_back() -> bool:
            backs = [answer["back"].items() for answer in self._ask()]
            return sum(count for back in backs for epoch, count in back if int(epoch) > after_epoch) == self.count

        wait_until(f"all {self.count} agents are {what}", all_back, PATIENCE_S, 0.05)


def main() -> int:
    made = parser(__doc__, rounds=1)
    made.add_argument("--count", type=positive, default=5_000, metavar="N", help="sessions (5000)")
    made.add_argument("--per-connection", type=positive, default=1, metavar="N", help="sessions on a connection (1)")
    made.add_argument("--seconds", type=float, default=60.0, metavar="S", help="length of the steady state (60)")
    made.add_argument("--settle", type=float, default=20.0, metavar="S", help="before it (20)")
    options = made.parse_args()
    report = Report(options)
    needed = options.count * FILES_OF_AN_AGENT + FILES_BESIDES
    if raise_open_files() < needed:
        raise SystemExit(f"{options.count} sessions need {needed} open files: ulimit -Hn {needed}, or a lower --count")
    rounds = [(_agentd(options), _bare(options)) for _ in range(options.rounds)]
    ours, bare = (list(column) for column in zip(*rounds, strict=True))
    for name, of in (("agentd", ours), ("bare grpc.aio", bare)):
        report.add(f"CPU of one core, {name}", [one.cpu_ratio * 100 for one in of], "%")
        report.add(f"beats/s, {name}", [one.beats_per_s for one in of], "/s")
        report.add(f"RSS, {name}", [one.rss / MIB for one in of], "MiB")
        report.add(f"RSS per session, {name}", [one.bytes / options.count / KIB for one in of], "KiB")
        report.add(f"first to last session served, {name}", [one.served_s for one in of], "s")
        report.add(f"restart to all back, {name}", [one.back_s for one in of], "s")
    pairs = list(zip(ours, bare, strict=True))
    if all(other.cpu_ratio for other in bare):
        report.add("ratio of CPU, agentd to bare", [mine.cpu_ratio / other.cpu_ratio for mine, other in pairs])
    if all(other.bytes > 0 for other in bare):
        report.add("ratio of RSS per session, agentd to bare", [mine.bytes / other.bytes for mine, other in pairs])
    report.note(f"{options.count} sessions, {options.per_connection} on a connection")
    return report.finish()


def _agentd(options: argparse.Namespace) -> Steady:
    first, _ = free_ports(options.count)
    # Core agents: others are started only while the host has memory for what an agent is expected to take.
    pools = {
        f"p{start}": {
            "command": ["sleep", "infinity"],
            "core": {f"a{n}": first + n for n in range(start, min(start + CORE_OF_A_POOL, options.count))},
            "start_timeout_sec": 86_400,
        }
        for start in range(0, options.count, CORE_OF_A_POOL)
    }
    settings = fleet_settings(pools)
    settings["multi_agent"]["autoscaling"]["heartbeat_timeout_sec"] = 30
    with own_agentd(settings) as daemon, ExitStack() as stack:
        daemon.wait_running(options.count, PATIENCE_S)
        wait_until("agentd serves people, the last that it loads", lambda: _is_served(daemon), PATIENCE_S)
        who = [(instance.id, instance.incarnation) for instance in daemon.instances()]

        return _measure(options, stack, daemon.agents_address, who, lambda: daemon.pid, daemon.restart)


def _is_served(daemon: Daemon) -> bool:
    try:
        with urllib.request.urlopen(f"http://{daemon.control.status().http_address}/healthz", timeout=1.0) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _bare(options: argparse.Namespace) -> Steady:
    with tempfile.TemporaryDirectory(prefix="agentd-bench-") as directory, ExitStack() as stack:
        address = f"unix:{directory}/bare.sock"
        server = ExitStack()
        stack.push(server)
        pids = [server.enter_context(_bare_server(address))]

        def restart() -> None:
            server.close()
            pids.append(server.enter_context(_bare_server(address)))

        who = [(f"bench-{10_000 + number}", "0" * 32) for number in range(options.count)]
        return _measure(options, stack, address, who, lambda: pids[-1], restart)


@contextmanager
def _bare_server(address: str) -> Iterator[int]:
    with running(HEARTBEATS, "--role", "bare", "--address", address) as server:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        yield server.pid


def _measure(
    options: argparse.Namespace,
    stack: ExitStack,
    address: str,
    who: list[tuple[str, str]],
    pid: Callable[[], int],
    restart: Callable[[], None],
) -> Steady:
    before, began = memory(pid()).rss, time.monotonic()
    agents = Agents(stack, address, who, options.per_connection)
    agents.wait_all(0, "served")
    served_s = time.monotonic() - began
    time.sleep(options.settle)
    answered, cpu, began = agents.answered(), cpu_s(pid()), time.monotonic()
    time.sleep(options.seconds)
    used, took = cpu_s(pid()) - cpu, time.monotonic() - began
    beats_per_s, rss = (agents.answered() - answered) / took, memory(pid()).rss
    epoch, began = agents.epoch(), time.monotonic()
    restart()
    agents.wait_all(epoch, "back")
    return Steady(used / took, rss, rss - before, beats_per_s, served_s, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())

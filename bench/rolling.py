"""What a client notices of a rolling restart: its response times through `agentctl restart POOL`, and without one.

A real agentd, a pool of --agents sample agents, and a client that gives them --rate tasks a second through
`agentd.sdk.endpoints`, whether earlier ones have been answered or not. The time of a task counts from the moment at
which it was due, so that a client that is held up hides nothing. In each round the whole pool is restarted under that
load; for as long, under the same load, nothing happens. The two take turns.

A restart ends when agentd says so: all have new processes, and whoever stood in is gone. Tasks that raise
are lost, and counted; so are those that the journals of the agents show to have been begun twice.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from harness import Report, free_ports, parser, positive, wait_until
from own_agentd import Daemon, fleet_settings, own_agentd

from agentd.sdk.endpoints import Endpoints, Retry
from agentd.sdk.picking import Endpoint

POOL = "bench"
THREADS = 64
CONCURRENCY = 4
RESTART_S_MAX = 240.0
WARM_S = 1.0


@dataclass(slots=True)
class Spell:
    """What a client met in a stretch of time: response times in milliseconds, and the errors of tasks lost."""

    seconds: float = 0.0
    times_ms: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """The nearest-rank quantile of the times."""
        return sorted(self.times_ms)[max(0, math.ceil(share * len(self.times_ms)) - 1)]


class Client:
    """Gives tasks at a steady rate."""

    def __init__(self, endpoints: Endpoints, rate: float, service_s: float) -> None:
        self._endpoints = endpoints
        self._rate = rate
        self._service_s = service_s
        self._given = 0

    def give(self, until: threading.Event) -> Spell:
        """Give tasks until `until` is set, and wait for those under way."""
        spell = Spell()
        with ThreadPoolExecutor(THREADS) as threads:
            began, number = time.monotonic(), 0
            while not until.wait(max(0.0, began + number / self._rate - time.monotonic())):
                self._given += 1
                threads.submit(self._one, self._given, began + number / self._rate, spell)
                number += 1
            spell.seconds = time.monotonic() - began
        return spell

    def _one(self, number: int, due: float, spell: Spell) -> None:
        body = json.dumps({"id": str(number), "service_s": self._service_s}).encode()
        try:
            self._endpoints.call(lambda endpoint: ask(endpoint, body))
        except Exception as error:  # whatever it is, the task is lost
            spell.lost.append(repr(error))
        else:
            spell.times_ms.append((time.monotonic() - due) * 1e3)


def ask(endpoint: Endpoint, body: bytes) -> None:
    """One task, on a connection of its own."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=60.0)
    try:
        connection.request("POST", "/task", body, {"Connection": "close"})
        answer = connection.getresponse()
        content = answer.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{endpoint.id} stopped in the middle of its answer") from error
    finally:
        connection.close()
    if answer.status == 503:
        raise Retry(f"{endpoint.id} takes nothing now")
    if answer.status != 200:
        raise RuntimeError(f"{endpoint.id} answered {answer.status}: {content[:200]!r}")


def main() -> int:
    made = parser(__doc__, rounds=4)
    made.add_argument("--agents", type=positive, default=8, metavar="N", help="size of the pool (8)")
    made.add_argument("--rate", type=float, default=100.0, metavar="N", help="tasks a second (100)")
    made.add_argument("--service", type=float, default=0.05, metavar="S", help="seconds that a task takes (0.05)")
    options = made.parse_args()
    report = Report(options)
    with tempfile.TemporaryDirectory(prefix="agentd-bench-") as directory:
        journal = Path(directory) / "journal"
        rounds = _measure(options, journal)
        begun = Counter(note["task"] for note in map(json.loads, journal.open()) if note["step"] == "begun")
    _add(report, rounds, sum(times > 1 for times in begun.values()))
    return report.finish()


def _measure(options: argparse.Namespace, journal: Path) -> list[tuple[Spell, Spell]]:
    """What the client met in each round: through a restart, and in as long a time without one."""
    # Twice as many ports, for a new agent may be started before an old one goes.
    first, last = free_ports(2 * options.agents)
    command = [sys.executable, "-m", "agentd.sample", "--journal", str(journal)]
    pool = {"command": command, "ports": [first, last], "min": options.agents, "max": options.agents + 1}
    pool |= {"concurrency": CONCURRENCY, "drain_timeout_sec": 60}
    settings = fleet_settings({POOL: pool}, enabled=False, heartbeat_timeout_sec=3)
    rounds = []
    with own_agentd(settings) as daemon, Endpoints(POOL, address=daemon.control_address) as endpoints:
        daemon.wait_ready(options.agents, 120.0)
        client = Client(endpoints, options.rate, options.service)
        _while(client, lambda: time.sleep(WARM_S))
        length_s = 0.0
        for number in range(options.rounds):
            spells: dict[str, Spell] = {}
            # The first stretch without a restart has to know how long one takes.
            for kind in ("restart", "calm") if number % 2 == 0 else ("calm", "restart"):
                if kind == "calm":
                    work: Callable[[], None] = partial(time.sleep, length_s)
                else:
                    work = partial(_restart, daemon)
                spells[kind] = _while(client, work)
                length_s = spells[kind].seconds
            rounds.append((spells["restart"], spells["calm"]))
    return rounds


def _while(client: Client, work: Callable[[], None]) -> Spell:
    """Have the client give tasks while `work` is done."""
    until = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        spell = thread.submit(client.give, until)
        try:
            work()
        finally:
            until.set()
        return spell.result()


def _restart(daemon: Daemon) -> None:
    """Restart the pool, and wait until that has come to its end."""
    before = {instance.incarnation for instance in daemon.instances()}

    def is_done() -> bool:
        [pool] = daemon.control.status().pools
        return not pool.HasField("rolling")

    daemon.control.restart(POOL)
    wait_until("the pool is restarted", is_done, RESTART_S_MAX, 0.1)
    left = before & {instance.incarnation for instance in daemon.instances()}
    if left:
        raise RuntimeError(f"the restart has ended, and {len(left)} of the pool's processes are the old ones")


def _add(report: Report, rounds: list[tuple[Spell, Spell]], twice: int) -> None:
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        restarted = [one.quantile(share) for one, _ in rounds]
        calm = [other.quantile(share) for _, other in rounds]
        report.add(f"{name} through a restart", restarted, "ms")
        report.add(f"{name} without", calm, "ms")
        report.add(f"ratio of {name}", [one / other for one, other in zip(restarted, calm, strict=True)])
    report.add("tasks lost", [len(one.lost) + len(other.lost) for one, other in rounds], at_most=0)
    report.add("tasks begun twice", [twice], at_most=0)
    report.add("the restart takes", [one.seconds for one, _ in rounds], "s")
    report.add("tasks given", [len(one.times_ms) + len(other.times_ms) for one, other in rounds])
    for error in sorted({error for one, other in rounds for error in (*one.lost, *other.lost)})[:5]:
        report.note(f"lost: {error}")


if __name__ == "__main__":
    sys.exit(main())

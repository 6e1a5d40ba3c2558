"""Everything at once: thousands of tasks while pools are scaled, restarted and drained, and agents and agentd killed.

Every task is done, none is lost, and one that ran twice was with an agent that was killed. The plan is drawn from a
seed, AGENTD_CHAOS_SEED; what the machine makes of it is different each time. With `-s` it tells its numbers.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from e2e_fleet import PATIENT, SAMPLE, Fleet
from e2e_hosts import Process, environment
from e2e_tasks import Books, Client

from agentd.sdk.control import DOWN, UP, ControlError
from agentd.v1 import control_pb2

pytestmark = pytest.mark.host

SEED = int(os.environ.get("AGENTD_CHAOS_SEED", "1"))
TASKS_MIN = 2_000
THREADS = 24
# The plan: each of these so often. It ends early where the machine is so slow that it would take longer than this.
STEPS = {"scale": 9, "restart_pool": 3, "restart_one": 4, "drain": 8, "kill_agent": 6, "kill_agentd": 7, "reload": 3}
PLAN_S_MAX = 60.0
CLI_SHARE = 0.25  # of what is asked for by agentctl; the rest by ControlClient, which takes no process
POOLS = ("analysis", "research")
# Heartbeats every half second, and patience with those that a busy machine delays.
RULES = {**PATIENT, "heartbeat_timeout_sec": 1.5, "unhealthy_threshold": 30}
KILL_SEEN_S = 10.0  # agentd itself may have been away
DRAIN_S = 100.0  # longer than all of it: no task is cut


class Chaos:
    """Does to `fleet` what the plan says, and counts it."""

    def __init__(self, fleet: Fleet, rng: random.Random) -> None:
        self._fleet = fleet
        self._rng = rng
        self.journal = fleet.root / "journal"
        self.killed: dict[str, tuple[str, float]] = {}  # by incarnation: who it was, and when
        self.counts: Counter[str] = Counter()

    def configure(self, *, concurrency: int = 2, last: int = 7) -> None:
        """`last`: the last port of each pool's range; an agent beyond it has to go."""
        common = {
            "command": [*SAMPLE, "--journal", str(self.journal)],
            "concurrency": concurrency,
            "drain_timeout_sec": DRAIN_S,
            "restart": {"initial_sec": 0.1, "max_sec": 0.5, "healthy_sec": 0.5, "attempts_max": 100},
        }
        ports = self._fleet.ports
        research = {"core": {"researcher": ports[1]}, "ports": [ports[2], ports[last - 1]], "min": 2, "max": 4}
        analysis = {"core": {}, "ports": [ports[8], ports[last + 6]], "min": 1, "max": 4}
        self._fleet.configure({"research": {**common, **research}, "analysis": {**common, **analysis}}, rules=RULES)

    def plan(self) -> Iterator[str]:
        """Each kind once, then the rest, in an order that chance makes."""
        rest = [kind for kind, times in STEPS.items() for _ in range(times - 1)]
        first = list(STEPS)
        self._rng.shuffle(first)
        self._rng.shuffle(rest)
        yield from (*first, *rest)

    def run(self) -> None:
        until = time.monotonic() + PLAN_S_MAX
        for kind in self.plan():
            if time.monotonic() > until:
                return
            with self._counted(kind):
                getattr(self, kind)()
            time.sleep(self._rng.choice((0.0, 0.1, 0.3, 0.6, 1.0, 1.5)))  # of the plan: how long this is left alone

    # -- the steps ------------------------------------------------------------------------------

    def scale(self) -> None:
        pool = self._rng.choice(POOLS)
        count, now = self._rng.randint(1, 4), self._fleet.pool(pool)["count"]
        if self._rng.random() < CLI_SHARE:
            self._cli("up" if count >= now else "down", str(count), "--pool", pool)
        else:
            self._fleet.client.scale(UP if count >= now else DOWN, count, pool=pool)

    def restart_pool(self) -> None:
        self._restart(self._rng.choice(POOLS))

    def restart_one(self) -> None:
        self._restart(self._one()["id"])

    def drain(self) -> None:
        one = self._one()
        if self._rng.random() < CLI_SHARE:
            self._cli("drain", one["id"], *(["--force"] if one["core_name"] else []))
        else:
            self._fleet.client.drain(one["id"], force=bool(one["core_name"]))

    def kill_agent(self) -> None:
        """Whoever it hits, one that drains or is being stopped too."""
        running = [one for one in self._fleet.running() if one.instance]
        if running:
            self._kill(self._rng.choice(running))

    def kill_agentd(self) -> None:
        """It dies in the middle of whatever it does, perhaps just after it was asked for something, and returns."""
        before = self._rng.choice((None, self.drain, self.restart_pool, self.scale))
        if before is not None:
            with self._counted(f"{before.__name__} before"):
                before()
            time.sleep(self._rng.choice((0.0, 0.02, 0.1, 0.4, 0.8)))
        self._fleet.kill()
        if self._rng.random() < 0.3:
            with self._counted("kill_agent while agentd is away"):
                self.kill_agent()
        time.sleep(self._rng.choice((0.0, 0.3, 1.0)))
        self._fleet.start()

    def reload(self) -> None:
        self.configure(concurrency=self._rng.choice((2, 3)), last=self._rng.choice((6, 7)))
        self._fleet.client.reload()

    # -- helpers --------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until every drain and every start has come to its end."""

        def settled() -> bool:
            status = self._fleet.status()
            states = Counter(one["state"] for one in status["instances"])
            return set(states) == {"ready"} and all(pool["count"] >= pool["min"] for pool in status["pools"])

        self._fleet.until("all is ready, and nothing drains", settled)

    def _restart(self, name: str) -> None:
        if self._rng.random() < CLI_SHARE:
            self._cli("restart", name)
        else:
            self._fleet.client.restart(name)

    def is_excused(self, event: control_pb2.Event) -> bool:
        """Whether the agent whose end it tells was killed a moment before: what it was doing was cut indeed."""
        return any(who == event.instance and 0.0 <= event.wall - at < KILL_SEEN_S for who, at in self.killed.values())

    def _one(self) -> dict[str, Any]:
        return self._rng.choice(list(self._fleet.ps().values()))

    def _kill(self, process: Process) -> None:
        """Kill this very process, should it still be there."""
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        try:
            if environment(process.pid).get("AGENTD_INCARNATION") == process.incarnation:
                self.killed[process.incarnation] = process.instance, time.time()
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)

    def _cli(self, *words: str) -> None:
        done = self._fleet.run(*words)
        # 2: the pool has changed its size since this was decided, so that up would be down.
        refused = done.returncode == 1 or (done.returncode == 2 and "(TARGET_" in done.stderr)
        assert refused or done.returncode in (0, 4), f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.counts["refused"] += refused

    @contextmanager
    def _counted(self, kind: str) -> Iterator[None]:
        self.counts[kind] += 1
        try:
            yield
        except ControlError as error:
            if not error.reason:
                raise  # it was not agentd that refused
            self.counts["refused"] += 1


def test_every_task_is_done_whatever_happens(fleet: Fleet) -> None:
    chaos = Chaos(fleet, random.Random(SEED))
    chaos.configure()
    fleet.start()
    fleet.until("agents are ready", lambda: len(fleet.client.endpoints()) == 3)
    began = time.monotonic()
    client = Client(fleet.address, POOLS, SEED, threads=THREADS, tasks_min=TASKS_MIN)
    client.start()
    try:
        chaos.run()
        client.finish()
    finally:
        client.close()
    chaos.settle()
    books = Books.read(chaos.journal)
    twice, without_excuse = books.twice(), books.without_excuse(chaos.killed)
    undone = [number for number in client.answered if not books.done[number]]
    events = fleet.client.events(10_000)
    ended = [event for event in events if event.type == "stop_forced" or "were cut" in event.reason]
    cut = [f"{event.instance}: {event.reason}" for event in ended if not chaos.is_excused(event)]
    story = (
        f"seed {SEED}, {time.monotonic() - began:.0f} s: {client.given} tasks, {len(client.failed)} lost, "
        f"{len(twice)} ran twice, {len(without_excuse)} of these though no agent that had them was killed; "
        f"{client.retries} retries, {books.handed_over} handed over, {len(chaos.killed)} agents killed; "
        f"steps: {dict(sorted(chaos.counts.items()))}; events: {dict(Counter(event.type for event in events))}"
    )
    print(story)
    assert not client.failed, f"{story}\n{dict(list(client.failed.items())[:10])}"
    assert not undone, f"{story}\nanswered and not done: {undone[:20]}"
    assert sorted(client.answered) == list(range(1, client.given + 1)), story
    assert all(answer["id"] == str(number) for number, answer in client.answered.items()), story
    assert not without_excuse, f"{story}\n{[(n, books.begun[n]) for n in without_excuse[:20]]}"
    assert not cut, f"{story}\n{cut}"

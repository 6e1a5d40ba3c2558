"""Scenario transcripts: `tests/scenarios/*.txt`, each a story with what must come of it.

A transcript has comment lines (`#`, beginning with the reason it exists), a `config` block (YAML, indented),
commands, and under each command what the controller told and asked for (lines beginning with `| `). Run with
AGENTD_REWRITE=1 to write what happens now into the files, then read the difference.

    boot                           agentd starts
    reboot [later S]               agentd is killed and starts again, S seconds later; the agents run on
    run S                          let S seconds pass
    load ID=L ...                  agents report these loads from now on
    work ID BEGUN QUEUED           an agent reports so many tasks from now on
    silence ID / speak ID          an agent stops / starts sending heartbeats
    exit ID                        its process ends; the driver restarts it
    take PORT NAME / free PORT     somebody else listens on a port
    slow S                         from now on a start takes S seconds
    fail ID TEXT                   starting it fails
    host available=MIB [total=MIB] [disk=MIB] [cpu=CORES] [memory_pressure=P] [io_pressure=P]
         [wall=MIB]                (the slice of all agents may use so much)
    driver N                       the driver can run so many instances
    up N [POOL] / down N [POOL]    a person's target
    auto on|off [up|down] [pool=POOL] [for=S]   a person switches scaling, or a part of it
    responds ID S                  an agent reports this response time (p95) from now on
    shared POOL RATE SIGMA KAPPA   all agents of the pool have work; together they do what the scalability law says
    done ID N                      an agent reports so many tasks done
    read POOL NAME VALUE           a collector has read this number; with - and a text it could not
    propose POOL SOURCE N [S]      a program asks for a count, for S seconds
    withdraw POOL SOURCE           it takes that back
    explain POOL                   what an evaluation now would do, and why
    decided POOL                   the last decision that was kept of it
    costs                          what the pools that cost something have cost, and what they cost now
    check                          evaluate now
    restart ID ...                 a person restarts instances
    roll POOL [MAX_UNAVAILABLE]    a person restarts a pool
    cancel POOL                    a person ends that after the present step
    reload                         a new `config` block follows
    show                           every instance: id, state, load
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "core"))

from world import World

from agentd import config
from agentd.core.messages import (
    CancelRestart,
    Check,
    Collected,
    ConfigChanged,
    HostSampled,
    Propose,
    Refusal,
    Reply,
    Restart,
    RollingRestart,
    SetAutoscaling,
    SetTarget,
    TargetReply,
)
from agentd.core.model import HostSample, InstanceId, PoolName, Wall

MIB = 1024 * 1024
ROUND_S = 10.0
SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# "), "a scenario begins with the reason it exists"
    played = play(text)
    if os.environ.get("AGENTD_REWRITE"):
        path.write_text(played)
    assert played == text


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 10


def play(text: str) -> str:
    """The transcript `text` with its answers made anew."""
    out: list[str] = []
    story = Story()
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("| "):
            continue
        out.append(line)
        if line == "config":
            block = []
            while at < len(lines) and (lines[at].startswith("    ") or not lines[at].strip()):
                block.append(lines[at])
                at += 1
            out += block
            out += [f"| {told}" for told in story.configure("\n".join(block))]
        elif line and not line.startswith("#"):
            out += [f"| {told}" for told in story.command(line)]
    return "\n".join(out) + "\n"


class Story:
    def __init__(self) -> None:
        self.world: World | None = None
        self.shared: dict[str, tuple[float, float, float]] = {}
        self.completed: dict[str, float] = {}
        self.heard = 0

    def configure(self, text: str) -> list[str]:
        fleet = config.parse(text, "scenario").fleet
        if self.world is None:
            self.world = World(fleet)
            return []
        self.world.config = fleet
        self.world.step(ConfigChanged(fleet))
        self.world.run_until(self.world.now)
        return self._news()

    def command(self, line: str) -> list[str]:
        assert self.world is not None, "a scenario needs a config block first"
        verb, *words = line.split()
        extra = getattr(self, f"do_{verb}")(self.world, words) or []
        self.world.run_until(self.world.now)
        return [*extra, *self._news()]

    def _news(self) -> list[str]:
        assert self.world is not None
        records = self.world.records[self.heard :]
        self.heard = len(self.world.records)
        return [f"{at:7.2f}  {r.type} {r.instance or r.pool or '-'}: {r.reason}" for at, r in records]

    def do_boot(self, world: World, _: list[str]) -> None:
        world.boot()

    def do_reboot(self, world: World, words: list[str]) -> None:
        if words:
            world.now += float(words[1])
        world.reboot()

    def do_run(self, world: World, words: list[str]) -> None:
        end = world.now + float(words[0])
        while self.shared and world.now < end:
            for name, law in self.shared.items():
                self._work(world, name, *law)
            world.run_until(min(end, world.now + ROUND_S))
            self.do_host(world, [])
        world.run_until(end)

    def _work(self, world: World, name: str, rate: float, sigma: float, kappa: float) -> None:
        """What the agents of a pool have done by the end of the next round, in which all of them have work."""
        agents = [agent for agent in world.agents.values() if agent.id.startswith(f"{name}-")]
        count = len(agents)
        each = rate / (1.0 + sigma * (count - 1) + kappa * count * (count - 1))
        for agent in agents:
            key = agent.incarnation
            self.completed[key] = self.completed.get(key, 0.0) + each * ROUND_S
            agent.tasks_completed, agent.in_flight, agent.queue_length = int(self.completed[key]), 1, 3

    def do_shared(self, _: World, words: list[str]) -> None:
        rate, sigma, kappa = (float(word) for word in words[1:])
        self.shared[words[0]] = (rate, sigma, kappa)

    def do_load(self, world: World, words: list[str]) -> None:
        for word in words:
            ident, load = word.split("=")
            world.set_load(ident, float(load))

    def do_work(self, world: World, words: list[str]) -> None:
        world.work(words[0], int(words[1]), int(words[2]))

    def do_silence(self, world: World, words: list[str]) -> None:
        world.agents[InstanceId(words[0])].silent = True

    def do_speak(self, world: World, words: list[str]) -> None:
        agent = world.agents[InstanceId(words[0])]
        agent.silent, agent.next_beat = False, world.now

    def do_exit(self, world: World, words: list[str]) -> None:
        world.exit(words[0])

    def do_take(self, world: World, words: list[str]) -> None:
        world.taken_ports[int(words[0])] = words[1]

    def do_free(self, world: World, words: list[str]) -> None:
        del world.taken_ports[int(words[0])]

    def do_slow(self, world: World, words: list[str]) -> None:
        world.start_delay_s = float(words[0])

    def do_fail(self, world: World, words: list[str]) -> None:
        world.failing[words[0]] = " ".join(words[1:])

    def do_mend(self, world: World, words: list[str]) -> None:
        del world.failing[words[0]]

    def do_host(self, world: World, words: list[str]) -> None:
        given = {key: float(value) for key, value in (word.split("=") for word in words)}
        world.step(
            HostSampled(
                HostSample(
                    cores=8,
                    cpu_used_cores=given.get("cpu", 1.0),
                    memory_total_bytes=int(given.get("total", 4096) * MIB),
                    memory_available_bytes=int(given.get("available", 4096) * MIB),
                    disk_free_bytes=int(given.get("disk", 100_000) * MIB),
                    memory_pressure_percent=given.get("memory_pressure"),
                    io_pressure_percent=given.get("io_pressure"),
                    walls={"": Wall(int(given["wall"] * MIB), 0)} if "wall" in given else {},
                )
            )
        )

    def do_driver(self, world: World, words: list[str]) -> None:
        world.controller.set_capacity(int(words[0]))

    def do_up(self, world: World, words: list[str]) -> list[str]:
        return self._target(world, "up", words)

    def do_down(self, world: World, words: list[str]) -> list[str]:
        return self._target(world, "down", words)

    def _target(self, world: World, direction: str, words: list[str]) -> list[str]:
        pool = PoolName(words[1]) if len(words) > 1 else None
        reply = world.step(SetTarget(direction, int(words[0]), pool, "alice", "", 3600.0))
        if isinstance(reply, Refusal):
            return [f"refused {reply.reason}: {reply.text}"]
        assert isinstance(reply, TargetReply)
        return [
            f"{g.pool}: {g.current} now, {g.wanted} wanted, {g.granted} granted" + "".join(f"; {x}" for x in g.limits)
            for g in reply.grants
        ]

    def do_auto(self, world: World, words: list[str]) -> list[str]:
        given = dict(word.split("=") for word in words[1:] if "=" in word)
        direction = next((word for word in words[1:] if "=" not in word), "")
        pool = PoolName(given["pool"]) if "pool" in given else None
        for_s = float(given["for"]) if "for" in given else None
        return self._refused(world.step(SetAutoscaling(words[0] == "on", "alice", "", pool, direction, for_s)))

    def do_responds(self, world: World, words: list[str]) -> None:
        world.agents[InstanceId(words[0])].response_time_p95_s = float(words[1])

    def do_done(self, world: World, words: list[str]) -> None:
        world.agents[InstanceId(words[0])].tasks_completed = int(words[1])

    def do_read(self, world: World, words: list[str]) -> list[str]:
        value, trouble = (None, " ".join(words[3:])) if words[2] == "-" else (float(words[2]), "")
        return self._refused(world.step(Collected(PoolName(words[0]), words[1], value, trouble)))

    def do_propose(self, world: World, words: list[str]) -> list[str]:
        for_s = float(words[3]) if len(words) > 3 else 600.0
        return self._refused(world.step(Propose(PoolName(words[0]), words[1], int(words[2]), "alice", "", for_s)))

    def do_withdraw(self, world: World, words: list[str]) -> list[str]:
        return self._refused(world.step(Propose(PoolName(words[0]), words[1], None, "alice")))

    def _refused(self, reply: Reply | None) -> list[str]:
        return [f"refused {reply.reason}: {reply.text}"] if isinstance(reply, Refusal) else []

    def do_explain(self, world: World, words: list[str]) -> list[str]:
        pool = next(pool for pool in world.view().pools if pool.name == words[0])
        found = pool.next
        lines = [f"{found.current} now, {found.wanted} wanted, {found.granted} granted; from {pool.min} to {pool.max}"]
        for proposal in found.proposals:
            count = "-" if proposal.count is None else proposal.count
            wins = " *" if proposal.trigger == found.trigger else ""
            lines.append(f"  {proposal.trigger} {count}{wins}: {proposal.reason.text}")
        lines += [f"  limit {limit.code}: {limit.text}" for limit in found.limits]
        return [*lines, f"  {found.counterfactual}"] if found.counterfactual else lines

    def do_decided(self, world: World, words: list[str]) -> list[str]:
        found = [it for outcome in world.outcomes for it in outcome.decisions if it.pool == words[0]][-1]
        head = f"{found.current} -> {found.granted} of {found.wanted}: {'; '.join(r.text for r in found.reasons)}"
        return [head, *(f"  limit {limit.code}: {limit.text}" for limit in found.limits)]

    def do_costs(self, world: World, _: list[str]) -> list[str]:
        view = world.view()
        shown = [(pool.name, pool.cost) for pool in view.pools] + [("all", view.cost)]
        lines = []
        for name, cost in shown:
            if cost is not None:
                spent = (cost.spent_hour.amount, cost.spent_day.amount, cost.spent_month.amount)
                text = " ".join(f"{amount:.4f}" for amount in spent)
                lines.append(f"{name}: {cost.per_hour:.4f} per hour; spent this hour, day, month {text}")
                lines[-1] += f"; {cost.projected_month:.2f} projected"
                lines += [f"  left of {each.amount:g} per {each.window}: {each.left:.4f}" for each in cost.budgets]
                lines += [f"  {it.decision}: {it.change:+d}, {it.per_hour:+.4f} per hour" for it in cost.scalings]
        return lines

    def do_check(self, world: World, _: list[str]) -> list[str]:
        reply = world.step(Check("alice"))
        return [str(reply)] if isinstance(reply, Refusal) else []

    def do_restart(self, world: World, words: list[str]) -> None:
        world.step(Restart(tuple(InstanceId(word) for word in words), "alice"))

    def do_roll(self, world: World, words: list[str]) -> list[str]:
        most = int(words[1]) if len(words) > 1 else None
        reply = world.step(RollingRestart(PoolName(words[0]), "alice", most))
        return [f"refused: {reply.text}"] if isinstance(reply, Refusal) else []

    def do_cancel(self, world: World, words: list[str]) -> None:
        world.step(CancelRestart(PoolName(words[0]), "alice"))

    def do_reload(self, world: World, _: list[str]) -> None:
        """The `config` block that follows does it."""

    def do_show(self, world: World, _: list[str]) -> list[str]:
        rows = []
        for i in world.view().instances:
            load = "-" if i.load is None else f"{i.load:.2f}"
            cause = f" ({i.cause})" if i.cause else ""
            rows.append(f"{i.id} {i.state} load {load}{cause}")
        return [re.sub(r"\s+$", "", row) for row in rows]

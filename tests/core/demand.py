"""Demand on one pool in virtual time: what its agents report follows from what comes in and how many they are."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from world import World

from agentd.core.effects import Effect
from agentd.core.messages import HostSampled
from agentd.core.model import MIB, HostSample, PoolName

STEP_S = 5.0
HOST = HostSample(64, 1.0, 64_000 * MIB, 60_000 * MIB, 100_000 * MIB)


def response_s(load: float) -> float:
    """How long a task takes in an agent of that load: the longer the fuller it is."""
    return 0.5 + 0.5 / (1.0 - min(load, 0.95))


@dataclass
class Demand:
    """Drives `world`. `tasks_per_s(now)` come in for the whole pool; an agent does `rate` tasks per second at most.

    `slower(agents)`: by what factor all of them are slower when they are so many. `noise`: of response times, as a
    share; that of one step is like that of the step before by `alike`.
    """

    world: World
    tasks_per_s: Callable[[float], float]
    rng: random.Random
    rate: float = 10.0
    noise: float = 0.1
    alike: float = 0.0
    slower: Callable[[int], float] = lambda _: 1.0
    pool: str = "research"
    counts: bool = True  # whether the agents count what they have done
    times: bool = True  # whether they report response times
    _off: float = 0.0

    def run_until(self, end: float) -> None:
        while self.world.now < end:
            self._step()
            self.world.run_until(self.world.now + STEP_S)
            self.world.step(HostSampled(HOST))

    def _step(self) -> None:
        agents = [agent for ident, agent in self.world.agents.items() if ident.startswith(self.pool)]
        if not agents:
            return
        fresh = self.rng.gauss(0.0, self.noise)
        self._off = self.alike * self._off + math.sqrt(1.0 - self.alike**2) * fresh
        load = self.tasks_per_s(self.world.now) / len(agents) / self.rate
        for agent in agents:
            arrived = poisson(self.rng, load * self.rate * STEP_S)
            real = arrived / STEP_S / self.rate
            agent.load = min(1.0, load)
            agent.in_flight = min(4, round(4 * load))
            agent.queue_length = max(0, round(8 * (load - 0.8)))
            if self.counts:
                agent.tasks_completed = (agent.tasks_completed or 0) + arrived
            if self.times:
                seconds = response_s((load + real) / 2) * self.slower(len(agents)) * math.exp(self._off)
                agent.response_time_p50_s = seconds


def poisson(rng: random.Random, mean: float) -> int:
    """So many come while `mean` are expected."""
    limit, count, product = math.exp(-min(mean, 500.0)), 0, rng.random()
    while product > limit:
        count += 1
        product *= rng.random()
    return count


def effects(world: World, pool: str = "research") -> list[Effect]:
    """What the scalings of `pool` brought, oldest first."""
    return [made for outcome in world.outcomes for made in outcome.effects if made.pool == PoolName(pool)]

"""Counts from outside of the controller, asked for as external programs do: by a plan, or by a peer's policy."""

from __future__ import annotations

from collections.abc import Sequence

from agentd.core.messages import Propose
from agentd.core.signals import OFFER_S_MAX
from agentd.sim.agents import Agent
from agentd.sim.peers.view import Peer, PeerView
from agentd.sim.world import TRACE_AT_S, World


class Offers:
    """Asks the controller of a world for counts, under the name `source`."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._last: int | None = None

    def ask(self, world: World, count: int) -> None:
        """Ask for `count` instances, unless that is what was asked for last."""
        if count != self._last:
            self._last = count
            world.step(Propose(world.pool.name, self._source, count, "simulator", "", OFFER_S_MAX))


class Plan:
    """Asks for counts at times of the trace, known in advance: (offset in seconds, count), sorted, at least one."""

    def __init__(self, source: str, steps: Sequence[tuple[float, int]]) -> None:
        self._offers = Offers(source)
        self._steps = steps
        self._next = 0

    def attach(self, world: World) -> None:
        self._world = world
        world.later(TRACE_AT_S + max(0.0, self._steps[0][0]), self._take_step)

    def _take_step(self) -> None:
        steps, world = self._steps, self._world
        while self._next < len(steps) and TRACE_AT_S + steps[self._next][0] <= world.now:
            self._next += 1
        self._offers.ask(world, steps[self._next - 1][1])
        if self._next < len(steps):
            world.later(TRACE_AT_S + steps[self._next][0], self._take_step)


class Asked:
    """Asks for the counts that `peer` decides on, which looks at the pool every `peer.interval_s` from the start on."""

    def __init__(self, source: str, peer: Peer) -> None:
        self._offers = Offers(source)
        self._peer = peer
        self._looked_at = TRACE_AT_S
        self._arrived = 0

    def attach(self, world: World) -> None:
        self._world = world
        world.later(TRACE_AT_S, self._look)

    def _look(self) -> None:
        world = self._world
        count = self._peer.decide(self._view(), world.now)
        if count is not None:
            self._offers.ask(world, count)
        world.later(world.now + self._peer.interval_s, self._look)

    def _view(self) -> PeerView:
        world = self._world
        now, ready = world.now, len(world.open)
        starting = sum(1 for agent in world.agents.values() if not agent.ready and not agent.stopping)
        passed_s = now - self._looked_at
        view = PeerView(
            current=ready + starting,
            ready=ready,
            starting=starting,
            in_flight=sum(agent.in_flight for agent in world.agents.values()),
            queue=world.waiting,
            concurrency=world.pool.concurrency,
            min=world.pool.min,
            max=world.pool.max,
            utilisation=tuple(_utilisation(agent, now) for agent in world.open),
            arrivals_per_s=(world.arrived - self._arrived) / passed_s if passed_s > 0.0 else 0.0,
        )
        self._looked_at, self._arrived = now, world.arrived
        return view


def _utilisation(agent: Agent, now: float) -> float:
    """The share of its slots that was busy since the last look, or since it became ready."""
    busy_s, passed_s = agent.busy_until(now) - agent.seen_busy_s, now - agent.seen_at
    agent.seen_busy_s, agent.seen_at = agent.seen_busy_s + busy_s, now
    if passed_s <= 0.0:
        return agent.in_flight / agent.slots
    return min(1.0, max(0.0, busy_s / (passed_s * agent.slots)))

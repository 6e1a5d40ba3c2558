"""Who gets the next request: ways to choose among the agents that could take it, in the order they became ready."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from agentd.sim.agents import Agent

# Requests do not wait for a free slot: whoever has least to do gets them, and they wait there.
AT_ONCE = "at-once"
NAMES = ("least-loaded", "most-loaded", "first", "random", AT_ONCE)

Dispatch = Callable[[Sequence[Agent]], Agent]


def chooser(name: str, rng: random.Random) -> Dispatch:
    """The way `name`, one of NAMES, to choose one of at least one agent; chance comes from `rng`."""

    def at_random(agents: Sequence[Agent]) -> Agent:
        return agents[int(rng.random() * len(agents))]

    ways: dict[str, Dispatch] = {
        "least-loaded": _least_loaded,
        "most-loaded": _most_loaded,
        "first": _first,
        "random": at_random,
        AT_ONCE: _least_work,
    }
    return ways[name]


def _least_loaded(agents: Sequence[Agent]) -> Agent:
    """Whoever has the fewest tasks; among equals whoever has been ready for longest."""
    return min(agents, key=_in_flight)


def _most_loaded(agents: Sequence[Agent]) -> Agent:
    """Whoever has the most tasks and a slot left, so that others become idle."""
    return max(agents, key=_in_flight)


def _first(agents: Sequence[Agent]) -> Agent:
    return agents[0]


def _least_work(agents: Sequence[Agent]) -> Agent:
    """Whoever has the fewest tasks begun and queued; among equals whoever has been ready for longest."""
    return min(agents, key=_work)


def _in_flight(agent: Agent) -> int:
    return agent.in_flight


def _work(agent: Agent) -> int:
    return agent.in_flight + len(agent.queue)

"""What asks for counts from outside: what a peer sees of the pool, and that what it asks for is what it gets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from worlds import arrivals, at, fleet

from agentd.core.messages import Collected, Propose
from agentd.core.rules import CollectorConfig, ExternalTrigger
from agentd.sim.options import Options
from agentd.sim.peers.view import PeerView
from agentd.sim.policies import POOL, make
from agentd.sim.steering import Asked, Plan
from agentd.sim.world import Setup, World
from agentd.traces import Arrival

OPEN = {
    "triggers": (ExternalTrigger(),),
    "drain_share_max": 1.0,
    "quick_up_cooldown_s": 0.0,
    "quick_down_cooldown_s": 0.0,
}


class Scripted:
    """Asks for what it is told to, and keeps what it has seen."""

    interval_s = 10.0

    def __init__(self, *counts: int | None) -> None:
        self.counts = list(counts)
        self.seen: list[tuple[float, PeerView]] = []

    def decide(self, view: PeerView, now: float) -> int | None:
        self.seen.append((now - at(0.0), view))
        return self.counts.pop(0) if self.counts else None


def test_a_peer_sees_the_pool_as_it_is() -> None:
    # Two slots each. At 0 one task of 15 s; at 12 five more of 100 s, of which two have to wait, one of them until 15.
    trace = arrivals((0.0, 15.0), *[(12.0, 100.0)] * 5, (70.0, 1.0))
    peer = Scripted(None, None, 3)
    World(fleet(concurrency=2, min=2, max=6, **OPEN), trace, Setup(initial=2), Asked("test", peer)).run()
    first, second, third, fourth, *_ = peer.seen
    assert [when for when, _ in peer.seen[:4]] == [0.0, 10.0, 20.0, 30.0]
    assert (first[1].current, first[1].in_flight, first[1].arrivals_per_s) == (2, 0, 0.0)
    assert second[1].utilisation == pytest.approx((0.5, 0.0))
    assert (second[1].in_flight, second[1].queue, second[1].arrivals_per_s) == (1, 0, 0.1)
    # From 12 on all four slots are busy.
    assert third[1].utilisation == pytest.approx(((2.0 * 0.5 + 8.0) / 10.0, 8.0 / 10.0))
    assert (third[1].in_flight, third[1].queue, third[1].arrivals_per_s) == (4, 1, 0.5)
    assert (third[1].concurrency, third[1].min, third[1].max) == (2, 2, 6)
    # What it asked for at 20 is starting at 30.
    assert (fourth[1].current, fourth[1].ready, fourth[1].starting) == (3, 2, 1)


def test_what_is_asked_for_is_there_a_start_later_and_asked_for_once() -> None:
    peer = Scripted(4, 4, 4, None, 4, 2, 2)
    world = World(fleet(max=6, **OPEN), [Arrival(0.0, 1.0), Arrival(300.0, 1.0)], Setup(), Asked("test", peer))
    asked: list[int | None] = []
    sizes: dict[float, int] = {}
    world.on_step = lambda event, _: asked.append(event.count) if isinstance(event, Propose) else None
    for second in (29.0, 32.0, 49.0, 53.0):
        world.later(at(second), lambda second=second: sizes.update({second: len(world.open)}))
    world.run()
    assert asked == [4, 2]
    assert sizes == {29.0: 1, 32.0: 4, 49.0: 4, 53.0: 2}


def test_a_plan_is_followed_to_the_second() -> None:
    plan = Plan("test", [(0.0, 1), (100.0, 3), (200.0, 0), (200.0, 2)])
    world = World(fleet(max=6, **OPEN), [Arrival(0.0, 1.0), Arrival(300.0, 1.0)], Setup(startup_s=5.0), plan)
    sizes: list[int] = []
    for second in (104.0, 107.0, 199.0, 203.0):
        world.later(at(second), lambda: sizes.append(len(world.open)))
    world.run()
    assert sizes == [1, 3, 3, 2]


def test_the_queue_is_read_every_ten_seconds_and_on_change_at_most_once_a_second() -> None:
    trace = arrivals(*[(20.0 + 0.3 * n, 2.0) for n in range(40)], (150.0, 1.0))
    config, _ = make("demand", Options(agents_max=1), trace)
    assert config.pools[POOL].collectors == (CollectorConfig("queue", "simulated"),)
    world = World(config, trace, Setup())
    read: list[tuple[float, float | None]] = []
    world.on_step = lambda event, _: (
        read.append((world.now - at(0.0), event.value)) if isinstance(event, Collected) else None
    )
    world.run()
    times = [when for when, _ in read]
    assert min(later - earlier for earlier, later in pairwise(times)) >= 1.0
    assert max(later - earlier for earlier, later in pairwise(times)) <= 10.0
    assert max(value or 0.0 for _, value in read) > 20.0
    assert (read[0][1], read[-1][1]) == (0.0, 0.0)

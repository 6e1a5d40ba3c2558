"""The world around the simulated controller, against what a person can calculate by hand."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
from hypothesis import HealthCheck as Worry
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import agent, arrivals, at, fleet, run

from agentd.core.messages import Beat, Drain, Event, Outcome, SetTarget
from agentd.core.model import ThresholdTrigger
from agentd.core.rules import DemandTrigger
from agentd.sim import dispatch as ways
from agentd.sim.measure import UNSERVED
from agentd.sim.world import Setup, World
from agentd.traces import Arrival


def test_one_agent_serves_in_turn() -> None:
    # Served 0-10, 10-20, 20-30, and 40-41: waits 0, 9, 18 and 0.
    world, found = run(arrivals((0.0, 10.0), (1.0, 10.0), (2.0, 10.0), (40.0, 1.0)))
    assert world.measure.waits == [0.0, 9.0, 18.0, 0.0]
    assert (found.requests, found.unserved, found.late_share) == (4, 0, 0.5)
    assert (found.wait_p50_s, found.wait_p95_s, found.wait_p99_s) == (0.0, 18.0, 18.0)
    # One agent, from the beginning to the last arrival.
    assert found.agent_hours == pytest.approx(40.0 / 3600.0)
    assert (found.starts, found.peak, found.cost) == (0, 1, found.agent_hours)


def test_a_wait_that_is_just_as_long_as_allowed_is_not_late() -> None:
    _, found = run(arrivals((0.0, 5.0), (0.0, 1.0)))
    assert (found.wait_p99_s, found.late_share) == (5.0, 0.0)


def test_slots_are_filled_before_anybody_waits_and_the_least_loaded_agent_is_next() -> None:
    setup = Setup(initial=2)
    world, _ = run(arrivals(*[(0.0, 10.0)] * 5), setup, concurrency=2, min=2)
    assert world.measure.waits == [0.0, 0.0, 0.0, 0.0, 10.0]


def test_who_gets_a_request_can_be_chosen() -> None:
    trace = arrivals((0.0, 3.0), (1.0, 10.0), (2.0, 10.0), (4.0, 1.0))
    busiest: dict[str, list[int]] = {}
    for name in ways.NAMES:
        world = World(fleet(min=3, concurrency=2), trace, Setup(initial=3, dispatch=name))
        world.later(at(3.9), partial(_note_in_flight, world, busiest, name))
        world.run()
    assert busiest["least-loaded"] == [0, 1, 1]
    assert busiest["most-loaded"] == [1, 1, 0]
    assert busiest["first"] == [1, 1, 0]
    assert sum(busiest["random"]) == 2
    assert busiest["at-once"] == [0, 1, 1]


def test_dispatched_at_once_a_request_waits_at_the_agent_that_got_it() -> None:
    # The third goes to the first agent, which is at it for long; the second would be free sooner.
    trace = arrivals((0.0, 50.0), (0.0, 10.0), (1.0, 1.0), (2.0, 1.0), (100.0, 1.0))
    world = World(fleet(min=2), trace, Setup(initial=2, dispatch="at-once"))
    reported: list[int | None] = []
    world.later(at(5.0), lambda: reported.extend(a.report(world.now).queue_length for a in world.agents.values()))
    world.run()
    assert world.measure.waits == [0.0, 0.0, 49.0, 8.0, 0.0]
    assert reported == [1, 1]


def test_who_drains_hands_over_what_waits_there() -> None:
    trace = arrivals((0.0, 50.0), (0.0, 10.0), (1.0, 1.0), (2.0, 1.0), (100.0, 1.0))
    world = World(fleet(min=0), trace, Setup(initial=2, dispatch="at-once"))
    world.later(at(5.0), lambda: world.step(Drain(agent(1), "test")))
    world.run()
    assert world.measure.waits == [0.0, 0.0, 10.0, 8.0, 0.0]


def _note_in_flight(world: World, found: dict[str, list[int]], name: str) -> None:
    found[name] = [world.agents[agent(number)].in_flight for number in (1, 2, 3)]


def test_a_scale_up_by_threshold_by_hand() -> None:
    """Checks come at 50, 110, ... s of the trace; an agent takes 30 s to start, and 0.75 of load is exceeded."""
    trace = arrivals((0.0, 100.0), (1.0, 100.0), (200.0, 1.0))
    world, found = run(trace, Setup(startup_s=30.0), triggers=(ThresholdTrigger(),), max=2)
    # Decided at 50, ready at 80, when it takes the request that has waited since 1.
    assert world.measure.waits == [0.0, 79.0, 0.0]
    assert (found.starts, found.peak, found.ups, found.downs) == (1, 2, 1, 0)
    # One for all of the 200 s, one from the request for its start on.
    assert found.agent_hours == pytest.approx((200.0 + 150.0) / 3600.0)


def test_a_drain_ends_the_agent_when_its_tasks_are_done_and_not_before() -> None:
    trace = arrivals((0.0, 30.0), (0.0, 100.0), (1.0, 100.0), (300.0, 1.0))
    world = World(fleet(max=2, concurrency=2), trace, Setup(initial=2))
    gone: list[float] = []
    world.on_step = lambda event, _: gone.append(world.now) if type(event).__name__ == "InstanceStopped" else None
    world.later(at(10.0), lambda: world.step(Drain(agent(1), "test")))
    world.run()
    # It has the request of 30 s and the third one, of 1 to 101; it is gone the moment that is done.
    assert gone == [at(101.0)]
    assert world.measure.waits == [0.0] * 4


def test_an_agent_without_tasks_is_gone_as_soon_as_it_is_told_to_drain() -> None:
    world = World(fleet(max=3, min=0), arrivals((0.0, 1.0), (3600.0, 1.0)), Setup(initial=2))
    world.later(at(600.0), lambda: world.step(Drain(agent(2), "test")))
    measure = world.run()
    assert measure.agent_s == pytest.approx(3600.0 + 600.0)


def test_an_agent_that_drains_takes_work_again_when_it_is_called_back() -> None:
    trace = arrivals((0.0, 50.0), (0.0, 50.0), (20.0, 1.0), (100.0, 1.0))
    world = World(fleet(max=2, scale_up_cooldown_s=0.0, scale_down_cooldown_s=0.0), trace, Setup(initial=2))
    world.later(at(10.0), lambda: world.step(SetTarget("down", 1, None, "test", "", 3600.0)))
    world.later(at(15.0), lambda: world.step(SetTarget("up", 2, None, "test", "", 3600.0)))
    world.run()
    assert world.measure.starts == 0, "the one that drained was taken back"
    assert len(world.open) == 2
    assert world.measure.waits == [0.0, 0.0, 30.0, 0.0]


def test_a_drain_with_a_deadline_cuts_what_is_not_done() -> None:
    trace = arrivals((0.0, 500.0), (0.0, 20.0), (600.0, 1.0))
    world = World(fleet(max=2, drain_timeout_s=60.0, stop_grace_s=5.0), trace, Setup(initial=2))
    world.later(at(10.0), lambda: world.step(Drain(agent(1), "test")))
    measure = world.run()
    assert measure.waits[0] == UNSERVED
    assert measure.waits[1:] == [0.0, 0.0]


def test_what_is_not_served_within_an_hour_after_the_last_arrival_is_late() -> None:
    _, found = run(arrivals((0.0, 10_000.0), (1.0, 1.0), (2.0, 1.0)))
    assert (found.unserved, found.late_share) == (2, 2 / 3)
    assert found.wait_p99_s == 3601.0, "they have waited at least until the end"


def test_a_heartbeat_comes_every_ten_seconds_and_on_change_at_most_once_a_second() -> None:
    trace = [*arrivals(*[(n * 0.1, 0.05) for n in range(300)]), Arrival(100.0, 1.0)]
    world = World(fleet(), trace, Setup())
    beats: list[tuple[float, Beat]] = []

    def note(event: Event, outcome: Outcome) -> None:
        del outcome
        if isinstance(event, Beat):
            beats.append((world.now - at(0.0), event))

    world.on_step = note
    world.run()
    times = [when for when, _ in beats]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= 1.0
    assert max(gaps) <= 10.0
    assert sum(1 for when in times if 0.0 <= when < 30.0) == pytest.approx(30, abs=1)
    assert sum(1 for when in times if 31.0 < when < 100.0) in (6, 7)


def test_who_tells_only_a_load_tells_nothing_of_tasks() -> None:
    trace = arrivals((10.0, 20.0), (10.0, 20.0), (10.0, 5.0))
    world = World(fleet(triggers=(DemandTrigger(0.5, 0.0),)), trace, Setup(tells_tasks=False))
    told: list[tuple[object, ...]] = []

    def note(event: Event, outcome: Outcome) -> None:
        del outcome
        if isinstance(event, Beat):
            times = event.response_time_p50_s, event.response_time_p95_s
            told.append((event.load, event.in_flight, event.queue_length, event.tasks_completed, *times))

    world.on_step = note
    measure = world.run()
    assert max(str(load) for load, *_ in told) == "1.0"
    assert {tuple(others) for _, *others in told} == {(None,) * 5}
    assert (measure.starts, measure.ups) == (0, 0)  # demand knows of none


def test_an_agent_measures_its_load_over_the_last_interval() -> None:
    world = World(fleet(concurrency=2), arrivals((100.0, 4.0), (100.0, 8.0), (200.0, 1.0)), Setup())
    loads: list[tuple[float, float | None]] = []
    world.later(at(109.999), lambda: loads.append((world.now, world.agents[agent(1)].report(world.now).load)))
    world.run()
    # Of 20 slot-seconds before 109.999, which begin at 99.999: 4 + 8.
    assert loads[0][1] == pytest.approx(0.6, abs=0.001)


def test_beats_may_be_lost_and_shaken_and_the_seed_decides_which() -> None:
    trace = arrivals(*[(n * 7.0, 20.0) for n in range(200)])

    def times(seed: int) -> list[float]:
        setup = Setup(seed=seed, beat_loss_ratio=0.3, beat_jitter_ratio=0.1, initial=3)
        world = World(fleet(triggers=(ThresholdTrigger(),)), trace, setup)
        beats: list[float] = []
        world.on_step = lambda event, _: beats.append(world.now) if isinstance(event, Beat) else None
        world.run()
        return beats

    assert times(1) == times(1)
    assert times(1) != times(2)


REQUESTS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 120)), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[Worry.too_slow])
@given(
    REQUESTS, st.integers(1, 3), st.integers(1, 3), st.sampled_from(ways.NAMES), st.sampled_from([0.0, 0.3]),
    st.integers(0, 3),
)  # fmt: skip
def test_every_request_is_served_once_or_not_at_all(
    pairs: list[tuple[int, int]], slots: int, initial: int, dispatch: str, loss: float, seed: int
) -> None:
    trace = [Arrival(float(offset), float(service)) for offset, service in sorted(pairs)]
    setup = Setup(startup_s=20.0, initial=initial, dispatch=dispatch, seed=seed, beat_loss_ratio=loss)
    eager = {"scale_up_cooldown_s": 10.0, "scale_down_cooldown_s": 20.0}
    world = World(fleet(triggers=(ThresholdTrigger(),), concurrency=slots, **eager), trace, setup)
    begun: list[int] = []
    begin = world._begin
    world._begin = lambda who, number: (begun.append(number), begin(who, number))[1]  # type: ignore[method-assign]
    most: list[int] = []
    world.on_step = lambda *_: most.append(max((a.in_flight for a in world.agents.values()), default=0))
    measure = world.run()
    assert sorted(begun) == [number for number, wait_s in enumerate(measure.waits) if wait_s != UNSERVED]
    if dispatch != "at-once":
        assert begun == sorted(begun), "first come, first served"
    assert max(most) <= slots
    assert all(wait_s >= 0.0 for wait_s in measure.waits if wait_s != UNSERVED)
    # Whoever served them was there for it, up to the last arrival.
    last_s = trace[-1].offset_s
    served_s = sum(
        max(0.0, min(request.offset_s + wait_s + request.service_s, last_s) - (request.offset_s + wait_s))
        for request, wait_s in zip(trace, measure.waits, strict=True)
        if wait_s != UNSERVED
    )
    assert measure.agent_s >= served_s / slots - 1e-6
    assert measure.agent_s <= measure.peak * last_s + 1e-6

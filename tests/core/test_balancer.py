"""Shares of new work: slower and busier agents get less, none gets nothing, and who inherits."""

from __future__ import annotations

import math
from typing import Any

from fleets import STORIES, fleet, research
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from world import World

from agentd.core.balancer import SHARE_MIN, SUCCESSORS_MAX, Endpoint, successors, weigh
from agentd.core.model import Incarnation, InstanceId, PoolName, State


def endpoint(port: int = 9101, **values: Any) -> Endpoint:
    return Endpoint(InstanceId(f"research-{port}"), PoolName("research"), port, Incarnation(f"i{port}"), **values)


def weights(*endpoints: Endpoint) -> list[float]:
    return [each.weight for each in weigh(endpoints)]


_times = st.none() | st.sampled_from([0.0, 1e-300, 1e300]) | st.floats(0.0, 1000.0)
_reports = st.fixed_dictionaries(
    {
        "state": st.sampled_from([State.READY, State.READY, State.READY, State.DRAINING]),
        "late": st.sampled_from([False, False, False, True]),
        "load": st.none() | st.floats(0.0, 1.0),
        "queue_length": st.none() | st.integers(0, 10**9),
        "in_flight": st.none() | st.integers(0, 10**9),
        "concurrency": st.integers(1, 1000),
        "response_time_p50_s": _times,
        "response_time_p95_s": _times,
    }
)
_pools = st.lists(_reports, max_size=8).map(
    lambda reports: [endpoint(9101 + n, **report) for n, report in enumerate(reports)]
)


# -- weights --------------------------------------------------------------------------------------


def test_agents_alike_weigh_alike_and_an_idle_pool_weighs_one_each() -> None:
    assert weights(endpoint(9101), endpoint(9102), endpoint(9103)) == [1.0, 1.0, 1.0]


def test_half_as_fast_gets_half_as_much() -> None:
    pool = [endpoint(9101, response_time_p50_s=1.0), endpoint(9102, response_time_p50_s=2.0)]
    assert weights(*pool) == [1.0, 0.5]


def test_a_response_time_counts_until_a_newer_one_comes_and_dies_with_its_process() -> None:
    world = World(fleet(research(min=3)))
    world.boot()
    first, second = (world.agents[InstanceId(f"research-{port}")] for port in (9101, 9102))
    first.response_time_p50_s, second.response_time_p50_s = 2.0, 1.0
    world.run_until(15.0)

    def shares() -> list[float]:
        return [each.weight for each in world.controller.endpoints()[PoolName("research")]]

    assert shares() == [0.6667, 0.5, 1.0]
    first.response_time_p50_s = second.response_time_p50_s = None  # no task ends in these intervals
    world.run_until(500.0)
    assert shares() == [0.6667, 0.5, 1.0]
    assert world.instance("research-9101").response_time_p50_s == 2.0
    first.response_time_p50_s = 1.0
    world.run_until(565.0)
    assert shares() == [1.0, 1.0, 1.0]
    world.exit("research-9101")
    world.run_until(570.0)
    assert world.instance("research-9101").response_time_p50_s is None
    assert world.instance("research-9102").response_time_p50_s == 1.0
    world.reboot()
    assert world.instance("research-9102").response_time_p50_s is None, "what was reported is not kept on disk"


def test_twice_the_slots_get_twice_as_much() -> None:
    assert weights(endpoint(9101, concurrency=2), endpoint(9102, concurrency=4)) == [0.5, 1.0]


def test_full_slots_halve_a_weight_and_a_queue_lowers_it_further() -> None:
    idle = endpoint(9101, concurrency=4)
    full = endpoint(9102, concurrency=4, in_flight=4, load=1.0)
    behind = endpoint(9103, concurrency=4, in_flight=4, queue_length=4, load=1.0)
    assert weights(idle, full, behind) == [1.0, 0.5, 0.3333]


def test_who_has_not_finished_a_task_is_taken_for_usual() -> None:
    fast, slow = endpoint(9101, response_time_p50_s=1.0), endpoint(9103, response_time_p50_s=4.0)
    middle = endpoint(9104, response_time_p50_s=2.0)
    assert weights(fast, endpoint(9102), middle, slow) == [1.0, 0.5, 0.5, 0.25]


def test_the_late_get_the_least_and_the_draining_nothing() -> None:
    pool = [endpoint(9101), endpoint(9102, late=True), endpoint(9103, state=State.DRAINING)]
    assert weights(*pool) == [1.0, SHARE_MIN, 0.0]


def test_when_all_are_late_they_share_alike() -> None:
    assert weights(endpoint(9101, late=True), endpoint(9102, late=True, load=1.0)) == [SHARE_MIN, SHARE_MIN]


@STORIES
@given(_pools)
def test_every_weight_is_in_bounds(pool: list[Endpoint]) -> None:
    weighed = weigh(pool)
    assert [replace(each, weight=0.0) for each in weighed] == pool
    for each in weighed:
        if each.state is State.DRAINING:
            assert each.weight == 0.0
        else:
            assert SHARE_MIN <= each.weight <= (SHARE_MIN if each.late else 1.0)
    if any(each.state is State.READY and not each.late for each in pool):
        assert max(each.weight for each in weighed) == 1.0


@STORIES
@given(_pools, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(pool: list[Endpoint], random: Any) -> None:
    shuffled = list(pool)
    random.shuffle(shuffled)
    assert sorted(weigh(shuffled), key=lambda e: e.port) == list(weigh(pool))


@STORIES
@given(
    _pools,
    st.sampled_from(
        [
            lambda e: replace(e, load=1.0),
            lambda e: replace(e, queue_length=(e.queue_length or 0) + 5),
            lambda e: replace(e, in_flight=(e.in_flight or 0) + 1),
        ]
    ),
)
def test_who_is_busier_than_before_never_gains_on_the_others(pool: list[Endpoint], worsen: Any) -> None:
    if pool:
        first, *others = weigh(pool)
        worse, *beside = weigh([worsen(pool[0]), *pool[1:]])
        assert worse.weight <= first.weight
        assert all(after.weight >= before.weight for before, after in zip(others, beside, strict=True))


@STORIES
@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0))
def test_of_two_the_slower_never_gets_more(one_s: float, other_s: float) -> None:
    one, other = weights(endpoint(9101, response_time_p50_s=one_s), endpoint(9102, response_time_p50_s=other_s))
    assert (one >= other) if one_s <= other_s else (one <= other)


# -- successors -----------------------------------------------------------------------------------


def heirs(*endpoints: Endpoint) -> dict[str, float]:
    return {each.instance: each.weight for each in successors(weigh(endpoints), InstanceId("research-9101"))}


def test_the_work_goes_to_the_others_by_their_weights() -> None:
    leaving, fast = endpoint(9101, state=State.DRAINING), endpoint(9102, response_time_p50_s=1.0)
    shares = heirs(leaving, endpoint(9103, response_time_p50_s=3.0), fast)
    assert list(shares) == ["research-9102", "research-9103"], "the heaviest first"
    assert math.isclose(shares["research-9102"], 0.75, abs_tol=1e-3)


def test_nobody_inherits_who_leaves_too() -> None:
    assert heirs(endpoint(9101), endpoint(9102, state=State.DRAINING)) == {}


def test_the_late_inherit_only_where_nobody_else_is_left() -> None:
    late = endpoint(9102, late=True)
    assert list(heirs(endpoint(9101), late, endpoint(9103))) == ["research-9103"]
    assert list(heirs(endpoint(9101), late)) == ["research-9102"]


@STORIES
@given(_pools)
def test_inheritances_are_bounded_and_whole(pool: list[Endpoint]) -> None:
    found = successors(weigh(pool), InstanceId("research-9101"))
    ready = [each for each in pool if each.state is State.READY and each.port != 9101]
    assert bool(found) == bool(ready)
    assert len(found) <= SUCCESSORS_MAX
    assert all(each.weight > 0.0 and each.instance != "research-9101" for each in found)
    assert not found or math.isclose(sum(each.weight for each in found), 1.0)

"""Endpoints with their revisions: whoever reads, however seldom, ends with what is there."""

from __future__ import annotations

from typing import Any

import pytest
from fleets import STORIES, fleet, pool, research
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from world import World

from agentd.core import directory
from agentd.core.balancer import SHARE_MIN, Endpoint
from agentd.core.directory import Change, Directory
from agentd.core.messages import Restart
from agentd.core.model import Incarnation, InstanceId, PoolName, State

RESEARCH, TESTING = PoolName("research"), PoolName("testing")
Fleet = dict[PoolName, tuple[Endpoint, ...]]


def endpoint(port: int = 9101, of: PoolName = RESEARCH, incarnation: str = "a", **values: Any) -> Endpoint:
    return Endpoint(InstanceId(f"{of}-{port}"), of, port, Incarnation(incarnation), **values)


def fleet_of(*endpoints: Endpoint) -> Fleet:
    made: Fleet = {RESEARCH: (), TESTING: ()}
    for each in sorted(endpoints, key=lambda each: each.port):
        made[each.pool] += (each,)
    return made


def taken(*endpoints: Endpoint) -> Directory:
    made = Directory()
    made.take(fleet_of(*endpoints), numbers=True)
    return made


class Reader:
    """A client: applies what it is told."""

    def __init__(self, pool: str = "") -> None:
        self.pool = pool
        self.revision = 0
        self.has: dict[InstanceId, Endpoint] = {}

    def read(self, directory: Directory) -> Change:
        change = directory.since(self.pool, self.revision)
        if change.snapshot:
            self.has.clear()
        for ident in change.removed:
            self.has.pop(ident, None)  # it may have come and gone in between
        self.has.update({each.id: each for each in change.endpoints})
        self.revision = change.revision
        return change


# -- revisions ------------------------------------------------------------------------------------


def test_the_first_thing_told_is_everything_and_then_only_what_is_new() -> None:
    one, two = endpoint(9101), endpoint(9102)
    known, reader = taken(one), Reader("research")
    assert reader.read(known).snapshot
    known.take(fleet_of(one, two), numbers=True)
    change = reader.read(known)
    assert (change.snapshot, change.endpoints, change.removed) == (False, (two,), ())
    known.take(fleet_of(two), numbers=True)
    change = reader.read(known)
    assert (change.snapshot, change.endpoints, change.removed) == (False, (), (one.id,))


def test_an_empty_fleet_is_told_once() -> None:
    known, reader = Directory(), Reader()
    assert reader.read(known).snapshot
    assert not reader.read(known).snapshot


def test_where_nothing_changes_the_revision_stays() -> None:
    known = taken(endpoint())
    before = known.revision
    assert known.take(fleet_of(endpoint()), numbers=True) == set()
    assert known.revision == before


def test_numbers_wait_until_they_are_asked_for_and_everything_else_does_not() -> None:
    calm = endpoint(9101, load=0.1)
    known, reader = taken(calm), Reader()
    reader.read(known)
    busy = replace(calm, load=0.9, weight=0.5, queue_length=3)
    assert known.take(fleet_of(busy), numbers=False) == set()
    assert known.take(fleet_of(busy), numbers=True) == {RESEARCH}
    assert reader.read(known).endpoints == (busy,)
    for news in ({"state": State.DRAINING}, {"late": True}, {"incarnation": Incarnation("b")}):
        busy = replace(busy, **news)
        assert known.take(fleet_of(busy), numbers=False) == {RESEARCH}, news


def test_a_reader_hears_of_its_own_pool_only() -> None:
    known = taken(endpoint(9101), endpoint(9501, TESTING))
    reader = Reader("testing")
    assert [each.id for each in reader.read(known).endpoints] == ["testing-9501"]
    known.take(fleet_of(endpoint(9501, TESTING)), numbers=True)
    change = reader.read(known)
    assert (change.endpoints, change.removed) == ((), ())


def test_readers_at_the_same_revision_share_the_work() -> None:
    known = taken(endpoint(9101))
    assert known.since("research", 0) is known.since("research", 0)
    before = known.since("research", 0)
    known.take(fleet_of(), numbers=True)
    assert known.since("research", 0) is not before


def test_what_it_remembers_is_bounded_and_who_was_away_for_longer_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "REMOVED_MAX", 2)
    known, early, late = taken(*(endpoint(port) for port in range(9101, 9105))), Reader(), Reader()
    early.read(known)
    known.take(fleet_of(*(endpoint(port) for port in range(9102, 9105))), numbers=True)
    late.read(known)
    known.take(fleet_of(endpoint(9104)), numbers=True)
    change = late.read(known)
    assert (change.snapshot, change.removed) == (False, ("research-9102", "research-9103"))
    assert early.read(known).snapshot
    assert early.has == late.has == {InstanceId("research-9104"): endpoint(9104)}


@pytest.mark.parametrize("revision", [-5, 0, 99])
def test_a_revision_that_never_was_gets_everything(revision: int) -> None:
    assert taken(endpoint()).since("", revision).snapshot


_endpoints = st.builds(
    endpoint,
    st.sampled_from([9101, 9102, 9103]),
    st.sampled_from([RESEARCH, TESTING]),
    st.sampled_from(["a", "b"]),
    state=st.sampled_from([State.READY, State.DRAINING]),
    load=st.sampled_from([None, 0.5, 1.0]),
)
_fleets = st.lists(_endpoints, max_size=6, unique_by=lambda each: each.id)
_steps = st.lists(st.tuples(_fleets, st.booleans(), st.sets(st.integers(0, 3))), max_size=12)


@STORIES
@given(_steps)
def test_whoever_reads_whenever_ends_with_the_same(steps: list[tuple[list[Endpoint], bool, set[int]]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directory, "REMOVED_MAX", 3)
        known = Directory()
        readers = [Reader(""), Reader(""), Reader("research"), Reader("testing")]
        last: list[Endpoint] = []
        for last, numbers, who in steps:
            known.take(fleet_of(*last), numbers=numbers)
            for number in who:
                readers[number].read(known)
        known.take(fleet_of(*last), numbers=True)
        for reader in readers:
            reader.read(known)
            assert reader.has == {each.id: each for each in last if reader.pool in ("", each.pool)}


# -- what the controller shows --------------------------------------------------------------------


def shown(world: World, pool: PoolName = RESEARCH) -> dict[str, tuple[str, float]]:
    return {each.id: (each.state.value, each.weight) for each in world.controller.endpoints()[pool]}


def test_only_what_takes_work_is_shown_and_what_finishes_its_work() -> None:
    world = World(fleet(research(min=3), pool("testing", min=0)), start_delay_s=1.0, stop_delay_s=5.0)
    world.boot()
    assert world.controller.endpoints() == {RESEARCH: (), TESTING: ()}, "nobody has started, and the pools are known"
    world.run_until(5.0)
    assert shown(world) == {f"research-{port}": ("ready", 1.0) for port in (9002, 9101, 9102)}
    world.step(Restart((InstanceId("research-9101"),), "alice"))
    assert shown(world)["research-9101"] == ("draining", 0.0)
    world.run_until(6.0 + world.config.heartbeat_interval_s)
    assert "research-9101" not in shown(world), "it is being stopped"


def test_what_exits_is_gone_at_once_and_comes_back_as_another() -> None:
    world = World(fleet(research()))
    world.boot()
    world.run_until(1.0)
    before = world.controller.endpoints()[RESEARCH][0].incarnation
    world.exit("research-9002", restart_in_s=3.0)
    assert shown(world) == {}
    world.run_until(5.0)
    assert world.controller.endpoints()[RESEARCH][0].incarnation != before


def test_the_silent_get_less_from_the_first_missed_beat_and_are_gone_when_they_are_given_up() -> None:
    world = World(fleet(research(min=2)))
    world.boot()
    world.run_until(1.0)
    world.agents[InstanceId("research-9101")].silent = True
    world.run_until(35.0)
    assert shown(world) == {"research-9002": ("ready", 1.0), "research-9101": ("ready", SHARE_MIN)}
    world.agents[InstanceId("research-9101")].silent = False
    world.run_until(50.0)
    assert shown(world)["research-9101"] == ("ready", 1.0)
    world.agents[InstanceId("research-9101")].silent = True
    world.slow.add("research-9102")  # its replacement takes its time
    world.run_until(150.0)
    assert world.instance("research-9101").state is State.READY
    assert shown(world) == {"research-9002": ("ready", 1.0)}


def test_what_an_agent_reports_is_shown_as_it_is() -> None:
    world = World(fleet(research(concurrency=4)))
    world.boot()
    world.run_until(1.0)
    agent = world.agents[InstanceId("research-9002")]
    agent.load, agent.queue_length, agent.in_flight = 0.75, 2, 3
    world.run_until(20.0)
    (seen,) = world.controller.endpoints()[RESEARCH]
    assert (seen.load, seen.queue_length, seen.in_flight, seen.concurrency) == (0.75, 2, 3, 4)
    assert (seen.host, seen.node, seen.port, seen.pool) == ("127.0.0.1", "", 9002, "research")

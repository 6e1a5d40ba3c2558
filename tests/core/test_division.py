"""What the host can carry is divided: never more than fits, nothing left over that fits, in the promised order."""

from __future__ import annotations

from fleets import STORIES
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from agentd.core.division import Room, Want, divide, fits

WANTS = st.lists(
    st.builds(
        Want,
        name=st.sampled_from("abcdefgh"),
        more=st.integers(0, 12),
        short=st.integers(0, 3),
        priority=st.integers(-2, 2),
        waiting=st.floats(0.0, 50.0),
        relieves=st.sampled_from([1.0, 2.0, 8.0]),
        memory_bytes=st.integers(1, 400),
        cpu_cores=st.sampled_from([0.0, 0.1, 0.25, 1.0]),
    ),
    max_size=6,
    unique_by=lambda want: want.name,
)
ROOMS = st.builds(
    Room,
    memory_bytes=st.none() | st.integers(-100, 3000),
    cpu_cores=st.none() | st.floats(-1.0, 10.0),
    instances=st.none() | st.integers(0, 30),
)


@settings(STORIES)
@given(wants=WANTS, room=ROOMS)
def test_what_is_given_fits_and_no_more_would(wants: list[Want], room: Room) -> None:
    given_ = divide(wants, room)
    assert all(0 <= given_[want.name] <= want.more for want in wants)
    some = [want for want in wants if given_[want.name]]
    bounded = (room.memory_bytes or 0) >= 0 and (room.cpu_cores or 0.0) >= 0.0
    assert fits(given_, wants, room) or not (some or bounded)
    for want in wants:
        if given_[want.name] < want.more:
            assert not fits({**given_, want.name: given_[want.name] + 1}, wants, room)


@settings(STORIES)
@given(wants=WANTS, room=ROOMS, order=st.randoms(use_true_random=False))
def test_the_order_in_which_pools_are_named_does_not_matter(wants: list[Want], room: Room, order: object) -> None:
    mixed = list(wants)
    order.shuffle(mixed)  # type: ignore[attr-defined]
    assert divide(mixed, room) == divide(wants, room)


@settings(STORIES)
@given(wants=WANTS, room=ROOMS)
def test_who_has_the_higher_priority_loses_nothing_to_others(wants: list[Want], room: Room) -> None:
    """What the highest priority gets, minimums aside, is what it would get alone."""
    plain = [replace(want, short=0) for want in wants]
    most = max((want.priority for want in plain), default=0)
    highest = [want for want in plain if want.priority == most]
    alone, together = divide(highest, room), divide(plain, room)
    assert sum(together[want.name] for want in highest) >= min(
        sum(alone.values()), sum(together[want.name] for want in highest)
    )
    if len(highest) == 1:
        assert together[highest[0].name] == alone[highest[0].name]


def sized(name: str, more: int, **changes: object) -> Want:
    return replace(Want(name, more, memory_bytes=100, waiting=100.0), **changes)


def test_all_of_it_where_all_fits() -> None:
    assert divide([sized("a", 3), sized("b", 4)], Room(700)) == {"a": 3, "b": 4}
    assert divide([sized("a", 3), sized("b", 4)], Room()) == {"a": 3, "b": 4}
    assert divide([], Room(0)) == {}


def test_below_the_minimum_comes_before_priority() -> None:
    wants = [sized("a", 4, priority=5), sized("b", 4, short=2)]
    assert divide(wants, Room(500)) == {"a": 3, "b": 2}


def test_priority_comes_before_benefit() -> None:
    wants = [sized("a", 4, waiting=0.0, priority=1), sized("b", 4)]
    assert divide(wants, Room(500)) == {"a": 4, "b": 1}


def test_tasks_relieved_per_memory_decide() -> None:
    wants = [sized("a", 4, memory_bytes=200), sized("b", 4)]
    assert divide(wants, Room(600)) == {"a": 1, "b": 4}
    wants = [sized("a", 4, memory_bytes=200, relieves=3.0), sized("b", 4)]
    assert divide(wants, Room(600)) == {"a": 3, "b": 0}


def test_the_scarcest_resource_is_what_is_divided() -> None:
    """`a` takes more memory, `b` more of the cores; each wins where its own is plenty."""
    wants = [sized("a", 4, memory_bytes=200, cpu_cores=0.5), sized("b", 4, cpu_cores=1.0)]
    assert divide(wants, Room(800, 100.0)) == {"a": 2, "b": 4}
    assert divide(wants, Room(100_000, 4.0)) == {"a": 4, "b": 2}
    assert divide(wants, Room(100_000, 100.0, 5)) == {"a": 3, "b": 2}


def test_whose_tasks_are_all_relieved_comes_after_the_others() -> None:
    wants = [sized("a", 4, waiting=1.0), sized("b", 4, waiting=3.0)]
    assert divide(wants, Room(400)) == {"a": 1, "b": 3}


def test_equal_ones_take_turns_by_name() -> None:
    assert divide([sized("b", 4), sized("a", 4)], Room(500)) == {"a": 3, "b": 2}


def test_a_small_one_still_fits_where_a_large_one_does_not() -> None:
    assert divide([sized("a", 2, memory_bytes=300, priority=9), sized("b", 2)], Room(500)) == {"a": 1, "b": 2}

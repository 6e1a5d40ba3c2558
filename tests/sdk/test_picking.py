"""Which endpoint gets the next task: shares, evenness, and what failures do."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Collection
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.sdk.picking import EJECTED_FIRST_S, EJECTED_MAX_S, FAILURES_MAX, Endpoint, Member, Picker


def endpoint(port: int = 9101, weight: float = 1.0, incarnation: str = "a") -> Endpoint:
    return Endpoint(f"research-{port}", "research", "127.0.0.1", port, incarnation, weight)


def picker(*endpoints: Endpoint, seed: int = 1) -> Picker:
    made = Picker(random.Random(seed).random)
    made.learn(endpoints or [endpoint(9101), endpoint(9102), endpoint(9103)], snapshot=True)
    return made


def take(chosen: Picker, now: float = 0.0, avoid: Collection[Member] = ()) -> Member:
    member = chosen.pick(now, avoid)
    assert member is not None
    return member


def fail(chosen: Picker, ident: str, now: float, times: int = FAILURES_MAX) -> None:
    """Tasks that fail on this very endpoint."""
    for _ in range(times):
        held = []
        while (member := take(chosen, now)).endpoint.id != ident:
            held.append(member)
        chosen.release(member, now, worked=False)
        for other in held:
            chosen.release(other, now, worked=None)


def seen(chosen: Picker, now: float, picks: int = 100) -> set[str]:
    """Who is picked at all at `now`, one task after the other."""
    found = set()
    for _ in range(picks):
        member = take(chosen, now)
        chosen.release(member, now, worked=None)
        found.add(member.endpoint.id)
    return found


# -- shares ---------------------------------------------------------------------------------------


def test_an_idle_client_follows_the_weights() -> None:
    chosen, counts = picker(endpoint(9101, 1.0), endpoint(9102, 0.5), endpoint(9103, 0.1)), Counter[int]()
    for _ in range(16_000):
        member = take(chosen)
        counts[member.endpoint.port] += 1
        chosen.release(member, 0.0, worked=True)
    assert 9_500 < counts[9101] < 10_500  # of 16,000 by 1.6, 10,000: five standard deviations are 300
    assert 4_700 < counts[9102] < 5_300
    assert 800 < counts[9103] < 1_200


def test_a_busy_client_evens_out_what_it_has_under_way() -> None:
    ports = range(9101, 9111)
    chosen = picker(*(endpoint(port) for port in ports))
    taken = Counter(take(chosen).endpoint.port for _ in range(1_000))
    drawn = random.Random(1)
    alone = Counter(drawn.choice(ports) for _ in range(1_000))
    assert max(taken.values()) - min(taken.values()) <= 8, "two choices"
    assert max(alone.values()) - min(alone.values()) > 20, "what one choice gives"


def test_who_drains_gets_nothing_from_that_moment_on() -> None:
    chosen = picker(endpoint(9101), endpoint(9102))
    chosen.learn([endpoint(9101, weight=0.0)], snapshot=False)
    assert seen(chosen, 0.0) == {"research-9102"}
    chosen.learn([endpoint(9102, weight=0.0)], snapshot=False)
    assert chosen.pick(0.0) is None
    assert len(chosen.endpoints) == 2


def test_who_is_to_be_avoided_is_avoided_even_alone() -> None:
    chosen = picker(endpoint(9101), endpoint(9102))
    first = take(chosen)
    assert all(take(chosen, avoid={first}) is not first for _ in range(50))
    alone = picker(endpoint(9101))
    only = take(alone)
    assert alone.pick(0.0, {only}) is None
    alone.learn([endpoint(9101, incarnation="b")], snapshot=False)
    assert alone.pick(0.0, {only}) is not None, "another process"


def test_a_change_names_the_removed_and_a_snapshot_does_not() -> None:
    chosen = picker(endpoint(9101), endpoint(9102))
    chosen.learn([endpoint(9103)], ["research-9101", "research-9999"], snapshot=False)
    assert seen(chosen, 0.0) == {"research-9102", "research-9103"}
    chosen.learn([endpoint(9104)], snapshot=True)
    assert seen(chosen, 0.0) == {"research-9104"}


# -- failures -------------------------------------------------------------------------------------


def test_failures_in_a_row_eject_and_a_success_between_them_does_not() -> None:
    chosen = picker()
    fail(chosen, "research-9101", 0.0, times=FAILURES_MAX - 1)
    while (member := take(chosen)).endpoint.port != 9101:
        chosen.release(member, 0.0, worked=None)
    chosen.release(member, 0.0, worked=True)
    fail(chosen, "research-9101", 0.0, times=FAILURES_MAX - 1)
    assert seen(chosen, 0.0) == {"research-9101", "research-9102", "research-9103"}
    fail(chosen, "research-9101", 0.0, times=1)
    assert seen(chosen, 0.0) == {"research-9102", "research-9103"}


def test_ejections_grow_to_a_bound_and_a_task_that_is_done_ends_them() -> None:
    chosen, now, waits = picker(), 0.0, []
    fail(chosen, "research-9101", now)
    for _ in range(12):
        member = next(one for one in chosen._members.values() if one.endpoint.port == 9101)
        waits.append(member.ejected_until - now)
        assert "research-9101" not in seen(chosen, member.ejected_until - 0.001)
        now = member.ejected_until
        assert "research-9101" in seen(chosen, now)
        fail(chosen, "research-9101", now, times=1)  # one is enough now
    assert waits[:3] == [EJECTED_FIRST_S, 2 * EJECTED_FIRST_S, 4 * EJECTED_FIRST_S]
    assert waits[-1] == EJECTED_MAX_S
    late = Member(endpoint())
    late.failures, late.ejections, late.ejected_until = 2, 5, 99.0
    chosen.release(late, now, worked=True)
    assert (late.failures, late.ejections, late.ejected_until) == (0, 0, 0.0)


def test_the_last_one_is_never_ejected() -> None:
    chosen = picker(endpoint(9101), endpoint(9102))
    fail(chosen, "research-9101", 0.0)
    for _ in range(20):
        chosen.release(take(chosen), 0.0, worked=False)
    assert seen(chosen, 0.0) == {"research-9102"}
    chosen.learn([], ["research-9102"], snapshot=False)
    assert seen(chosen, 0.0) == {"research-9101"}, "better than none"


def test_what_is_known_of_a_process_ends_with_it_and_survives_a_new_snapshot() -> None:
    chosen = picker(endpoint(9101), endpoint(9102))
    fail(chosen, "research-9101", 0.0)
    chosen.learn([endpoint(9101), endpoint(9102)], snapshot=True)
    assert seen(chosen, 0.0) == {"research-9102"}, "agentd came back, the endpoint did not"
    chosen.learn([endpoint(9101, incarnation="b")], snapshot=False)
    assert seen(chosen, 0.0) == {"research-9101", "research-9102"}


def test_a_task_of_an_earlier_process_does_not_count_for_the_next() -> None:
    chosen = picker(endpoint(9101))
    old = take(chosen)
    chosen.learn([endpoint(9101, incarnation="b")], snapshot=False)
    chosen.release(old, 0.0, worked=False)
    assert take(chosen).in_flight == 1


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("learn"), st.integers(0, 3), st.sampled_from([0.0, 0.05, 1.0]), st.sampled_from("ab")),
        st.tuples(st.just("remove"), st.integers(0, 3)),
        st.tuples(st.just("pick"), st.booleans()),
        st.tuples(st.just("release"), st.integers(0, 9), st.sampled_from([True, False, False, None])),
        st.tuples(st.just("pass"), st.sampled_from([0.5, 5.0, 100.0])),
    ),
    max_size=40,
)


@settings(max_examples=100)
@given(_steps, st.integers(0, 1000))
def test_whoever_takes_tasks_can_be_picked_whatever_has_happened(steps: list[Any], seed: int) -> None:
    chosen, now, held = Picker(random.Random(seed).random), 0.0, list[Member]()
    known: dict[int, float] = {}
    for step, *values in steps:
        if step == "learn":
            number, weight, incarnation = values
            known[number] = weight
            chosen.learn([endpoint(number, weight, incarnation)], snapshot=False)
        elif step == "remove":
            known.pop(values[0], None)
            chosen.learn([], [f"research-{values[0]}"], snapshot=False)
        elif step == "pick":
            member = chosen.pick(now, held[-1:] if values[0] else ())
            held += [member] if member else []
        elif step == "release" and held:
            chosen.release(held.pop(values[0] % len(held)), now, worked=values[1])
        elif step == "pass":
            now += values[0]
        assert {each.port for each in chosen.endpoints} == set(known)
        able = {number for number, weight in known.items() if weight > 0.0}
        found = chosen.pick(now)
        assert (found is not None) == bool(able)
        if found is not None:
            assert found.endpoint.port in able
            chosen.release(found, now, worked=None)
        assert all(member.in_flight >= 0 for member in itertools.chain(held, chosen._members.values()))

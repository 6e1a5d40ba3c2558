"""The plan that knows all arrivals: it holds its bound, and is worth its name on small traces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import arrivals

from agentd.sim import clairvoyant
from agentd.sim.options import Options
from agentd.sim.run import simulate
from agentd.traces import Arrival

# Every 100 s for an hour, two requests of 20 s at once.
PAIRS = arrivals(*[(100.0 * n, 20.0) for n in range(1, 37) for _ in range(2)])


def test_an_agent_is_asked_for_so_early_that_it_is_ready_when_it_is_needed() -> None:
    options = Options(startup_s=30.0, slo_s=5.0)
    steps = clairvoyant.plan(arrivals((0.0, 1.0), (500.0, 50.0), (500.0, 50.0), (900.0, 1.0)), options, 1)
    # The second of the two may wait until 505; when one ends, one agent is enough for the other.
    assert steps == [(0.0, 1), (505.0 - 30.0 - clairvoyant.MARGIN_S, 2), (550.0, 1)]


def test_a_gap_that_is_shorter_than_a_start_is_bridged() -> None:
    pair = [(500.0, 20.0), (500.0, 20.0)]
    for gap_s, changes in ((25.0, 3), (200.0, 5)):
        trace = arrivals(*pair, *[(500.0 + 20.0 + gap_s + at - 500.0, took) for at, took in pair], (2000.0, 1.0))
        assert len(clairvoyant.plan(trace, Options(), 1)) == changes


def test_what_costs_much_and_saves_few_is_left_late() -> None:
    rare = [(10.0 * n, 1.0) for n in range(400)] + [(4000.0, 1000.0), (4001.0, 1.0), (5200.0, 1.0)]
    exact = clairvoyant.plan(arrivals(*rare), Options(), 1, late_share_max=0.0)
    lax = clairvoyant.plan(arrivals(*rare), Options(), 1, late_share_max=0.01)
    assert max(count for _, count in exact) == 2
    assert lax == [(0.0, 1)]


def test_the_plan_is_carried_out_by_the_real_controller() -> None:
    found = simulate("clairvoyant", PAIRS, Options())
    assert found.late_share <= 0.01
    # One all the time; the other for 30 s of start, some 15 to 20 s of work and a second or two around it.
    assert found.agent_hours * 3600.0 == pytest.approx(3600.0 + 35 * 50.0, rel=0.03)
    assert found.agent_hours < 0.8 * simulate("static:2", PAIRS, Options()).agent_hours


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 90)), min_size=5, max_size=80), st.integers(1, 3),
    st.sampled_from([5.0, 30.0]), st.sampled_from([0.0, 0.01, 0.2]),
)  # fmt: skip
def test_a_plan_holds_the_bounds_of_the_pool(
    pairs: list[tuple[int, int]], slots: int, startup_s: float, late_share: float
) -> None:
    trace = [Arrival(float(offset), float(service)) for offset, service in sorted(pairs)]
    options = Options(startup_s=startup_s, concurrency=slots, agents_max=6)
    steps = clairvoyant.plan(trace, options, 1, late_share_max=late_share)
    assert steps[0][0] == 0.0
    assert [at for at, _ in steps] == sorted({at for at, _ in steps})
    # One that opens may be asked for before another closes: then both count.
    assert all(1 <= count <= 2 * 6 for _, count in steps)
    assert steps == clairvoyant.plan(trace, options, 1, late_share_max=late_share)

"""Decisions that a budget holds are made again with the books; `chaos.Chaos` does so with every decision."""

from __future__ import annotations

from typing import Any

from chaos import Chaos
from fleets import FLEET, STORIES
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from test_properties import HAPPENINGS

from agentd.core.model import FleetConfig
from agentd.core.rates import Budget, Rates

RATES = Rates(per_hour=1.0, per_task=0.01, per_cpu_hour=0.3)


def priced(amount: float, *, of_all: bool) -> FleetConfig:
    own = Budget() if of_all else Budget(per_hour=amount)
    pools = {name: replace(pool, rates=RATES, budget=own) for name, pool in FLEET.pools.items()}
    whole = Budget(per_hour=amount, per_day=amount * 7) if of_all else Budget()
    return replace(FLEET, pools=pools, budget=whole)


happenings = st.one_of(
    st.tuples(st.just("load"), st.tuples(st.sampled_from([0.0, 1.0]))),
    st.tuples(st.just("run"), st.tuples(st.sampled_from([3.0, 31.0, 90.0, 130.0]))),
    st.tuples(st.just("work"), st.tuples(st.integers(0, 5), st.sampled_from([0, 2]))),
    st.tuples(st.just("reboot"), st.tuples(st.sampled_from([0.0, 15.0]))),
)


@STORIES
@given(
    st.lists(happenings, min_size=4, max_size=16),
    st.sampled_from([0.05, 0.2, 4.0]),
    st.booleans(),
    st.sampled_from([0.0, 20.0]),
)
def test_what_a_budget_holds_is_made_again(
    story: list[tuple[str, Any]], amount: float, of_all: bool, start_delay_s: float
) -> None:
    world = Chaos(priced(amount, of_all=of_all), start_delay_s=start_delay_s)
    world.boot()
    for name, values in story:
        HAPPENINGS[name](world, *values)


def test_such_stories_have_decisions_that_a_budget_holds() -> None:
    for of_all in (True, False):
        world = Chaos(priced(0.2, of_all=of_all))
        world.boot()
        HAPPENINGS["load"](world, 1.0)
        world.run_until(300.0)
        made = [decision for outcome in world.outcomes for decision in outcome.decisions]
        assert any(decision.binding == "budget_hour" for decision in made)

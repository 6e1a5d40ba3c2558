"""What agents cost and what may be spent, as the configuration says it."""

from __future__ import annotations

import pytest

from agentd.config import ConfigError, describe_changes, parse
from agentd.core.model import PoolConfig, PoolName
from agentd.core.rates import Budget, Rates, money


def pool(settings: str) -> PoolConfig:
    return parse(f"pools: {{research: {{{settings}}}}}", "f.yaml").fleet.pools[PoolName("research")]


def test_a_number_is_per_agent_and_hour() -> None:
    assert pool("cost: 0.25").rates == Rates(per_hour=0.25)


def test_a_mapping_has_a_rate_for_each_thing() -> None:
    text = "cost: {per_hour: 0.1, per_cpu_hour: 0.02, per_gib_hour: 0.003, per_task: 0.0004}"
    assert pool(text).rates == Rates(0.1, 0.02, 0.003, 0.0004)


def test_without_a_word_nothing_costs_and_nothing_is_bounded() -> None:
    config = parse("pools: {research: {cost: {}, budget: {}}}", "f.yaml")
    found = config.fleet.pools[PoolName("research")]
    assert (found.rates, found.budget) == (Rates(), Budget())
    assert not found.rates
    assert not found.budget
    assert (config.fleet.currency, config.fleet.budget) == ("", Budget())
    assert config.warnings == ()


def test_budgets_are_of_a_pool_and_of_all() -> None:
    text = """
costs: {currency: EUR, budget: {per_month: 500}}
pools: {research: {cost: 1, budget: {per_hour: 5, per_day: 0}}}
"""
    fleet = parse(text, "f.yaml").fleet
    assert (fleet.currency, fleet.budget) == ("EUR", Budget(per_month=500.0))
    assert fleet.pools[PoolName("research")].budget == Budget(5.0, 0.0, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "pools: {research: {cost: -1}}",
            "1:26: pools.research.cost must be a number from 0 to 1000000 (per agent",
        ),
        ("pools: {research: {cost: []}}", "1:26: pools.research.cost must be a number from 0"),
        ("pools: {research: {cost: {per_day: 1}}}", "1:27: unknown key pools.research.cost.per_day: did you mean per_"),
        ("pools: {research: {cost: {per_task: -1}}}", "1:37: pools.research.cost.per_task must be a number from 0"),
        ("pools: {research: {budget: 5}}", "1:28: pools.research.budget must be a mapping with per_hour, per_day or"),
        ("pools: {research: {budget: {per_day: no}}}", "1:38: pools.research.budget.per_day must be a number from 0"),
        ("costs: {budget: {per_year: 1}}", "1:18: unknown key costs.budget.per_year: did you mean per_"),
        ("costs: {currency: US Dollars}", "1:19: costs.currency must be a word or sign of at most 8 characters"),
        ("costs: {curency: EUR}", "1:9: unknown key costs.curency: did you mean currency?"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    assert next(str(each) for each in caught.value.problems).startswith(f"f.yaml:{problem}")


def test_a_budget_where_nothing_costs_is_warned_of() -> None:
    text = "costs: {budget: {per_day: 1}}\npools: {research: {budget: {per_day: 1}}, execution: {cost: 0}}"
    assert [line.partition(": ")[2] for line in parse(text, "f.yaml").warnings] == [
        "costs.budget does nothing: no pool has a cost",
        "pools.research.budget does nothing: the pool has no cost",
    ]


def test_changes_are_told_under_the_names_of_the_file() -> None:
    old = parse("pools: {research: {cost: 1}}", "f.yaml")
    new = parse("costs: {currency: EUR, budget: {per_day: 9}}\npools: {research: {cost: {per_task: 2}}}", "f.yaml")
    assert describe_changes(old, new) == [
        "costs.budget.per_day: none -> 9",
        "costs.currency: none -> EUR",
        "pools.research.cost.per_hour: 1 -> 0",
        "pools.research.cost.per_task: 0 -> 2",
    ]


@pytest.mark.parametrize(
    ("amount", "shown"),
    [(0.0, "0.00"), (3.2, "3.20"), (12345.678, "12345.68"), (0.1, "0.10"), (0.05, "0.05"), (0.0125, "0.0125"),
     (0.000004, "0.000004"), (1e-9, "0.00"), (-0.5, "-0.50"), (-0.02, "-0.02"), (0.0999999999, "0.10")],
)  # fmt: skip
def test_amounts_have_two_decimals_and_small_ones_more(amount: float, shown: str) -> None:
    assert money(amount) == shown
    assert money(amount, "EUR") == f"{shown} EUR"

"""What agents cost and how much may be spent: `cost` and `budget` of a pool, and the section `costs`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from agentd.config.nodes import Section, Value
from agentd.config.readers import number, text
from agentd.core.rates import Budget, Rates

if TYPE_CHECKING:
    from agentd.config.pools import Draft

COSTS_KEYS = ("currency", "budget")
COST_KEYS = ("per_hour", "per_cpu_hour", "per_gib_hour", "per_task")
BUDGET_KEYS = ("per_hour", "per_day", "per_month")
RATE_MAX = 1_000_000.0
BUDGET_MAX = 1e12
CURRENCY_MAX = 8


def rates(value: Value) -> Rates:
    """A number, per agent and hour, or a mapping of rates."""
    if not value.is_mapping:
        return Rates(per_hour=number(0, RATE_MAX, "per agent and hour")(value))
    entry = value.section(COST_KEYS)
    amount = number(0, RATE_MAX)
    return Rates(**{key: entry.read(key, 0.0, amount) for key in COST_KEYS})


def budget(value: Value) -> Budget:
    entry = value.section(BUDGET_KEYS, "a mapping with per_hour, per_day or per_month")
    amount = number(0, BUDGET_MAX)
    return Budget(**{key: entry.read(key, None, amount) for key in BUDGET_KEYS})


def currency(value: Value) -> str:
    """A word or a sign behind amounts: EUR, USD, credits."""
    word = text(value)
    if len(word) > CURRENCY_MAX or not word.isprintable() or " " in word:
        raise value.must(f"a word or sign of at most {CURRENCY_MAX} characters, for example EUR")
    return word


def warn_about_budgets(drafts: Iterable[Draft], costs: Section) -> None:
    """Where nothing costs anything, no budget is ever spent."""
    priced = False
    for draft in drafts:
        priced = priced or bool(draft.pool.rates)
        place = draft.section.place("budget")
        if place is not None and draft.pool.budget and not draft.pool.rates and draft.section.sound("cost"):
            draft.section.problems.warn(place, f"pools.{draft.pool.name}.budget does nothing: the pool has no cost")
    place = costs.place("budget")
    if place is not None and not priced:
        costs.problems.warn(place, "costs.budget does nothing: no pool has a cost")

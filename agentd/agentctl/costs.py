"""What agents cost, in words. Pure: it makes lines and asks nobody."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agentd.agentctl.terminal import Column, Table, styled, table_width
from agentd.agentctl.text import duration, moment, printable, wrapped

if TYPE_CHECKING:
    from agentd.v1 import control_pb2 as pb

_COLUMNS = (
    Column("POOL"),
    Column("PER HOUR", right=True),
    Column("ONE MORE", right=True, drop=2),
    Column("THIS HOUR", right=True, drop=1),
    Column("TODAY", right=True),
    Column("THIS MONTH", right=True),
    Column("PROJECTED", right=True),
)
_WHEN = {"hour": "this hour", "day": "today", "month": "this month"}


def money(amount: float, currency: str = "") -> str:
    """Two decimals, three digits of small amounts."""
    size = abs(amount)
    decimals = 2 if size >= 0.1 or size < 5e-7 else min(6, 2 - math.floor(math.log10(size)))
    whole, _, rest = f"{amount:.{decimals}f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')} {currency}".rstrip()


def cost_lines(status: pb.Status, width: int) -> list[str]:
    """One sentence: what an hour costs now, what the month will, and what budgets leave. Nothing without a cost."""
    if not status.HasField("cost"):
        return []
    cost = status.cost
    priced = ", ".join(f"{pool.name} {money(pool.cost.per_hour)}" for pool in status.pools if pool.HasField("cost"))
    facts = [
        f"{money(cost.per_hour, cost.currency)} per hour ({priced})",
        f"{money(cost.projected_month)} projected this month",
    ]
    facts += [_left(budget) for budget in cost.budgets]
    facts += [f"{pool.name} {_left(budget)}" for pool in status.pools for budget in pool.cost.budgets]
    return wrapped(printable("; ".join(facts)), width=width, first="cost     ", rest=" " * 9)


def cost_section(status: pb.Status, width: int, now: float) -> list[str]:
    """What was spent on what, what is left, and what the last scalings cost or save."""
    if not status.HasField("cost"):
        return ["no cost is configured (pools.NAME.cost)"]
    table = Table(_COLUMNS)
    for pool in status.pools:
        if pool.HasField("cost"):
            _row(table, pool.name, pool.cost)
    _row(table, "all pools", status.cost)
    lines = table.lines(table_width())
    texts = [_spent_on(status.cost)] if status.cost.month.amount else []
    lines += [line for text in texts for line in wrapped(printable(text), width=width, rest="  ")]
    for name, cost in [("all pools", status.cost), *((pool.name, pool.cost) for pool in status.pools)]:
        for budget in cost.budgets:
            text = (
                f"budget of {name}: {money(budget.spent)} of {money(budget.amount, cost.currency)} spent "
                f"{_WHEN.get(budget.window, budget.window)}, {_over(budget)}; it ends in {duration(budget.ends_in_s)}"
            )
            style = "warn" if budget.left < 0 else ""
            lines += [styled(line, style) for line in wrapped(printable(text), width=width, rest="  ")]
    for pool in status.pools:
        for each in pool.cost.scalings:
            does = "costs" if each.per_hour >= 0 else "saves"
            text = (
                f"{moment(each.wall, now=now)} {pool.name} {each.change:+d}: {does} "
                f"{money(abs(each.per_hour), pool.cost.currency)} per hour [{each.decision}]"
            )
            lines += wrapped(printable(text), width=width, rest="  ")
    return lines


def _row(table: Table, name: str, cost: pb.Cost) -> None:
    spent = (money(each.amount) for each in (cost.hour, cost.day, cost.month))
    more = money(cost.one_more_per_hour) if cost.HasField("one_more_per_hour") else None
    table.add(name, money(cost.per_hour), more, *spent, money(cost.projected_month))


def _spent_on(cost: pb.Cost) -> str:
    month, parts = cost.month, list[str]()
    for value, what in (
        (month.agent_hours, "agent-hours"),
        (month.cpu_hours, "CPU-hours"),
        (month.gib_hours, "GiB-hours"),
    ):
        parts += [f"{value:.1f} {what}" if value >= 0.1 else f"{value:.3f} {what}"] if value else []
    parts += [f"{month.tasks:.0f} tasks"] if month.tasks else []
    unit = f"amounts in {cost.currency}; " if cost.currency else ""
    return f"{unit}hours, days and months are those of UTC; this month: {', '.join(parts)}"


def _left(budget: pb.Budget) -> str:
    when = _WHEN.get(budget.window, budget.window)
    if budget.left < 0:
        return f"{money(-budget.left)} more than the {money(budget.amount)} for {when}"
    return f"{money(budget.left)} of {money(budget.amount)} left {when}"


def _over(budget: pb.Budget) -> str:
    return f"{money(-budget.left)} too much" if budget.left < 0 else f"{money(budget.left)} left"

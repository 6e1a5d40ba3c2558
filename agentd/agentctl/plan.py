"""`agentctl plan`: what a check now would decide, and whom it would start and let go. Nothing of it comes about."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import Command, Session, show_json
from agentd.agentctl.explain_words import chain_text, change_text
from agentd.agentctl.status import at_rest, limit_text, outcome
from agentd.agentctl.terminal import show, styled, text_width
from agentd.agentctl.text import printable, wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentd.v1 import control_pb2 as pb

_SHOWN_MAX = 8  # instances named in a line


@click.command(cls=Command, examples=("agentctl plan", "agentctl plan --pool research --json"))
@click.option("--pool", default="", help="Of this pool alone.")
@click.pass_obj
def plan(session: Session, pool: str) -> None:
    """Show what a check now would do, without doing it.

    For each pool: how many there are, how many are wanted and how many would be granted, why, whom that would
    start, take back and let go, and what would change it. Nothing is started, stopped, learned or counted, and no
    cooldown begins: `agentctl check` does it.
    """
    with session.client() as client:
        plans = client.plan(pool)
        if session.json:
            from agentd.agentctl.values import as_value

            show_json({"plans": [as_value(each) for each in plans]})
        else:
            show(plan_lines(plans, text_width()))


def plan_lines(plans: Iterable[pb.PoolPlan], width: int) -> list[str]:
    """The page."""
    lines: list[str] = []
    for each in plans:
        made = each.decision
        lines.append(styled(printable(f"{made.pool}: {outcome(made)}"), "strong"))
        texts = [reason.text for reason in made.reasons]
        texts += [f"chain: {chain}"] if (chain := chain_text(made)) else []
        texts += [f"limit: {limit_text(limit)}" for limit in made.limits if not at_rest(made)]
        for verb, whom in (("start", each.starts), ("take back", each.takes_back), ("let go", each.stops)):
            texts += [f"would {verb}: {_named(whom)}"] if whom else []
        texts += [f"would change: {change}"] if (change := change_text(made)) else []
        for text in texts:
            lines += wrapped(printable(text), width=width, first="  ", rest="    ")
    return lines or ["no pool is configured"]


def _named(instances: Sequence[pb.PlannedInstance]) -> str:
    names = ", ".join(one.id for one in instances[:_SHOWN_MAX])
    more = len(instances) - _SHOWN_MAX
    return f"{names} and {more} more" if more > 0 else names

"""`agentctl propose`: a program says how many instances a pool should have, for a while."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import Command, Count, Duration, Session, show_json
from agentd.agentctl.terminal import show
from agentd.agentctl.text import duration, printable

if TYPE_CHECKING:
    from agentd.v1 import control_pb2 as pb

# What agentd takes: core.signals.OFFER_S_MAX.
OFFER_S_MAX = 30 * 86_400.0


@click.command(
    cls=Command,
    examples=(
        "agentctl propose research 6 --as ai-optimizer --for 10m",
        "agentctl propose research --withdraw --as ai-optimizer",
    ),
)
@click.argument("pool", metavar="POOL")
@click.argument("count", type=Count(), required=False)
@click.option("--as", "source", required=True, help="Who asks: lower-case letters, digits and -.")
@click.option("--for", "for_s", type=Duration(OFFER_S_MAX), help="How long: 30s, 10m, 1h, at most 30d. Default: 10m.")
@click.option("--reason", default="", help="Why; shown beside the count.")
@click.option("--withdraw", is_flag=True, help="Take back what was asked for.")
@click.pass_obj
def propose(
    session: Session, pool: str, count: int | None, source: str, for_s: float | None, reason: str, *, withdraw: bool
) -> None:
    """Ask for COUNT instances of POOL, as the program --as.

    For a pool with a trigger of type external. Of several programs, and of the pool's other triggers, the highest
    count wins; bounds and the host still apply. The wish ends by itself: a program repeats it as long as it means it.
    """
    if (count is None) != withdraw:
        raise click.UsageError("give a COUNT, or --withdraw to take it back")
    with session.client() as client:
        if count is None:
            offers = client.withdraw(pool, source=source)
        else:
            offers = client.propose(pool, count, source=source, reason=reason, for_s=for_s)
        if session.json:
            from agentd.agentctl.values import as_value

            show_json({"offers": [as_value(offer) for offer in offers]})
        else:
            show(offer_lines(offers) or [f"no program asks for instances of {printable(pool)}"])


def offer_lines(offers: Iterable[pb.Offer]) -> list[str]:
    """What programs ask for, a line each."""
    return [printable(offer_text(offer)) for offer in offers]


def offer_text(offer: pb.Offer) -> str:
    why = f" ({offer.reason})" if offer.reason else ""
    return f"{offer.source} asks for {offer.count}{why}, for {duration(offer.expires_in_s)} more"

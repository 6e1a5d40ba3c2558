"""`agentctl collectors`: the numbers that pools have from elsewhere than their agents, and what keeps them away."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import Command, Failure, Session, show_json
from agentd.agentctl.terminal import Column, Table, show, styled, table_width, text_width
from agentd.agentctl.text import duration, printable, wrapped

if TYPE_CHECKING:
    from agentd.v1 import control_pb2 as pb

_COLUMNS = (
    Column("POOL"),
    Column("NAME"),
    Column("TYPE", drop=1),
    Column("VALUE", right=True),
    Column("AGE", right=True),
    Column("EVERY", right=True, drop=2),
    Column("STATE"),
)


@click.command(cls=Command, examples=("agentctl collectors", "agentctl collectors research --output json"))
@click.argument("pool", default="")
@click.pass_obj
def collectors(session: Session, *, pool: str) -> None:
    """Show what the collectors of POOL have read, or those of all pools.

    VALUE is the last number that was read, AGE for how long it has been known. STATE is ok; waiting, before the first
    number; failing, when the last attempt brought none, and why is said below; stale, when the number is too old
    to decide on. To try the collectors of a file without an agentd: agentctl config check --try-collectors FILE.
    """
    with session.client() as client:
        status = client.status()
    pools = [one for one in status.pools if pool in ("", one.name)]
    if not pools:
        known = ", ".join(one.name for one in status.pools)
        raise Failure(f"there is no pool {pool!r} (there are {known})")
    found = [(one.name, reading) for one in pools for reading in one.readings]
    if session.json:
        from agentd.agentctl.values import as_value

        show_json([{"pool": name, **as_value(reading)} for name, reading in found])
    else:
        show(collector_lines(found))


def collector_lines(found: Iterable[tuple[str, pb.Reading]]) -> list[str]:
    """The table, and below it a line for each that fails."""
    table = Table(_COLUMNS)
    troubles: list[str] = []
    for pool, reading in found:
        state = state_of(reading)
        table.add(
            pool,
            reading.name,
            reading.type,
            number(reading.value) if reading.HasField("value") else None,
            duration(reading.age_s) if reading.HasField("age_s") else None,
            duration(reading.every_s),
            state,
            state="bad" if state in ("failing", "stale") else "",
        )
        if reading.trouble:
            text = printable(f"{pool}.{reading.name}: {reading.trouble}")
            troubles += [styled(line, "bad") for line in wrapped(text, width=text_width(), rest="  ")]
    return [*table.lines(table_width()), *troubles]


def state_of(reading: pb.Reading) -> str:
    """ok, waiting, failing or stale."""
    if reading.stale and reading.HasField("value"):
        return "stale"
    if reading.trouble:
        return "failing"
    return "waiting" if reading.stale else "ok"


def reading_text(reading: pb.Reading) -> str:
    """One sentence, for `explain`."""
    value = (
        f"{number(reading.value)}, read {duration(reading.age_s)} ago" if reading.HasField("value") else "not read yet"
    )
    stale = " (too old to decide on)" if reading.stale and reading.HasField("value") else ""
    return f"collector {reading.name}: {value}{stale}{f'; {reading.trouble}' if reading.trouble else ''}"


def number(value: float) -> str:
    """As a person would write it: a whole number without a point."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"

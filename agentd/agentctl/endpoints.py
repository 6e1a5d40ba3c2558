"""`agentctl endpoints`: where pools take tasks, and with --follow how that changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import Command, Session, show_json, show_json_line
from agentd.agentctl.following import lasting
from agentd.agentctl.terminal import Column, Table, show, state_style, table_width
from agentd.agentctl.text import ratio, seconds

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1.discovery_pb2 import InstanceEndpoint, WatchResponse

_COLUMNS = (
    Column("ID"),
    Column("ADDRESS"),
    Column("STATE"),
    Column("LOAD", right=True),
    Column("QUEUE", right=True, drop=1),
    Column("IN-FLIGHT", right=True, drop=2),
    Column("P95", right=True, drop=3),
    Column("WEIGHT", right=True),
)
# What mostly comes later is foreseen, so that the columns stay where they are: "unhealthy", a load, "12.3s".
_WIDTHS = (0, 0, 9, 4, 5, 9, 5, 6)


@click.command(cls=Command, examples=("agentctl endpoints research", "agentctl endpoints research -f --output json"))
@click.argument("pool", default="")
@click.option("--follow", "-f", is_flag=True, help="Go on with what changes.")
@click.pass_obj
def endpoints(session: Session, *, pool: str, follow: bool) -> None:
    """Show where POOL takes tasks, or where all pools do.

    WEIGHT is the share of new tasks that an instance should get beside the others of its pool, up to 1.00: the slow
    and the busy get less, one that drains nothing. With --follow each change adds lines; what is gone is shown so.
    As JSON a list; with --follow one object per line, with the endpoints that are new or changed and the ids of those
    removed, the first with all there are. It goes on when agentd is restarted, with all there are once more.
    """
    with session.client() as client:
        if follow:
            _follow(session, client, pool)
            return
        found = client.endpoints(pool)
        if session.json:
            from agentd.agentctl.values import as_value

            show_json([as_value(one) for one in found])
        else:
            show(_table(found).lines(table_width()))


def _table(shown: Iterable[InstanceEndpoint], gone: Iterable[str] = (), widths: Sequence[int] = ()) -> Table:
    from agentd.agentctl.values import state_word

    table = Table(_COLUMNS, widths=widths)
    for one in shown:
        state = state_word(one)
        table.add(
            one.id,
            f"{one.host}:{one.endpoint.port}",
            state,
            ratio(one.load) if one.HasField("load") else None,
            one.queue_length if one.HasField("queue_length") else None,
            one.in_flight if one.HasField("in_flight") else None,
            seconds(one.response_time_p95_s) if one.HasField("response_time_p95_s") else None,
            ratio(one.weight),
            state=state_style(state),
        )
    for ident in gone:
        table.add(ident, None, "gone", None, None, None, None, None, state="bad")
    return table


def _follow(session: Session, client: ControlClient, pool: str) -> None:
    """Show all endpoints, then what changes of them, until interrupted."""
    known: dict[str, InstanceEndpoint] = {}
    widths: Sequence[int] = _WIDTHS
    for change in lasting(client, _reader(client, pool)):
        if session.json:
            from agentd.agentctl.values import as_value

            show_json_line(as_value(change))
            continue
        gone = list(change.removed)
        if change.snapshot:  # not only the first: what agentd was restarted over is known by comparing
            gone = [ident for ident in known if ident not in {one.id for one in change.endpoints}]
        for ident in gone:
            known.pop(ident, None)
        known |= {one.id: one for one in change.endpoints}
        table = _table(known.values(), gone, widths)
        show(_news(table.lines(table_width()), known, change, gone))
        widths = table.widths


def _reader(client: ControlClient, pool: str) -> Callable[[], Iterator[WatchResponse]]:
    """A function that reads changes, each time from where it was."""
    revision = ""

    def read() -> Iterator[WatchResponse]:
        nonlocal revision
        for change in client.watch_endpoints(pool, revision):
            revision = change.revision
            yield change

    return read


def _news(shown: Sequence[str], known: Iterable[str], change: WatchResponse, gone: Sequence[str]) -> list[str]:
    """What has changed, of the lines of a table of all: its columns stay as wide as they were."""
    title, *lines = shown
    news = {one.id for one in change.endpoints} | set(gone)
    chosen = [line for ident, line in zip((*known, *gone), lines, strict=True) if ident in news]
    return [title, *chosen] if change.snapshot else chosen

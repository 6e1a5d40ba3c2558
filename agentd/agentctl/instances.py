"""Commands about instances: ps and logs."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import Command, Session, Whole, show_json, show_json_line
from agentd.agentctl.terminal import Column, Table, show, state_style, table_width
from agentd.agentctl.text import duration, ratio, seconds, size

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb

LOG_LINES_MAX = 100_000

# The pool and the port are in the id: in a narrow terminal they go first.
_COLUMNS = (
    Column("ID"),
    Column("NAME", drop=1),
    Column("POOL", drop=11),
    Column("PORT", right=True, drop=10),
    Column("PID", right=True),
    Column("STATE"),
    Column("AGE", right=True),
    Column("LOAD", right=True),
    Column("CPU", right=True, drop=4),
    Column("MEMORY", right=True, drop=3),
    Column("QUEUE", right=True, drop=5),
    Column("IN-FLIGHT", right=True, drop=6),
    Column("TASKS", right=True, drop=8),
    Column("P95", right=True, drop=7),
    Column("BEAT", right=True, drop=2),
    Column("RESTARTS", right=True, drop=9),
    Column("CAUSE"),
)
_INSTANCE_ID = re.compile(r"[a-z][a-z0-9]{0,18}-[0-9]{1,5}|.*/.*")


@click.command(cls=Command, examples=("agentctl ps", "agentctl ps research --output json"))
@click.argument("pool", default="")
@click.pass_obj
def ps(session: Session, pool: str) -> None:
    """List instances, of POOL or of all pools.

    CPU is how many cores it keeps busy, BEAT the time since the last heartbeat, P95 the response time that
    95 % of the last tasks stayed below. A narrow terminal shows fewer columns; elsewhere all are shown.
    """
    with session.client() as client:
        instances = client.instances(pool)
        if session.json:
            from agentd.agentctl.values import as_value

            show_json([as_value(instance) for instance in instances])
        else:
            show(ps_lines(instances))


def ps_lines(instances: Iterable[pb.Instance]) -> list[str]:
    """The table of instances, as wide as standard output allows."""
    from agentd.agentctl.values import cause, state_word

    table = Table(_COLUMNS)
    for one in instances:
        state = state_word(one)
        late = one.missed_beats > 0
        heard = one.HasField("last_beat_age_s") and one.health != "none"
        table.add(
            one.id,
            one.core_name or None,
            one.pool,
            one.endpoint.port or None,
            one.pid or None,
            state,
            duration(one.age_s),
            ratio(one.load) if one.HasField("load") else None,
            ratio(one.cpu_cores) if one.HasField("cpu_cores") else None,
            size(one.memory_bytes) if one.HasField("memory_bytes") else None,
            one.queue_length if one.HasField("queue_length") else None,
            one.in_flight if one.HasField("in_flight") else None,
            one.tasks_completed if one.HasField("tasks_completed") else None,
            seconds(one.response_time_p95_s) if one.HasField("response_time_p95_s") else None,
            duration(one.last_beat_age_s) if heard else None,
            one.restarts,
            cause(one),
            state=state_style(state),
            beat="bad" if late else "",
        )
    return table.lines(table_width())


@click.command(cls=Command, examples=("agentctl logs research-9101 -f", "agentctl logs researcher -n 20"))
@click.argument("name", metavar="ID|NAME")
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now on.")
@click.option(
    "--lines",
    "-n",
    type=Whole(0, LOG_LINES_MAX),
    default=100,
    show_default=True,
    help="How many lines from the end to begin with.",
)
@click.pass_obj
def logs(session: Session, name: str, follow: bool, lines: int) -> None:
    """Show what an instance has written. Core agents answer to their names, also where a pool has the same.

    The output is what the instance wrote, byte for byte. As JSON it is a list of objects with instance and
    line; with --follow one such object per line.
    """
    with session.client() as client:
        instance = find_instance(client, name)
        pieces = client.logs(instance, lines=lines, follow=follow)
        if not session.json:
            sys.stdout.flush()
            for piece in pieces:
                sys.stdout.buffer.write(piece)
                sys.stdout.buffer.flush()
        elif follow:
            for line in log_lines(pieces):
                show_json_line({"instance": instance, "line": line})
        else:
            show_json([{"instance": instance, "line": line} for line in log_lines(pieces)])


def log_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """The lines in `pieces`, which may be cut anywhere, also inside a character."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + decoder.decode(piece)).split("\n")
        yield from whole
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest


def is_instance_id(name: str) -> bool:
    return _INSTANCE_ID.fullmatch(name) is not None


def find_instance(client: ControlClient, name: str) -> str:
    """The id of the core agent called `name`; `name` itself when it is an id or nobody's name."""
    if is_instance_id(name):
        return name
    return next((one.id for one in client.instances() if one.core_name == name), name)

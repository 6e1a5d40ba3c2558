"""`agentctl events`: what has happened, and with --follow what happens."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import Command, Session, Whole, show_json, show_json_line
from agentd.agentctl.following import lasting
from agentd.agentctl.instances import find_instance
from agentd.agentctl.terminal import show, styled
from agentd.agentctl.text import moment, printable

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb

EVENTS_MAX = 10_000  # as the protocol has it

_TYPE_WIDTH = len("rolling_cancelled")  # the longest of agentd's types

_STYLES = {
    "scale_up": "good",
    "scale_down": "good",
    "ready": "good",
    "recovered": "good",
    "rolling_done": "good",
    "replace": "warn",
    "late": "warn",
    "hold": "warn",
    "exit": "warn",
    "port_conflict": "warn",
    "rolling_cancelled": "warn",
    "start_failed": "bad",
    "crash_loop": "bad",
    "rolling_stopped": "bad",
    "stop_forced": "bad",
    "vanished": "bad",
    "config_rejected": "bad",
    "store": "bad",
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a person wants; what is empty matches everything."""

    pool: str = ""
    instance: str = ""
    types: tuple[str, ...] = ()

    def matches(self, event: pb.Event) -> bool:
        return (
            self.pool in ("", event.pool)
            and self.instance in ("", event.instance)
            and (not self.types or event.type in self.types)
        )


@click.command(cls=Command, examples=("agentctl events -n 50", "agentctl events -f --pool research --type scale_up"))
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens from now on.")
@click.option(
    "--number",
    "-n",
    type=Whole(0, EVENTS_MAX),
    default=20,
    show_default=True,
    help="How many past events to begin with.",
)
@click.option("--pool", default="", help="Only events of this pool.")
@click.option("--instance", default="", help="Only events of this instance; core agents answer to their names.")
@click.option("--type", "types", multiple=True, help="Only events of this type; may be given several times.")
@click.pass_obj
def events(session: Session, *, follow: bool, number: int, pool: str, instance: str, types: tuple[str, ...]) -> None:
    """Show what has happened, oldest first.

    The scaling events are of type scale_up, scale_down and replace. As JSON a list; with --follow one object
    per line, past events and new ones alike.
    """
    with session.client() as client:
        wanted = Filter(pool, find_instance(client, instance) if instance else "", types)
        if follow:
            _follow(session, client, number, wanted)
            return
        past = _past(client, number, wanted)
        if not past:
            _check_subject(client, wanted)
        if session.json:
            from agentd.agentctl.values import as_value

            show_json([as_value(event) for event in past])
        else:
            show([event_line(event, now=time.time()) for event in past])


def event_line(event: pb.Event, *, now: float) -> str:
    """One event in one line: time, type, subject, reason, who asked for it."""
    subject = event.instance or event.pool or "agentd"
    actor = f" (by {event.actor})" if event.actor else ""
    kind = styled(printable(event.type).ljust(_TYPE_WIDTH), _STYLES.get(event.type, ""))
    return f"{moment(event.wall, now=now)}  {kind}  {printable(subject).ljust(15)}  {printable(event.reason + actor)}"


def _past(client: ControlClient, number: int, wanted: Filter) -> list[pb.Event]:
    """The last `number` events, oldest first."""
    if not number:
        return []
    newest = client.events(number, pool=wanted.pool, instance=wanted.instance, types=wanted.types)
    return newest[::-1]


def _check_subject(client: ControlClient, wanted: Filter) -> None:
    """Tell a name that nothing has ever happened to, which may be misspelt, from a filter that leaves nothing.

    Raises:
        ControlError: the pool neither exists nor has a past.
    """
    if wanted.pool and not client.events(1, pool=wanted.pool):
        client.instances(wanted.pool)  # refused when there is no such pool
    if wanted.instance and not client.events(1, instance=wanted.instance):
        click.echo(f"agentctl: no events of {wanted.instance!r}", err=True)


def _follow(session: Session, client: ControlClient, number: int, wanted: Filter) -> None:
    """Show past and coming events until interrupted.

    The token to go on from is taken before the past is read: what happens in between is seen twice, and
    shown once. Taken afterwards, from a filtered past, it might be too old.
    """
    newest = client.events(1)
    token = newest[0].resume_token if newest else ""
    past = _past(client, number, wanted)
    if not past:
        _check_subject(client, wanted)
    _show_live(session, past)
    shown = {event.resume_token for event in past}
    for event in _watch(client, token, wanted.pool):
        if event.resume_token not in shown and wanted.matches(event):
            _show_live(session, [event])


def _watch(client: ControlClient, token: str, pool: str) -> Iterator[pb.Event]:
    """Events from `token` on; where some are lost, that is said, and it goes on with the present."""
    from agentd.sdk.control import ControlError

    def read() -> Iterator[pb.Event]:
        nonlocal token
        for event in client.watch_events(token, pool=pool):
            token = event.resume_token
            yield event

    while True:
        try:
            yield from lasting(client, read)
        except ControlError as error:
            if error.code != "OUT_OF_RANGE" or not token:  # without a token nothing can be too old
                raise
            click.echo(f"agentctl: some events were lost ({printable(str(error))})", err=True)
            token = ""


def _show_live(session: Session, batch: Sequence[pb.Event]) -> None:
    if not session.json:
        show([event_line(event, now=time.time()) for event in batch])
    else:
        from agentd.agentctl.values import as_value

        for event in batch:
            show_json_line(as_value(event))

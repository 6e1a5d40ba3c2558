"""`agentctl auto`: scaling on and off, as a whole or in one direction, of one pool or all, for a while."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import Command, Duration, Session, show_json
from agentd.agentctl.terminal import show
from agentd.agentctl.text import duration, moment, printable

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb


@click.command(
    cls=Command,
    examples=(
        "agentctl auto",
        "agentctl auto off --reason 'measuring'",
        "agentctl auto off --direction up --pool research --for 1h",
        "agentctl auto on --pool research",
    ),
)
@click.argument("mode", type=click.Choice(["on", "off"]), default="on")
@click.option("--direction", type=click.Choice(["up", "down", "both"]), help="Only this way. Default: both.")
@click.option("--pool", default="", help="Only this pool. Default: all.")
@click.option("--for", "for_s", type=Duration(), help="How long off holds: 30s, 10m, 1h, 1d. Default: until on.")
@click.option("--reason", default="", help="Why; shown beside the mode.")
@click.pass_obj
def auto(session: Session, mode: str, *, direction: str | None, pool: str, for_s: float | None, reason: str) -> None:
    """Switch automatic scaling on (the default) or off.

    On also ends the targets that people set, and every pause. Off stops scaling, not repair, and survives a
    restart of agentd.

    With --direction, --pool or --for, off is a pause of just that, and on ends it: what agentd decides by itself
    is held, while up and down by people go on. A pause of all pools holds each of them.
    """
    if mode == "on" and for_s is not None:
        raise click.UsageError("--for is for off: scaling that is on stays on")
    with session.client() as client:
        if direction or pool or for_s is not None:
            _part(session, client, mode, direction=direction or "both", pool=pool, for_s=for_s, reason=reason)
            return
        # Asked before: once the mode is set, no failure may hide that.
        idle = mode == "on" and not client.status().enabled
        answer = client.set_autoscaling(mode == "on", reason)
        if idle:
            click.echo("agentctl: warning: nothing runs until multi_agent.enabled is true", err=True)
        if session.json:
            from agentd.agentctl.values import as_value

            show_json(as_value(answer))
            return
    text = f"autoscaling {'on' if answer.enabled else 'off'}, set by {answer.owner}"
    if answer.since_wall:
        text += f" at {moment(answer.since_wall, now=time.time())}"
    show([printable(text + (f': "{answer.reason}"' if answer.reason else ""))])


def _part(
    session: Session, client: ControlClient, mode: str, *, direction: str, pool: str, for_s: float | None, reason: str
) -> None:
    if mode == "on":
        paused = client.go_on(direction, pool=pool, reason=reason)
    else:
        paused = client.pause(direction, pool=pool, for_s=for_s, reason=reason)
    if session.json:
        from agentd.agentctl.values import as_value

        show_json({"pools": [as_value(one) for one in paused]})
        return
    lines = [f"{one.pool}: {pause_text(pause)}" for one in paused for pause in one.pauses]
    show([printable(line) for line in lines or [f"nothing is paused{f' in {pool}' if pool else ''}"]])


def pause_text(pause: pb.Pause) -> str:
    """A pause in a sentence: what, by whom, for how long and why."""
    where = " in all pools" if pause.everywhere else ""
    until = f", for another {duration(pause.expires_in_s)}" if pause.HasField("expires_in_s") else ""
    reason = f': "{pause.reason}"' if pause.reason else ""
    return f"{pause.direction} paused{where} by {pause.owner}{until}{reason}"

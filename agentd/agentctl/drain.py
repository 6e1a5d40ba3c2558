"""The command drain: have one instance finish its work and stop, and wait for that."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import DONE, FAILED, Command, Duration, Failure, Session, show_json
from agentd.agentctl.following import follow, present
from agentd.agentctl.interrupt import farewell
from agentd.agentctl.terminal import show
from agentd.agentctl.text import printable

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb

_ENDS = ("stop", "stop_forced")
# How the event of an end tells that work was cut off; "0 tasks in flight and 0 queued were cut" is none.
_CUT = re.compile(r"\b(?:was|were) cut\b")
_NOTHING_CUT = re.compile(r"\b0 tasks in flight and 0 queued were cut\b")


@click.command(cls=Command, examples=("agentctl drain research-9101 --wait", "agentctl drain researcher --force"))
@click.argument("name", metavar="ID|NAME")
@click.option("--wait", is_flag=True, help="Return when it has stopped, and say how.")
@click.option("--timeout", "wait_s", type=Duration(), default=None, help="Wait no longer than that. Default: no end.")
@click.option("--force", is_flag=True, help="Also a core agent; it is started again in place.")
@click.pass_obj
def drain(session: Session, name: str, *, wait: bool, wait_s: float | None, force: bool) -> int:
    """Have one instance finish its work and stop.

    It takes nothing new from now on, and is stopped when its tasks are done or its pool's drain_timeout_sec has
    passed. The minimum of its pool, and a target that somebody has set, go on as they are: where it is missing, another
    one is started. A core agent is always there: it is refused, and with --force drained and started again in
    place, as restart does it.

    With --wait the exit code is 1 where tasks were cut: its deadline had passed before it had done them, as the line
    says that tells how it has stopped. It is 1 as well when --timeout has passed; the drain goes on.

    A name is a core agent's, also where a pool has it.
    """
    if wait_s is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    with session.client() as client:
        token = present(client) if wait else ""
        instance = client.drain(name, force=force)
        ended = _wait(client, token, instance, wait_s) if wait else None
    if session.json:
        from agentd.agentctl.values import as_value

        show_json({"instance": as_value(instance), "ended": as_value(ended) if ended else None})
    elif ended is None:
        show([f"draining {instance.id}"])
    else:
        show([printable(f"{instance.id} has stopped: {ended.reason}")])
    return FAILED if ended and _has_cut(ended) else DONE


def _wait(client: ControlClient, token: str, instance: pb.Instance, wait_s: float | None) -> pb.Event:
    """The event with which this life of `instance` has ended; `token` is from before it was asked to go."""
    if not _is_there(client, instance):
        found = client.events(1, instance=instance.id, types=_ENDS)
        if not found:
            raise Failure(f"{instance.id} is gone, and no event says how")
        return found[0]
    what = f"the drain of {instance.id}"
    with farewell(f"{what} goes on"):
        events = follow(client, token, pool=instance.pool, for_s=wait_s, what=what)
        return next(event for event in events if event.instance == instance.id and event.type in _ENDS)


def _has_cut(ended: pb.Event) -> bool:
    return bool(_CUT.search(ended.reason)) and not _NOTHING_CUT.search(ended.reason)


def _is_there(client: ControlClient, instance: pb.Instance) -> bool:
    return any(
        one.id == instance.id and one.incarnation == instance.incarnation for one in client.instances(instance.pool)
    )

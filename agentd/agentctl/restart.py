"""The command restart: an instance in place, or all of a pool without a dip; and to wait for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentd.agentctl.command import COUNT_MAX, DONE, FAILED, Command, Duration, Session, show_json
from agentd.agentctl.following import follow, present
from agentd.agentctl.interrupt import farewell
from agentd.agentctl.terminal import show
from agentd.agentctl.text import printable

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb

_BEGUN, _END, _GOOD_END = "rolling_begun", ("rolling_done", "rolling_stopped"), "rolling_done"


@click.command(
    cls=Command,
    examples=(
        "agentctl restart research-9101",
        "agentctl restart research --wait",
        "agentctl restart research --max-unavailable 2",
        "agentctl restart research --cancel",
    ),
)
@click.argument("name", metavar="ID|POOL|NAME")
@click.option(
    "--max-unavailable",
    "most",
    type=click.IntRange(0, COUNT_MAX),
    default=None,
    help="How many of the pool may be away at once. 0: none. Default: 0 where another one can stand in, else 1.",
)
@click.option("--wait", is_flag=True, help="Return when the restart of the pool has ended; a line for each step.")
@click.option("--timeout", "wait_s", type=Duration(), default=None, help="Wait no longer than that. Default: no end.")
@click.option("--cancel", is_flag=True, help="End the restart of the pool that is under way, after its present step.")
@click.pass_obj
def restart(session: Session, name: str, *, most: int | None, wait: bool, wait_s: float | None, cancel: bool) -> int:
    """Restart an instance in place, or all of a pool.

    An instance is named by its id, a core agent also by its name. It finishes its work first, and keeps its
    id and port. This is also the way out of the state failed.

    Of a pool, one after the other is restarted like that, each when the last is ready. Nobody is missed
    meanwhile: one more instance is started first, stands in, and leaves at the end. It needs a free port of the
    pool and memory on the host, and may be one above max. Where it cannot be had, one is away at a time, and the
    answer says why. With --max-unavailable N nobody stands in, and N are away at once; no more drain at once than
    drain_share_max allows. The pool may grow meanwhile, and gets smaller when it is over. An instance that does
    not become ready stops the restart: nobody else is taken down, and status says why.

    A second restart of the same pool is refused while one is under way. With --wait the exit code is 1 when it
    has stopped, or --timeout has passed. Ctrl-C ends the waiting alone.
    """
    _check(most=most, wait=wait, wait_s=wait_s, cancel=cancel)
    of_pool = wait or cancel or most is not None
    ended: pb.Event | None = None
    with session.client() as client:
        token = present(client) if wait else ""
        answer = client.restart(name, rolling=of_pool, max_unavailable=most, cancel=cancel)
        if wait and answer.HasField("restart"):
            _tell(session, answer, name, cancel=cancel)
            ended = _wait(session, client, token, name, wait_s, begun=cancel)
    if session.json:
        show_json(_value(answer, ended))
    elif ended is None:
        _tell(session, answer, name, cancel=cancel)
    return DONE if ended is None or cancel or ended.type == _GOOD_END else FAILED


def _check(*, most: int | None, wait: bool, wait_s: float | None, cancel: bool) -> None:
    if wait_s is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    if cancel and most is not None:
        raise click.UsageError("--max-unavailable is for a new restart, --cancel ends one")


def _tell(session: Session, answer: pb.RestartResponse, name: str, *, cancel: bool) -> None:
    """What has begun, in a line or two."""
    if session.json:
        return
    lines = [f"restarting {', '.join(answer.instances)}"]
    if answer.HasField("restart"):
        lines = [f"{name}: {answer.restart.text}"] if cancel else [*lines, _how(answer.restart)]
    elif not answer.instances:
        lines = [f"{name}: the restart has ended" if cancel else f"nothing to restart: {name} has no instances"]
    show([printable(line) for line in lines])


def _how(restart: pb.RollingRestart) -> str:
    if not restart.max_unavailable:
        return f"one at a time; {restart.stand_in} stands in, and starts first"
    return f"{restart.max_unavailable} at a time" + (
        f"; nobody stands in: {restart.no_stand_in}" if restart.no_stand_in else ""
    )


def _wait(
    session: Session, client: ControlClient, token: str, pool: str, wait_s: float | None, *, begun: bool
) -> pb.Event:
    """The event with which the restart of `pool` ends; a line for each step before. `begun`: not by this command."""
    what = f"the restart of {pool}"
    with farewell(f"{what} goes on; agentctl restart {pool} --cancel ends it"):
        for event in follow(client, token, pool=pool, for_s=wait_s, what=what):
            if event.type == _BEGUN:
                begun = True
            elif begun and event.type in _END:
                _show_step(session, f"{pool}: {event.reason}")
                return event
            elif begun and event.type == "rolling_step":
                _show_step(session, f"{event.instance or pool}: {event.reason}")
    raise AssertionError("unreachable: following ends with a failure")


def _show_step(session: Session, line: str) -> None:
    if not session.json:
        show([printable(line)])


def _value(answer: pb.RestartResponse, ended: pb.Event | None) -> dict[str, Any]:
    from agentd.agentctl.values import as_value

    return {**as_value(answer), "ended": as_value(ended) if ended else None}

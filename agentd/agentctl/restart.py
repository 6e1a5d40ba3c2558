"""The command restart: an instance in place, or all of a pool without a dip; and to wait for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from agentd.agentctl.command import COUNT_MAX, DONE, FAILED, Command, Duration, Failure, Session, Whole, show_json
from agentd.agentctl.following import follow, present
from agentd.agentctl.instances import is_instance_id
from agentd.agentctl.interrupt import farewell
from agentd.agentctl.terminal import show
from agentd.agentctl.text import printable

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb

_READY = "ready"
# After these an instance may not come up: agentd tells why, and tries again or gives up.
_FAILED = ("start_failed", "crash_loop", "port_conflict", "held")
_GONE = ("stop", "stop_forced", "vanished")
_BEGUN, _END, _GOOD_END = "rolling_begun", ("rolling_done", "rolling_stopped"), "rolling_done"


@click.command(
    cls=Command,
    examples=(
        "agentctl restart research-9101 --wait",
        "agentctl restart research --wait",
        "agentctl restart research --max-unavailable 2",
        "agentctl restart research --cancel",
    ),
)
@click.argument("name", metavar="ID|POOL|NAME")
@click.option(
    "--max-unavailable",
    "most",
    type=Whole(0, COUNT_MAX),
    default=None,
    help="How many of the pool may be away at once. 0: none. Default: 0 where another one can stand in, else 1.",
)
@click.option(
    "--wait",
    is_flag=True,
    help="Return when the instance is ready again, or the pool through it; of a pool, a line for each step.",
)
@click.option("--timeout", "wait_s", type=Duration(), default=None, help="Wait no longer than that. Default: no end.")
@click.option("--cancel", is_flag=True, help="End the restart of the pool that is under way, after its present step.")
@click.pass_obj
def restart(session: Session, name: str, *, most: int | None, wait: bool, wait_s: float | None, cancel: bool) -> int:
    """Restart an instance in place, or all of a pool.

    An instance is named by its id, a core agent also by its name. A name that a pool has too is the pool's, with
    and without options: of the core agent, give the id. An instance finishes its work first, and keeps its id and
    port. This is also the way out of the state failed.

    Of a pool, one after the other is restarted like that, each when the last is ready. Nobody is missed
    meanwhile: one more instance is started first, stands in, and leaves at the end. It needs a free port of the
    pool and memory on the host, and may be one above max. Where it cannot be had, one is away at a time, and the
    answer says why. With --max-unavailable N nobody stands in, and N are away at once; no more drain at once than
    drain_share_max allows. The pool may grow meanwhile, and gets smaller when it is over. An instance that does
    not become ready stops the restart: nobody else is taken down, and status says why.

    A second restart of the same pool is refused while one is under way. With --wait the exit code is 1 when it
    has stopped, the instance does not come up, or --timeout has passed. Ctrl-C ends the waiting alone.
    """
    _check(name, most=most, wait=wait, wait_s=wait_s, cancel=cancel)
    ended: pb.Event | None = None
    with session.client() as client:
        token = present(client) if wait else ""
        answer, before = _ask(client, name, most=most, cancel=cancel, wait=wait)
        if wait and answer.HasField("restart"):
            with farewell(f"the restart of {name} goes on; agentctl restart {name} --cancel ends it"):
                _tell(session, answer, name, cancel=cancel)
                ended = _wait(session, client, token, name, wait_s, begun=cancel)
        elif wait and answer.instances:
            _tell(session, answer, name, cancel=cancel)
            ended = _wait_for_one(client, token, answer.instances[0], before, wait_s)
            _show_step(session, f"{ended.instance}: {ended.reason}")
    if session.json:
        show_json(_value(answer, ended))
    elif ended is None:
        _tell(session, answer, name, cancel=cancel)
    return DONE if ended is None or cancel or ended.type in (_READY, _GOOD_END) else FAILED


def _check(name: str, *, most: int | None, wait: bool, wait_s: float | None, cancel: bool) -> None:
    if wait_s is not None and not wait:
        raise click.UsageError("--timeout is for --wait")
    if cancel and most is not None:
        raise click.UsageError("--max-unavailable is for a new restart, --cancel ends one")
    if is_instance_id(name) and (cancel or most is not None):
        raise click.UsageError(f"{name} is an instance; --max-unavailable and --cancel are for a pool")


def _ask(
    client: ControlClient, name: str, *, most: int | None, cancel: bool, wait: bool
) -> tuple[pb.RestartResponse, set[str]]:
    """Have the pool `name` restarted; where there is none, the instance of that id or name.

    Besides the answer, to wait for an instance: the incarnations of before.

    Raises:
        ControlError: it is the name of neither, or refused.
    """
    from agentd.sdk.control import ControlError

    if not is_instance_id(name):
        try:
            return client.restart(name, rolling=True, max_unavailable=most, cancel=cancel), set()
        except ControlError as error:
            if error.reason != "UNKNOWN_POOL" or cancel or most is not None:
                raise
    before = {one.incarnation for one in client.instances()} if wait else set()
    return client.restart(name), before


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
    many = "one" if restart.max_unavailable == 1 else f"{restart.max_unavailable}"
    return f"{many} at a time" + (f"; nobody stands in: {restart.no_stand_in}" if restart.no_stand_in else "")


def _wait(
    session: Session, client: ControlClient, token: str, pool: str, wait_s: float | None, *, begun: bool
) -> pb.Event:
    """The event with which the restart of `pool` ends; a line for each step before. `begun`: not by this command."""
    what = f"the restart of {pool}"
    for event in follow(client, token, pool=pool, for_s=wait_s, what=what):
        if event.type == _BEGUN:
            begun = True
        elif begun and event.type in _END:
            _show_step(session, f"{pool}: {event.reason}")
            return event
        elif begun and event.type == "rolling_step":
            _show_step(session, f"{event.instance or pool}: {event.reason}")
    raise AssertionError("unreachable: following ends with a failure")


def _wait_for_one(client: ControlClient, token: str, ident: str, before: set[str], wait_s: float | None) -> pb.Event:
    """The event with which `ident` is ready in an incarnation not in `before`, or with which that has failed.

    Raises:
        Failure: it is gone for good, or the time has passed.
    """
    what = f"the restart of {ident}"
    pool = ident.rpartition("-")[0]
    with farewell(f"{what} goes on"):
        for event in follow(client, token, pool=pool, for_s=wait_s, what=what):
            if event.instance != ident or event.type not in (_READY, *_FAILED, *_GONE):
                continue
            now = next((one for one in client.instances(pool) if one.id == ident), None)
            if now is None:
                raise Failure(f"{ident} is gone: {event.reason}")
            if event.type in _FAILED or (event.type == _READY and now.incarnation not in before):
                return event
    raise AssertionError("unreachable: following ends with a failure")


def _show_step(session: Session, line: str) -> None:
    if not session.json:
        show([printable(line)])


def _value(answer: pb.RestartResponse, ended: pb.Event | None) -> dict[str, Any]:
    from agentd.agentctl.values import as_value

    return {**as_value(answer), "ended": as_value(ended) if ended else None}

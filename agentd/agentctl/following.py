"""Following what agentd tells, also across its restarts, and waiting for what a command has begun.

The place in a stream is taken before the command acts, and kept from then on: a stream that ends because agentd does is
opened again at that place when agentd is back, so that nothing is missed. How long it may be away has a bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import click

from agentd.agentctl.command import NO_DAEMON, Failure

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb

AWAY_MAX_S = 60.0
RETRY_S = 0.5
# The statuses of a stream that ended because agentd did.
_AWAY = ("UNAVAILABLE", "CANCELLED")

_Item = TypeVar("_Item")


def present(client: ControlClient) -> str:
    """Where the stream of events is now; give it to `follow`."""
    newest = client.events(1)
    return newest[0].resume_token if newest else ""


def follow(client: ControlClient, token: str, *, pool: str, for_s: float | None, what: str) -> Iterator[pb.Event]:
    """The events of `pool` from `token` on, at most for `for_s` > 0 seconds. It never ends by itself.

    `what` goes on in agentd whatever happens here: "the restart of research".

    Raises:
        Failure: the time has passed, agentd stays away, or events were lost.
    """
    from agentd.sdk.control import ControlError

    until = None if for_s is None else time.monotonic() + for_s

    def read() -> Iterator[pb.Event]:
        nonlocal token
        left_s = None if until is None else max(until - time.monotonic(), 0.001)
        for event in client.watch_events(token, pool=pool, for_s=left_s):
            token = event.resume_token
            yield event

    try:
        yield from lasting(client, read, until=until, what=what)
    except ControlError as error:
        if error.code == "DEADLINE_EXCEEDED" and until is not None and time.monotonic() >= until:
            raise _late(what, for_s) from error
        if error.code == "OUT_OF_RANGE":
            raise Failure(f"events were lost, and {what} goes on; agentctl status tells how far it is") from error
        raise
    except TimeoutError as error:
        raise _late(what, for_s) from error


def lasting(
    client: ControlClient, read: Callable[[], Iterator[_Item]], *, until: float | None = None, what: str = ""
) -> Iterator[_Item]:
    """What `read` gives, which is called again whenever agentd was away, to go on where it was.

    It never ends by itself. Standard error tells that agentd is away and back. `what` goes on in agentd meanwhile.

    Raises:
        Failure: agentd has stayed away for AWAY_MAX_S.
        TimeoutError: the monotonic time `until` has come while it was away.
    """
    from agentd.sdk.control import ControlError

    away_since: float | None = None
    while True:
        opened = time.monotonic()
        try:
            for item in read():
                away_since = None
                yield item
        except ControlError as error:
            if error.code not in _AWAY or error.reason:
                raise
        ended = time.monotonic()
        if away_since is None or ended - opened >= RETRY_S:  # one that ends at once has not brought it back
            away_since = ended
            click.echo("agentctl: agentd is away; going on when it is back", err=True)
        _until_back(client, away_since, until, what)
        click.echo("agentctl: agentd is back", err=True)


def _until_back(client: ControlClient, away_since: float, until: float | None, what: str) -> None:
    from agentd.sdk.control import ControlError

    while True:
        now = time.monotonic()
        if until is not None and now >= until:
            raise TimeoutError
        if now - away_since >= AWAY_MAX_S:
            goes_on = f"; {what} goes on when it is" if what else ""
            raise Failure(f"agentd is not back after {AWAY_MAX_S:g} s{goes_on}", NO_DAEMON)
        time.sleep(RETRY_S)  # first as well: one that is stopping may answer still
        try:
            client.events(1)
            return
        except ControlError as error:
            if error.code not in (*_AWAY, "DEADLINE_EXCEEDED") or error.reason:
                raise


def _late(what: str, for_s: float | None) -> Failure:
    return Failure(f"{what} is still under way after {for_s:g} s, and goes on")

"""Waiting for events: what a command has begun is followed to its end, without asking again and again.

The place in the stream is taken before the command acts, so that nothing that comes of it is missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from agentd.agentctl.command import NO_DAEMON, Failure

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb


def present(client: ControlClient) -> str:
    """Where the stream of events is now; give it to `follow`."""
    newest = client.events(1)
    return newest[0].resume_token if newest else ""


def follow(client: ControlClient, token: str, *, pool: str, for_s: float | None, what: str) -> Iterator[pb.Event]:
    """The events of `pool` from `token` on, at most for `for_s` > 0 seconds. It never ends by itself.

    `what` goes on in agentd whatever happens here: "the restart of research".

    Raises:
        Failure: the time has passed, agentd is stopping, or events were lost.
    """
    from agentd.sdk.control import ControlError, NoDaemonError

    try:
        yield from client.watch_events(token, pool=pool, for_s=for_s)
    except NoDaemonError:
        pass
    except ControlError as error:
        if error.code == "DEADLINE_EXCEEDED":
            raise Failure(f"{what} is still under way after {for_s:g} s, and goes on") from error
        if error.code == "OUT_OF_RANGE":
            raise Failure(f"events were lost, and {what} goes on; agentctl status tells how far it is") from error
        raise
    raise Failure(f"agentd is stopping; {what} goes on when it is back", NO_DAEMON)

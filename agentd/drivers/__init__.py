"""What runs instances.

A driver starts, stops, lists and watches instances on one host. It makes no decisions: it restarts a process
that exits (that is the one policy it is given, in `InstanceSpec.restart`), and reports everything else. Its
methods are idempotent: starting what runs and stopping what is gone are both successes.

`start`, `stop` and `list` may raise OSError: the host is out of something (descriptors, memory) at the moment.
Nothing is wrong with the driver then; the same call can be made again later.

`watch` only hints: agentd relists from time to time, and the list decides. One contract suite,
`tests/drivers/test_contract.py`, holds every driver to this page.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Protocol

from msgspec import Struct

from agentd.core.messages import (
    HostStopping,
    InstanceExited,
    InstanceGaveUp,
    InstanceHeld,
    InstanceStarted,
    InstanceWarned,
)
from agentd.core.model import InstanceId, InstanceSpec, Observed

DriverEvent = InstanceStarted | InstanceExited | InstanceGaveUp | InstanceHeld | InstanceWarned | HostStopping


class Capacity(Struct, frozen=True):
    """How many instances the driver can run in all, and what bounds it. None: no bound known."""

    instances_max: int | None
    bound: str


class Driver(Protocol):
    name: str

    async def start(self, spec: InstanceSpec) -> Observed:
        """Start `spec`; when an instance of that id runs already, return it untouched.

        Each start makes a new incarnation.

        Raises:
            StartError: it cannot be started; nothing is left behind.
        """

    async def stop(self, instance: InstanceId, grace_s: float) -> bool:
        """End `instance`: TERM, `grace_s` seconds, then KILL of everything it started.

        Returns when nothing of it is left; True if it had to be killed. A pending restart is cancelled.
        A second call while one runs may shorten the grace. A process that the driver may not signal is let go some
        seconds after its grace, as if it had been killed: it is no longer listed, and an error in the log names it.
        """

    async def list(self) -> tuple[Observed, ...]:
        """All instances of this agentd on the host, by id. Read from the host, not from memory."""

    def watch(self) -> AsyncIterator[DriverEvent]:
        """Exits, restarts in place and surrenders, as they happen. One consumer."""

    def learn(self, specs: Iterable[InstanceSpec]) -> None:
        """Replace what is known about restarts in place: each instance is restarted with its specification in `specs`.

        One that is not in `specs` is not restarted: a restart that was pending does not happen (it is then no longer
        listed), and a later exit is reported with `restart_in_s` -1. So it is with adopted instances before the
        first call. Ids that nothing is known of are ignored.
        """

    async def capacity(self) -> Capacity: ...

    async def close(self) -> None:
        """Let go of everything without stopping any instance."""

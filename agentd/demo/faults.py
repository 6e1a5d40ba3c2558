"""What the demo breaks on purpose: an agent is killed, another one hangs. Only ever an agent of its own agentd."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from msgspec import Struct

from agentd.demo.fleet import Instance, Look

KILL_AT_S = 45.0
HANG_AT_S = 75.0


class Fault(Struct):
    """A signal for one elastic agent of the pool, once, from `at_s` on; at `until_s` it is too late."""

    number: signal.Signals
    at_s: float
    until_s: float
    done: bool = False

    def choose(self, look: Look, at_s: float) -> Instance | None:
        """The elastic agent to hit now; None: not now. The oldest crashes, the youngest hangs: two different ones."""
        if self.done or not self.at_s <= at_s < self.until_s:
            return None
        elastic = [instance for instance in look.in_state("ready") if not instance.core_name]
        by_port = sorted(elastic, key=lambda instance: instance.port)
        if not by_port:
            return None
        return by_port[0] if self.number is signal.SIGKILL else by_port[-1]


def faults() -> tuple[Fault, ...]:
    """The default demo's: a crash, and a hang that must come while the load still needs everybody."""
    return (Fault(signal.SIGKILL, KILL_AT_S, KILL_AT_S + 25.0), Fault(signal.SIGSTOP, HANG_AT_S, HANG_AT_S + 25.0))


def send(instance: Instance, number: signal.Signals) -> bool:
    """Send a signal to the agent; False when its process is gone or is somebody else's by now."""
    try:
        pidfd = os.pidfd_open(instance.pid)
    except OSError:
        return False
    try:
        # The descriptor holds the process fast; whose it is, its environment tells.
        if not _is(instance):
            return False
        signal.pidfd_send_signal(pidfd, number)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True


def _is(instance: Instance) -> bool:
    env = Path(f"/proc/{instance.pid}/environ").read_bytes().split(b"\0")
    wanted = {f"AGENTD_INSTANCE={instance.id}".encode(), f"AGENTD_INCARNATION={instance.incarnation}".encode()}
    return wanted <= set(env)

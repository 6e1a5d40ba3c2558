"""agentd as a systemd service: whether it is one, and what it tells the service manager.

Owns the messages of sd_notify. Says nothing where no service manager listens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import sdnotify

from agentd.units import SERVICE

# The watchdog is fed this many times within its timeout.
FEEDINGS = 3


def is_service(cgroup_file: Path = Path("/proc/self/cgroup")) -> bool:
    """Whether this process runs as agentd.service."""
    try:
        lines = cgroup_file.read_text().splitlines()
    except OSError:
        return False
    # hierarchy:controllers:path; the path names the unit in systemd's own hierarchy, which v1 calls name=systemd
    groups = (line.split(":", 2) for line in lines)
    return any(path.endswith(f"/{SERVICE}") for _, names, path in groups if names in ("", "name=systemd"))


def watchdog_s(environment: Mapping[str, str]) -> float | None:
    """The timeout that the service manager gives this process, or None where it keeps no watchdog for it."""
    pid = environment.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdigit() and int(text) > 0 else None


class ServiceManager:
    """The one who started agentd and waits for its word."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()
        self._status = ""

    def ready(self, status: str) -> None:
        self._status = status
        self._notifier.notify(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        self._notifier.notify("RELOADING=1")

    def reloaded(self) -> None:
        self._notifier.notify("READY=1")

    def stopping(self) -> None:
        self._notifier.notify("STOPPING=1")

    async def feed_watchdog(
        self, timeout_s: float, progress: Callable[[], Awaitable[None]], status: Callable[[], str]
    ) -> None:
        """Tell again and again that agentd is alive, each time only after `progress` has come to an end."""
        while True:
            await progress()
            said = status()
            news = f"\nSTATUS={said}" if said != self._status else ""
            self._status = said
            self._notifier.notify(f"WATCHDOG=1{news}")
            await asyncio.sleep(timeout_s / FEEDINGS)

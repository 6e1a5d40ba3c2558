"""What an agent tells systemd when it is a unit: ready, alive, still draining, at its end. Standard library only.

Owns the datagrams of sd_notify(3). systemd listens to the unit's main process alone (NotifyAccess=main) and complains
of others, so there is a `Notifier` in that process only; outside systemd there is none.

STOPPING=1 is said at the very end and never when a drain begins: systemd takes it as "has got its TERM", and a later
stop would send none to an agent that waits for it.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping
from typing import Self

log = logging.getLogger("agentd.sdk")

WATCHDOG_S = 30.0  # where the unit has no WatchdogSec= of its own
PINGS = 3  # within that time
EXTENSION_S = 30.0  # of the stop timeout at a time; at least until the next ping
SEND_S = 1.0


class Notifier:
    """The way to systemd. Not for several threads at once."""

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        """`address` as in $NOTIFY_SOCKET; `watchdog_s` is the unit's own WatchdogSec=, None: it has none."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._given = watchdog_s is not None
        self.watchdog_s = WATCHDOG_S if watchdog_s is None else watchdog_s
        self._last: float | None = None
        self._complaint = ""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(SEND_S)

    @classmethod
    def from_env(cls, env: Mapping[str, str], pid: int) -> Self | None:
        """The way to the systemd that started process `pid` as the main one of a unit; None where none did."""
        address = env.get("NOTIFY_SOCKET", "")
        # Children of the main process inherit its variables; both of these name the process they were meant for.
        others = {env.get(name) or str(pid) for name in ("SYSTEMD_EXEC_PID", "WATCHDOG_PID")} - {str(pid)}
        if address[:1] not in ("/", "@") or len(address) < 2 or others:
            return None
        text = env.get("WATCHDOG_USEC", "")
        given = int(text) / 1e6 if text.isascii() and text.isdecimal() else 0.0
        return cls(address, given or None)

    def ready(self, now: float | None = None) -> None:
        """Say that the program is ready. With `now`, a monotonic time, arm the watchdog too: `ping` it from now on."""
        text = "READY=1"
        if now is not None:
            self._last = now
            text += "\nWATCHDOG=1" if self._given else f"\nWATCHDOG_USEC={round(self.watchdog_s * 1e6)}\nWATCHDOG=1"
        self._send(text)

    def due_in_s(self, now: float) -> float:
        """Seconds until the next ping; infinite while the watchdog is not armed."""
        return float("inf") if self._last is None else self._last + self.watchdog_s / PINGS - now

    def ping(self, now: float, drain_left_s: float | None) -> None:
        """Say that the program is alive, and, while a drain has time left, that its stop may take longer."""
        self._last = now
        text = "WATCHDOG=1"
        if drain_left_s:
            # Never shorter than this, however little is left: the program wants a moment to exit in.
            text += f"\nEXTEND_TIMEOUT_USEC={round(max(EXTENSION_S, self.watchdog_s) * 1e6)}"
        self._send(text)

    def end(self, *, stopping: bool) -> None:
        """Nobody pings any more: disarm the watchdog. With `stopping` the process is about to exit."""
        if self._last is not None or stopping:
            self._send("\n".join(["STOPPING=1"] * stopping + ["WATCHDOG_USEC=0"] * (self._last is not None)))
        self._socket.close()

    def _send(self, text: str) -> None:
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("cannot tell systemd %s: %s", text.split("\n", 1)[0], error)
        else:
            self._complaint = ""

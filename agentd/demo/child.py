"""agentd as a child of the demo: its files, its start, its end.

It gets a process group of its own: a Ctrl-C on the terminal reaches the demo alone, which passes on exactly one
signal for each; two at once would tell agentd to hurry. Should the demo be killed, the kernel sends agentd that
one signal in its place.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import signal
import sys
from collections import deque
from pathlib import Path
from typing import BinaryIO

from agentd.statedir import LOCK

LOG_BYTES_MAX = 8 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
# Loaded before the fork, for little is safe to do between fork and exec.
_libc = ctypes.CDLL(None, use_errno=True)


class InUseError(Exception):
    """An agentd runs with this state directory; the text says which and what to do."""


class Agentd:
    """One run of agentd with the configuration `text` in `state_dir`."""

    def __init__(self, text: str, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.config_file = state_dir / "demo-config.yaml"
        self.log_file = state_dir / "demo.log"
        self._text = text
        self._log_start = 0
        self._lock: BinaryIO | None = None  # held until agentd has ended: from before it holds its own
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "agentd was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def prepare(self) -> None:
        """Make the state directory and write the configuration.

        Raises:
            InUseError: an agentd runs in it, or is about to; its configuration stays as it is.
            OSError: a file, which it names, cannot be written.
        """
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if holder := _lock_holder(self.state_dir / LOCK):
            raise self._in_use(f"agentd, process {holder},")
        self._take_lock(self.state_dir / "demo.lock")
        new = self.config_file.with_suffix(".new")
        try:
            new.write_text(self._text, encoding="utf-8")
            new.replace(self.config_file)
        except OSError as error:
            new.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.config_file)) from error

    def _take_lock(self, path: Path) -> None:
        lock = path.open("a+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise self._in_use("another demo") from None
        self._lock = lock

    def _in_use(self, who: str) -> InUseError:
        return InUseError(
            f"{who} already runs in {self.state_dir}; end it first (Ctrl-C where it was "
            "started), or give this one another --state-dir, --http and the ports in a --config of its own"
        )

    async def start(self) -> None:
        """Start agentd; its output is appended to `log_file`."""
        with self.log_file.open("ab") as log:
            if log.tell() > LOG_BYTES_MAX:
                log.truncate(0)
            self._log_start = self.log_file.stat().st_size
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agentd", "--config", self.config_file, "--state-dir", self.state_dir),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Its sockets beside its state, never where another agentd of the session has its own.
                env={**os.environ, "RUNTIME_DIRECTORY": str(self.state_dir / "run")},
                process_group=0,
                preexec_fn=_end_with_parent,
            )

    async def wait(self) -> int:
        """Wait for its end; the exit status, negative for a signal."""
        assert self._process is not None, "agentd was not started"
        status = await self._process.wait()
        if self._lock is not None:
            self._lock.close()
        return status

    def interrupt(self) -> None:
        """Ask it to drain and stop all its agents and to end; a second time: to hurry."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGINT)

    def last_lines(self, count: int = 20) -> list[str]:
        """The end of what this run has logged."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return [line.decode(errors="replace").rstrip("\n") for line in deque(log, maxlen=count)]


def _lock_holder(lock: Path) -> str:
    """The pid of the agentd that holds `lock`; empty when nobody does. agentd itself takes it when it starts."""
    try:
        file = lock.open("rb")
    except FileNotFoundError:
        return ""
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read(32).decode(errors="replace").strip() or "unknown"
    return ""


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)

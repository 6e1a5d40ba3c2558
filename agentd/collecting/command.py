"""`command`: the number that a program prints, for everything that has no kind of its own.

The program runs in a process group of its own, which is gone when the reading is over, however it ends. It is killed
before anybody waits for the program's exit status, so that the group's number is still its own. One that the kernel
does not let go of (it waits for a disk or a file server that does not answer) is not joined by another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess

from agentd.collecting.reading import Kind, ReadFailed, one_line
from agentd.collecting.settings import Form, Given, Setting

OUTPUT_BYTES_MAX = 64 << 10
ERRORS_BYTES_MAX = 4 << 10  # of which the last line is told
LEFT_READS_MAX = 16
CLOSE_S_MAX = 1.0  # to wait for a program that was killed
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
# What the service manager means for agentd alone, and what agentd means for agents.
_OURS = ("NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "MANAGERPID", "SYSTEMD_EXEC_PID", "FDSTORE")
_OURS_PREFIXES = ("AGENTD_", "WATCHDOG_", "LISTEN_", "MEMORY_PRESSURE_")


class CommandReader:
    """Runs `argv` for each reading, without a shell and as agentd's own user."""

    def __init__(self, given: Given) -> None:
        self._argv = given.words("argv")
        self._run: _Run | None = None

    async def read(self) -> float:
        if self._run is not None and not self._run.reaped.is_set():
            raise ReadFailed(
                f"{self._argv[0]} (pid {self._run.pid}) was killed and has not ended: it is not started again before"
            )
        run = self._run = _Run(self._argv)
        try:
            await run.ended()
        finally:
            run.kill()
        return run.number()

    async def close(self) -> None:
        if self._run is not None:
            self._run.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_S_MAX):
                    await self._run.reaped.wait()


class _Run:
    """One run of the program, whose output is taken as it comes, and whose end is heard from the kernel."""

    def __init__(self, argv: tuple[str, ...]) -> None:
        """
        Raises:
            ReadFailed: it cannot be run.
        """
        self.reaped = asyncio.Event()
        self._program = argv[0]
        self._over = asyncio.Event()
        self._output = bytearray()
        self._errors = bytearray()
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in _OURS and not name.startswith(_OURS_PREFIXES)
        }
        try:
            self._process = subprocess.Popen(
                argv,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ReadFailed(f"cannot run {argv[0]}: {(error.strerror or str(error)).lower()}") from error
        assert self._process.stdout is not None and self._process.stderr is not None
        self._out, self._err = self._process.stdout.fileno(), self._process.stderr.fileno()
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:  # no file is free
            self.kill()
            self._process.communicate()
            raise ReadFailed(f"cannot watch {argv[0]}: {(error.strerror or str(error)).lower()}") from error
        loop = asyncio.get_running_loop()
        for fd in (self._out, self._err):
            os.set_blocking(fd, False)
            loop.add_reader(fd, self._take, fd)
        loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> None:
        """Return when the program has ended, or has printed more than anybody reads."""
        await self._over.wait()

    def kill(self) -> None:
        """Kill what is left of the group. Only while the program's number is its own: `_reap` has done it before."""
        if not self.reaped.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def number(self) -> float:
        """
        Raises:
            ReadFailed: the program failed, or its first line is no number.
        """
        if len(self._output) > OUTPUT_BYTES_MAX:
            raise ReadFailed(f"{self._program} printed more than {OUTPUT_BYTES_MAX} bytes")
        code = self._process.returncode
        if code:
            how = f"ended with code {code}" if code > 0 else f"was ended by signal {-code}"
            said = one_line(_last_line(self._errors))
            raise ReadFailed(f"{self._program} {how}{f': {said}' if said else ''}")
        text = bytes(self._output).partition(b"\n")[0].decode("utf-8", "replace").strip()
        if not _NUMBER.match(text):
            printed = f"{one_line(text, 60)!r}, not a number," if text else "nothing"
            raise ReadFailed(f"{self._program} printed {printed} on its first line")
        return float(text)

    def _take(self, fd: int) -> bool:
        """Take what `fd` has; whether there may be more."""
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return False
        if not chunk:
            asyncio.get_running_loop().remove_reader(fd)
        elif fd == self._err:
            self._errors = (self._errors + chunk)[-ERRORS_BYTES_MAX:]
        elif len(self._output) <= OUTPUT_BYTES_MAX:
            self._output += chunk
            if len(self._output) > OUTPUT_BYTES_MAX:
                self._over.set()
        return bool(chunk)

    def _reap(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        self.kill()  # the others of its group; its number is its own until the next line but two
        for fd in (self._out, self._err):
            for _ in range(LEFT_READS_MAX):  # who has left the group may go on printing
                if not self._take(fd):
                    break
            loop.remove_reader(fd)
        self._process.wait()
        self.reaped.set()
        assert self._process.stdout is not None and self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()
        os.close(self._pidfd)
        self._over.set()


def _last_line(text: bytearray) -> str:
    lines = [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


KIND = Kind("command", (Setting("argv", Form.WORDS, required=True),), CommandReader)

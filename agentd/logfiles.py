"""The log files of agents: one per instance, written by the agent itself.

Owns: the names of these files, their total size, and reading from them. Never writes a line, and never touches
another file of the same directory.

An agent holds its file open with O_APPEND for as long as it lives, also while agentd is away; so a file that has
grown is copied and then truncated, never renamed. What an agent writes between the end of the copy and the
truncation (some microseconds) is lost.

    research-9101.log      what the agent writes now
    research-9101.log.1    what it wrote before; .2 is older than .1

Readers and `rotate` exclude each other by a lock on the directory, so that another process than the daemon may read.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import stat
from collections.abc import AsyncGenerator, Collection, Iterator
from contextlib import aclosing, contextmanager, suppress
from itertools import pairwise
from pathlib import Path

from msgspec import Struct

from agentd import log
from agentd.core.model import parse_instance_id

MIB = 1024 * 1024
CHUNK_BYTES = 64 * 1024
TAIL_BYTES_MAX = 4 * MIB
"""`tail` gives no more than about this, however many lines are asked for."""

_log = log.get("logs")
_OURS = re.compile(r"\.?([^.]+)\.log(\.[0-9]+|\.copy)?\Z")


class _Place(Struct):
    """Where a reader is: in the log itself, or still in its newest copy, which was the log until a rotation."""

    offset: int
    copy: tuple[int, int] | None  # the identity of the newest copy when the reader last looked
    in_copy: bool = False


class LogFiles(Struct, frozen=True):
    """The logs in `directory`, each with `keep` older copies.

    A log is rotated above `bytes_max`; of one that has grown beyond twice that only so much is copied, from its end.
    Logs of instances that are gone are pruned: those not written to for `gone_s_max` seconds, and the oldest first
    beyond `total_bytes_max`. The bounds hold after each `rotate` and `prune`; between them files grow freely.
    """

    directory: Path
    bytes_max: int = 16 * MIB
    keep: int = 2
    total_bytes_max: int = 1024 * MIB
    gone_s_max: float = 7 * 86400.0

    def path(self, instance: str) -> Path:
        """The file that `instance` writes to.

        Raises:
            ValueError: `instance` is no instance id.
        """
        parse_instance_id(instance)
        return self.directory / f"{instance}.log"

    # -- bounds ---------------------------------------------------------------------------------

    def rotate(self) -> tuple[str, ...]:
        """Copy and truncate every log larger than `bytes_max`; the instances whose log was.

        What cannot be copied (the disk is full) is truncated all the same: the bound is worth more than the lines.
        Blocks for the time of copying (10 ms for 16 MiB in the page cache): run it in a thread.

        Raises:
            OSError: a log cannot be truncated; the others were seen to.
        """
        rotated = []
        failed: OSError | None = None
        for path, instance, suffix in self._files():
            try:
                if not suffix and path.stat().st_size > self.bytes_max:
                    with self._locked(fcntl.LOCK_EX):
                        self._copy_and_truncate(instance)
                    rotated.append(instance)
            except FileNotFoundError:
                continue
            except OSError as error:
                failed = failed or error
        if failed is not None:
            raise failed
        return tuple(rotated)

    def prune(self, live: Collection[str], wall: float) -> tuple[Path, ...]:
        """Remove logs and copies of instances that are not in `live`, by age at `wall` and by total size."""
        total_bytes = 0
        gone = []
        for path, instance, _ in self._files():
            with suppress(FileNotFoundError):
                status = path.stat()
                total_bytes += status.st_size
                if instance not in live:
                    gone.append((status.st_mtime, path, status.st_size))
        removed = []
        for written, path, size in sorted(gone):
            if wall - written > self.gone_s_max or total_bytes > self.total_bytes_max:
                path.unlink(missing_ok=True)
                removed.append(path)
                total_bytes -= size
        return tuple(removed)

    def _copy_and_truncate(self, instance: str) -> None:
        path = self.path(instance)
        fresh = self.directory / f".{instance}.log.copy"
        with path.open("r+b") as source:
            copied = self.keep > 0 and self._copy_end(instance, source.fileno(), fresh)
            source.truncate(0)
        if not copied:
            return
        copies = self._copies(instance)
        for newer, older in reversed(list(pairwise(copies))):
            with suppress(FileNotFoundError):
                newer.replace(older)
        fresh.replace(copies[0])

    def _copy_end(self, instance: str, source: int, fresh: Path) -> bool:
        """Copy the end of `source` to `fresh`; False, and nothing of a copy is left, where that cannot be done."""
        start = max(0, os.fstat(source).st_size - self._copy_bytes_max)
        try:
            with fresh.open("wb") as target:
                os.fchmod(target.fileno(), stat.S_IMODE(os.fstat(source).st_mode))
                _copy(source, target.fileno(), start, self._copy_bytes_max)
        except OSError as error:
            _log.warning("log truncated without a copy", instance=instance, cause=error)
            with suppress(OSError):  # it may be what made the copy fail
                fresh.unlink(missing_ok=True)
            return False
        return True

    # -- reading --------------------------------------------------------------------------------

    async def has(self, instance: str) -> bool:
        """Whether `instance` has a log.

        Raises:
            ValueError: `instance` is no instance id.
        """
        return self.path(instance).exists()

    async def read(self, instance: str, lines: int, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """`follow`, or `tail` in a thread.

        Raises:
            ValueError: `instance` is no instance id.
            FileNotFoundError: `instance` has no log.
        """
        if not follow:
            yield await asyncio.to_thread(self.tail, instance, lines)
            return
        async with aclosing(self.follow(instance, lines)) as pieces:
            async for piece in pieces:
                yield piece

    def tail(self, instance: str, lines: int) -> bytes:
        """The last `lines` lines of `instance`, reaching into older copies; an unfinished last line counts as one.

        Raises:
            ValueError: `instance` is no instance id.
            FileNotFoundError: `instance` has no log.
        """
        return self._locked_tail(instance, lines)[0]

    async def follow(self, instance: str, lines: int, *, poll_s: float = 0.2) -> AsyncGenerator[bytes, None]:
        """`tail`, and then what is written from then on, in pieces of any size; ends when the log is removed.

        Looks every `poll_s`. A rotation loses nothing to the reader unless the log had grown beyond twice
        `bytes_max`, or was rotated twice between two looks.

        Raises:
            ValueError: `instance` is no instance id.
            FileNotFoundError: `instance` has no log.
        """
        piece, place = await asyncio.to_thread(self._locked_tail, instance, lines)  # may wait for a rotation
        while True:
            if piece:
                yield piece
            else:
                await asyncio.sleep(poll_s)
            try:
                with self._locked(fcntl.LOCK_SH | fcntl.LOCK_NB):
                    piece = self._next_piece(instance, place)
            except BlockingIOError:  # being rotated
                piece = b""
            except FileNotFoundError:
                return

    def _locked_tail(self, instance: str, lines: int) -> tuple[bytes, _Place]:
        with self._locked(fcntl.LOCK_SH):
            return self._tail(instance, lines)

    def _tail(self, instance: str, lines: int) -> tuple[bytes, _Place]:
        path = self.path(instance)
        place = _Place(path.stat().st_size, self._newest_copy(instance))
        parts: list[bytes] = []
        newlines = 0
        for source in (path, *self._copies(instance)):
            with suppress(FileNotFoundError), source.open("rb") as file:
                end = place.offset if source == path else file.seek(0, os.SEEK_END)
                while end > 0 and newlines <= lines and len(parts) * CHUNK_BYTES < TAIL_BYTES_MAX:
                    start = max(0, end - CHUNK_BYTES)
                    file.seek(start)
                    parts.append(file.read(end - start))
                    newlines += parts[-1].count(b"\n")
                    end = start
        return _last_lines(b"".join(reversed(parts)), lines), place

    def _next_piece(self, instance: str, place: _Place) -> bytes:
        """Up to CHUNK_BYTES of what follows `place`, which is moved behind it; empty where nothing follows yet."""
        newest = self._newest_copy(instance)
        if newest != place.copy:
            place.copy = newest
            cut = newest is not None and self._copies(instance)[0].stat().st_size >= self._copy_bytes_max
            place.in_copy = not cut and not place.in_copy
            if not place.in_copy:
                place.offset = 0
        if place.in_copy:
            piece = _read_at(self._copies(instance)[0], place.offset)
            if piece:
                place.offset += len(piece)
                return piece
            place.in_copy = False
            place.offset = 0
        path = self.path(instance)
        if path.stat().st_size < place.offset:  # truncated by a person
            place.offset = 0
        piece = _read_at(path, place.offset)
        place.offset += len(piece)
        return piece

    # -- names ----------------------------------------------------------------------------------

    @property
    def _copy_bytes_max(self) -> int:
        return 2 * self.bytes_max

    def _copies(self, instance: str) -> list[Path]:
        """Where the older copies are, if they are; the newest first."""
        return [self.directory / f"{instance}.log.{number}" for number in range(1, self.keep + 1)]

    def _newest_copy(self, instance: str) -> tuple[int, int] | None:
        """What tells one newest copy from the next."""
        if not self.keep:
            return None
        try:
            status = self._copies(instance)[0].stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _files(self) -> Iterator[tuple[Path, str, str]]:
        """Our files, by name: path, instance, and what follows `.log`."""
        names = sorted(os.listdir(self.directory)) if self.directory.is_dir() else []
        for name in names:
            found = _OURS.match(name)
            if found and _is_instance(found[1]):
                yield self.directory / name, found[1], found[2] or ""

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        """Hold the directory's lock.

        Raises:
            BlockingIOError: `operation` has LOCK_NB, and somebody else holds it.
        """
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, operation)
            yield
        finally:
            os.close(directory)


def _is_instance(text: str) -> bool:
    try:
        parse_instance_id(text)
    except ValueError:
        return False
    return True


def _copy(source: int, target: int, offset: int, bytes_max: int) -> None:
    end = offset + bytes_max
    while offset < end and (sent := os.sendfile(target, source, offset, min(MIB, end - offset))):
        offset += sent


def _read_at(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)


def _last_lines(text: bytes, lines: int) -> bytes:
    at = len(text) - text.endswith(b"\n")
    for _ in range(lines):
        at = text.rfind(b"\n", 0, at)
        if at < 0:
            return text
    return text[at + 1 :]

"""The files of a recording: one directory of segments, each complete in itself, numbered in the order of writing.

A segment is a gzip file of JSON lines. The first is its header: what wrote it, the configuration, and the controller's
state. Each line after that is `[at, name, fields]` of an event, with what came of it as a fourth where that is more
than "go on", or `[at, "+...", value]` of something else (`LINES`). `at` is monotonic.

What a clock said is in their names for people. It may be wrong, and set, and decides neither their order nor, by one
look or one segment alone, which of them is too old.

agentd may be killed at any moment, and the machine with it: a segment is read up to where it is torn. `zcat` shows it.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct

from agentd.errors import AgentdError

FORMAT = 1
DIRECTORY = "recording"
SUFFIX = ".jsonl.gz"
OWNER = "agentd recording"
# Lines that are no events: what the driver can run, the wall time at monotonic zero, and that nothing follows.
CAPACITY, WALL, END = "+capacity", "+wall", "+end"
LINES = (CAPACITY, WALL, END)

# So many segments that have ended must have been written last when others were too old already, for these to go.
CONFIRMED_BY = 2

_NUMBER = re.compile(r"(\d+)-")
_MAGIC = b"\x1f\x8b"
_GZIP = 16 + zlib.MAX_WBITS
_CHUNK_BYTES = 256 * 1024
_PART_BYTES = 16 * 1024


class RecordingError(AgentdError):
    """What was given is no recording that can be read."""


class TornError(RecordingError):
    """A segment that ends within its first line: agentd was killed, or its disk full, as it began."""


class Line(Struct, frozen=True):
    """One line after the header, at the monotonic `at`. `told`: what came of it; None: go on."""

    at: float
    name: str
    value: Any
    told: dict[str, Any] | None = None


class Segment:
    """A segment that is there. `torn` says why it has no end, as soon as all its lines have been read."""

    def __init__(self, path: Path) -> None:
        """Raises:
        RecordingError: it cannot be read, is something else, or a newer agentd wrote it; a TornError: nothing is in it.
        """
        self.path = path
        self.torn = ""
        self._lines = self._read()
        first = next(self._lines, None)
        if first is None and _MAGIC.startswith(path.read_bytes()[: len(_MAGIC)]):
            raise TornError("it ends within its first line: agentd was killed, or its disk full, as it began")
        try:
            self.header: dict[str, Any] = json.loads(first or b"")
        except ValueError as error:
            raise RecordingError(f"{path} is no recording of agentd") from error
        if not isinstance(self.header, dict) or self.header.get("owner") != OWNER:
            raise RecordingError(f"{path} is no recording of agentd")
        if self.header.get("format") != FORMAT:
            known = f"form {self.header.get('format')!r}, this one knows {FORMAT}"
            raise RecordingError(f"cannot read {path}: another agentd wrote it ({known}); use that one's agentctl")

    @property
    def wall(self) -> float:
        """When it begins."""
        return float(self.header["wall"])

    def lines(self) -> Iterator[Line]:
        """All lines after the header, once, in their order, up to the first that is none.

        Raises:
            RecordingError: the file cannot be read any more.
        """
        ended = False
        for number, text in enumerate(self._lines, 2):
            try:
                at, name, value, *told = json.loads(text)
                line = Line(float(at), str(name), value, told[0] if told else None)
            except (ValueError, TypeError):
                self.torn = f"it is damaged: line {number} is no line of a recording"
                return
            ended = line.name == END
            yield line
        if not ended and not self.torn:
            self.torn = "it has no end: agentd writes it now, or was killed while it did"

    def _read(self) -> Iterator[bytes]:
        """The lines; what is behind a tear is left out."""
        inflate = zlib.decompressobj(_GZIP)
        rest = b""
        try:
            with self.path.open("rb") as file:
                while chunk := inflate.unconsumed_tail or file.read(_CHUNK_BYTES):
                    # Little by little: what comes of one call is lost where the file is damaged.
                    *lines, rest = (rest + inflate.decompress(chunk, _PART_BYTES)).split(b"\n")
                    yield from lines
        except OSError as error:
            raise RecordingError(f"cannot read {self.path}: {error.strerror}") from error
        except zlib.error as error:
            self.torn = f"it is damaged: {error}"
            return
        if rest:
            self.torn = "its last line is torn: agentd was killed while it wrote"


def listed(place: Path) -> list[Path]:
    """The segments in the directory `place`, oldest first; `place` itself where it is a file.

    Raises:
        RecordingError: there is none.
    """
    if place.is_file():
        return [place]
    try:
        found = _in_order(place)
    except OSError as error:
        raise RecordingError(f"cannot read {place}: {error.strerror}") from error
    if not found:
        raise RecordingError(f"there is no recording in {place}")
    return found


def next_path(directory: Path, wall: float) -> Path:
    """Of a segment that begins at `wall`: behind all that are there."""
    number = max((_number(path) for path in _in_order(directory)), default=0) + 1
    return directory / f"{number:06}-{datetime.fromtimestamp(wall, UTC):%Y%m%dT%H%M%S}{SUFFIX}"


def _in_order(directory: Path) -> list[Path]:
    """The segments, oldest first."""
    return sorted(
        (path for path in directory.iterdir() if path.name.endswith(SUFFIX)),
        key=lambda path: (_number(path), path.name),
    )


def _number(path: Path) -> int:
    """0: an agentd wrote it that did not number them."""
    found = _NUMBER.match(path.name)
    return int(found[1]) if found else 0


class SegmentFile:
    """A segment that is being written. Every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._deflate = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def packed(self, lines: list[str], *, end: bool = False) -> bytes:
        """What is to be written for `lines`, so that a reader finds all of them. In the order of the calls."""
        text = "".join(f"{line}\n" for line in lines).encode()
        return self._deflate.compress(text) + self._deflate.flush(zlib.Z_FINISH if end else zlib.Z_SYNC_FLUSH)

    def write(self, packed: bytes) -> None:
        view = memoryview(packed)
        while view:
            count = os.write(self._file, view)
            self.bytes += count
            view = view[count:]

    def close(self) -> None:
        os.close(self._file)


def make_room(
    directory: Path, keep: Path | None, needed: int, bytes_max: int, *, wall: float, age_s_max: float
) -> None:  # fmt: skip
    """Delete the oldest segments but `keep` until `needed` more bytes fit, and all that are too old at `wall`.

    Raises:
        OSError: they do not fit.
    """
    found = [(path, path.stat()) for path in _in_order(directory)]
    total = sum(info.st_size for _, info in found) + needed
    ended = [(path, info) for path, info in found if path != keep]
    aged = _aged([info.st_mtime for _, info in ended], wall, age_s_max)
    for number, (path, info) in enumerate(ended):
        if total > bytes_max or number < aged:
            path.unlink()
            total -= info.st_size
    if total > bytes_max:
        raise OSError(0, f"{bytes_max} bytes are too few for one segment: raise history.record_max")


def _aged(written: list[float], wall: float, age_s_max: float) -> int:
    """How many of the oldest are too old, by when each was written last.

    The latest must say so too: a clock may be wrong at `wall`, and as one was written. So may it have been when others
    were; only what is older than all that stays goes.
    """
    latest = written[-CONFIRMED_BY:]
    if len(latest) < CONFIRMED_BY:
        return 0
    wall = min(wall, *latest)
    aged = 0
    for number, at in enumerate(written, 1):
        if at < wall - age_s_max:
            aged = number
        elif at <= wall:  # what is ahead says nothing
            break
    return aged

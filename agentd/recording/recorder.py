"""A controller that writes down what reaches it and what comes of it.

Owns the directory of the recording and one thread, which makes text of what was taken down, compresses and writes it;
a step only puts a few references aside. No trouble of the disk is one of the fleet's: recording ends, says why, and is
tried again later with a new segment.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from msgspec import Struct
from msgspec.structs import replace

from agentd.clock import Clock
from agentd.core.controller import Controller
from agentd.core.messages import ConfigChanged, Event, Outcome
from agentd.core.model import Decision, FleetConfig
from agentd.recording import codec, configurations, told
from agentd.recording.segments import CAPACITY, END, FORMAT, OWNER, WALL, SegmentFile, make_room, next_path
from agentd.recording.whole import Whole, WholeController

SEGMENT_BYTES_MAX = 8 * 1024 * 1024
SEGMENT_S_MAX = 3600.0
# What was taken down is written so often: as much is lost when agentd is killed.
FLUSH_S = 2.0
# Steps that wait for the thread; more, and the disk does not keep up.
WAITING_MAX = 50_000
RETRY_S = 60.0
# The disk belongs to the agents, and to what agentd must not lose.
FREE_BYTES_MIN = 256 * 1024 * 1024
# So much may the wall clock wander against the monotonic one before that is worth a line.
WALL_S = 0.01

_EVENTS = {kind.__name__: codec.coder(kind) for kind in get_args(Event)}


class Bounds(Struct, frozen=True):
    """What a recording may take; the oldest segment goes first. `bytes_max` is never exceeded."""

    bytes_max: int = 256 * 1024 * 1024
    days: float = 7.0
    free_bytes_min: int = FREE_BYTES_MIN
    segment_bytes_max: int = SEGMENT_BYTES_MAX

    @property
    def segment_bytes(self) -> int:
        """So large a segment ends; small ones let the oldest go little by little."""
        return min(self.segment_bytes_max, self.bytes_max // 8)


class _Begin(Struct, frozen=True):
    """A segment begins here."""

    at: float
    wall: float
    epoch: int
    config: FleetConfig
    whole: Whole


class _Step(Struct, frozen=True):
    """`outcome`: what came of `event`, or what it failed with."""

    at: float
    event: Event
    outcome: Outcome | Exception
    evaluated: tuple[Decision, ...]
    go_on: Outcome


class _Other(Struct, frozen=True):
    """A line that is no event; without a name: what follows does not belong to the segment any more."""

    at: float
    name: str
    value: float | None


class Recorder:
    """Takes down what one controller lives through. `begin`, `note` and `add` belong to one thread, the loop's.

    `on_trouble` is called there with a sentence when recording has stopped, and with an empty text when it goes on.
    """

    def __init__(
        self, directory: Path, bounds: Bounds, clock: Clock, *, version: str,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self.on_trouble = on_trouble
        self._directory = directory
        self._bounds = bounds
        self._clock = clock
        self._version = version
        self._salt = os.urandom(16)
        self._items: deque[_Begin | _Step | _Other] = deque()
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._writing = threading.Lock()  # whoever holds it may touch the file; the loop never waits for it
        self._thread: threading.Thread | None = None
        self._began: float | None = None  # the open segment, as far as the loop knows
        self._retry_at = 0.0
        self._offset = 0.0
        self._told = ""
        # Of the writing side; the loop looks at the first two. What the segment that began then has come to.
        self._failed = ""
        self._size = (0.0, 0)
        self._file: SegmentFile | None = None
        self._began_at = self._last_at = 0.0

    # -- on the loop ----------------------------------------------------------------------------

    def is_due(self, now: float) -> bool:
        """Whether a segment is to begin before the next step."""
        if self._failed or len(self._items) > WAITING_MAX:
            self._stop(now)
        if self._began is None:
            return now >= self._retry_at
        began, size = self._size
        if self._told and began == self._began:
            self._tell("")
        return (began == self._began and size >= self._bounds.segment_bytes) or now - self._began >= SEGMENT_S_MAX

    def begin(self, now: float, config: FleetConfig, whole: Whole, epoch: int) -> None:
        """A segment begins: all that comes until the next one can be run again from `whole`."""
        wall = self._clock.wall()
        self._began, self._offset = now, wall - now
        self._items.append(_Begin(now, wall, epoch, config, whole))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
            self._thread.start()
        self._wake.set()

    def note(
        self, now: float, event: Event, outcome: Outcome | Exception, evaluated: tuple[Decision, ...], go_on: Outcome
    ) -> None:
        """`event` came at `now`, and this came of it."""
        if self._began is None:
            return
        offset = self._clock.wall() - now
        if abs(offset - self._offset) > WALL_S:
            self._offset = offset
            self._items.append(_Other(now, WALL, round(offset, 3)))
        self._items.append(_Step(now, event, outcome, evaluated, go_on))
        if not self._wake.is_set():
            self._wake.set()

    def add(self, name: str, value: int | None) -> None:
        """Something that decides and is no event."""
        if self._began is not None:
            self._items.append(_Other(self._clock.now(), name, value))

    def _stop(self, now: float) -> None:
        """Nothing is taken down until it is tried again."""
        text = self._failed or f"more than {WAITING_MAX} steps wait for the disk"
        self._items.clear()
        self._items.append(_Other(now, "", None))
        self._failed = ""
        self._began, self._retry_at = None, now + RETRY_S
        self._tell(f"nothing is recorded for replays: {text}")

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self.on_trouble(text)

    # -- either side ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what was taken down until now."""
        with self._writing:
            self._write_all()

    def close(self) -> None:
        """Write what is left, and the end of the segment."""
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        with self._writing:
            self._write_all(end=True)

    # -- on the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ending.is_set():
            self._wake.wait()
            self._ending.wait(FLUSH_S)  # meanwhile more comes together
            self._wake.clear()
            self.flush()

    def _next(self) -> _Begin | _Step | _Other | None:
        try:  # the loop may have taken it back
            return self._items.popleft()
        except IndexError:
            return None

    def _write_all(self, *, end: bool = False) -> None:
        try:
            lines: list[str] = []
            while (item := self._next()) is not None:
                if isinstance(item, _Begin):
                    self._write(lines, end=True)
                    lines = [self._open(item)]
                elif isinstance(item, _Other) and not item.name:
                    lines = []
                    self._abandon()
                else:
                    lines.append(self._line(item))
                self._last_at = item.at
            self._write(lines, end=end)
        except OSError as error:
            self._failed = f"cannot write to {self._directory}: {error.strerror or error}"
        except Exception as error:  # a mistake of ours in here must not cost more than the recording
            self._failed = f"{type(error).__name__}: {error}"
        if self._failed:
            self._abandon()

    def _open(self, item: _Begin) -> str:
        """A new file; its first line."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._look_at_the_disk()
        path = next_path(self._directory, item.wall)
        self._file, self._began_at = SegmentFile(path), item.at
        removed = configurations.hidden_in(item.whole.removed, self._salt)
        config = configurations.hidden(item.config, self._salt)
        return codec.text(
            {
                "owner": OWNER, "format": FORMAT, "version": self._version, "epoch": item.epoch, "at": item.at,
                "wall": item.wall, "config": codec.encode(FleetConfig, config),
                "state": codec.encode(Whole, replace(item.whole, removed=removed)),
            }
        )  # fmt: skip

    def _line(self, item: _Step | _Other) -> str:
        if isinstance(item, _Other):
            return codec.text([item.at, item.name, item.value])
        event, outcome = item.event, item.outcome
        if isinstance(event, ConfigChanged):
            event = ConfigChanged(configurations.hidden(event.config, self._salt))
        name = type(event).__name__
        line: list[Any] = [item.at, name, _EVENTS[name].encode(event)]
        if isinstance(outcome, Exception):
            line.append(told.raised(outcome))
        elif (came := told.told(outcome, item.evaluated, item.go_on)) is not None:
            line.append(came)
        return codec.text(line)

    def _write(self, lines: list[str], *, end: bool) -> None:
        if self._file is None or not (lines or end):
            return
        if end:
            lines.append(codec.text([self._last_at, END, None]))
        packed = self._file.packed(lines, end=end)
        make_room(
            self._directory, self._file.path, len(packed), self._bounds.bytes_max,
            wall=self._clock.wall(), age_s_max=self._bounds.days * 86_400.0,
        )  # fmt: skip
        self._look_at_the_disk()
        self._file.write(packed)
        self._size = self._began_at, self._file.bytes
        if end:
            self._abandon()

    def _look_at_the_disk(self) -> None:
        if shutil.disk_usage(self._directory).free < self._bounds.free_bytes_min:
            least = self._bounds.free_bytes_min // (1024 * 1024)
            raise OSError(0, f"less than {least} MiB of the disk are free")

    def _abandon(self) -> None:
        """Nothing more goes into the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
                if not self._file.bytes:
                    self._file.path.unlink()
        self._file = None


class RecordedController(WholeController):
    """A controller all of whose steps go to `recorder`."""

    recorder: Recorder

    @classmethod
    def of(cls, config: FleetConfig, epoch: int, recorder: Recorder) -> RecordedController:
        controller = cls(config, epoch)
        controller.recorder = recorder
        return controller

    def step(self, event: Event, now: float) -> Outcome:
        recorder = self.recorder
        if recorder.is_due(now):
            recorder.begin(now, self._fleet.config, self.whole(), self._fleet.epoch)
        try:
            outcome, evaluated = self.step_seen(event, now)
        except Exception as error:  # what it fails of is worth the most
            recorder.note(now, event, error, (), self.says_go_on)
            raise
        recorder.note(now, event, outcome, evaluated, self.says_go_on)
        return outcome

    def set_capacity(self, instances_max: int | None) -> None:
        """As of any controller."""
        Controller.set_capacity(self, instances_max)
        self.recorder.add(CAPACITY, instances_max)

"""A recording run again through the controller: every message from the segment's state on, and what differs.

Each segment is run by itself. What comes of a step is compared with what came of it then: what was evaluated, decided,
told, asked of the driver and answered, and the controller's state where the same version of agentd wrote it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from msgspec import Struct

from agentd.core.messages import Event, Tick
from agentd.core.model import FleetConfig
from agentd.recording import codec, told
from agentd.recording.segments import CAPACITY, LINES, WALL, Line, RecordingError, Segment, TornError
from agentd.recording.told import ERROR, EVALUATED, STATE, first_difference
from agentd.recording.whole import Whole, WholeController

_EVENTS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Event)}


class Difference(Struct, frozen=True):
    """The first one of a segment: in the message at the wall time `wall`, at `place` of what came of it."""

    wall: float
    message: str
    place: str
    recorded: object
    now: object


class Rerun(Struct):
    """What came of one segment, of the messages within the time that was asked for.

    `torn`: why the segment ends before its end, empty where it does not. `stopped`: why the replay did.
    """

    path: Path
    began: float
    version: str
    ended: float = 0.0
    messages: int = 0
    differing: int = 0
    evaluations: int = 0
    same: int = 0
    torn: str = ""
    stopped: str = ""
    first: Difference | None = None


def rerun(path: Path, *, version: str, since: float | None = None, until: float | None = None) -> Rerun | None:
    """Run the segment at `path` again; `since` and `until` are wall times. None: it is of another time.

    Raises:
        RecordingError, codec.CodecError: it cannot be read.
    """
    try:
        segment = Segment(path)
    except TornError as error:
        written = path.stat().st_mtime
        return Rerun(path, written, "", written, torn=str(error))
    header = segment.header
    try:
        epoch, offset, wrote = int(header["epoch"]), segment.wall - float(header["at"]), str(header["version"])
        config = codec.decode(FleetConfig, header["config"])
        whole = codec.decode(Whole, header["state"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"cannot read the first line of {path}: {error}") from error
    last_at = math.inf if until is None else _last_at(path, offset, until)
    if last_at == -math.inf:
        return None
    controller = WholeController.from_whole(config, whole, epoch)
    made = Rerun(path, segment.wall, wrote, segment.wall)
    for line in segment.lines():
        if line.name == WALL:
            offset = float(line.value)
        wall = line.at + offset
        if line.at > last_at:
            break
        if line.name == CAPACITY:
            controller.set_capacity(line.value)
        if line.name in LINES:
            continue
        event = _event(path, line)
        came = _step(controller, event, line.at)
        if (since is None or wall >= since) and (until is None or wall <= until):
            made.ended = wall
            _compare(made, line, wall, came, states=wrote == version)
        if came is not None and ERROR in came:
            made.stopped = f"agentd failed: {came[ERROR]}"
            break
    else:
        made.torn = segment.torn
    return made if made.messages or since is None or segment.wall >= since else None


def from_time(paths: list[Path], since: float | None, until: float | None = None) -> Iterator[Path]:
    """Those of `paths`, oldest first, that may have something from the wall time `since` on, and until `until`.

    A clock that was set back while a segment was written let it reach further than to where the next one begins, and
    have something from before it began.
    """
    begins = [None if since is None and until is None else _begin(path) for path in paths]
    for path, begun, following in zip(paths, begins, [*begins[1:], None], strict=True):
        if begun is None or following is None:
            yield path
            continue
        late_enough = since is None or _latest(begun, following) >= since
        early_enough = until is None or _earliest(begun, following) <= until
        if late_enough and early_enough:
            yield path


class _Beginning(Struct, frozen=True):
    """Of a segment: of which run of agentd, and when by both clocks."""

    epoch: object
    at: float
    wall: float


def _begin(path: Path) -> _Beginning | None:
    """None: it does not say."""
    try:
        segment = Segment(path)
        return _Beginning(segment.header["epoch"], float(segment.header["at"]), segment.wall)
    except (TornError, KeyError, TypeError, ValueError):  # of the latter `rerun` tells
        return None


def _latest(begun: _Beginning, following: _Beginning) -> float:
    """The latest wall time in a segment before `following`. Of another run of agentd nobody knows how it ended."""
    if begun.epoch != following.epoch:
        return math.inf
    return following.wall + max(0.0, (begun.wall - begun.at) - (following.wall - following.at))


def _earliest(begun: _Beginning, following: _Beginning) -> float:
    """The earliest wall time in a segment before `following`. Of another run of agentd nobody knows how it ended."""
    if begun.epoch != following.epoch:
        return -math.inf
    return begun.wall - max(0.0, (begun.wall - begun.at) - (following.wall - following.at))


def _last_at(path: Path, offset: float, until: float) -> float:
    """When the last line of the segment at `path` came, monotonic, that is not later than the wall time `until`.

    Lines before it may be later: a clock was set back meanwhile. Without one: before all times.
    """
    found = -math.inf
    for line in Segment(path).lines():
        if line.name == WALL:
            offset = float(line.value)
        if line.at + offset <= until:
            found = line.at
    return found


def _event(path: Path, line: Line) -> Event:
    kind = _EVENTS.get(line.name)
    if kind is None:
        raise RecordingError(f"cannot read {path}: there is no message {line.name!r}; a newer agentd wrote it")
    event: Event = codec.decode(kind, line.value)
    return event


def _step(controller: WholeController, event: Event, now: float) -> dict[str, Any] | None:
    try:
        outcome, evaluated = controller.step_seen(event, now)
    except Exception as error:  # what agentd failed of then, it fails of again
        return told.raised(error)
    came = told.told(outcome, evaluated, controller.says_go_on)
    value: dict[str, Any] | None = None if came is None else json.loads(codec.text(came))
    return value


def _compare(made: Rerun, line: Line, wall: float, came: dict[str, Any] | None, *, states: bool) -> None:
    then, now = line.told or {}, came or {}
    if not states:
        then, now = ({name: item for name, item in one.items() if name != STATE} for one in (then, now))
    made.messages += 1
    made.evaluations += len(then.get(EVALUATED, ()))
    made.same += sum(one in now.get(EVALUATED, ()) for one in then.get(EVALUATED, ()))
    if then != now:
        made.differing += 1
        found = first_difference(then, now)
        if made.first is None and found is not None:
            made.first = Difference(wall, _shown(line), *found)


def _shown(line: Line) -> str:
    if line.name == Tick.__name__:
        return "a tick"
    value = line.value if isinstance(line.value, dict) else {}
    about = value.get("instance") or value.get("pool")
    return f"{line.name} of {about}" if isinstance(about, str) else line.name

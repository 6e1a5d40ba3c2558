"""`agentctl replay`: stored decisions and full recordings made again, and what differs."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentd import __version__
from agentd.agentctl.command import FAILED, NO_DAEMON, USAGE, Command, Failure, Session, show_json
from agentd.agentctl.terminal import show, styled, text_width
from agentd.agentctl.text import moment, plural, printable, wrapped
from agentd.agentctl.when import Moment

if TYPE_CHECKING:
    from agentd.core.model import FleetConfig
    from agentd.recording.rerun import Rerun
    from agentd.recording.stored import Again

_ID = re.compile(r"[0-9]+-[0-9]+")
_FILE = click.Path(path_type=Path, readable=False)
# Of one side of a difference.
_SHOWN_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be made again: of which state directory or file, and of what time."""

    place: Path
    ident: str
    pool: str
    since: float | None
    until: float | None
    only: str | None
    config_file: Path | None

    @property
    def decisions(self) -> bool:
        return not self.is_recording and self.only != "recording"

    @property
    def recording(self) -> bool:
        return self.is_recording or not (self.is_store or self.ident or self.pool or self.only == "decisions")

    @property
    def is_store(self) -> bool:
        return self.place.is_file() and self.place.suffix == ".db"

    @property
    def is_recording(self) -> bool:
        """The place is a recording itself, and no state directory."""
        return (self.place.is_file() and not self.is_store) or (
            self.place.is_dir() and not (self.place / "agentd.db").exists() and any(self.place.glob("*.jsonl.gz"))
        )


@dataclass(slots=True)
class _Decisions:
    """What came of the stored decisions."""

    total: int = 0
    same: int = 0
    different: list[Again] = field(default_factory=list)
    cannot: dict[str, int] = field(default_factory=dict)  # why, and how many


@click.command(
    cls=Command,
    examples=(
        "agentctl replay",
        "agentctl replay 1763820000-12",
        "agentctl replay --from 12:00 --to 12:30 --only recording",
        "agentctl replay /var/lib/agentd --pool research --json",
        "agentctl replay 20260131T110000.000-1763820000.jsonl.gz",
    ),
)
@click.argument("what", metavar="ID|PATH", required=False)
@click.option(
    "--from", "since", type=Moment(), help="Only what came then or later: 12:03, 2026-01-31T12:03, 10m (ago)."
)
@click.option("--to", "until", type=Moment(), help="Only what came until then.")
@click.option("--pool", default="", help="Only stored decisions on this pool.")
@click.option("--only", type=click.Choice(["decisions", "recording"]), help="Default: both, as far as they are there.")
@click.option("--state-dir", type=_FILE, help="Where agentd keeps its state. Default: the running agentd's.")
@click.option("--config", "config_file", type=_FILE, help="For decisions that were stored without their configuration.")
@click.pass_obj
def replay(
    session: Session, what: str | None, since: float | None, until: float | None, pool: str, only: str | None,
    state_dir: Path | None, config_file: Path | None,
) -> int:  # fmt: skip
    """Make decisions again from what they were made from, and tell whether they come out the same.

    Stored decisions are each made again by the code that decides, under the configuration of their time. A full
    recording (history.record: full) is run again through the whole controller, message by message, and all that came
    of it is compared: evaluations, also those that changed nothing, starts and stops, records and answers.

    Without an argument all of that in the state directory; or one decision by its id, or what lies at a path: a state
    directory, its agentd.db, a directory of recordings or one file of them. agentd need not run.

    Exit code 1: something came out otherwise, or nothing could be made again.
    """
    if since is not None and until is not None and since > until:
        raise click.UsageError("--from is later than --to")
    ident = what if what is not None and _ID.fullmatch(what) and not Path(what).exists() else ""
    if what and not ident and state_dir is not None:
        raise click.UsageError(f"{what!r} is a path, and so is --state-dir: give one")
    place = Path(what) if what and not ident else state_dir or _state_dir(session)
    if not os.path.lexists(place) and os.access(place.parent, os.X_OK):
        expected = "a decision's id as `agentctl explain` shows it, or a path" if what and not ident else "--state-dir"
        raise Failure(f"cannot replay {place}: it does not exist; expected {expected}", USAGE if what else FAILED)
    since = None if since is None else math.floor(since)  # times are given to the second
    return _run(session, _Wish(place, ident, pool, since, until, only, config_file))


def _run(session: Session, wish: _Wish) -> int:
    from agentd.errors import AgentdError

    try:
        if not os.access(wish.place, os.R_OK):
            raise PermissionError(13, "permission denied", str(wish.place))
        decisions = _decisions(wish) if wish.decisions else None
        segments = list(_segments(wish, needed=decisions is None)) if wish.recording else []
    except AgentdError as error:
        raise Failure(str(error)) from error
    except PermissionError as error:
        raise Failure(f"cannot read {error.filename}: permission denied; run it as root or as agentd's user") from error
    if wish.ident and decisions is not None and not decisions.total:
        raise Failure(f"there is no decision {wish.ident} in {wish.place}: it was never made, or is not kept any more")
    if session.json:
        show_json(
            {
                "decisions": None if decisions is None else _decisions_value(decisions),
                "recording": [_segment_value(one) for one in segments],
            }
        )
    else:
        show([*_decision_lines(decisions, wish), *_segment_lines(segments, wish)])
    made = (decisions.total if decisions else 0) + sum(one.messages for one in segments)
    failed = bool(decisions and (decisions.different or (decisions.cannot and not decisions.same)))
    return FAILED if failed or any(one.first for one in segments) or not made else 0


def _state_dir(session: Session) -> Path:
    from agentd.sdk.address import state_dir_default

    try:
        with session.client() as client:
            found = client.status().state_dir
    except Failure as failure:
        if failure.code != NO_DAEMON or session.address is not None:
            raise
        found = ""
    return Path(found) if found else state_dir_default(os.environ, os.geteuid())


# -- stored decisions ----------------------------------------------------------------------------


def _decisions(wish: _Wish) -> _Decisions:
    from agentd.recording import stored

    file = wish.place if wish.is_store else wish.place / stored.FILE
    if file.exists() and not os.access(file, os.R_OK):
        raise PermissionError(13, "permission denied", str(file))
    made = _Decisions()
    with stored.opened(file, _config(wish.config_file)) as found:
        for one in found.again(ident=wish.ident, pool=wish.pool, since=wish.since, until=wish.until):
            made.total += 1
            if one.cannot:
                made.cannot[one.cannot] = made.cannot.get(one.cannot, 0) + 1
            elif one.different:
                made.different.append(one)
            else:
                made.same += 1
    return made


def _config(file: Path | None) -> FleetConfig | None:
    from agentd import config
    from agentd.errors import ConfigError

    try:
        return None if file is None else config.load(file).fleet
    except ConfigError as error:
        raise Failure("the configuration cannot be used", details=str(error).splitlines()) from None


def _decision_lines(made: _Decisions | None, wish: _Wish) -> Iterator[str]:
    if made is None:
        return
    yield styled("STORED DECISIONS", "strong")
    if not made.total:
        yield (
            "  none" if wish.since is None and wish.until is None and not wish.pool else "  none of that time and pool"
        )
        return
    text = f"{plural(made.total, 'decision')}: {made.same} made again the same"
    if made.different:
        text += f", {len(made.different)} otherwise"
    yield f"  {text}"
    for cause, count in sorted(made.cannot.items()):
        yield from wrapped(
            printable(f"{count} cannot be made again: {cause}"), width=text_width(), first="  ", rest="    "
        )
    for one in made.different[:1]:
        decision = one.decision
        yield f"  first difference: {printable(decision.pool)} {_at(decision.wall)} [{decision.id}]"
        for name, then, now in one.different:
            yield from _sides(name, words(then), words(now))


def _decisions_value(made: _Decisions) -> dict[str, Any]:
    return {
        "total": made.total,
        "same": made.same,
        "different": [
            {
                "id": one.decision.id, "pool": one.decision.pool, "wall": one.decision.wall,
                "fields": [{"field": name, "stored": str(then), "now": str(now)} for name, then, now in one.different],
            }
            for one in made.different
        ],
        "cannot": [{"count": count, "cause": cause} for cause, count in sorted(made.cannot.items())],
    }  # fmt: skip


# -- recordings ----------------------------------------------------------------------------------


def _segments(wish: _Wish, *, needed: bool) -> Iterator[Rerun]:
    from agentd.recording import rerun, segments

    place = wish.place if wish.is_recording else wish.place / segments.DIRECTORY
    if not place.exists() and not needed:
        return
    for path in rerun.from_time(segments.listed(place), wish.since, wish.until):
        found = rerun.rerun(path, version=__version__, since=wish.since, until=wish.until)
        if found is not None:
            yield found


def _segment_lines(made: list[Rerun], wish: _Wish) -> Iterator[str]:
    if not wish.recording:
        return
    yield styled("RECORDING", "strong")
    if not made:
        timed = wish.since is not None or wish.until is not None
        yield "  nothing of that time" if timed else "  none: history.record is not full, or has just become so"
        return
    evaluations, same = sum(one.evaluations for one in made), sum(one.same for one in made)
    messages, differing = sum(one.messages for one in made), sum(one.differing for one in made)
    yield f"  {_at(made[0].began)} to {_at(max(one.ended for one in made))}, {plural(len(made), 'segment')}"
    yield f"  {plural(evaluations, 'evaluation')}: {same} made again the same"
    yield f"  {plural(messages, 'message')}: what came of {messages - differing} is the same"
    for one in made:
        for text in filter(None, (one.torn, one.stopped)):
            yield from wrapped(printable(f"{one.path.name}: {text}"), width=text_width(), first="  ", rest="    ")
    for one in made:
        if one.first is not None:
            first = one.first
            yield f"  first difference: {printable(first.message)} at {_at(first.wall)}, in {one.path.name}"
            if one.version != __version__:
                yield f"    agentd {printable(one.version)} recorded it, this is {__version__}"
            yield from _sides(first.place, first.recorded, first.now)
            return


def _segment_value(one: Rerun) -> dict[str, Any]:
    first = one.first
    return {
        "path": str(one.path), "version": one.version, "from": one.began, "to": one.ended, "messages": one.messages,
        "messages_different": one.differing, "evaluations": one.evaluations, "evaluations_same": one.same,
        "torn": one.torn, "stopped": one.stopped,
        "first_difference": None if first is None else {
            "wall": first.wall, "message": first.message, "place": first.place, "recorded": first.recorded,
            "now": first.now,
        },
    }  # fmt: skip


def _sides(place: str, then: object, now: object) -> Iterator[str]:
    for title, value in (("then", then), ("now", now)):
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        text = f"{place}, {title}: {text[:_SHOWN_CHARS_MAX]}{'...' if len(text) > _SHOWN_CHARS_MAX else ''}"
        yield from wrapped(printable(text), width=text_width(), first="    ", rest="      ")


def words(value: object) -> str:
    """A field of a decision as people read it; of a limit what it allows, and when it lifts (monotonic)."""
    from agentd.core.model import Limit, Proposal, Reason

    match value:
        case (str() as code, int() as count):
            return f"{code} {count}"
        case tuple():
            return ", ".join(words(one) for one in value) or "none"
        case Limit(code, text, until, allows):
            more = [] if allows is None else [f"allows {allows}"]
            more += [] if until is None else [f"lifts at {until:.1f}"]
            return f"{code}: {text}" + (f" ({', '.join(more)})" if more else "")
        case Reason(code, text):
            return f"{code}: {text}"
        case Proposal(trigger, count, reason):
            return f"{trigger} {'-' if count is None else count}: {reason.text}"
    return str(value)


def _at(wall: float) -> str:
    return moment(wall, now=time.time())

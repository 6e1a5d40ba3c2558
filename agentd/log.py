"""The log of agentd: one line per change of state, a fixed message and varying fields.

Owns the root logger's only handler, so that what grpc, uvicorn and asyncio say comes out in the same way. Under
journald entries go there natively, with every field searchable; elsewhere they are lines on standard error,
coloured on a terminal, written by a thread of their own. Never logs by itself, never fails its caller, and never
holds it up: what nobody reads in time is dropped, counted and told.

    log = agentd.log.get("autoscaler")
    log.info("scale up", pool="research", instance="research-9101", decision="d-17", cause="High load: 0.88 > 0.75")

    14:03:07 info autoscaler: scale up pool=research instance=research-9101 decision=d-17 cause="High load: 0.88 > 0.75"
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

from agentd import journal
from agentd.catalog import MESSAGE_IDS
from agentd.core.messages import EventType, Record
from agentd.core.model import Decision

LEVELS = ("debug", "info", "warning", "error")
# Lines that a reader of standard error may be behind; the ones after those are dropped.
LINES_WAITING_MAX = 10_000
# How long the end of agentd waits for a reader to take what is left.
FLUSH_S = 1.0

_FIELDS = "agentd_fields"
_JOURNAL_ONLY = "agentd_journal_only"
# AGENTD_DECISION is the whole decision as JSON; what a line shows of it is its id.
_JOURNAL_NAMES = {"decision": "decision_id"}
_PREFIX = "agentd."
# These tell of each request or poll at info; agentd's own lines are the ones to read.
_CHATTY = ("uvicorn", "uvicorn.access", "uvicorn.error", "asyncio", "grpc", "httpx", "httpcore")
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_COLOURS = ((logging.ERROR, "31"), (logging.WARNING, "33"))

_AUTOSCALER = frozenset(
    {
        EventType.SCALE_UP,
        EventType.SCALE_DOWN,
        EventType.REPLACE,
        EventType.HOLD,
        EventType.EFFECT,
        EventType.TARGET,
        EventType.TARGET_EXPIRED,
        EventType.OFFER,
        EventType.OFFER_EXPIRED,
        EventType.SCHEDULE,
        EventType.AUTOSCALING,
    }
)
_WARNINGS = frozenset(
    {
        EventType.START_FAILED,
        EventType.CRASH_LOOP,
        EventType.OOM_KILL,
        EventType.WARNING,
        EventType.LATE,
        EventType.STOP_FORCED,
        EventType.VANISHED,
        EventType.PORT_CONFLICT,
        EventType.CONFIG_REJECTED,
        EventType.ROLLING_STOPPED,
        EventType.STORE,
    }
)


class Log:
    """A named voice. `message` never varies; what does goes into fields, in the order in which it should be read.

    A field that is None or "" is left out.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(_PREFIX + name)

    def debug(self, message: str, /, **fields: object) -> None:
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, /, **fields: object) -> None:
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, /, **fields: object) -> None:
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, /, **fields: object) -> None:
        self._log(logging.ERROR, message, fields)

    def exception(self, message: str, /, **fields: object) -> None:
        """An error, with the traceback of the exception that is being handled."""
        self._log(logging.ERROR, message, fields, exc_info=True)

    def _log(self, level: int, message: str, fields: Mapping[str, object], *, exc_info: bool = False) -> None:
        extra = {_FIELDS: {key: str(value) for key, value in fields.items() if value is not None and value != ""}}
        self._logger.log(level, message, extra=extra, exc_info=exc_info, stacklevel=3)


def get(name: str) -> Log:
    """The log of one part of agentd; its name begins each line."""
    return Log(name)


def record(change: Record, decision: Decision | None = None) -> None:
    """One line for one record of the controller: its type is the message, scaling speaks as `autoscaler`.

    The journal's entry also carries the message id of its type and, with `decision`, the whole chain of reasons.
    """
    named = {
        "pool": change.pool,
        "instance": change.instance,
        "reason": change.reason,
        "decision": change.decision,
        "actor": change.actor,
    }
    told = {"MESSAGE_ID": MESSAGE_IDS[change.type], "AGENTD_EVENT": change.type.value}
    if change.decision:
        told["AGENTD_DECISION"] = _explain(decision) if decision else json.dumps({"id": change.decision})
    extra: dict[str, object] = {_FIELDS: {key: value for key, value in named.items() if value}, _JOURNAL_ONLY: told}
    name = "autoscaler" if change.type in _AUTOSCALER else "fleet"
    level = logging.WARNING if change.type in _WARNINGS else logging.INFO
    logging.getLogger(_PREFIX + name).log(level, change.type.value, extra=extra, stacklevel=2)


def setup(level: str = "info", *, stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> None:
    """Send everything from `level` on to the journal where `stream` (standard error) is its, else to `stream`.

    Replaces what an earlier call set up.

    Raises:
        ValueError: `level` is none of LEVELS.
    """
    if level not in LEVELS:
        raise ValueError(f"cannot log at level {level!r}: expected one of {', '.join(LEVELS)}")
    stream = stream or sys.stderr
    handler: logging.Handler
    if _is_journal(stream, environ):
        handler = JournalHandler(journal.Journal())
    else:
        # Only a descriptor can hold up who writes to it.
        handler = LineHandler(stream) if _has_descriptor(stream) else logging.StreamHandler(stream)
        handler.setFormatter(LineFormatter(terminal=stream.isatty(), colours=_wants_colours(stream, environ)))
    install(handler, level)


def install(handler: logging.Handler, level: str = "info") -> None:
    """Make `handler` the only one."""
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old, JournalHandler) or isinstance(old.formatter, LineFormatter):
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    logging.captureWarnings(True)


class LineFormatter(logging.Formatter):
    """An entry as one line; only tracebacks and foreign messages take more, and those lines are indented.

    Whatever an agent or a caller wrote is escaped: it can neither forge a line nor steer a terminal.
    """

    def __init__(self, *, terminal: bool = False, colours: bool = False) -> None:
        super().__init__()
        self._terminal = terminal
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        shape = "%H:%M:%S" if self._terminal else "%Y-%m-%dT%H:%M:%S"
        when = time.strftime(shape, time.localtime(record.created))
        if not self._terminal:
            when += f".{int(record.msecs):03d}{time.strftime('%z', time.localtime(record.created))}"
        level = record.levelname.lower()
        colour = next((code for bound, code in _COLOURS if record.levelno >= bound), None)
        if self._colours and colour:
            level = f"\x1b[{colour}m{level}\x1b[0m"
        return f"{when} {level} {readable(record)}"


class LineHandler(logging.Handler):
    """Lines for the descriptor of `stream`, written by a thread of their own.

    A reader that stalls (a pager, control-S) stalls that thread alone: up to `waiting_max` lines wait for it, those
    after them are dropped, and their number is told once it has caught up.
    """

    def __init__(self, stream: TextIO, waiting_max: int = LINES_WAITING_MAX) -> None:
        super().__init__()
        # Not through the stream: a thread that waits while it holds the lock of standard error aborts Python's end.
        self._descriptor = stream.fileno()
        self._waiting: queue.Queue[str | None] = queue.Queue(waiting_max)
        self._dropped = 0  # ever; counted by emit alone, under the handler's lock
        self._unwritten = 0  # ever; counted by the writer alone
        self._told = 0  # of both
        self._writer = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)
            return
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, as far as the reader takes it within FLUSH_S. Idempotent."""
        if self._writer.is_alive():
            try:
                self._waiting.put(None, timeout=FLUSH_S)
            except queue.Full:  # the reader has stalled, and takes no last word either
                self._dropped += 1
            else:
                self._writer.join(FLUSH_S)
        super().close()

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            self._unwritten += not self._write(line)
            lost = self._dropped + self._unwritten - self._told
            if lost and self._waiting.empty():
                entry = logging.LogRecord(_PREFIX + "log", logging.WARNING, "", 0, "lines dropped", None, None)
                setattr(entry, _FIELDS, {"count": str(lost)})
                if self._write(self.format(entry)):
                    self._told += lost

    def _write(self, line: str) -> bool:
        left = f"{line}\n".encode(errors="backslashreplace")
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:  # the reader has gone, or takes nothing now; should it return, it is told how much it missed
            return False
        return True


class JournalHandler(logging.Handler):
    """An entry as an entry of the journal. Drops are counted and told once journald takes entries again."""

    def __init__(self, sender: journal.Journal) -> None:
        super().__init__()
        self._sender = sender
        self._drops_told = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = self._fields(record)
        except Exception:
            self.handleError(record)
            return
        if self._sender.send(fields) and self._sender.dropped > self._drops_told:
            lost = self._sender.dropped - self._drops_told
            if self._sender.send([*_entry(f"log: entries dropped count={lost}", 4), ("AGENTD_COUNT", str(lost))]):
                self._drops_told += lost

    def close(self) -> None:
        self._sender.close()
        super().close()

    @staticmethod
    def _fields(record: logging.LogRecord) -> list[tuple[str, str]]:
        priority = next((number for bound, number in _PRIORITIES if record.levelno >= bound), 7)
        named: dict[str, str] = getattr(record, _FIELDS, {})
        fields = {journal.field_name(_JOURNAL_NAMES.get(key, key), "AGENTD_"): value for key, value in named.items()}
        return [
            *_entry(readable(record), priority),
            *(fields | getattr(record, _JOURNAL_ONLY, {})).items(),
            ("CODE_FILE", record.pathname),
            ("CODE_LINE", str(record.lineno)),
            ("CODE_FUNC", record.funcName or ""),
        ]


def readable(record: logging.LogRecord) -> str:
    """`autoscaler: scale up pool=research ...`, without time and level."""
    text = f"{record.name.removeprefix(_PREFIX)}: {_printable(record.getMessage())}"
    named: dict[str, str] = getattr(record, _FIELDS, {})
    text = " ".join((text, *(f"{key}={_quoted(value)}" for key, value in named.items())))
    if record.exc_info and record.exc_info[0] is not None:
        text += "\n" + _printable(logging.Formatter().formatException(record.exc_info))
    return text.replace("\n", "\n    ")


def _entry(message: str, priority: int) -> list[tuple[str, str]]:
    return [("MESSAGE", message), ("PRIORITY", str(priority)), ("SYSLOG_IDENTIFIER", "agentd")]


def _explain(decision: Decision) -> str:
    return json.dumps(
        {
            "id": decision.id,
            "pool": decision.pool,
            "current": decision.current,
            "wanted": decision.wanted,
            "granted": decision.granted,
            "reasons": [{"code": reason.code, "text": reason.text} for reason in decision.reasons],
            "limits": [{"code": limit.code, "text": limit.text} for limit in decision.limits],
            "counterfactual": decision.counterfactual,
            "victims": list(decision.victims),
        }
    )


def _quoted(value: str) -> str:
    if value.isprintable() and not set(value) & set(' "=\\'):
        return value
    return '"' + _printable(value.replace("\\", "\\\\").replace('"', '\\"')).replace("\n", "\\n") + '"'


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def _is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    try:
        return journal.is_stream(environ, stream.fileno())
    except (OSError, ValueError):  # a stream without a descriptor
        return False


def _has_descriptor(stream: TextIO) -> bool:
    try:
        stream.fileno()
    except (OSError, ValueError):
        return False
    return True


def _wants_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"

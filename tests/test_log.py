"""Log lines are one line each, found by the seed's grep, and reach the journal whole, or are dropped and counted."""

from __future__ import annotations

import array
import fcntl
import io
import json
import logging
import os
import re
import socket
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TextIO

import pytest

from agentd import journal, log
from agentd.catalog import MESSAGE_IDS
from agentd.core.messages import EventType, Record
from agentd.core.model import Decision, Limit, PoolName, Reason


class FakeJournald:
    """A datagram socket that reads the native protocol independently of what wrote it."""

    def __init__(self, path: Path) -> None:
        self.path = os.fspath(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)
        self.files = 0

    def receive(self) -> dict[str, str]:
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for level, kind, content in ancillary:
            assert (level, kind, data) == (socket.SOL_SOCKET, socket.SCM_RIGHTS, b"")
            (descriptor,) = array.array("i", content)
            seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
            wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
            assert seals & wanted == wanted, "journald refuses a file that may change"
            with open(descriptor, "rb") as file:
                file.seek(0)
                data = file.read()
            self.files += 1
        return parse(data)


def parse(data: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, found, value = line.partition(b"=")
        if not found:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        fields[name.decode()] = value.decode()
        data = rest
    return fields


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[FakeJournald]:
    fake = FakeJournald(tmp_path / "socket")
    with closing(fake.socket):
        yield fake


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Leave the root logger as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers[:]:
        if handler not in handlers:
            root.removeHandler(handler)
            handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    log.setup("info", stream=stream, environ={})
    return stream


def to_journal(journald: FakeJournald) -> journal.Journal:
    sender = journal.Journal(journald.path)
    log.install(log.JournalHandler(sender))
    return sender


SCALE_UP = Record(
    EventType.SCALE_UP,
    "High load: 0.88 > 0.75",
    pool="research",
    instance="research-9101",
    decision="d-17",
    actor="uid 0",
)
DECISION = Decision(
    id="d-17",
    pool=PoolName("research"),
    at=1.0,
    wall=2.0,
    current=2,
    wanted=4,
    granted=3,
    reasons=(Reason("threshold", "High load: 0.88 > 0.75"),),
    limits=(Limit("headroom_memory", "needs 310 MiB more"),),
    counterfactual="with 310 MiB more: 4",
)


class TestLines:
    def test_a_line_has_time_level_part_message_and_fields_in_order(self, lines: io.StringIO) -> None:
        log.get("autoscaler").info("scale up", pool="research", port=9101, cause="High load: 0.88 > 0.75", actor=None)
        assert re.fullmatch(
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} info autoscaler: scale up pool=research port=9101"
            r' cause="High load: 0\.88 > 0\.75"\n',
            lines.getvalue(),
        )

    def test_scaling_records_are_found_by_the_seeds_grep(self, lines: io.StringIO) -> None:
        scaling = (EventType.SCALE_UP, EventType.SCALE_DOWN, EventType.REPLACE, EventType.HOLD, EventType.TARGET)
        for kind in (*scaling, EventType.READY):
            log.record(Record(kind, "because", pool="research"))
        *found, ready = lines.getvalue().splitlines()
        assert len(found) == len(scaling)
        assert all(re.search("autoscaler|scale", line, re.IGNORECASE) for line in found)
        assert ready.endswith("info fleet: ready pool=research reason=because")

    def test_what_agents_write_can_neither_forge_a_line_nor_steer_a_terminal(self, lines: io.StringIO) -> None:
        log.get("fleet").info("exit", reason='x\n2026 info fleet: "forged"\x1b[2J\u202e\udcff')
        logging.getLogger("uvicorn.error").warning("bad path\n2026 info fleet: forged \x1b[2J")
        first, second, third = lines.getvalue().splitlines()
        assert first.endswith(r'reason="x\n2026 info fleet: \"forged\"\x1b[2J\u202e\udcff"')
        assert second.endswith("warning uvicorn.error: bad path")
        assert third == r"    2026 info fleet: forged \x1b[2J"

    def test_other_libraries_and_warnings_come_out_in_the_same_way(self, lines: io.StringIO) -> None:
        logging.getLogger("asyncio").error("task %s was destroyed", "t-1")
        logging.getLogger("uvicorn.access").info("GET /")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old call", UserWarning, stacklevel=1)
        first, second, *_ = lines.getvalue().splitlines()
        assert first.endswith("error asyncio: task t-1 was destroyed")
        assert "warning py.warnings:" in second

    def test_a_traceback_follows_indented(self, lines: io.StringIO) -> None:
        try:
            raise ValueError("no\nnumber")
        except ValueError:
            log.get("runtime").exception("step failed", event="Tick")
        first, *rest = lines.getvalue().splitlines()
        assert first.endswith("error runtime: step failed event=Tick")
        assert rest[-1].endswith("number")
        assert all(line.startswith("    ") for line in rest)

    def test_below_the_level_nothing_is_written_and_a_second_setup_replaces_the_first(self, lines: io.StringIO) -> None:
        again = io.StringIO()
        log.setup("warning", stream=again, environ={})
        log.get("fleet").info("ready")
        log.get("fleet").warning("late")
        assert lines.getvalue() == ""
        assert again.getvalue().count("\n") == 1

    def test_an_unknown_level_is_refused(self) -> None:
        with pytest.raises(ValueError, match="'loud': expected one of debug"):
            log.setup("loud")

    @pytest.mark.parametrize(
        ("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
    )
    def test_colours_are_for_terminals_that_want_them(self, environ: dict[str, str], coloured: bool) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        stream = Terminal()
        log.setup("info", stream=stream, environ=environ)
        log.get("fleet").warning("late")
        assert ("\x1b[" in stream.getvalue()) is coloured
        assert re.match(r"\d\d:\d\d:\d\d ", stream.getvalue())


class TestJournal:
    def test_a_record_arrives_with_every_field_searchable(self, journald: FakeJournald) -> None:
        to_journal(journald)
        log.record(SCALE_UP, DECISION)
        fields = journald.receive()
        explained = json.loads(fields.pop("AGENTD_DECISION"))
        assert explained["reasons"] == [{"code": "threshold", "text": "High load: 0.88 > 0.75"}]
        assert (explained["wanted"], explained["granted"]) == (4, 3)
        assert fields.pop("CODE_FILE") == __file__
        assert int(fields.pop("CODE_LINE")) > 0
        assert fields == {
            "MESSAGE": 'autoscaler: scale_up pool=research instance=research-9101 reason="High load: 0.88 > 0.75"'
            ' decision=d-17 actor="uid 0"',
            "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "agentd",
            "MESSAGE_ID": MESSAGE_IDS[EventType.SCALE_UP],
            "AGENTD_EVENT": "scale_up",
            "AGENTD_POOL": "research",
            "AGENTD_INSTANCE": "research-9101",
            "AGENTD_REASON": "High load: 0.88 > 0.75",
            "AGENTD_DECISION_ID": "d-17",
            "AGENTD_ACTOR": "uid 0",
            "CODE_FUNC": "test_a_record_arrives_with_every_field_searchable",
        }

    def test_a_decision_of_which_only_the_id_is_at_hand_is_json_too(self, journald: FakeJournald) -> None:
        to_journal(journald)
        log.record(SCALE_UP)
        assert journald.receive()["AGENTD_DECISION"] == '{"id": "d-17"}'
        log.record(Record(EventType.READY, "ready after 0.2 s", instance="research-9101"))
        assert journald.receive().keys().isdisjoint({"AGENTD_DECISION", "AGENTD_DECISION_ID"})

    def test_priorities_and_the_place_in_the_code_are_those_of_the_caller(self, journald: FakeJournald) -> None:
        to_journal(journald)
        voice = log.get("store")
        voice.error("store degraded", cause="disk full")
        first = journald.receive()
        assert (first["PRIORITY"], first["AGENTD_CAUSE"]) == ("3", "disk full")
        assert (first["CODE_FILE"], first["CODE_FUNC"]) == (
            __file__,
            "test_priorities_and_the_place_in_the_code_are_those_of_the_caller",
        )
        log.record(Record(EventType.CRASH_LOOP, "10 failures", pool="research"))
        assert journald.receive()["PRIORITY"] == "4"

    def test_values_with_newlines_cannot_add_fields(self, journald: FakeJournald) -> None:
        to_journal(journald)
        log.get("fleet").info("exit", reason="a\nPRIORITY=0\nb")
        fields = journald.receive()
        assert fields["AGENTD_REASON"] == "a\nPRIORITY=0\nb"
        assert fields["PRIORITY"] == "6"

    def test_an_entry_above_the_datagram_limit_travels_as_a_sealed_file(self, journald: FakeJournald) -> None:
        sender = to_journal(journald)
        limit = sender._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        log.get("fleet").info("exit", reason="x" * (limit + 1))
        assert len(journald.receive()["AGENTD_REASON"]) == limit + 1
        assert (journald.files, sender.dropped) == (1, 0)

    def test_without_journald_entries_are_dropped_and_counted_and_told_when_it_returns(self, tmp_path: Path) -> None:
        sender = journal.Journal(os.fspath(tmp_path / "socket"))
        log.install(log.JournalHandler(sender))
        for _ in range(3):
            log.get("fleet").info("ready")
        assert sender.dropped == 3
        journald = FakeJournald(tmp_path / "socket")
        with closing(journald.socket):
            log.get("fleet").info("late")
            assert journald.receive()["MESSAGE"] == "fleet: late"
            told = journald.receive()
            assert (told["MESSAGE"], told["AGENTD_COUNT"]) == ("log: entries dropped count=3", "3")

    def test_a_journald_that_does_not_read_never_blocks_us(self, journald: FakeJournald) -> None:
        sender = to_journal(journald)
        for number in range(5_000):
            log.get("fleet").info("ready", number=number)
            if sender.dropped:
                break
        assert sender.dropped

    @pytest.mark.parametrize(
        ("key", "name"), [("pool", "AGENTD_POOL"), ("_uid", "AGENTD__UID"), ("grün", "AGENTD_GR_N"), ("k" * 99, None)]
    )
    def test_field_names_are_such_as_journald_keeps(self, key: str, name: str | None) -> None:
        made = journal.field_name(key, "AGENTD_")
        assert made == (name or "AGENTD_" + "K" * 57)
        assert journal.encode([(made, "1")]) == made.encode() + b"=1\n"

    def test_the_journal_is_used_only_where_standard_error_really_is_its_stream(self, tmp_path: Path) -> None:
        with (tmp_path / "stream").open("w") as file:
            found = os.fstat(file.fileno())
            assert journal.is_stream({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}, file.fileno())
            assert not journal.is_stream({"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}, file.fileno())
            assert not journal.is_stream({}, file.fileno())
            log.setup("info", stream=file, environ={"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"})
            assert any(isinstance(handler, log.JournalHandler) for handler in logging.getLogger().handlers)


class TestStalledReader:
    """`agentd 2>&1 | less`, or a terminal after control-S: whoever reads the log does not, for now."""

    @pytest.fixture
    def reader(self) -> Iterator[TextIO]:
        """Where the lines come out; one page of them fits in between, and ten wait."""
        read_end, write_end = os.pipe()
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
        with os.fdopen(write_end, "w") as stream:
            handler = log.LineHandler(stream, waiting_max=10)
            handler.setFormatter(log.LineFormatter())
            log.install(handler)
            with os.fdopen(read_end) as lines:
                yield lines
            logging.getLogger().removeHandler(handler)
            handler.close()

    @staticmethod
    def say(count: int) -> None:
        """Say so many lines, in a thread of its own: held up, it would never end."""
        voice = log.get("fleet")
        speaker = threading.Thread(target=lambda: [voice.info("x" * 100) for _ in range(count)], daemon=True)
        speaker.start()
        speaker.join(30)
        assert not speaker.is_alive(), "held up by the reader"

    def test_nobody_is_held_up_and_what_is_lost_is_told(self, reader: TextIO) -> None:
        self.say(1000)
        written = lost = 0
        while written + lost < 1000:
            told = re.search(r"warning log: lines dropped count=(\d+)$", reader.readline())
            written, lost = (written, lost + int(told[1])) if told else (written + 1, lost)
        assert written + lost == 1000
        assert lost > 0
        log.get("fleet").info("again")
        assert reader.readline().endswith("info fleet: again\n")

    def test_the_end_does_not_wait_for_it(self, reader: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(log, "FLUSH_S", 0.01)
        self.say(1000)
        logging.shutdown()
        assert reader.readline().endswith("xxx\n")

    def test_what_waits_at_the_end_is_written(self, reader: TextIO) -> None:
        self.say(5)
        logging.getLogger().handlers[-1].close()
        assert [reader.readline()[-4:] for _ in range(5)] == ["xxx\n"] * 5

    def test_standard_error_is_written_this_way(self) -> None:
        with open(os.devnull, "w") as stream:
            log.setup("info", stream=stream, environ={})
            (handler,) = [one for one in logging.getLogger().handlers if isinstance(one, log.LineHandler)]
            handler.close()

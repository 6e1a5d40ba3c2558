"""The log files of agents: bounded, readable across rotations, and nothing else in their directory is touched."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from agentd.logfiles import CHUNK_BYTES, LogFiles

ID = "research-9101"


@pytest.fixture
def logs(tmp_path: Path) -> LogFiles:
    return LogFiles(tmp_path / "log", bytes_max=100, keep=2)


def write(logs: LogFiles, text: str, instance: str = ID) -> None:
    """Append as an agent does, whose descriptor was opened before any rotation."""
    fd = opened(logs, instance)
    os.write(fd, text.encode())
    os.close(fd)


def opened(logs: LogFiles, instance: str = ID) -> int:
    """The descriptor that an agent is born with."""
    logs.directory.mkdir(parents=True, exist_ok=True)
    return os.open(logs.path(instance), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def sendfile(*_: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "sendfile", sendfile)


def copy(logs: LogFiles, number: int) -> Path:
    return logs.directory / f"{ID}.log.{number}"


def lines(first: int, last: int) -> str:
    return "".join(f"line {number:03d}\n" for number in range(first, last + 1))


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../../etc/passwd", "research", "", "research-9101.log", "/etc/passwd"])
def test_only_instance_ids_name_a_log(logs: LogFiles, name: str) -> None:
    with pytest.raises(ValueError, match="cannot read instance id"):
        logs.path(name)


# -- rotation -----------------------------------------------------------------------------------


def test_a_small_log_is_left_alone(logs: LogFiles) -> None:
    write(logs, "x" * 100)
    assert logs.rotate() == ()
    assert logs.path(ID).stat().st_size == 100


def test_a_large_log_is_copied_and_truncated_under_its_writer(logs: LogFiles) -> None:
    fd = opened(logs)
    os.write(fd, b"a" * 101)
    assert logs.rotate() == (ID,)
    os.write(fd, b"after")
    os.close(fd)
    assert copy(logs, 1).read_bytes() == b"a" * 101
    assert logs.path(ID).read_bytes() == b"after"


def test_a_copy_is_for_those_who_may_read_the_log(logs: LogFiles) -> None:
    before = os.umask(0o022)
    try:
        os.write(opened(logs), b"a" * 101)
        logs.path(ID).chmod(0o640)
        assert logs.rotate() == (ID,)
    finally:
        os.umask(before)
    assert copy(logs, 1).stat().st_mode & 0o777 == 0o640


def test_copies_are_kept_up_to_their_number(logs: LogFiles) -> None:
    for letter in "abcd":
        write(logs, letter * 101)
        logs.rotate()
    assert [copy(logs, number).read_text()[0] for number in (1, 2)] == ["d", "c"]
    assert sorted(path.name for path in logs.directory.iterdir()) == [f"{ID}.log", f"{ID}.log.1", f"{ID}.log.2"]


def test_of_a_log_that_outgrew_its_bound_the_end_is_kept(logs: LogFiles) -> None:
    write(logs, "a" * 1000 + "b" * 200)
    logs.rotate()
    assert copy(logs, 1).read_text() == "b" * 200


def test_without_copies_a_large_log_is_truncated(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, bytes_max=10, keep=0)
    write(logs, "a" * 11)
    assert logs.rotate() == (ID,)
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID}.log"]


@pytest.mark.usefixtures("full_disk")
def test_on_a_full_disk_a_large_log_is_truncated_and_older_copies_stay(logs: LogFiles) -> None:
    write(logs, "b" * 101)
    copy(logs, 1).write_text("older")
    assert logs.rotate() == (ID,)
    assert logs.path(ID).stat().st_size == 0
    assert copy(logs, 1).read_text() == "older"
    assert sorted(path.name for path in logs.directory.iterdir()) == [f"{ID}.log", f"{ID}.log.1"]


def test_a_log_that_cannot_be_truncated_is_an_error_after_the_others_were(
    logs: LogFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    for instance in (ID, "research-9102"):
        write(logs, "x" * 101, instance)
    rotating = LogFiles._copy_and_truncate

    def refusing(logs: LogFiles, instance: str) -> None:
        if instance == ID:
            raise OSError(errno.EROFS, "Read-only file system")
        rotating(logs, instance)

    monkeypatch.setattr(LogFiles, "_copy_and_truncate", refusing)
    with pytest.raises(OSError, match="Read-only file system"):
        logs.rotate()
    assert logs.path(ID).stat().st_size == 101
    assert logs.path("research-9102").stat().st_size == 0


def test_there_is_nothing_to_rotate_or_prune_before_the_first_log(logs: LogFiles) -> None:
    assert logs.rotate() == ()
    assert logs.prune((), wall=0.0) == ()


def test_files_of_others_are_neither_rotated_nor_pruned(logs: LogFiles) -> None:
    logs.directory.mkdir()
    names = ["syslog", "app.log", "app.log.1", "research-99999.log", "research-9101.log.gz", "research-9101.txt"]
    for name in names:
        (logs.directory / name).write_bytes(b"x" * 1000)
        os.utime(logs.directory / name, (0, 0))
    assert logs.rotate() == ()
    assert logs.prune((), wall=1e9) == ()
    assert sorted(path.name for path in logs.directory.iterdir()) == sorted(names)


# -- pruning ------------------------------------------------------------------------------------


def test_logs_of_instances_long_gone_are_removed_with_their_copies(logs: LogFiles) -> None:
    for instance in (ID, "research-9102"):
        write(logs, "x" * 101, instance)
        logs.rotate()
        for path in logs.directory.glob(f"{instance}.log*"):
            os.utime(path, (1000, 1000))
    removed = logs.prune({ID}, wall=1000 + logs.gone_s_max + 1)
    assert sorted(path.name for path in removed) == ["research-9102.log", "research-9102.log.1"]
    assert logs.path(ID).exists()
    assert copy(logs, 1).exists()


def test_logs_of_instances_just_gone_stay(logs: LogFiles) -> None:
    write(logs, "x")
    assert logs.prune((), wall=logs.path(ID).stat().st_mtime + 1) == ()


def test_beyond_the_total_the_oldest_of_the_gone_go_first(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, total_bytes_max=250)
    for age, port in enumerate((9103, 9102, 9101, 9104)):
        write(logs, "x" * 100, f"research-{port}")
        os.utime(logs.path(f"research-{port}"), (1000 - age, 1000 - age))
    removed = logs.prune({"research-9104"}, wall=1001.0)
    assert [path.name for path in removed] == ["research-9101.log", "research-9102.log"]


# -- tail ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count", "expected"),
    [
        ("", 5, ""),
        ("a\nb\nc\n", 0, ""),
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc\n", 9, "a\nb\nc\n"),
        ("a\nb\nunfinished", 2, "b\nunfinished"),
        ("a\rb\r\nc\n", 1, "c\n"),
        ("\n\n\n", 2, "\n\n"),
    ],
)
def test_tail_gives_the_last_lines(logs: LogFiles, text: str, count: int, expected: str) -> None:
    write(logs, text)
    assert logs.tail(ID, count).decode() == expected


def test_tail_reads_lines_longer_than_a_chunk(logs: LogFiles) -> None:
    write(logs, "first\n" + "x" * (3 * CHUNK_BYTES) + "\nlast\n")
    assert logs.tail(ID, 2).decode() == "x" * (3 * CHUNK_BYTES) + "\nlast\n"


def test_tail_reaches_into_copies(logs: LogFiles) -> None:
    write(logs, lines(1, 15))
    logs.rotate()
    write(logs, lines(16, 30))
    logs.rotate()
    write(logs, lines(31, 32))
    assert logs.tail(ID, 20).decode() == lines(13, 32)
    assert logs.tail(ID, 1000).decode() == lines(1, 32)


def test_an_instance_that_never_logged_is_an_error(logs: LogFiles) -> None:
    with pytest.raises(FileNotFoundError):
        logs.tail(ID, 1)
    write(logs, "x", "research-9102")
    with pytest.raises(FileNotFoundError):
        logs.tail(ID, 1)


# -- follow -------------------------------------------------------------------------------------


async def read(following: AsyncIterator[bytes], size: int) -> str:
    """What comes next, up to at least `size` bytes."""
    text = b""
    while len(text) < size:
        text += await asyncio.wait_for(anext(following), 20)
    return text.decode()


def test_follow_gives_the_tail_and_what_is_written_later(logs: LogFiles) -> None:
    async def scenario() -> None:
        write(logs, lines(1, 3))
        async with aclosing(logs.follow(ID, 2, poll_s=0.001)) as following:
            assert await read(following, 1) == lines(2, 3)
            write(logs, lines(4, 4))
            assert await read(following, 1) == lines(4, 4)

    asyncio.run(scenario())


@pytest.mark.parametrize("unread", [0, 5])
@pytest.mark.parametrize("later", [1, 30])
def test_follow_loses_and_repeats_nothing_over_a_rotation(logs: LogFiles, unread: int, later: int) -> None:
    """Also where the log has grown beyond its old size again before the reader looks."""

    async def scenario() -> None:
        write(logs, lines(1, 12))
        async with aclosing(logs.follow(ID, 1, poll_s=0.001)) as following:
            assert await read(following, 1) == lines(12, 12)
            if unread:
                write(logs, lines(13, 12 + unread))
            assert logs.rotate() == (ID,)
            expected = lines(13, 12 + unread + later)
            write(logs, lines(13 + unread, 12 + unread + later))
            assert await read(following, len(expected)) == expected

    asyncio.run(scenario())


def test_follow_reads_more_than_a_chunk_out_of_a_copy(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, bytes_max=2 * CHUNK_BYTES, keep=1)

    async def scenario() -> None:
        write(logs, "start\n")
        async with aclosing(logs.follow(ID, 1, poll_s=0.001)) as following:
            await read(following, 1)
            text = "x" * (3 * CHUNK_BYTES) + "\n"
            write(logs, text)
            logs.rotate()
            write(logs, "end\n")
            assert await read(following, len(text) + 4) == text + "end\n"

    asyncio.run(scenario())


def test_follow_waits_for_a_rotation_without_holding_up_the_loop(logs: LogFiles) -> None:
    async def scenario() -> None:
        write(logs, "x\n")
        lock = os.open(logs.directory, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Were the loop held up, only this would let it go, and the test would fail rather than hang.
        rescue = threading.Timer(5.0, fcntl.flock, (lock, fcntl.LOCK_UN))
        rescue.start()
        async with aclosing(logs.follow(ID, 1, poll_s=0.001)) as following:
            first = asyncio.create_task(anext(following))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            still_locked = rescue.is_alive()
            rescue.cancel()
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)
            assert still_locked
            assert await first == b"x\n"

    asyncio.run(scenario())


def test_follow_begins_anew_after_a_person_truncated_the_log(logs: LogFiles) -> None:
    async def scenario() -> None:
        write(logs, lines(1, 5))
        async with aclosing(logs.follow(ID, 1, poll_s=0.001)) as following:
            await read(following, 1)
            os.truncate(logs.path(ID), 0)
            write(logs, "new\n")
            assert await read(following, 1) == "new\n"

    asyncio.run(scenario())


def test_follow_ends_when_the_log_is_removed(logs: LogFiles) -> None:
    async def scenario() -> list[bytes]:
        write(logs, "x\n")
        pieces = []
        async for piece in logs.follow(ID, 1, poll_s=0.001):
            pieces.append(piece)
            logs.path(ID).unlink()
        return pieces

    assert asyncio.run(scenario()) == [b"x\n"]

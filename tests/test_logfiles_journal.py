"""The logs of instances in the journal: how journalctl is called, and what becomes of its answers and its process."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest

from agentd.errors import Refused
from agentd.logfiles_journal import CHUNK_BYTES, JournalLogs

ID = "research-9101"


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A journalctl that is found first, to be written by the test; `calls` beside it has its arguments."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path / "journalctl"


def write(program: Path, body: str) -> None:
    program.write_text(f'#!/bin/sh\necho "$@" >>{program.parent}/calls\n{body}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


async def whole(lines: int = 10, instance: str = ID) -> bytes:
    return b"".join([piece async for piece in JournalLogs().read(instance, lines, follow=False)])


def test_the_lines_of_a_unit_are_asked_for_and_come_as_they_are(journalctl: Path) -> None:
    write(journalctl, r"printf 'one\n\033[1mbold\033[0m\n'")
    assert asyncio.run(whole(7)) == b"one\n\x1b[1mbold\x1b[0m\n"
    (call,) = (journalctl.parent / "calls").read_text().splitlines()
    assert call == "--quiet --no-pager --output=cat --lines=7 _SYSTEMD_UNIT=agent@research-9101.service"


@pytest.mark.parametrize("name", ["", "research", "../research-9101", "research-9101 -f", "*-9101"])
def test_only_instance_ids_are_asked_for(journalctl: Path, name: str) -> None:
    write(journalctl, "echo never")
    with pytest.raises(ValueError, match="instance"):
        asyncio.run(whole(instance=name))
    assert not (journalctl.parent / "calls").exists()


def test_more_than_a_pipe_holds_arrives_whole(journalctl: Path) -> None:
    write(journalctl, f"head -c {20 * CHUNK_BYTES} /dev/zero")
    assert len(asyncio.run(whole())) == 20 * CHUNK_BYTES


def test_an_instance_without_a_line_is_missing_unless_none_is_asked_for(journalctl: Path) -> None:
    write(journalctl, "exit 0")
    with pytest.raises(FileNotFoundError):
        asyncio.run(whole())
    assert asyncio.run(whole(0)) == b""
    assert not asyncio.run(JournalLogs().has(ID))
    write(journalctl, "echo one")
    assert asyncio.run(JournalLogs().has(ID))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("echo 'No journal files were opened.' >&2; echo 'Ask root.' >&2; exit 1", "opened.; Ask root."),
        ("exit 3", "journalctl ended with 3"),
        ("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1", "xxx"),
    ],
    ids=["its words", "silent", "many words"],
)
def test_what_is_wrong_is_told_in_journalctls_words(journalctl: Path, body: str, told: str) -> None:
    write(journalctl, body)
    with pytest.raises(Refused) as refused:
        asyncio.run(whole())
    assert refused.value.reason == "LOGS_UNREADABLE"
    assert told in str(refused.value)
    assert len(str(refused.value)) < 1_100


def test_a_host_without_journalctl_is_told(tmp_path: Path) -> None:
    async def read() -> None:
        async for _ in JournalLogs((str(tmp_path / "journalctl"),)).read(ID, 1, follow=False):
            pass

    with pytest.raises(Refused, match=r"cannot run .*: No such file"):
        asyncio.run(read())


@pytest.mark.host
@pytest.mark.parametrize("cancelled", [False, True], ids=["closed", "cancelled"])
def test_following_goes_on_until_the_reader_ends_and_ends_journalctl(journalctl: Path, cancelled: bool) -> None:
    write(journalctl, f"echo $$ >{journalctl.parent}/pid; echo one; exec sleep 1000")

    async def follow() -> None:
        async with aclosing(JournalLogs().read(ID, 1, follow=True)) as pieces:
            assert await anext(pieces) == b"one\n"
            if cancelled:
                waiting = asyncio.ensure_future(anext(pieces))
                done, _ = await asyncio.wait([waiting], timeout=0.05)
                assert not done
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting

    asyncio.run(asyncio.wait_for(follow(), 20))
    assert "--follow" in (journalctl.parent / "calls").read_text()
    assert not psutil.pid_exists(int((journalctl.parent / "pid").read_text()))

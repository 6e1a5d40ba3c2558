"""The reader of commands with real programs: the number, the bounds, and that nothing is left running."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from agentd.collecting.command import OUTPUT_BYTES_MAX
from agentd.collecting.kinds import open_reader
from agentd.collecting.reading import ReadFailed

GENEROUS_S = 30.0


def read(*argv: str) -> float:
    async def once() -> float:
        reader = open_reader("command", tuple(("argv", word) for word in argv))
        try:
            async with asyncio.timeout(GENEROUS_S):
                return await reader.read()
        finally:
            await reader.close()

    return asyncio.run(once())


def sh(script: str) -> float:
    return read("/bin/sh", "-c", script)


def refused(*argv: str) -> str:
    with pytest.raises(ReadFailed) as failed:
        read(*argv)
    return str(failed.value)


def is_gone(pid: int) -> bool:
    """Whether the process ends; a zombie of somebody else's has ended."""
    deadline = time.monotonic() + GENEROUS_S
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("printed", "value"), [("12", 12), ("  3.5  ", 3.5), ("-1\\nmore\\n", -1), ("1e3", 1000), (".5", 0.5), ("7.", 7)]
)
def test_the_first_line_is_the_number(printed: str, value: float) -> None:
    assert read("/usr/bin/printf", printed) == value


@pytest.mark.parametrize("printed", ["", "\\n7", "many", "nan", "inf", "1_000", "0x10", "1,5", "12 tasks"])
def test_what_is_no_number_is_said(printed: str) -> None:
    first = printed.partition("\\n")[0]
    said = f"printed {first!r}, not a number, on its first line" if first else "printed nothing on its first line"
    assert said in refused("/usr/bin/printf", printed)


def test_a_failure_is_told_with_the_last_line_of_the_error_output() -> None:
    script = "echo 5; echo first >&2; echo 'no such queue: tasks' >&2; echo >&2; exit 3"
    assert refused("/bin/sh", "-c", script) == "/bin/sh ended with code 3: no such queue: tasks"
    assert refused("/bin/sh", "-c", "kill -9 $$") == "/bin/sh was ended by signal 9"


def test_a_long_error_output_is_told_in_short() -> None:
    text = refused("/bin/sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x >&2; printf '\\033[1mend' >&2; exit 1")
    assert text.startswith("/bin/sh ended with code 1: xxx") and len(text) < 400 and text.isprintable()


def test_a_program_that_cannot_be_run_is_said(tmp_path: Path) -> None:
    assert refused("/no/such/program") == "cannot run /no/such/program: no such file or directory"
    plain = tmp_path / "plain"
    plain.write_text("5")
    assert refused(str(plain)) == f"cannot run {plain}: permission denied"


def test_output_without_end_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    text = refused("/bin/sh", "-c", f"echo $$ >{file}; exec yes 5")
    assert text == f"/bin/sh printed more than {OUTPUT_BYTES_MAX} bytes"
    assert is_gone(int(file.read_text()))


def test_a_reading_that_is_cut_short_leaves_nothing_running(tmp_path: Path) -> None:
    file, ready = tmp_path / "pids", tmp_path / "ready"

    async def cut() -> None:
        script = f"sleep 1000 & echo $$ $! >{file}; mkfifo {ready}; echo >{ready}; wait"
        reader = open_reader("command", (("argv", "/bin/sh"), ("argv", "-c"), ("argv", script)))
        task = asyncio.create_task(reader.read())
        while not ready.exists():
            await asyncio.sleep(0.01)
        with ready.open() as came:
            await asyncio.to_thread(came.read)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await reader.close()

    asyncio.run(cut())
    pids = [int(word) for word in file.read_text().split()]
    assert len(pids) == 2 and all(map(is_gone, pids))


def test_a_program_that_cannot_be_killed_is_not_joined_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits in the kernel for a file server; it ends when that answers."""
    file, hangs = tmp_path / "pids", tmp_path / "hangs"
    hangs.touch()
    kill = os.killpg

    async def attempts() -> list[str]:
        script = f"echo $$ >>{file}; [ -e {hangs} ] && exec sleep 1000; echo 6"
        reader = open_reader("command", (("argv", "/bin/sh"), ("argv", "-c"), ("argv", script)))
        task = asyncio.create_task(reader.read())
        while not (file.exists() and file.read_text().strip()):
            await asyncio.sleep(0.01)
        monkeypatch.setattr("os.killpg", lambda *_: None)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        said = []
        for _ in range(3):
            with pytest.raises(ReadFailed) as failed:
                async with asyncio.timeout(GENEROUS_S):
                    await reader.read()
            said.append(str(failed.value))
        monkeypatch.setattr("os.killpg", kill)
        hangs.unlink()
        os.kill(int(file.read_text()), 9)
        async with asyncio.timeout(GENEROUS_S):
            while True:
                try:
                    assert await reader.read() == 6
                    break
                except ReadFailed:
                    await asyncio.sleep(0.01)
        await reader.close()
        return said

    said = asyncio.run(attempts())
    first, last = file.read_text().split()
    assert said == [f"/bin/sh (pid {first}) was killed and has not ended: it is not started again before"] * 3
    assert is_gone(int(first)) and is_gone(int(last))


def test_what_a_program_left_in_its_group_ends_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    assert sh(f"sleep 1000 & echo $! >{file}; echo 4") == 4
    assert is_gone(int(file.read_text()))


def test_somebody_who_has_left_the_group_does_not_hold_up_the_reading(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    try:
        assert sh(f"setsid sh -c 'echo $$ >{file}; exec sleep 1000' & while [ ! -s {file} ]; do :; done; echo 4") == 4
    finally:
        os.kill(int(file.read_text()), 9)


def test_a_program_is_not_told_what_is_meant_for_agentd(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "WATCHDOG_USEC", "AGENTD_CONFIG"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("QUEUE_HOST", "here")
    assert sh("env | grep -cE '^(NOTIFY_SOCKET|LISTEN_FDS|WATCHDOG_USEC|AGENTD_CONFIG)=' || :") == 0
    assert sh("env | grep -c '^QUEUE_HOST=here'") == 1


def test_many_readings_leave_no_open_files() -> None:
    async def often() -> int:
        reader = open_reader("command", (("argv", "/bin/echo"), ("argv", "5")))
        await reader.read()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            await reader.read()
        await reader.close()
        return len(os.listdir("/proc/self/fd")) - before

    assert asyncio.run(often()) == 0

"""The directories of one agentd: who holds them, and the identity its agents carry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentd import statedir
from agentd.errors import StateDirError


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "state"
    statedir.prepare(wanted)
    statedir.prepare(wanted)  # there is nothing left to do
    assert wanted.stat().st_mode & 0o777 == 0o700


def test_a_directory_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirError, match=r"cannot make .*/file/state: Not a directory"):
        statedir.prepare(tmp_path / "file" / "state")
    with pytest.raises(StateDirError, match=r"cannot make .*/file: File exists"):
        statedir.prepare(tmp_path / "file")


def test_a_directory_that_cannot_be_written_is_refused_with_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(StateDirError, match=rf"cannot write to .* \(mode 700, uid {os.geteuid()}\)"):
        statedir.prepare(tmp_path)


def test_a_read_only_file_system_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    with pytest.raises(StateDirError, match=r"cannot write to .*: its file system is read-only$"):
        statedir.prepare(tmp_path)


def test_a_second_agentd_is_kept_out_and_told_who_holds_it(tmp_path: Path) -> None:
    descriptor = statedir.lock(tmp_path)
    with pytest.raises(StateDirError, match=rf"another agentd \(pid {os.getpid()}\) uses .*; stop it with"):
        statedir.lock(tmp_path)
    os.close(descriptor)
    os.close(statedir.lock(tmp_path))


@pytest.mark.host
def test_the_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    code = f"import pathlib, sys; from agentd import statedir; statedir.lock(pathlib.Path({str(tmp_path)!r}))"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(StateDirError, match=f"pid {holder.pid}"):
        statedir.lock(tmp_path)
    holder.kill()
    holder.communicate()
    os.close(statedir.lock(tmp_path))


def test_agents_do_not_inherit_the_lock(tmp_path: Path) -> None:
    descriptor = statedir.lock(tmp_path)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def test_a_lock_that_cannot_be_opened_is_an_error_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / statedir.LOCK).mkdir()
    with pytest.raises(StateDirError, match=r"cannot open .*/lock: Is a directory"):
        statedir.lock(tmp_path)


def test_the_identity_stays_and_is_another_in_each_directory(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = statedir.identity(tmp_path / "one")
    assert statedir.identity(tmp_path / "one") == first
    assert statedir.identity(tmp_path / "two") != first
    assert len(first) == 32
    assert {path.name for path in (tmp_path / "one").iterdir()} == {statedir.IDENTITY}


@pytest.mark.parametrize("left", ["", "\n", "  \n"])
def test_an_identity_that_was_lost_is_made_anew(left: str, tmp_path: Path) -> None:
    (tmp_path / statedir.IDENTITY).write_text(left)
    fresh = statedir.identity(tmp_path)
    assert len(fresh) == 32
    assert statedir.identity(tmp_path) == fresh


def test_an_identity_that_cannot_be_written_is_an_error_of_the_directory(tmp_path: Path) -> None:
    with pytest.raises(StateDirError, match=r"cannot write .*/identity: No such file or directory"):
        statedir.identity(tmp_path / "gone")


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o777])
def test_a_directory_that_others_may_write_is_refused_with_the_fix(mode: int, tmp_path: Path) -> None:
    wanted = tmp_path / "state"
    wanted.mkdir()
    wanted.chmod(mode)
    with pytest.raises(
        StateDirError, match=rf"others may write to .*/state \(mode {mode:o}, uid \d+\).*chmod go-w .*/state"
    ):
        statedir.prepare(wanted)
    wanted.chmod(0o755)
    statedir.prepare(wanted)


def test_a_directory_of_somebody_else_is_refused_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(StateDirError, match=rf"{tmp_path} belongs to uid \d+ \(mode 700\).*agentd runs as uid.*chown"):
        statedir.prepare(tmp_path)


def test_the_identity_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o000)
    try:
        statedir.identity(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / statedir.IDENTITY).stat().st_mode & 0o777 == 0o600

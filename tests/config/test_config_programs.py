"""A command whose program is not there is worth a warning, where that can be told."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentd.config import load, parse
from agentd.config.programs import _UNITS_PATH


def warned(tmp_path: Path, pool: str) -> list[str]:
    path = tmp_path / "f.yaml"
    path.write_text(f"pools:\n  mine: {{ports: [9601, 9609], {pool}}}\n")
    return [line.removeprefix(f"{path}:") for line in load(path).warnings]


def test_a_path_to_nothing_is_told_with_its_place(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    text = f"pools.mine.command: there is no program '{gone}'"
    assert warned(tmp_path, f"command: {gone} --port 1") == [f"2:40: {text}"]
    assert warned(tmp_path, f"command: [{tmp_path}]") == [f"2:40: pools.mine.command: there is no program '{tmp_path}'"]
    assert warned(tmp_path, f"command: [{tmp_path}/f.yaml/x]") != [], "a file is no directory"


def test_a_word_is_looked_for_on_the_readers_path_and_on_that_of_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nosuchprogram").touch()
    monkeypatch.setenv("PATH", "/nowhere")
    (line,) = warned(tmp_path, "command: nosuchprogram")
    assert line.endswith(f"there is no program 'nosuchprogram' on PATH=/nowhere:{_UNITS_PATH}")
    assert warned(tmp_path, "command: sh") == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert warned(tmp_path, "command: nosuchprogram") == []


def test_a_pools_own_path_decides(tmp_path: Path) -> None:
    (tmp_path / "nosuchprogram").touch()
    assert warned(tmp_path, f"command: nosuchprogram, env: {{PATH: {tmp_path}}}") == []
    assert len(warned(tmp_path, f"command: sh, env: {{PATH: {tmp_path}}}")) == 1


def test_what_cannot_be_judged_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for command in ("bin/agent", "'/opt/{pool}/agent'"):
        assert warned(tmp_path, f"command: {command}") == []
    assert warned(tmp_path, "min: 1") == [], "the bundled agent"

    def denied(_path: str) -> os.stat_result:
        raise PermissionError

    monkeypatch.setattr("agentd.config.programs.os", SimpleNamespace(stat=denied, path=os.path))
    assert warned(tmp_path, f"command: {tmp_path}/gone") == []
    assert warned(tmp_path, "command: nosuchprogram") == []


def test_a_text_without_a_file_is_not_held_against_the_host() -> None:
    assert parse("pools: {mine: {ports: [9601, 9609], command: /nowhere/agent}}", "f.yaml").warnings == ()

"""config check: all errors at once, and no agentd needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

GOOD = "multi_agent:\n  enabled: true\n  autoscaling:\n    enabled: true\n"
BAD = "multi_agent:\n  enabled: perhaps\n  autoscaling:\n    scale_up_treshold: 0.7\n"


def test_a_good_file_is_ok(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(GOOD)
    result = agentctl("config", "check", str(file))
    assert (result.code, result.out, result.err) == (0, f"{file}: OK\n", "")
    value = json.loads(agentctl("config", "check", str(file), "-o", "json").out)
    assert value == {"ok": True, "problems": [], "warnings": [], "dropins": []}


def test_a_foreign_section_is_a_warning(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(GOOD + "database:\n  url: here\n")
    result = agentctl("config", "check", str(file))
    assert result.code == 0
    assert result.out.splitlines()[0].startswith("warning: ")
    assert result.out.splitlines()[-1] == f"{file}: OK, 1 warning"


def test_a_bad_file_shows_all_its_errors_with_their_places(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(BAD)
    result = agentctl("config", "check", str(file))
    assert result.code == 1
    first, second, summary = result.out.splitlines()
    assert first.startswith(f"{file}:2:")
    assert second.startswith(f"{file}:4:5:")
    assert "scale_up_threshold" in second
    assert summary == f"{file}: 2 errors; agentd would not start with it"
    value = json.loads(agentctl("config", "check", str(file), "--output", "json").out)
    assert value["ok"] is False
    assert [(one["line"], one["file"]) for one in value["problems"]] == [(2, str(file)), (4, str(file))]


def test_a_missing_file_is_an_error_without_a_traceback(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    result = agentctl("config", "check", str(tmp_path / "none.yaml"))
    assert result.code == 1
    assert "none.yaml" in result.out + result.err


def test_drop_ins_are_checked_with_the_file(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "agentd.yaml"
    file.write_text("multi_agent: {enabled: true}\n", encoding="utf-8")
    dropin = tmp_path / "agentd.yaml.d" / "50-mine.yaml"
    dropin.parent.mkdir()
    dropin.write_text("autoscaling: {enabled: true}\n", encoding="utf-8")
    result = agentctl("config", "check", str(file))
    assert (result.code, result.out.splitlines()) == (0, [f"with {dropin}", f"{file}: OK"])
    dropin.write_text("autoscaling: {enabeld: true}\n", encoding="utf-8")
    result = agentctl("config", "check", str(file))
    assert (result.code, result.out.splitlines()[0]) == (
        1, f"{dropin}:1:15: unknown key autoscaling.enabeld: did you mean enabled?"
    )  # fmt: skip

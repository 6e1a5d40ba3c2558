"""What the demo refuses before it starts anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.demo.__main__ import main


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What it says to options that are of no use."""
    assert main(["--state-dir", str(tmp_path / "state"), *argv]) == 2
    assert not (tmp_path / "state").exists()
    return capsys.readouterr().err


def test_a_report_that_could_not_be_written_is_told_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    told = refused(tmp_path, capsys, "--report", str(nowhere / "x.json"))
    assert told == f"--report {nowhere / 'x.json'}: there is no directory {nowhere}\n"
    told = refused(tmp_path, capsys, "--report", str(tmp_path))
    assert told == f"--report {tmp_path}: it is a directory\n"


def test_a_time_after_the_end_of_the_trace_is_told_with_that_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "load.csv"
    trace.write_text("offset_s,service_s\n0,1\n90,1\n")
    told = refused(tmp_path, capsys, "--trace", str(trace), "--from", "10m")
    assert told == f"cannot replay {trace}: it has no request in the given time; the last one is at 1:30\n"
    trace.write_text("offset_s,service_s\n")
    told = refused(tmp_path, capsys, "--trace", str(trace))
    assert told == f"cannot replay {trace}: it has no request in the given time\n"

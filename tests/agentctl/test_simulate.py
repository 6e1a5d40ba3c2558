"""simulate: policies side by side in virtual time, no agentd needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROWS = "\n".join(["offset_s,service_s", *(f"{20 * n},30.0" for n in range(90)), ""])


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "load.csv"
    path.write_text(ROWS, encoding="utf-8")
    return path


def test_the_table_shows_policies_side_by_side_and_how_agents_behave(agentctl: Callable[..., Any], trace: Path) -> None:
    result = agentctl("simulate", str(trace), "--policy", "static:2,clairvoyant", "--policy", "threshold")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "load: 90 requests, late above 5.0s"
    assert lines[1] == "agents: one task at a time, ready 30 s after the request for their start"
    assert lines[2].startswith("dispatch (least-loaded): one queue, first come first served")
    assert lines[3].startswith("drain (finish): an agent finishes its tasks")
    titles = next(line for line in lines if line.startswith("POLICY")).split()
    assert titles[:3] == ["POLICY", "J", "LATE"]
    assert [line.split()[0] for line in lines[-3:]] == ["static:2", "clairvoyant", "threshold"]
    assert "evaluations and" in result.err
    assert "steps per second" in result.err


def test_json_is_one_object_and_the_same_seed_gives_the_same_bytes(agentctl: Callable[..., Any], trace: Path) -> None:
    words = ["simulate", str(trace), "--policy", "demand", "--seed", "7", "--beat-loss", "0.2", "--set", "min=2"]
    first, second = (agentctl(*words, "--output", "json") for _ in range(2))
    assert (first.code, first.out) == (0, second.out)
    value = json.loads(first.out)
    assert value["trace"] == "load"
    settings = value["settings"]
    assert (settings["min"], settings["max"], settings["seed"], settings["set"]) == (2, 50, 7, {"min": "2"})
    assert (settings["startup_s"], settings["tell"], settings["history"]) == (30.0, "tasks", None)
    (policy,) = value["policies"]
    assert (policy["policy"], policy["requests"], policy["unserved"], policy["j"]) == ("demand", 90, 0, None)
    other = agentctl(*words, "--seed", "8", "-o", "json")
    assert json.loads(other.out)["settings"]["seed"] == 8


def test_agents_may_tell_their_load_alone(agentctl: Callable[..., Any], trace: Path) -> None:
    words = ["simulate", str(trace), "--policy", "demand"]
    tasks, load = (agentctl(*words, *more) for more in ([], ["--tell", "load"]))
    assert "heartbeats with the load alone" in load.out
    assert "heartbeats with the load alone" not in tasks.out
    value = json.loads(agentctl(*words, "--tell", "load", "-o", "json").out)
    assert value["settings"]["tell"] == "load"
    assert value["policies"][0]["starts"] == 0  # demand knows of no tasks
    assert json.loads(agentctl(*words, "-o", "json").out)["policies"][0]["starts"] > 0


def test_a_trace_of_counts_needs_the_time_of_a_task(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text("offset_s,arrivals\n0,3\n60,2\n", encoding="utf-8")
    result = agentctl("simulate", str(path))
    assert (result.code, result.out) == (1, "")
    assert "give their mean (--service)" in result.err
    result = agentctl("simulate", str(path), "--service", "20s", "--policy", "static:3", "-o", "json")
    assert json.loads(result.out)["settings"]["service_s"] == 20.0
    assert json.loads(result.out)["policies"][0]["requests"] == 5


def test_a_picture_is_drawn(agentctl: Callable[..., Any], trace: Path, tmp_path: Path) -> None:
    picture = tmp_path / "out.svg"
    assert agentctl("simulate", str(trace), "--policy", "static:2", "--plot", str(picture)).code == 0
    assert picture.read_text(encoding="utf-8").startswith("<svg ")


def test_a_picture_that_cannot_be_made_is_told_before_minutes_of_work(
    agentctl: Callable[..., Any], trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    monkeypatch.setattr("agentd.sim.run.simulate", lambda *_: pytest.fail("it was simulated"))
    result = agentctl("simulate", str(trace), "--plot", str(tmp_path / "out.png"))
    assert (result.code, result.out) == (1, "")
    assert "a PNG needs the module cairosvg" in result.err


def test_the_table_is_there_also_where_the_picture_cannot_be_written(
    agentctl: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    path = tmp_path / ("x" * 300 + ".svg")
    result = agentctl("simulate", str(trace), "--policy", "static:2", "--plot", str(path))
    assert result.code == 1
    assert result.out.splitlines()[-1].split()[0] == "static:2"
    assert "cannot write" in result.err


def test_whether_the_time_of_a_task_is_of_use_is_told(
    agentctl: Callable[..., Any], trace: Path, tmp_path: Path
) -> None:
    words = ("--policy", "static:2", "--service", "20s")
    result = agentctl("simulate", str(trace), *words)
    assert result.out.splitlines()[1] == "it says how long each request takes: --service is of no use"
    assert json.loads(agentctl("simulate", str(trace), *words, "--json").out)["settings"]["service_s"] is None
    counts = tmp_path / "nab-tweets-amzn-14d.csv"
    counts.write_text("offset_s,arrivals\n0,3\n60,2\n", encoding="utf-8")
    lines = [agentctl("simulate", str(counts), *more).out.splitlines()[1] for more in (words, words[:2])]
    assert lines == [
        "it counts its requests: each takes 20s in the mean (--service)",
        "it counts its requests: each takes 15s in the mean (as is known of this trace)",
    ]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--policy", "best"], 2, "no policy 'best'; there are threshold"),
        (["--set", "min"], 2, "'min' is no setting; write for example min=2"),
        (["--set", "mim=2"], 2, "--set mim=2: unknown key pools.sim.mim: did you mean min?"),
        (["--startup", "0"], 2, "no duration above 0"),
        (["--dispatch", "best"], 2, "'best' is not one of"),
        (["--plot", "out.jpg"], 1, "must end in .svg or .png"),
        (["--plot", "none/out.svg"], 1, "cannot write none/out.svg: none is no directory"),
        (["--policy", ""], 2, "no policy is named"),
        (["--policy", " , "], 2, "no policy is named"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    agentctl: Callable[..., Any], trace: Path, words: list[str], code: int, message: str
) -> None:
    policy = () if "--policy" in words else ("--policy", "static:1")
    result = agentctl("simulate", str(trace), *policy, *words)
    assert (result.code, result.out) == (code, "")
    assert message in result.err


def test_a_trace_that_is_not_there_or_is_empty(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("offset_s,service_s\n", encoding="utf-8")
    for path, message in ((tmp_path / "none.csv", "no such file"), (empty, "has no requests")):
        result = agentctl("simulate", str(path))
        assert (result.code, result.out) == (1, "")
        assert message in result.err


def test_the_same_bytes_come_from_every_process(trace: Path) -> None:
    code = "import sys; from agentd.agentctl.app import run; sys.exit(run(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "simulate", str(trace), "--policy", "demand,kpa,clairvoyant", "-o", "json"]
    outputs = set()
    for seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": seed}
        outputs.add(subprocess.run(words, capture_output=True, check=True, timeout=100, env=env).stdout)
    assert len(outputs) == 1

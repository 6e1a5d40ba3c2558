"""The benchmarks run: each explains itself, and the cheap ones give figures with tiny parameters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
SCRIPTS = (
    "agent_memory", "decisions", "drain", "etcd", "evaluate", "fleet", "heartbeats", "peers", "reaction", "recording",
    "rolling", "sandbox", "sessions", "status",
)  # fmt: skip


def run(script: str, *options: str, own_tmp: str = "") -> str:
    words = [sys.executable, str(BENCH / f"{script}.py"), *options]
    env = {**os.environ, "TMPDIR": own_tmp} if own_tmp else None
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def figures(script: str, file: Path, *options: str, own_tmp: str = "") -> dict[str, float]:
    """The medians that `script` writes; it must print them too."""
    printed = run(script, "--json", str(file), *options, own_tmp=own_tmp)
    report = json.loads(file.read_text(encoding="utf-8"))
    assert report["script"] == f"{script}.py"
    assert all(figure["what"] in printed for figure in report["figures"])
    return {figure["what"]: figure["median"] for figure in report["figures"]}


@pytest.fixture
def own_tmp() -> Iterator[str]:
    """A temporary directory that no other benchmark uses, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as path:
        yield path


def agents_left(own_tmp: str) -> set[str]:
    """The agents of the benchmark that runs in `own_tmp`, by their environment."""
    start = f"AGENTD_ENDPOINT=unix:{own_tmp}/".encode()
    found = set()
    for place in Path("/proc").glob("[0-9]*/environ"):
        try:
            marks = place.read_bytes().split(b"\0")
        except OSError:  # it has ended, or belongs to another user
            continue
        found |= {os.fsdecode(mark) for mark in marks if mark.startswith(start)}
    return found


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_says_what_it_measures_and_how(script: str) -> None:
    text = run(script, "--help")
    first_line = (BENCH / f"{script}.py").read_text(encoding="utf-8").splitlines()[0].removeprefix('"""')
    assert first_line in text
    assert "--json" in text


def test_evaluate_gives_times_and_ratios_for_each_size(tmp_path: Path) -> None:
    found = figures("evaluate", tmp_path / "report.json", "--rounds", "1", "--agents", "12")
    assert found["12 agents: check"] > 0
    assert found["12 agents: check / baseline"] > 0
    assert found["12 agents: endpoints / baseline"] > 0


def test_recording_gives_its_price_and_is_run_again(tmp_path: Path) -> None:
    small = ("--rounds", "1", "--agents", "12", "--minutes", "2")
    found = figures("recording", tmp_path / "report.json", *small)
    assert found["12 agents: recording"] > 0
    assert found["12 agents: run again"] > 0


def test_policies_compares_with_a_plan_and_takes_the_mean(tmp_path: Path) -> None:
    for name in ("one", "azure-code-2023"):
        rows = [f"{40 * n}.5,20.0" for n in range(30)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["offset_s,service_s", *rows, ""]), encoding="utf-8")
    out = tmp_path / "out.json"
    words = ["--traces", str(tmp_path), "--jobs", "1", "--startup", "5", "--out", str(out)]
    printed = run("policies", "static:1", "static:3", *words)
    report = json.loads(out.read_text(encoding="utf-8"))
    assert [(one["trace"], one["policy"]) for one in report["runs"]] == [
        (trace, policy) for trace in ("azure-code-2023", "one") for policy in ("static:1", "static:3")
    ]
    assert report["means"]["static:1"] == {"j": 1.0, "late_percent": 0.0, "hours_ratio": 1.0}
    assert report["means"]["static:3"]["hours_ratio"] > 2.5
    assert "mean of all but azure-code" in printed


def test_forecast_compares_never_while_it_pays_and_always(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    printed = run("forecast", "--days", "1", "--jobs", "1", "--json", str(out))
    found = json.loads(out.read_text(encoding="utf-8"))["runs"]
    assert [(one["load"], one["forecast"]) for one in found] == [("timetable", it) for it in ("off", "auto", "on")]
    assert len({one["j"] for one in found}) == 1, "nothing is expected on the first day"
    assert "agent-hours" in printed


def test_policies_says_who_is_best_and_where_agentd_loses(tmp_path: Path) -> None:
    """One task every so often: whoever keeps more than one agent, or none, is worse than who keeps one."""
    for name, every_s in (("calm", 40), ("azure-code-2023", 400)):
        rows = [f"{every_s * n}.5,20.0" for n in range(30)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["offset_s,service_s", *rows, ""]), encoding="utf-8")
    out = tmp_path / "out.json"
    words = ["--traces", str(tmp_path), "--jobs", "1", "--startup", "5", "--out", str(out)]
    printed = run("policies", "static:1", "demand", "hpa", "threshold", "kpa", *words)
    report = json.loads(out.read_text(encoding="utf-8"))
    j = {(one["trace"], one["policy"]): one["j"] for one in report["runs"]}
    assert [one["trace"] for one in report["verdicts"]] == ["azure-code-2023", "calm"]
    for one in report["verdicts"]:
        best = min(("hpa", "kpa"), key=lambda policy: j[one["trace"], policy])
        own, other = j[one["trace"], "demand"], j[one["trace"], best]
        assert (one["policy"], one["peer"], one["j"], one["peer_j"]) == ("demand", best, own, other)
        assert one["better_percent"] == pytest.approx(100 * (other - own) / other)
        assert one["loses"] is (own > other)
        (line,) = [line for line in printed.splitlines() if line.startswith(one["trace"]) and " % " in line]
        assert line.split()[1] == best
        assert line.endswith("worse  LOSES" if one["loses"] else "better")
    losses = sum(one["loses"] for one in report["verdicts"])
    assert printed.splitlines()[-1] == f"demand loses on {losses} of 2"
    assert "loses on" not in run("policies", "static:1", "demand", *words)


def test_policies_thins_a_trace_to_a_mean_demand_and_plans_anew(tmp_path: Path) -> None:
    rows = [f"{4 * n}.5,{10 + n % 21}.0" for n in range(900)]
    # By its name a plan of the whole trace is known, which is none of the thinned one.
    (tmp_path / "azure-code-2023.csv").write_text("\n".join(["offset_s,service_s", *rows, ""]), encoding="utf-8")
    (tmp_path / "thin.csv").write_text("offset_s,service_s\n0.5,10.0\n89.5,10.0\n", encoding="utf-8")
    out = tmp_path / "out.json"
    words = ["--traces", str(tmp_path), "--jobs", "1", "--out", str(out)]
    found = []
    for more in (["--thin", "0.5"], ["--thin", "0.5"], []):
        run("policies", "static:1", *words, *more)
        report = json.loads(out.read_text(encoding="utf-8"))
        found.append([{key: one[key] for key in one if key != "cpu_s"} for one in report["runs"]])
    first, second, whole = found
    assert first == second
    assert [one["slots"] for one in first] == [pytest.approx(0.5, abs=0.02), pytest.approx(0.2, abs=0.01)]
    assert [one["slots"] for one in whole] == [pytest.approx(5.0, abs=0.1), first[1]["slots"]]
    assert whole[0]["hours_ratio"] == pytest.approx(whole[0]["agent_hours"] / 6.7)
    assert 0.5 < first[0]["hours_ratio"] <= 1.0
    words = [sys.executable, str(BENCH / "policies.py"), "--traces", str(tmp_path), "--thin", "0"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr.count("0 is no number of busy slots above 0")) == (2, 1)


def test_adaptive_defaults_compares_with_what_ships(tmp_path: Path) -> None:
    rows = [f"{60 * n}.5,{20 + n % 7}.0" for n in range(40)]
    (tmp_path / "servegen-reasoning-1d.csv").write_text("\n".join(["offset_s,service_s", *rows, ""]), encoding="utf-8")
    out = tmp_path / "out.json"
    words = ["--traces", str(tmp_path), "--jobs", "1", "--variants", "MEMORY_S", "--out", str(out)]
    printed = run("adaptive_defaults", *words)
    report = json.loads(out.read_text(encoding="utf-8"))
    assert list(report["variants"]) == ["as shipped", "MEMORY_S x 0.5", "MEMORY_S x 2"]
    assert "+0.000" in printed
    run("adaptive_defaults", *words, "--day", "2")
    assert report["day"] is None and json.loads(out.read_text(encoding="utf-8"))["day"] == 2


def test_policies_says_what_is_wrong(tmp_path: Path) -> None:
    words = [sys.executable, str(BENCH / "policies.py"), "--traces", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr.count("no traces")) == (2, 1)


@pytest.mark.host
def test_heartbeats_counts_beats_in_the_core_and_leaves_nobody_behind(tmp_path: Path, own_tmp: str) -> None:
    small = ("--rounds", "1", "--callers", "2", "--seconds", "0.2")
    found = figures("heartbeats", tmp_path / "report.json", *small, own_tmp=own_tmp)
    assert found["beats/s, agentd's core"] > 0
    assert found["beats/s, bare grpc.aio"] > 0
    assert agents_left(own_tmp) == set()


@pytest.mark.host
def test_sessions_counts_those_that_are_served_and_those_that_are_back(tmp_path: Path, own_tmp: str) -> None:
    small = ("--count", "6", "--per-connection", "2", "--seconds", "0.5", "--settle", "0")
    found = figures("sessions", tmp_path / "report.json", *small, own_tmp=own_tmp)
    for server in ("agentd", "bare grpc.aio"):
        assert found[f"first to last session served, {server}"] > 0
        assert found[f"restart to all back, {server}"] > 0
    assert agents_left(own_tmp) == set()


@pytest.mark.host
def test_etcd_counts_signs_of_life_on_both_sides(tmp_path: Path) -> None:
    if shutil.which("etcd") is None:
        assert run("etcd").startswith("skipped: etcd is not installed")
        return
    found = figures("etcd", tmp_path / "report.json", "--rounds", "1", "--callers", "2", "--seconds", "0.2")
    assert found["beats/s, agentd"] > 0
    assert found["beats/s, etcd"] > 0


@pytest.mark.host
def test_agent_memory_compares_the_sdk_with_nothing_but_a_channel(tmp_path: Path) -> None:
    found = figures("agent_memory", tmp_path / "report.json", "--rounds", "1", "--processes", "1")
    assert found["python: USS"] < found["python + a grpc channel, connected: USS"]


@pytest.mark.host
def test_status_compares_with_an_empty_interpreter(tmp_path: Path) -> None:
    # The median of three: in one of them the machine may have stood still for a moment.
    found = figures("status", tmp_path / "report.json", "--rounds", "3", "--instances", "1")
    assert found["agentctl status, 1 instances"] > found["python -c pass"]


@pytest.mark.host
def test_peers_measures_agentd_alone_where_nothing_may_be_installed(tmp_path: Path) -> None:
    small = ("--rounds", "1", "--count", "2", "--kills", "1", "--idle", "0.2", "--settle", "0.2", "--peers")
    found = figures("peers", tmp_path / "report.json", *small)
    assert found["2: start, agentd"] > 0
    assert found["2: back, agentd"] > 0


@pytest.mark.host
def test_rolling_compares_a_client_with_itself(tmp_path: Path) -> None:
    found = figures("rolling", tmp_path / "report.json", "--rounds", "2", "--agents", "2", "--rate", "20")
    assert found["p99 through a restart"] > 0
    assert found["ratio of p99"] > 0
    assert found["tasks lost"] == found["tasks begun twice"] == 0


@pytest.mark.host
def test_drain_tells_all_watchers(tmp_path: Path) -> None:
    found = figures("drain", tmp_path / "report.json", "--rounds", "1", "--drains", "3", "--watchers", "4")
    assert found["drain to gone for 4 watchers, p50"] > 0
    assert found["ratio of p50"] > 0

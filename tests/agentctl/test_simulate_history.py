"""simulate --history: the load that agentd has recorded of a pool, on the pool's own terms."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentd.agentctl import loads
from agentd.core.model import PoolName
from agentd.sim import run as running
from agentd.sim.options import Options
from agentd.store import Bounds, Metric, Store
from agentd.v1 import control_pb2 as pb

CONFIG = """\
multi_agent: {enabled: true}
autoscaling: {enabled: true}
pools:
  research: {ports: [9101, 9112], max: 12, concurrency: 2, min: 2, scale_up_threshold: 0.75}
  writing: {ports: [9201, 9210]}
  fixed: {core: {one: 9301, two: 9302}}
  vast: {ports: [10000, 20000], max: 6000}
"""
WALL = 1_700_000_000.0
HOURS = 7
TOLD = "load: rebuilt from 6h59m of history, 420 samples of "


class Now:
    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return WALL + 3600.0 * HOURS


def record(
    state_dir: Path, pool: str, hours: int = HOURS, *, load: float | None = 0.5, in_flight: float = 1.0,
    queue: float = 0.0, per_minute: float | None = None,
) -> None:  # fmt: skip
    """A sample of three agents every minute, with one and two times `in_flight` at work by the hour.

    They have done so many tasks `per_minute`; None: they do not count them.
    """
    done = [None if per_minute is None else 7.0 + per_minute * n for n in range(60 * hours)]
    rows = [
        Metric(
            WALL + 60.0 * n, PoolName(pool), 3, 3, load, queue * (n % 60 == 30), in_flight * (1 + n // 60 % 2), done[n]
        )
        for n in range(60 * hours)
    ]  # fmt: skip
    keep(state_dir, rows)


def keep(state_dir: Path, rows: list[Metric]) -> None:
    async def write() -> None:
        state_dir.mkdir(exist_ok=True)
        store = Store.open(state_dir / "agentd.db", Bounds(), Now())
        await store.add_metrics(rows)
        await store.close()

    asyncio.run(write())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agentd.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    record(tmp_path / "state", "research")
    return tmp_path / "state"


@pytest.fixture
def words(file: Path, state_dir: Path) -> list[str]:
    """What runs a policy on the history of `research`."""
    where = ["--config", str(file), "--state-dir", str(state_dir)]
    return ["simulate", "--history", "research", *where, "--service", "60s", "--policy", "static:2"]


@pytest.fixture
def alone(agentctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """agentctl where no agentd runs."""
    monkeypatch.setattr("agentd.sdk.control.find_control", lambda *_: None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "nobody"))
    return agentctl


def test_the_table_says_what_was_rebuilt_and_how(alone: Callable[..., Any], words: list[str]) -> None:
    result = alone(*words)
    assert result.code == 0, result.err
    lines = result.out.splitlines()
    assert lines[0] == "research: 599 requests, late above 5.0s"  # ten hours of work, a minute each
    assert lines[1:8] == [
        TOLD + "tasks at work and waiting",
        "      tasks begun = tasks at work / 60s for each (--service);",
        "      what a queue grows by has arrived besides;",
        "      moments within a sample and the time of each task are drawn, anew with each seed",
        "      the pool had 3.0 agents in the mean then, whatever its settings were",
        "      nothing was ever seen to wait; what waits here is seen all the same (--tell load: it is not)",
        "agents are ready after 30s (assumed; say --startup)",
    ]
    assert lines[8] == "agents have 2 tasks at a time (as configured), there are 12 at most (as configured);"
    assert lines[9] == "      nothing else of the pool's configuration counts here: --set"
    assert lines[10] == "agents: 2 tasks at a time, ready 30 s after the request for their start"
    assert lines[-1].split()[0] == "static:2"


def test_means_over_five_minutes_count_for_as_long_as_they_are(
    alone: Callable[..., Any], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest day is recorded by the minute, and what is older is not: else it counts five times as much."""
    rows = [Metric(WALL + 300.0 * n, PoolName("research"), 2, 2, 0.5, 0.0, 1.0) for n in range(72)]
    rows += [Metric(WALL + 21_600.0 + 60.0 * n, PoolName("research"), 9, 9, 0.5, 0.0, 8.0) for n in range(61)]
    keep(tmp_path / "means", rows)
    words[words.index("--state-dir") + 1] = str(tmp_path / "means")
    result = alone(*words)
    assert "the pool had 3.0 agents in the mean then" in result.out  # six hours with two, one with nine
    monkeypatch.setattr(loads, "REQUESTS_MAX", 840)  # 360 and 480
    assert "the latest part only" not in alone(*words).out


def test_json_has_the_pool_for_the_trace_and_the_same_seed_gives_the_same_bytes(
    alone: Callable[..., Any], words: list[str]
) -> None:
    first, second, other = (alone(*words, "-o", "json", "--seed", seed).out for seed in ("7", "7", "8"))
    assert first == second
    value = json.loads(first)
    assert list(value) == ["trace", "settings", "policies"]
    settings = value["settings"]
    assert (value["trace"], settings["seed"], settings["service_s"], settings["tell"]) == ("research", 7, 60.0, "tasks")
    assert (settings["startup_s"], settings["concurrency"], settings["max"]) == (30.0, 2, 12)
    about = settings["history"]
    assert (about["pool"], about["for_s"], about["told"][0]) == (
        "research",
        604_800.0,
        TOLD + "tasks at work and waiting",
    )
    (policy,) = value["policies"]
    assert policy["requests"] == 599
    assert policy["agent_hours"] == pytest.approx(2 * HOURS, rel=0.02)
    assert json.loads(other)["policies"][0]["timeline"] != policy["timeline"]


def test_the_running_agentd_says_where_its_history_is_and_what_a_start_takes(
    ctl: Callable[..., Any], daemon: Any, file: Path, state_dir: Path
) -> None:
    status = daemon.fake.status
    status.CopyFrom(pb.Status(config_file=str(file), state_dir=str(state_dir)))
    status.pools.add(name="research").start_times.CopyFrom(pb.StartTimes(counted=5, p50_s=12.5, p95_s=20.0))
    status.instances.add(id="research-9101", pool="research", response_time_p50_s=20.0)
    words = ("simulate", "--history", "research", "--policy", "static:2")
    out = ctl(*words).out
    assert "agents are ready after 12s (the median of its last 5 starts)" in out
    assert "tasks at work / 28s for each (from the response times of 1 agent now; --service says it better)" in out
    settings = json.loads(ctl(*words, "--json").out)["settings"]
    assert (settings["startup_s"], settings["service_s"]) == (12.5, pytest.approx(28.3, abs=0.1))


def test_what_agents_have_done_says_what_a_task_takes(
    ctl: Callable[..., Any], daemon: Any, file: Path, state_dir: Path
) -> None:
    """Better than what a few of them say of their last tasks."""
    daemon.fake.status.CopyFrom(pb.Status(config_file=str(file), state_dir=str(state_dir)))
    daemon.fake.status.instances.add(id="writing-9201", pool="writing", response_time_p50_s=20.0)
    record(state_dir, "writing", per_minute=2.0)
    result = ctl("simulate", "--history", "writing", "--policy", "static:2", "--json")
    settings = json.loads(result.out)["settings"]
    assert settings["service_s"] == pytest.approx(10 * 3600.0 / (2 * 419), rel=0.01)  # ten hours of work
    assert settings["history"]["told"][1] == (
        "      tasks begun = tasks at work / 43s for each (what was at work, over the 838 tasks that were done);"
    )


def test_without_a_configuration_nothing_is_said_to_be_configured(alone: Callable[..., Any], state_dir: Path) -> None:
    words = ["simulate", "--history", "research", "--state-dir", str(state_dir), "--policy", "static:2"]
    out = " ".join(alone(*words).out.split())
    assert "agents have 1 task at a time (as without a configuration; say --config)" in out
    assert "there are 5 at most (as without a configuration; say --config)" in out


def test_less_history_than_is_needed_is_not_asked_for(alone: Callable[..., Any], words: list[str]) -> None:
    result = alone(*words, "--for", "1h")
    assert (result.code, result.out) == (1, "")
    assert "--for 1h: at least 6h of history are needed" in result.err


def test_what_is_said_goes_before_what_the_pool_has(
    alone: Callable[..., Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated: list[Options] = []
    run = running.simulate
    monkeypatch.setattr(running, "simulate", lambda *args: [simulated.append(args[2]), run(*args)][1])
    result = alone(*words, "--startup", "7s", "--concurrency", "3", "--max", "4", "--for", "6h30m")
    assert result.code == 0, result.err
    assert "load: rebuilt from 6h30m of history, 391 samples" in result.out
    assert "agents are ready after 7.0s (--startup)" in result.out
    assert "agents have 3 tasks at a time (--concurrency), there are 4 at most (--max);" in result.out
    (options,) = simulated
    assert (options.startup_s, options.concurrency, options.agents_max) == (7.0, 3, 4)
    assert options.wall == WALL + 60.0 * 29  # what goes by the time of day finds the time of day


def test_agents_that_reported_no_tasks_are_simulated_as_such(
    alone: Callable[..., Any], words: list[str], tmp_path: Path
) -> None:
    record(tmp_path / "idle", "research", in_flight=0.0)
    words[words.index("--state-dir") + 1] = str(tmp_path / "idle")
    result = alone(*words)
    assert result.out.splitlines()[1] == TOLD + "the load of its agents (they report no tasks)"
    assert "the simulated agents tell only their load either (--tell tasks: their tasks, too)" in result.out
    assert "heartbeats with the load alone" in result.out
    assert "seen to wait" not in result.out
    value = json.loads(alone(*words, "--json").out)
    assert value["settings"]["tell"] == "load"
    # Three agents at half load are three of six slots; how many slots are simulated changes nothing of that.
    assert value["policies"][0]["requests"] == pytest.approx(HOURS * 60 * 3, rel=0.02)
    assert (
        json.loads(alone(*words, "--json", "--concurrency", "5").out)["policies"][0]["requests"]
        == (value["policies"][0]["requests"])
    )
    result = alone(*words, "--tell", "tasks")
    assert "the simulated agents tell their tasks all the same (--tell)" in result.out
    assert "heartbeats with the load alone" not in result.out


def test_of_a_history_beyond_what_is_simulated_the_latest_part_counts(
    alone: Callable[..., Any], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of six slots busy for seven hours, by load alone: 1260 tasks of a minute."""
    record(tmp_path / "idle", "research", in_flight=0.0)
    words[words.index("--state-dir") + 1] = str(tmp_path / "idle")
    monkeypatch.setattr(loads, "REQUESTS_MAX", 310)
    result = alone(*words)
    assert "      the latest part only: 310 requests are the most that is simulated" in result.out
    assert "load: rebuilt from 1h43m of history" in result.out
    (policy,) = json.loads(alone(*words, "--json").out)["policies"]
    assert 300 <= policy["requests"] <= 310


@pytest.mark.parametrize(
    ("queue", "collectors"), [(4.0, ""), (0.0, "collectors: {queue: {type: command, argv: [printf, '0']}}")]
)
def test_a_queue_that_was_seen_needs_no_word(
    alone: Callable[..., Any], words: list[str], file: Path, state_dir: Path, queue: float, collectors: str
) -> None:
    record(state_dir, "research", queue=queue)
    file.write_text(CONFIG.replace("min: 2,", f"min: 2, {collectors}," if collectors else "min: 2,"), encoding="utf-8")
    result = alone(*words)
    assert result.code == 0, result.err
    assert "tasks at work and waiting" in result.out
    assert "nothing was ever seen to wait" not in result.out


def test_a_pool_that_never_changes_has_a_history_too(
    alone: Callable[..., Any], words: list[str], state_dir: Path
) -> None:
    record(state_dir, "fixed")
    words[words.index("research")] = "fixed"
    settings = json.loads(alone(*words, "--json").out)["settings"]
    assert (settings["concurrency"], settings["max"]) == (1, 2)
    assert json.loads(alone(*words, "--json", "--max", "9").out)["settings"]["max"] == 9


@pytest.mark.parametrize(
    ("pool", "hours", "in_flight", "message"),
    [
        ("writing", 0, 0.0, "nothing of history; at least 6h are needed, or a TRACE"),
        ("writing", 2, 1.0, "1h59m of history; at least 6h are needed, or a TRACE"),
        ("writing", 7, 0.0, "6h59m of history, and no work in it"),
    ],
)
def test_too_little_history_is_told_in_one_line(
    alone: Callable[..., Any],
    words: list[str],
    state_dir: Path,
    pool: str,
    hours: float,
    in_flight: float,
    message: str,
) -> None:
    record(state_dir, pool, hours, load=None, in_flight=in_flight)
    words[words.index("research")] = pool
    result = alone(*words)
    assert (result.code, result.out, result.err) == (1, "", f"agentctl: {pool}: {message}\n")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "the load is a TRACE or --history POOL: neither is given"),
        (["{trace}", "--history", "research"], "the load is a TRACE or --history POOL: both are given"),
        (["{trace}", "--for", "7d"], "--for can only be said with --history POOL, not of a TRACE"),
        (["{trace}", "--state-dir", "/tmp", "--config", "a.yaml"], "--config and --state-dir can only be said with"),
        (["--for", "7d"], "neither is given"),
        (
            ["--history", "nobody", "--config", "{file}"],
            "--history nobody: there is no such pool; the configuration has",
        ),
        (
            ["--history", "vast", "--config", "{file}"],
            "vast may have 6000 agents, and a simulation 5000 at most: say --max",
        ),
        (["--history", "research", "--for", "soon"], "'soon' is no duration above 0"),
    ],
)
def test_a_load_that_is_said_wrongly_is_a_mistake_in_the_command(
    alone: Callable[..., Any], file: Path, tmp_path: Path, given: list[str], message: str
) -> None:
    trace = tmp_path / "load.csv"
    trace.write_text("offset_s,service_s\n0,30.0\n", encoding="utf-8")
    result = alone("simulate", *(word.format(trace=trace, file=file) for word in given))
    assert (result.code, result.out) == (2, "")
    assert message in result.err


def test_a_history_or_a_configuration_that_cannot_be_read_is_told(
    alone: Callable[..., Any], words: list[str], file: Path, state_dir: Path, tmp_path: Path
) -> None:
    (state_dir / "agentd.db").write_bytes(b"no database" * 100)
    result = alone(*words)
    assert (result.code, result.out) == (1, "")
    assert f"cannot read the history in {state_dir}/agentd.db: file is not a database" in result.err
    words[words.index("--state-dir") + 1] = str(tmp_path / "nowhere")
    result = alone(*words)
    assert result.code == 1
    assert "nowhere/agentd.db does not exist; give a TRACE, or --state-dir" in result.err
    file.write_text("pools: [\n", encoding="utf-8")
    result = alone(*words)
    assert result.code == 1
    assert "the configuration cannot be used" in result.err


def test_an_agentd_that_was_named_and_is_not_there_is_missed(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    result = agentctl("--address", f"unix:{tmp_path}/none.sock", "simulate", "--history", "research")
    assert (result.code, result.out) == (3, "")

"""optimize: what it recommends, what it does not, and a drop-in that comes after a question and goes when refused."""

from __future__ import annotations

import errno
import itertools
import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentd import store_metrics, store_schema
from agentd.agentctl import optimize_apply
from agentd.config import load
from agentd.core.model import PoolName
from agentd.core.rules import AdaptiveTrigger
from agentd.sdk.control import ControlClient, ControlError, NoDaemonError
from agentd.sim.candidates import Candidate
from agentd.sim.optimize import Finding, Standing
from agentd.sim.trials import Case
from agentd.store_metrics import Metric
from agentd.v1 import control_pb2 as pb

RESEARCH = PoolName("research")
CONFIG = """\
multi_agent: {enabled: true}
autoscaling: {enabled: true}
pools:
  research: {ports: [9101, 9110], max: 10, scale_up_threshold: 0.75, cost: 2}
  writing: {ports: [9201, 9210]}
  fixed: {core: {one: 9301}}
"""
WALL = 1_700_000_000.0
# Enough for one candidate, the first, which is better here.
QUICK = ("--budget-of-runs", "4", "--time-limit", "1h", "--startup", "20s")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "agentd.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Twenty minutes with much to do after twenty with little: too much for today's cooldowns."""
    rng = random.Random(1)
    rows, offset_s = ["offset_s,service_s"], 0.0
    while offset_s < 7200.0:
        offset_s += rng.expovariate((6.0 if int(offset_s / 1200.0) % 2 else 1.0) / 30.0)
        rows.append(f"{offset_s:.2f},{rng.expovariate(1 / 30.0):.2f}")
    path = tmp_path / "load.csv"
    path.write_text("\n".join([*rows, ""]), encoding="utf-8")
    return path


@pytest.fixture
def alone(agentctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """agentctl where no agentd runs."""
    monkeypatch.setattr("agentd.sdk.control.find_control", lambda *_: None, raising=False)
    monkeypatch.setattr("agentd.sdk.address.find_control", lambda *_: None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "nobody"))
    return agentctl


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """In place of the search: the first candidate is better. What was to be searched."""
    cases: list[Case] = []

    def search(case: Case, choice: Sequence[Candidate], *_: object, **__: object) -> Finding:
        cases.append(case)
        today = Standing(Candidate("today"), 0.2, 40.0, 10.0, 5, 4.0)
        best = Standing(choice[0], 0.01, 2.0, 8.0, 6, 2.0, 2.0, 1.0, 3.0, 0.99)
        return Finding(today, best, (), 25, 40, 3, 1000, 7200.0, 12, 600.0, cut_short=False)

    monkeypatch.setattr("agentd.sim.optimize.search", search)
    return cases


def words(file: Path, trace: Path, *more: str) -> list[str]:
    return ["optimize", "--pool", "research", "--config", str(file), "--trace", str(trace), *QUICK, *more]


def dropin(file: Path) -> Path:
    return file.parent / "agentd.yaml.d" / "50-optimize-research.yaml"


def record(state_dir: Path, hours: float, in_flight: float) -> None:
    state_dir.mkdir(exist_ok=True)
    with sqlite3.connect(state_dir / "agentd.db") as connection:
        for statement in itertools.chain(*store_schema.MIGRATIONS):
            connection.execute(statement)
        rows = [
            Metric(WALL + 60.0 * n, RESEARCH, 2, 2, 0.5, 0, in_flight * (1 + n // 60 % 2))
            for n in range(int(60 * hours))
        ]
        store_metrics.put(connection, rows)


def test_a_better_setting_is_told_with_its_price_and_its_configuration(
    alone: Callable[..., Any], file: Path, trace: Path
) -> None:
    result = alone(*words(file, trace))
    assert result.code == 0, result.err
    assert "GAIN" in result.out
    assert "chosen and measured on the same load, too short to hold some of it back" in result.out
    assert "COST" in result.out
    assert "recommended: adaptive" in result.out
    trigger = "type: adaptive, wait_target_sec: 5, late_weight: 10, standby: 0, expert: auto, forecast: auto"
    assert f"    triggers: [{{{trigger}}}]" in result.out
    assert not dropin(file).exists()


@pytest.mark.usefixtures("searched")
def test_what_the_pool_says_of_its_own_adaptive_trigger_stays(
    alone: Callable[..., Any], file: Path, trace: Path
) -> None:
    own = "triggers: [{type: adaptive, late_weight: 3, standby: 4, expert: careful, forecast: off}]"
    file.write_text(CONFIG.replace("scale_up_threshold: 0.75", own), encoding="utf-8")
    result = alone(*words(file, trace, "--apply", "--yes"))
    assert result.code == 0, result.err
    (found,) = load(file).fleet.pools[RESEARCH].triggers
    assert found == AdaptiveTrigger(5.0, 3.0, 0, "careful", "off")
    assert "recommended: adaptive, wait 5 s, standby 0, expert careful, forecast off" in result.out


def test_json_is_one_object(alone: Callable[..., Any], searched: list[Case], file: Path, trace: Path) -> None:
    result = alone(*words(file, trace, "-o", "json", "--apply", "--yes"))
    value = json.loads(result.out)
    (pool,) = value["pools"]
    assert (pool["pool"], pool["reason"], value["advice"]) == ("research", "", [])
    assert pool["best"]["late_share"] < pool["today"]["late_share"]
    assert (pool["best"]["gain_low"], pool["best"]["confidence"], pool["best"]["cost"]) == (1.0, 0.99, 16.0)
    assert (pool["search"]["seeds"], pool["search"]["held_out"]) == (3, False)
    assert pool["config"] == dropin(file).read_text()
    assert load(file).fleet.pools[RESEARCH].triggers[0].kind == "adaptive"
    (case,) = searched
    assert (case.startup_s, case.slo_s, case.late_weight, case.pool.max) == (20.0, 5.0, 10.0, 10)


RATES = "cost: {per_hour: 2, per_task: 0.01, per_cpu_hour: 4, per_gib_hour: 0.5}"


@pytest.mark.usefixtures("searched")
def test_every_price_that_is_set_is_part_of_the_cost(
    ctl: Callable[..., Any], daemon: Any, file: Path, trace: Path
) -> None:
    """A thousand tasks; an agent uses half a core and 4 GiB in the mean. Of the best 8 hours, of today's 10."""
    file.write_text(CONFIG.replace("cost: 2", RATES), encoding="utf-8")
    status = daemon.fake.status
    status.CopyFrom(pb.Status(config_file=str(file)))
    status.pools.add(name="research", footprint_learned=True, footprint_bytes=4 << 30)
    status.instances.add(id="research-9101", pool="research", cpu_cores=0.75)
    status.instances.add(id="research-9102", pool="research", cpu_cores=0.25)
    status.instances.add(id="writing-9201", pool="writing", cpu_cores=7.0)
    status.instances.add(id="research-9103", pool="research")
    result = ctl(*words(file, trace), "-o", "json")
    (pool,) = json.loads(result.out)["pools"]
    each = 2.0 + 0.5 * 4.0 + 4.0 * 0.5
    assert pool["today"]["cost"] == pytest.approx(10.0 * each + 1000 * 0.01)
    assert pool["best"]["cost"] == pytest.approx(8.0 * each + 1000 * 0.01)
    assert "COST is without" not in ctl(*words(file, trace)).out


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize(
    ("rates", "cost", "told"),
    [
        (RATES, 8.0 * 2.0 + 10.0, "COST is without memory and CPU"),
        ("cost: {per_task: 0.5}", 500.0, ""),
        ("cost: {per_cpu_hour: 4}", 0.0, "COST is without CPU"),
    ],
)
def test_what_nobody_runs_to_say_is_told_to_be_missing_in_the_cost(
    alone: Callable[..., Any], file: Path, trace: Path, rates: str, cost: float, told: str
) -> None:
    file.write_text(CONFIG.replace("cost: 2", rates), encoding="utf-8")
    out = alone(*words(file, trace)).out
    assert told in out
    assert ("COST is" in out) is bool(told)
    (pool,) = json.loads(alone(*words(file, trace, "-o", "json")).out)["pools"]
    assert pool["best"]["cost"] == pytest.approx(cost)


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize(("answer", "written"), [("y\n", True), ("n\n", False), ("", False)])
def test_nothing_is_written_before_a_yes(
    ctl: Callable[..., Any], daemon: Any, file: Path, trace: Path, answer: str, written: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    daemon.fake.status.config_file = str(file)
    daemon.fake.reloaded = pb.ReloadResponse(config_file=str(file), changes=["pools.research.triggers: a -> b"])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: answer.strip() or (_ for _ in ()).throw(EOFError))
    result = ctl(*words(file, trace, "--apply"))
    assert result.code == 0, result.err
    assert "+    triggers: [{type: adaptive" in result.out
    assert dropin(file).exists() is written
    asked = [one for one in daemon.fake.requests if isinstance(one, pb.ReloadRequest)]
    assert len(asked) == written
    if written:
        assert "changed: pools.research.triggers: a -> b" in result.out
        assert f"to undo: rm {dropin(file)} && agentctl reload" in result.out
        assert load(file).fleet.pools[RESEARCH].triggers[0].kind == "adaptive"
        assert load(file).fleet.pools[RESEARCH].max == 10
        assert dropin(file).stat().st_mode == file.stat().st_mode
    else:
        assert "nothing was changed" in result.out


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("before", [None, "pools: {research: {max: 9}}\n"])
def test_a_refused_reload_leaves_everything_as_it_was(
    ctl: Callable[..., Any], daemon: Any, file: Path, trace: Path, before: str | None
) -> None:
    if before is not None:
        dropin(file).parent.mkdir()
        dropin(file).write_text(before)
    daemon.fake.status.config_file = str(file)
    refusal = daemon.refused("CONFIG_INVALID", "a.yaml:1:1: it is bad", grpc.StatusCode.INVALID_ARGUMENT)
    daemon.fake.refusals["Reload"] = refusal
    result = ctl(*words(file, trace, "--apply", "--yes"))
    assert result.code == 1
    assert "agentd refused the recommendation; its files are as they were" in result.err
    assert "a.yaml:1:1: it is bad" in result.err
    assert (dropin(file).read_text() if dropin(file).exists() else None) == before
    assert dropin(file).parent.exists() is (before is not None)


LATE = ControlError("agentd did not answer within 10 s", code="DEADLINE_EXCEEDED")
CUT = NoDaemonError("the connection to agentd ended")
BAD = ControlError("a.yaml:1:1: it is bad", code="INVALID_ARGUMENT", reason="CONFIG_INVALID")
READ_AGAIN = "its files are as they were, and read again"
NOT_KNOWN = "whether agentd has taken the recommendation is not known; its files are as they were: agentctl reload"


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("before", [None, "pools: {research: {max: 9}}\n"])
@pytest.mark.parametrize(
    ("errors", "told"),
    [([LATE], READ_AGAIN), ([CUT], READ_AGAIN), *(([LATE, again], NOT_KNOWN) for again in (LATE, CUT, BAD))],
    ids=["late", "cut", "late-late", "late-cut", "late-bad"],
)
def test_a_reload_without_an_answer_is_taken_back_by_another(
    ctl: Callable[..., Any], daemon: Any, file: Path, trace: Path, before: str | None, errors: list[ControlError],
    told: str, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """agentd may have read the recommendation all the same, and would go on with what is in no file."""
    if before is not None:
        dropin(file).parent.mkdir()
        dropin(file).write_text(before)
    daemon.fake.status.config_file = str(file)
    answers, seen = list(errors), []

    def reload(_: ControlClient) -> pb.ReloadResponse:
        seen.append(dropin(file).read_text() if dropin(file).exists() else None)
        if answers:
            raise answers.pop(0)
        return pb.ReloadResponse(config_file=str(file))

    monkeypatch.setattr(ControlClient, "reload", reload)
    result = ctl(*words(file, trace, "--apply", "--yes"))
    assert result.code == 1
    assert len(seen) == 2
    assert "type: adaptive" in seen[0]
    assert seen[1] == before
    assert "refused" not in result.err
    assert all(str(error) in result.err for error in errors)
    assert told in result.err


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("before", [None, "pools: {research: {max: 9}}\n"])
def test_a_way_back_that_is_blocked_is_told_with_what_led_there(
    ctl: Callable[..., Any], daemon: Any, file: Path, trace: Path, before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is not None:
        dropin(file).parent.mkdir()
        dropin(file).write_text(before)
    daemon.fake.status.config_file = str(file)
    refusal = daemon.refused("CONFIG_INVALID", "a.yaml:1:1: it is bad", grpc.StatusCode.INVALID_ARGUMENT)
    daemon.fake.refusals["Reload"] = refusal
    write, unlink = optimize_apply._write, Path.unlink

    def write_once(path: Path, text: str, beside: Path) -> None:
        if text == before:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        write(path, text, beside)

    def unlink_others(path: Path, missing_ok: bool = False) -> None:
        if path == dropin(file):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(optimize_apply, "_write", write_once)
    monkeypatch.setattr(Path, "unlink", unlink_others)
    result = ctl(*words(file, trace, "--apply", "--yes"))
    assert result.code == 1
    assert result.err.startswith("agentctl: the recommendation could not be taken back\n")
    assert f"{dropin(file)} is left as recommended (Read-only file system): " in result.err
    assert "agentd refused the recommendation" in result.err
    assert "a.yaml:1:1: it is bad" in result.err


@pytest.mark.usefixtures("searched")
def test_what_was_there_before_goes_back_whatever_happens(
    ctl: Callable[..., Any], daemon: Any, file: Path, trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropin(file).parent.mkdir()  # also an empty directory
    daemon.fake.status.config_file = str(file)

    def stumble(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(optimize_apply, "_put_in_force", stumble)
    with pytest.raises(RuntimeError):
        ctl(*words(file, trace, "--apply", "--yes"))
    assert list(dropin(file).parent.iterdir()) == []


APPLY = """
import os, signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from agentd.agentctl import interrupt, optimize_apply
from agentd.agentctl.command import Session
interrupt.end_on_interrupt()
name, address, file = sys.argv[1:]
real = getattr(optimize_apply, name)
def then_interrupted(*args, **options):
    found = real(*args, **options)
    os.kill(os.getpid(), signal.SIGINT)
    return found
setattr(optimize_apply, name, then_interrupted)
session = Session(address=address, timeout_s=30.0, output="table")
optimize_apply.apply(session, Path(file), {"research": "pools: {research: {max: 9}}\\n"}, yes=True, reads=True)
"""


@pytest.mark.host
@pytest.mark.parametrize(("after", "applied"), [("_write", False), ("_put_in_force", True)])
def test_control_c_leaves_all_of_it_or_nothing(daemon: Any, file: Path, after: str, applied: bool) -> None:
    command = [sys.executable, "-c", APPLY, after, daemon.address, str(file)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 130, found.stderr
    assert dropin(file).parent.exists() is applied
    asked = [one for one in daemon.fake.requests if isinstance(one, pb.ReloadRequest)]
    assert len(asked) == applied
    if applied:
        assert [path.name for path in dropin(file).parent.iterdir()] == [dropin(file).name]
        assert f"to undo: rm {dropin(file)} && agentctl reload" in found.stdout
    else:
        assert found.stderr == "agentctl: interrupted: nothing was changed\n"


@pytest.mark.usefixtures("searched")
def test_without_an_agentd_a_drop_in_waits_for_one(alone: Callable[..., Any], file: Path, trace: Path) -> None:
    result = alone(*words(file, trace, "--apply", "--yes"))
    assert result.code == 0, result.err
    assert "no agentd runs with this file" in result.out
    assert dropin(file).exists()


def test_history_that_is_too_short_is_told(alone: Callable[..., Any], file: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    record(state_dir, 2, 1.0)
    result = alone("optimize", "--config", str(file), "--state-dir", str(state_dir))
    assert result.code == 0
    assert "no recommendation: 1h59m of history; at least 6h are needed, or a trace (--trace)" in result.out
    assert "no recommendation: nothing of history; at least 6h are needed" in result.out  # writing
    assert "fixed" not in result.out


def test_how_arrivals_were_rebuilt_is_told(
    alone: Callable[..., Any], searched: list[Case], file: Path, tmp_path: Path
) -> None:
    state_dir = tmp_path / "state"
    record(state_dir, 7, 1.0)
    source = ["optimize", "--pool", "research", "--config", str(file), "--state-dir", str(state_dir)]
    result = alone(*source, "--service", "60s")
    assert result.code == 0, result.err
    assert "rebuilt from 6h59m of history, 420 samples of tasks at work and waiting" in result.out
    assert "tasks begun = tasks at work / 60s for each (--service)" in result.out
    assert "nothing was ever seen to wait" in result.out
    assert "the pool had 2.0 agents in the mean then" in result.out
    assert "today's settings have 5.0 agents in the mean here, the pool had 2.0 in that time" in result.out
    assert "that is far apart: where its settings were the same then, trust none of it" in result.out
    assert "agents are ready after 30s (assumed; say --startup)" in result.out
    (case,) = searched
    assert len(case.loads(1)) == pytest.approx(7 * 60 * 1.5, rel=0.1)
    assert (case.wall, case.tells_tasks) == (WALL, True)
    assert case.pool.collectors == ()
    record(tmp_path / "idle", 7, 0.0)  # at half load, by the agents' own word
    result = alone(*source[:-1], str(tmp_path / "idle"), "--service", "60s")
    assert "samples of the load of its agents (they report no tasks)" in result.out
    assert "the simulated agents tell only their load either" in result.out
    assert searched[1].tells_tasks is False


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--trace", "gone.csv"], 1, "gone.csv: no such file"),
        (["--state-dir", "/nowhere"], 1, "there is no history: /nowhere/agentd.db does not exist"),
        (["--budget-of-runs", "1"], 2, "1 is not in the range"),
        (["--apply", "-o", "json"], 2, "say --yes"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    alone: Callable[..., Any], file: Path, more: list[str], code: int, message: str
) -> None:
    result = alone("optimize", "--pool", "research", "--config", str(file), *more)
    assert result.code == code
    assert message in result.err


def test_a_trace_belongs_to_one_pool_and_a_pool_must_be_there(
    alone: Callable[..., Any], file: Path, trace: Path
) -> None:
    result = alone("optimize", "--config", str(file), "--trace", str(trace))
    assert (result.code, "say --pool; there are research, writing, fixed" in result.err) == (2, True)
    for names in (["--pool", "other"], ["--pool", "research", "--pool", "other"]):
        result = alone("optimize", "--config", str(file), *names, "-o", "json")
        assert (result.code, result.out) == (2, "")
        assert "--pool other: there is no such pool; the configuration has research, writing, fixed" in result.err
    result = alone("optimize", "--config", str(file), "--pool", "fixed", "--trace", str(trace))
    assert "it always has the same number of agents" in result.out


@pytest.mark.usefixtures("searched")
def test_the_advice_of_the_status_is_told_besides(
    ctl: Callable[..., Any], daemon: Any, file: Path, trace: Path
) -> None:
    daemon.fake.status.config_file = str(file)
    del daemon.fake.status.advice[:]
    for code, pool in (("ports_scarce", "research"), ("over_budget", ""), ("oom_kills", "writing")):
        daemon.fake.status.advice.append(pb.Advice(code=code, pool=pool, text=f"about {code}"))
    result = ctl(*words(file, trace))
    assert result.out.splitlines()[-2:] == ["Besides", "research: about ports_scarce [ports_scarce]"]
    value = json.loads(ctl(*words(file, trace), "-o", "json").out)
    assert value["advice"] == [{"code": "ports_scarce", "pool": "research", "text": "about ports_scarce"}]


@pytest.mark.usefixtures("searched")
def test_a_file_that_lists_no_pools_keeps_all_of_them(alone: Callable[..., Any], file: Path, trace: Path) -> None:
    file.write_text("multi_agent: {enabled: true}\n", encoding="utf-8")
    before = load(file).fleet.pools
    assert alone(*words(file, trace, "--apply", "--yes")).code == 0
    after = load(file).fleet.pools
    assert set(after) == set(before)
    assert after[RESEARCH].triggers[0].kind == "adaptive"
    assert all(after[name] == pool for name, pool in before.items() if name != RESEARCH)


@pytest.mark.usefixtures("searched")
def test_a_second_recommendation_replaces_the_first(alone: Callable[..., Any], file: Path, trace: Path) -> None:
    dropin(file).parent.mkdir()
    dropin(file).write_text("pools: {research: {scale_up_threshold: , triggers: [{type: demand}]}}\n")
    result = alone(*words(file, trace, "--apply", "--yes"))
    assert result.code == 0, result.err
    assert f"--- {dropin(file)}" in result.out
    assert "what was recommended before is replaced" in result.out
    assert [trigger.kind for trigger in load(file).fleet.pools[RESEARCH].triggers] == ["adaptive"]

"""replay: stored decisions and recordings made again, offline; 1 where something differs."""

from __future__ import annotations

import asyncio
import gzip
import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

sys.path += [str(Path(__file__).parents[1] / "core"), str(Path(__file__).parents[1] / "recording")]

from fleets import FLEET
from recorded import BOUNDS, Recorded
from world import WALL

from agentd import __version__
from agentd.agentctl.replay import words
from agentd.core.model import Decision, Limit, Proposal, Reason
from agentd.recording import configurations
from agentd.recording.segments import DIRECTORY, listed
from agentd.store import Batch, Bounds, Store

IDENT = "1-1"


class WallClock:
    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return WALL


def store_all(state_dir: Path, decisions: list[Decision], text: str | None = None) -> None:
    """As an agentd does that decides and ends."""

    async def main() -> None:
        store = Store.open(state_dir / "agentd.db", Bounds(), WallClock())
        if text is not None:
            store.configured(decisions[0].configuration, text)
        await store.write(Batch(decisions=tuple(decisions)))
        await store.close()

    asyncio.run(main())


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of an agentd that recorded in full and has ended."""
    monkeypatch.setattr("recorded.VERSION", __version__)
    place = tmp_path / "state"
    config, text = configurations.named(FLEET)
    world = Recorded(config, place / DIRECTORY, bounds=replace(BOUNDS, segment_bytes_max=2048))
    world.usual_load = 0.9
    world.boot()
    for _ in range(6):
        world.run_until(world.now + 100.0)
        world.recorder.flush()
    world.recorder.close()
    store_all(place, [made for outcome in world.outcomes for made in outcome.decisions], text)
    return place


@pytest.fixture
def alone(agentctl: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """agentctl where no agentd runs."""
    monkeypatch.setattr("agentd.sdk.control.find_control", lambda *_: None, raising=False)
    monkeypatch.setattr("agentd.sdk.address.find_control", lambda *_: None)
    return agentctl


def tamper(path: Path, old: bytes, new: bytes) -> None:
    text = gzip.decompress(path.read_bytes())
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new)))


def segment_with(state_dir: Path, text: bytes) -> Path:
    found = listed(state_dir / DIRECTORY)
    return next(path for path in found if text in gzip.decompress(path.read_bytes()))


def test_all_that_is_kept_comes_out_the_same(alone: Callable[..., Any], state_dir: Path) -> None:
    result = alone("replay", str(state_dir))
    assert result.code == 0, result.err
    told = alone("replay", "--state-dir", str(state_dir), "--json")
    value = json.loads(told.out)
    assert told.code == 0
    total = value["decisions"]["total"]
    assert value["decisions"] == {"total": total, "same": total, "different": [], "cannot": []}
    evaluations = sum(one["evaluations"] for one in value["recording"])
    messages = sum(one["messages"] for one in value["recording"])
    assert total > 1 and evaluations == sum(one["evaluations_same"] for one in value["recording"]) > 10
    assert len(value["recording"]) > 1 and {one["first_difference"] for one in value["recording"]} == {None}
    assert f"{total} decisions: {total} made again the same" in result.out
    assert f"{evaluations} evaluations: {evaluations} made again the same" in result.out
    assert f"{messages} messages: what came of {messages} is the same" in result.out


def test_one_decision_by_its_id(alone: Callable[..., Any], state_dir: Path) -> None:
    result = alone("replay", IDENT, "--state-dir", str(state_dir))
    assert (result.code, result.out) == (0, "STORED DECISIONS\n  1 decision: 1 made again the same\n")
    missing = alone("replay", "1-999", "--state-dir", str(state_dir))
    assert missing.code == 1 and "there is no decision 1-999 in" in missing.err


def test_a_decision_that_comes_out_otherwise_is_shown_with_both_sides(
    alone: Callable[..., Any], state_dir: Path
) -> None:
    with sqlite3.connect(state_dir / "agentd.db") as file:
        file.execute("UPDATE decisions SET granted = granted + 1 WHERE id = ?", (IDENT,))
    result = alone("replay", str(state_dir), "--only", "decisions")
    assert result.code == 1
    assert ", 1 otherwise" in result.out
    assert f"[{IDENT}]" in result.out and "granted, then: 3" in result.out and "granted, now: 2" in result.out
    value = json.loads(alone("replay", str(state_dir), "--only", "decisions", "--json").out)
    (different,) = value["decisions"]["different"]
    assert {"field": "granted", "stored": "3", "now": "2"} in different["fields"]
    assert value["recording"] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        ((), "none"),
        (("research-9101", "research-9102"), "research-9101, research-9102"),
        ((("wanted", 5), ("granted", 2)), "wanted 5, granted 2"),
        (
            (Limit("up_rate", "2 were", 7.0, 3), Limit("host_cpu", "busy")),
            "up_rate: 2 were (allows 3, lifts at 7.0), host_cpu: busy",
        ),
        ((Reason("high_load", "High load"),), "high_load: High load"),
        ((Proposal("demand", None, Reason("no_sample", "none")),), "demand -: none"),
    ],
)
def test_what_differs_is_told_in_words(value: object, text: str) -> None:
    assert words(value) == text


def test_a_recording_that_comes_out_otherwise_is_shown_with_both_sides(
    alone: Callable[..., Any], state_dir: Path
) -> None:
    tamper(segment_with(state_dir, b'"scale_up"'), b'"granted":2', b'"granted":7')
    result = alone("replay", str(state_dir), "--only", "recording")
    assert result.code == 1
    assert "first difference: a tick at" in result.out
    assert "evaluated[0].granted, then: 7" in result.out and "evaluated[0].granted, now: 2" in result.out


def test_a_recording_alone_is_run_again_where_it_lies(
    alone: Callable[..., Any], state_dir: Path, tmp_path: Path
) -> None:
    directory = state_dir / DIRECTORY
    one = tmp_path / "copy.gz"
    one.write_bytes(listed(directory)[1].read_bytes())
    for place in (one, directory):
        result = alone("replay", str(place))
        assert result.code == 0, result.err
        assert result.out.startswith("RECORDING\n")
        assert "STORED" not in result.out
    assert "1 segment" in alone("replay", str(one)).out


def test_a_torn_segment_is_said_and_is_no_difference(alone: Callable[..., Any], state_dir: Path) -> None:
    path = listed(state_dir / DIRECTORY)[-1]
    path.write_bytes(path.read_bytes()[:-30])
    result = alone("replay", str(state_dir))
    assert result.code == 0, result.err
    assert f"{path.name}: it" in result.out


def test_only_the_time_and_the_pool_that_are_asked_for(alone: Callable[..., Any], state_dir: Path) -> None:
    # WALL is on the 14th of November 2023, wherever the test runs.
    before = alone("replay", str(state_dir), "--to", "2023-11-01T00:00")
    assert before.code == 1 and "none of that time and pool" in before.out and "nothing of that time" in before.out
    during = alone("replay", str(state_dir), "--from", "2023-11-01T00:00", "--to", "2023-12-01T00:00")
    assert during.code == 0 and "made again the same" in during.out
    pool = alone("replay", str(state_dir), "--pool", "execution")
    assert "STORED DECISIONS" in pool.out and "RECORDING" not in pool.out
    assert alone("replay", str(state_dir), "--from", "10m", "--to", "20m").code == 2


def test_decisions_without_their_configuration_want_one(
    alone: Callable[..., Any], tmp_path: Path, state_dir: Path
) -> None:
    with sqlite3.connect(state_dir / "agentd.db") as file:
        file.execute("DELETE FROM configurations")
    result = alone("replay", IDENT, "--state-dir", str(state_dir))
    assert result.code == 1
    assert "1 cannot be made again: the configuration of its time is not kept" in result.out
    other = tmp_path / "agentd.yaml"
    other.write_text("multi_agent: {enabled: true}\npools: {other: {ports: [9101, 9110]}}\n")
    result = alone("replay", IDENT, "--state-dir", str(state_dir), "--config", str(other))
    assert result.code == 1 and "no pool" in result.out
    result = alone("replay", IDENT, "--state-dir", str(state_dir), "--config", str(tmp_path / "none.yaml"))
    assert result.code == 1 and "the configuration cannot be used" in result.err


def test_what_is_no_state_of_agentd_is_refused_by_name(alone: Callable[..., Any], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "other.db").write_text("hello")
    for place, error in (
        (empty, f"there are no stored decisions: {empty / 'agentd.db'} does not exist"),
        (tmp_path / "notes.txt", "is no recording of agentd"),
        (tmp_path / "other.db", "cannot read"),
    ):
        result = alone("replay", str(place))
        assert result.code == 1 and error in result.err, result.err
    gone = alone("replay", str(tmp_path / "gone"))
    assert gone.code == 2
    assert "it does not exist; expected a decision's id as `agentctl explain` shows it, or a path" in gone.err
    assert alone("replay", str(empty), "--state-dir", str(empty)).code == 2


def test_a_state_file_of_another_version_is_said(alone: Callable[..., Any], state_dir: Path) -> None:
    for version, way in ((99, "use that one's agentctl"), (4, "start this agentd once")):
        with sqlite3.connect(state_dir / "agentd.db") as file:
            file.execute(f"PRAGMA user_version={version}")
        result = alone("replay", str(state_dir))
        assert result.code == 1 and way in result.err

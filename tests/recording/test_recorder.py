"""A recording stays within its bounds, and whatever happens to its disk does not happen to the fleet."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from fleets import FLEET
from msgspec.structs import replace
from recorded import BOUNDS, VERSION, Recorded
from world import World

from agentd.recording import recorder as recording
from agentd.recording.rerun import rerun
from agentd.recording.segments import Segment, SegmentFile, listed, make_room, next_path


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def live(world: Recorded, rounds: int, *, seconds: float = 60.0) -> None:
    for number in range(rounds):
        for agent in world.agents.values():
            agent.load = 0.5 + number % 7 / 100
        world.run_until(world.now + seconds)
        world.recorder.flush()


def test_the_directory_never_takes_more_than_its_bound_and_the_oldest_goes_first(tmp_path: Path) -> None:
    world = Recorded(FLEET, tmp_path, bounds=replace(BOUNDS, bytes_max=12_000))
    world.boot()
    names: list[str] = []
    largest = 0
    for _ in range(40):
        live(world, 1)
        largest = max(largest, size(tmp_path))
        names += [path.name for path in listed(tmp_path) if path.name not in names]
    assert 6_000 < largest <= 12_000
    left = [path.name for path in listed(tmp_path)]
    assert len(left) < len(names) and left == names[-len(left) :]
    made = world.rerun()
    assert [one.first for one in made] == [None] * len(made)


DAY_S = 86_400.0


def segments_of(directory: Path, *days: float) -> list[Path]:
    """One byte each, in the order of writing, last written on that day."""
    for number, day in enumerate(days, 1):
        path = directory / f"{number:06}-20260131T000000.jsonl.gz"
        path.write_bytes(b"x")
        os.utime(path, (day * DAY_S, day * DAY_S))
    return sorted(directory.iterdir())


def left(directory: Path, keep: Path, *, day: float, bytes_max: int = 1000) -> list[int]:
    """The numbers of the segments that are left when room was made on that day, 7 days being kept."""
    make_room(directory, keep, 1, bytes_max, wall=day * DAY_S, age_s_max=7 * DAY_S)
    return [int(path.name[:6]) for path in listed(directory)]


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    *_, keep = segments_of(tmp_path, 100, 101, 102, 109, 109.5, 110)
    (tmp_path / "notes.txt").write_bytes(b"not ours")
    assert left(tmp_path, keep, day=110) == [3, 4, 5, 6]
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(OSError, match="too few for one segment"):
        left(tmp_path, keep, day=110, bytes_max=1)
    assert [path.name for path in listed(tmp_path)] == [keep.name]


@pytest.mark.parametrize("day", [475.0, -20_000.0])
def test_a_clock_that_is_wrong_for_one_look_deletes_nothing(tmp_path: Path, day: float) -> None:
    *_, keep = segments_of(tmp_path, 104, 105, 106, 109, 110)
    assert left(tmp_path, keep, day=day) == [1, 2, 3, 4, 5]


def test_a_clock_that_is_wrong_as_a_segment_ends_and_the_next_begins_deletes_nothing(tmp_path: Path) -> None:
    *_, keep = segments_of(tmp_path, 104, 105, 106, 475, 475)
    assert left(tmp_path, keep, day=475) == [1, 2, 3, 4, 5]


def test_segments_of_a_clock_that_was_set_back_go_in_their_order(tmp_path: Path) -> None:
    *_, keep = segments_of(tmp_path, 104, 50, 51, 109, 110, 110)
    assert left(tmp_path, keep, day=110) == [1, 2, 3, 4, 5, 6]
    assert left(tmp_path, keep, day=110, bytes_max=5) == [3, 4, 5, 6]


def test_a_segment_of_a_clock_that_was_ahead_holds_up_no_older_and_no_later_ones(tmp_path: Path) -> None:
    *_, keep = segments_of(tmp_path, 100, 475, 101, 109, 110, 110)
    assert left(tmp_path, keep, day=110) == [4, 5, 6]


def test_segments_are_numbered_behind_those_that_were_not(tmp_path: Path) -> None:
    for name in ("20260131T110000.000-7", "20260131T110000.000-7-001"):
        (tmp_path / f"{name}.jsonl.gz").touch()
    for wall in (1.8e9, 1.7e9, 1.75e9):
        next_path(tmp_path, wall).touch()
    assert [path.name.split(".")[0] for path in listed(tmp_path)] == [
        "20260131T110000", "20260131T110000",
        "000001-20270115T080000", "000002-20231114T221320", "000003-20250615T150640",
    ]  # fmt: skip


def test_a_segment_also_ends_after_a_while(tmp_path: Path) -> None:
    world = Recorded(FLEET, tmp_path, bounds=replace(BOUNDS, segment_bytes_max=1 << 30))
    world.boot()
    live(world, 2, seconds=0.75 * recording.SEGMENT_S_MAX)
    world.recorder.close()
    walls = [Segment(path).wall for path in listed(tmp_path)]
    assert len(walls) == 2 and walls[1] - walls[0] == pytest.approx(recording.SEGMENT_S_MAX, abs=11.0)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[OSError]:
    """What every write to a segment fails with; empty: it succeeds."""
    failing: list[OSError] = []
    write = SegmentFile.write

    def failing_write(self: SegmentFile, packed: bytes) -> None:
        if failing:
            raise failing[0]
        write(self, packed)

    monkeypatch.setattr(SegmentFile, "write", failing_write)
    return failing


def plain(*rounds: int) -> World:
    """The same story without a recording: so many rounds of `live`, and so many again."""
    world = World(FLEET)
    world.boot()
    for number in (number for count in rounds for number in range(count)):
        for agent in world.agents.values():
            agent.load = 0.5 + number % 7 / 100
        world.run_until(world.now + 60.0)
    return world


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path, full: list[OSError]) -> None:
    world = Recorded(FLEET, tmp_path)
    said: list[str] = []
    world.recorder.on_trouble = said.append
    world.boot()
    live(world, 1)
    full.append(OSError(errno.ENOSPC, "No space left on device"))
    live(world, 3)
    assert said == [f"nothing is recorded for replays: cannot write to {tmp_path}: No space left on device"]
    full.clear()
    live(world, 3)
    assert said[1:] == [""], "it is tried again, and goes on"
    made = world.rerun()
    assert [one.first for one in made] == [None] * len(made)
    assert "it has no end" in made[0].torn and made[-1].torn == ""
    assert world.outcomes == plain(1, 3, 3).outcomes


def test_less_than_so_much_free_disk_is_left_alone(tmp_path: Path) -> None:
    world = Recorded(FLEET, tmp_path, bounds=replace(BOUNDS, free_bytes_min=1 << 62))
    said: list[str] = []
    world.recorder.on_trouble = said.append
    world.boot()
    live(world, 2)
    assert len(said) == 1 and said[0].endswith("MiB of the disk are free")
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made_is_said_and_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    world = Recorded(FLEET, tmp_path / "file" / "recording")
    said: list[str] = []
    world.recorder.on_trouble = said.append
    world.boot()
    live(world, 2)
    assert len(said) == 1 and "Not a directory" in said[0]
    assert world.outcomes == plain(2).outcomes


def test_a_disk_that_does_not_keep_up_ends_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "WAITING_MAX", 20)
    world = Recorded(FLEET, tmp_path)
    said: list[str] = []
    world.recorder.on_trouble = said.append
    with world.recorder._writing:  # the thread waits for the disk
        world.boot()
        world.run_until(200.0)
    assert said[0] == "nothing is recorded for replays: more than 20 steps wait for the disk"
    assert len(world.recorder._items) <= 25
    world.recorder.close()


def test_a_mistake_in_here_costs_the_recording_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("moon")

    monkeypatch.setattr(recording.told, "told", broken)
    world = Recorded(FLEET, tmp_path)
    said: list[str] = []
    world.recorder.on_trouble = said.append
    world.boot()
    live(world, 2)
    assert said == ["nothing is recorded for replays: KeyError: 'moon'"]
    assert world.outcomes == plain(2).outcomes


def test_a_wall_clock_that_is_set_is_in_the_recording(tmp_path: Path) -> None:
    world = Recorded(FLEET, tmp_path, bounds=replace(BOUNDS, segment_bytes_max=1 << 20))
    world.boot()
    live(world, 1)
    world.clock.offset += 7200.0
    live(world, 1)
    world.recorder.close()
    (path,) = listed(tmp_path)
    made = rerun(path, version=VERSION)
    assert made is not None and made.first is None
    assert made.ended - made.began == pytest.approx(7320.0, abs=15.0)
    late = rerun(path, version=VERSION, since=made.began + 7000.0)
    assert late is not None and 0 < late.messages < made.messages


def test_two_segments_of_one_moment_have_names_of_their_own(tmp_path: Path) -> None:
    for _ in range(3):
        world = Recorded(FLEET, tmp_path)
        world.boot()
        world.recorder.close()
    assert len(listed(tmp_path)) == 3

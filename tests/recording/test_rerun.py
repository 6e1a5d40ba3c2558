"""What was recorded in full comes out again exactly, whatever happened; else the first place that differs is named."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_trigger_properties
from fleets import FLEET, RESEARCH, STORIES
from hypothesis import given
from msgspec.structs import replace
from recorded import BOUNDS, VERSION, Recorded
from test_properties import HAPPENINGS, Happening, _smooth, _stories
from world import WALL

from agentd.core.messages import InstancesListed
from agentd.core.model import Direction, HostSample, PoolConfig
from agentd.core.rules import AdaptiveTrigger
from agentd.recording import segments
from agentd.recording.recorder import SEGMENT_S_MAX
from agentd.recording.rerun import Rerun, from_time, rerun
from agentd.recording.segments import RecordingError, Segment, listed


def play(world: Recorded, story: list[Happening]) -> None:
    world.boot()
    for name, values in story:
        HAPPENINGS[name](world, *values)
        world.recorder.flush()


def assert_exact(made: list[Rerun]) -> None:
    assert [one.first for one in made] == [None] * len(made)
    assert sum(one.evaluations for one in made) == sum(one.same for one in made)
    assert {(one.torn, one.stopped) for one in made} == {("", "")}


@STORIES
@given(_stories)
def test_a_recorded_story_comes_out_again_exactly(story: list[Happening]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = Recorded(FLEET, Path(directory), start_delay_s=2.0)
        play(world, [*story, ("reboot", (1.0,)), ("run", (61.0,))])
        assert_exact(world.rerun())


@STORIES
@given(_smooth)
def test_a_fleet_that_grows_and_shrinks_comes_out_again_exactly(story: list[Happening]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = Recorded(FLEET, Path(directory))
        play(world, story)
        assert_exact(world.rerun())


@pytest.mark.parametrize("name", sorted(test_trigger_properties.TRIGGERS))
@test_trigger_properties.FEWER
@given(test_trigger_properties.stories)
def test_every_trigger_comes_out_again_exactly(name: str, story: list[Happening]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = Recorded(test_trigger_properties.fleet(name), Path(directory), start_delay_s=2.0)
        world.boot()
        for kind, values in story:
            test_trigger_properties.HAPPENINGS[kind](world, *values)
            world.recorder.flush()
        assert_exact(world.rerun())


def a_day(directory: Path, **bounds: Any) -> Recorded:
    """Load that comes and goes, a killed agentd, and a pool that goes out of the configuration while it drains."""
    pools = {
        name: replace(pool, scale_up_cooldown_s=1.0, scale_down_cooldown_s=2.0) for name, pool in FLEET.pools.items()
    }
    pools[RESEARCH] = replace(
        pools[RESEARCH], triggers=(AdaptiveTrigger(),), policy="adaptive", env=(("KEY", "s3cret"),)
    )
    config = replace(FLEET, pools=pools)
    world = Recorded(config, directory, bounds=replace(BOUNDS, **bounds), start_delay_s=2.0)
    world.boot()
    for number in range(12):
        HAPPENINGS["load"](world, 0.95 if number % 4 < 2 else 0.0)
        for agent in world.agents:
            world.work(agent, 3 if number % 4 < 2 else 0)
        HAPPENINGS["host"](world, 4000)
        world.run_until(world.now + 70.0)
        if number == 5:
            world.now += 3.0
            world.reboot()
        if number == 8:
            world.configure(replace(config, pools={RESEARCH: replace(config.pools[RESEARCH], env=(("KEY", "other"),))}))
        world.recorder.flush()
    return world


def test_each_of_many_segments_comes_out_again_by_itself(tmp_path: Path) -> None:
    world = a_day(tmp_path)
    made = world.rerun()
    assert len(made) > 5
    assert_exact(made)
    steps = [decision for outcome in world.outcomes for decision in outcome.decisions]
    assert {step.direction for step in steps} >= {Direction.UP, Direction.DOWN}
    assert sum(one.evaluations for one in made) > 100


def test_a_recording_holds_no_secret(tmp_path: Path) -> None:
    a_day(tmp_path).recorder.close()
    for path in listed(tmp_path):
        assert not {"s3cret", "KEY"} & set(gzip.decompress(path.read_bytes()).decode().replace('"', " ").split())


def the_only_segment(directory: Path) -> tuple[Recorded, Path]:
    world = Recorded(FLEET, directory, bounds=replace(BOUNDS, segment_bytes_max=1 << 20))
    world.usual_load = 0.9
    world.boot()
    world.run_until(200.0)
    world.recorder.close()
    (path,) = listed(directory)
    return world, path


def rewritten(path: Path, change: Callable[[list[Any]], None]) -> Path:
    """`path` with its lines, which are JSON values, changed."""
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    change(lines)
    path.write_bytes(gzip.compress("".join(f"{json.dumps(line)}\n" for line in lines).encode()))
    return path


def test_what_came_out_otherwise_is_counted_and_the_first_place_named(tmp_path: Path) -> None:
    _, path = the_only_segment(tmp_path)

    def change(lines: list[Any]) -> None:
        for line in lines[1:]:
            if len(line) > 3 and "evaluated" in line[3] and line[3]["evaluated"][0].get("granted"):
                line[3]["evaluated"][0]["granted"] += 1
                return

    made = rerun(rewritten(path, change), version=VERSION)
    assert made is not None and made.first is not None
    assert (made.differing, made.evaluations - made.same) == (1, 1)
    assert made.first.place == "evaluated[0].granted"
    assert made.first.recorded == made.first.now + 1  # type: ignore[operator]
    assert made.first.message == "a tick"


def test_what_was_decided_under_another_configuration_differs(tmp_path: Path) -> None:
    _, path = the_only_segment(tmp_path)

    def change(lines: list[Any]) -> None:
        lines[0]["config"]["pools"]["research"]["max"] = 1

    made = rerun(rewritten(path, change), version=VERSION)
    assert made is not None and made.first is not None and made.same < made.evaluations


def test_of_another_version_of_agentd_the_state_is_not_compared(tmp_path: Path) -> None:
    _, path = the_only_segment(tmp_path)

    def change(lines: list[Any]) -> None:
        for line in lines[1:]:
            if len(line) > 3 and "state" in line[3]:
                line[3]["state"] += 1

    rewritten(path, change)
    other, same = rerun(path, version="10.0"), rerun(path, version=VERSION)
    assert other is not None and other.first is None and other.evaluations == other.same > 0
    assert same is not None and same.first is not None and same.first.place == "state"


def test_only_the_time_that_is_asked_for_counts(tmp_path: Path) -> None:
    world = a_day(tmp_path)
    whole = world.rerun()
    middle = whole[3].began
    since = [rerun(path, version=VERSION, since=middle) for path in from_time(listed(tmp_path), middle)]
    until = [rerun(path, version=VERSION, until=middle - 0.001) for path in listed(tmp_path)]
    assert sum(one.messages for one in since if one) + sum(one.messages for one in until if one) == sum(
        one.messages for one in whole
    )
    assert rerun(listed(tmp_path)[0], version=VERSION, until=WALL - 1.0) is None


def test_a_clock_that_was_ahead_ends_no_replay_before_the_time_that_is_asked_for(tmp_path: Path) -> None:
    world = Recorded(FLEET, tmp_path, bounds=replace(BOUNDS, segment_bytes_max=1 << 30))
    world.boot()
    world.run_until(50.0)
    world.clock.offset += 9000.0
    world.run_until(SEGMENT_S_MAX + 50.0)  # the next segment begins under the wrong time
    world.clock.offset -= 9000.0
    world.run_until(2.5 * SEGMENT_S_MAX)
    world.recorder.close()
    paths = listed(tmp_path)
    first, second, _ = paths
    until = WALL + SEGMENT_S_MAX + 100.0
    made = [rerun(path, version=VERSION, until=until) for path in from_time(paths, None, until)]
    assert [one.path for one in made if one] == [first, second]
    whole = [rerun(path, version=VERSION) for path in (first, second)]
    assert made[0] is not None and made[1] is not None and whole[0] is not None and whole[1] is not None
    # Of the first what came before the clock went wrong, of the second the seconds after it was right again.
    assert 0 < made[0].messages < whole[0].messages and 0 < made[1].messages < whole[1].messages
    assert made[1].ended == pytest.approx(until, abs=11.0)
    assert (made[1].differing, made[1].same) == (0, made[1].evaluations)


def test_a_clock_that_is_set_back_hides_nothing_of_the_time_that_is_asked_for(tmp_path: Path) -> None:
    world = Recorded(FLEET, tmp_path, bounds=replace(BOUNDS, segment_bytes_max=1 << 30))
    world.boot()
    world.run_until(100.0)
    world.clock.offset -= 5000.0
    world.run_until(2.5 * SEGMENT_S_MAX)
    world.recorder.close()
    first, second, third = listed(tmp_path)
    assert list(from_time([first, second, third], WALL + 50.0)) == [first, second, third]
    made = rerun(first, version=VERSION, since=WALL + 50.0)
    assert made is not None and made.messages > 0
    assert list(from_time([first, second, third], WALL + 2 * SEGMENT_S_MAX)) == [third]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_segment_that_was_torn_is_read_up_to_the_tear(tmp_path: Path, share: float) -> None:
    world = a_day(tmp_path, segment_bytes_max=1 << 20)
    world.recorder.close()
    path = listed(tmp_path)[-1]
    whole = rerun(path, version=VERSION)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    made = rerun(path, version=VERSION)
    assert made is not None and whole is not None
    assert made.torn.startswith(("it has no end", "its last line is torn"))
    assert 0 < made.messages < whole.messages and made.first is None


def test_a_segment_whose_middle_is_damaged_is_read_up_to_there(tmp_path: Path) -> None:
    world = a_day(tmp_path, segment_bytes_max=1 << 20)
    world.recorder.close()
    path = listed(tmp_path)[-1]
    whole = bytearray(path.read_bytes())
    middle = len(whole) * 3 // 4
    whole[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(whole)
    made = rerun(path, version=VERSION)
    assert made is not None and "damaged" in made.torn and made.messages > 0


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"pools: {}\n", "is no recording of agentd$"),
        (gzip.compress(b"hello\n"), "is no recording of agentd$"),
        (gzip.compress(b'{"a": 1}\n'), "is no recording of agentd$"),
        (gzip.compress(b'{"owner": "agentd recording", "format": 2}\n'), r"another agentd wrote it \(form 2, this one"),
        (gzip.compress(b'{"owner": "agentd recording", "format": 1, "wall": 1}\n'), "cannot read the first line"),
    ],
    ids=("text", "other lines", "other object", "newer", "short"),
)
def test_a_foreign_file_is_refused_by_name(tmp_path: Path, content: bytes, error: str) -> None:
    path = tmp_path / f"x{segments.SUFFIX}"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=error) as caught:
        rerun(path, version=VERSION)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 2, 100])
def test_a_segment_torn_within_its_first_line_is_said_and_holds_up_no_other(tmp_path: Path, length: int) -> None:
    _, path = the_only_segment(tmp_path)
    last = path.with_name(f"9{path.name}")
    last.write_bytes(path.read_bytes()[:length])
    made = [rerun(one, version=VERSION) for one in from_time(listed(tmp_path), WALL)]
    assert [(one.messages > 0, one.torn.partition(":")[0]) for one in made if one] == [
        (True, ""),
        (False, "it ends within its first line"),
    ]


def test_a_directory_without_segments_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="there is no recording in"):
        listed(tmp_path)
    with pytest.raises(RecordingError, match="No such file or directory"):
        listed(tmp_path / "gone")


@pytest.mark.parametrize("line", ["{}", "[1, 2]", "nonsense"])
def test_what_follows_a_line_of_no_known_form_is_left_out(tmp_path: Path, line: str) -> None:
    _, path = the_only_segment(tmp_path)
    text = gzip.decompress(path.read_bytes()).splitlines()
    path.write_bytes(gzip.compress(b"\n".join([*text[:3], line.encode(), *text[3:], b""])))
    segment = Segment(path)
    assert len(list(segment.lines())) == 2
    assert segment.torn == "it is damaged: line 4 is no line of a recording"


def test_what_agentd_failed_of_is_the_last_line_and_fails_again(tmp_path: Path) -> None:
    world = Recorded(FLEET, tmp_path)
    world.boot()
    world.run_until(10.0)
    # Nobody sends what breaks an invariant; so one is broken by hand, in the recording, too.
    world.controller.step(InstancesListed(()), world.now)

    def broken(*_: object) -> None:
        raise AssertionError("broken invariant")

    world.controller._dispatch = broken  # type: ignore[method-assign]
    with pytest.raises(AssertionError):
        world.controller.step(InstancesListed(()), world.now)
    made = world.rerun()[-1]
    assert made.first is not None and made.first.place == "error"
    assert made.first.recorded == "AssertionError: broken invariant"


def test_hosts_and_pools_that_are_no_more_are_part_of_a_state(tmp_path: Path) -> None:
    """What is not saved across restarts of agentd, and decides all the same."""
    world = Recorded(FLEET, tmp_path, start_delay_s=5.0)
    world.boot()
    world.run_until(20.0)
    HAPPENINGS["host"](world, 4000)
    world.configure(replace(FLEET, pools={RESEARCH: FLEET.pools[RESEARCH]}))
    whole = world.controller.whole()  # type: ignore[attr-defined]
    assert isinstance(whole.host, HostSample) and whole.usage
    assert [type(config) for config in whole.removed.values()] == [PoolConfig]
    again = type(world.controller).from_whole(world.controller.config, whole, 1)  # type: ignore[attr-defined]
    assert again.whole() == whole

"""Drop-ins: FILE.d/*.yaml over FILE, each mistake told at its place in the file that has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.config import describe_changes, load
from agentd.config.layers import FILES_MAX, directory
from agentd.core.model import PoolName
from agentd.core.rules import DemandTrigger, ThresholdTrigger
from agentd.errors import ConfigError

RESEARCH = PoolName("research")
MAIN = """\
multi_agent: {enabled: true}
autoscaling: {enabled: true, scale_up_threshold: 0.8}
defaults: &usual {min: 1, max: 4, resources: {memory_max: 1G, tasks_max: 64}}
pools:
  research:
    <<: *usual
    ports: [9101, 9110]
    scale_up_threshold: 0.6
    core: {}
"""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    file = tmp_path / "agentd.yaml"
    file.write_text(MAIN)
    directory(file).mkdir()
    return file


def put(main: Path, name: str, text: str) -> Path:
    path = directory(main) / name
    path.write_text(text)
    return path


def problems(main: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(main)
    return [str(problem).replace(str(main.parent) + "/", "") for problem in caught.value.problems]


def test_mappings_merge_by_key_and_everything_else_is_replaced(main: Path) -> None:
    put(main, "50-a.yaml", "pools: {research: {max: 6, ports: [9201, 9210], resources: {memory_max: 2G}}}\n")
    config = load(main)
    pool = config.fleet.pools[RESEARCH]
    assert (pool.min, pool.max, pool.ports and pool.ports.first) == (1, 6, 9201)
    assert (pool.resources.memory_max_bytes, pool.resources.tasks_max) == (2 << 30, 64)
    assert pool.threshold == ThresholdTrigger(0.6, 0.25)
    assert config.fleet.autoscaling_enabled
    assert config.dropins == (directory(main) / "50-a.yaml",)


def test_they_count_in_the_order_of_their_names_and_only_those_that_are_drop_ins(main: Path) -> None:
    put(main, "60-b.yaml", "pools: {research: {max: 7}}\n")
    put(main, "50-a.yaml", "pools: {research: {max: 6, min: 2}}\n")
    put(main, ".70-c.yaml", "nonsense: [")
    put(main, "80-d.yaml.off", "nonsense: [")
    put(main, "90-e.yaml", "# nothing yet\n")
    pool = load(main).fleet.pools[RESEARCH]
    assert (pool.min, pool.max) == (2, 7)


def test_a_key_with_nothing_behind_it_takes_a_value_away(main: Path) -> None:
    text = "pools: {research: {scale_up_threshold: , triggers: [{type: demand, target_ratio: 0.8}]}}\n"
    put(main, "50-a.yaml", text)
    pool = load(main).fleet.pools[RESEARCH]
    assert pool.triggers == (DemandTrigger(target_ratio=0.8),)
    put(main, "50-a.yaml", "pools: {research: {scale_up_threshold: }}\n")
    assert load(main).fleet.pools[RESEARCH].threshold == ThresholdTrigger(0.8, 0.25)


def test_a_mistake_has_the_place_in_the_file_that_makes_it(main: Path) -> None:
    put(main, "50-a.yaml", "pools:\n  research:\n    prots: [9101, 9102]\n    max: many\n")
    put(main, "60-b.yaml", "pools: {other: {ports: [9105, 9120]}}\n")
    assert problems(main) == [
        "agentd.yaml.d/50-a.yaml:3:5: unknown key pools.research.prots: did you mean ports?",
        "agentd.yaml.d/50-a.yaml:4:10: pools.research.max must be a whole number from 0 to 65535, not many",
        "agentd.yaml.d/60-b.yaml:1:24: ports 9105-9120 of pool other (line 1) overlap with ports 9101-9110 of pool "
        "research (line 7 of agentd.yaml)",
    ]


def test_what_stands_in_two_places_names_both_files(main: Path) -> None:
    put(main, "50-a.yaml", "multi_agent: {autoscaling: {enabled: false}}\n")
    assert problems(main) == [
        "agentd.yaml.d/50-a.yaml:1:15: multi_agent.autoscaling is given twice: "
        "also as autoscaling on line 2 of agentd.yaml"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n", ["50-a.yaml:1:1: a drop-in must be a mapping of sections"]),
        ("a: [\n", ["50-a.yaml:2:1: cannot read YAML: while parsing a flow node, expected the node content, "]),
        ("pools: {research: {max: 2, max: 3}}\n", ["50-a.yaml:1:28: duplicate key max: it is also on line 1"]),
    ],
)
def test_a_file_that_is_no_drop_in_is_refused(main: Path, text: str, told: list[str]) -> None:
    put(main, "50-a.yaml", text)
    found = problems(main)
    assert len(found) >= len(told)
    assert all(line.startswith(f"agentd.yaml.d/{start}") for line, start in zip(found, told, strict=False))


def test_all_files_that_are_no_yaml_are_told_at_once(main: Path) -> None:
    main.write_text("a: [\n")
    put(main, "50-a.yaml", "b: [\n")
    assert [line.split(":")[0] for line in problems(main)] == ["agentd.yaml", "agentd.yaml.d/50-a.yaml"]


def test_a_mapping_that_stands_in_itself_ends(main: Path) -> None:
    main.write_text("pools: &p {research: *p}\n")
    put(main, "50-a.yaml", "pools: &p {research: *p}\n")
    assert any("a mapping must not stand in itself" in line for line in problems(main))


def test_there_is_a_bound_on_their_number(main: Path) -> None:
    for number in range(FILES_MAX + 1):
        put(main, f"{number}.yaml", "")
    assert problems(main) == [f"agentd.yaml.d:1:1: cannot read the drop-ins: there are {FILES_MAX + 1}, more than 100"]


def test_a_pending_drop_in_counts_as_if_it_were_there(main: Path) -> None:
    there = put(main, "50-a.yaml", "pools: {research: {max: 9}}\n")
    assert load(main, {there: "pools: {research: {max: 8}}\n"}).fleet.pools[RESEARCH].max == 8
    assert load(main, {directory(main) / "60-b.yaml": "pools: {research: {max: 7}}"}).fleet.pools[RESEARCH].max == 7
    assert load(main).fleet.pools[RESEARCH].max == 9


def test_a_reload_tells_which_drop_ins_came_and_went(main: Path) -> None:
    before = load(main)
    path = put(main, "50-a.yaml", "pools: {research: {max: 9}}\n")
    after = load(main)
    assert describe_changes(before, after) == [f"drop-in {path} is new", "pools.research.max: 4 -> 9"]
    assert describe_changes(after, before)[0] == f"drop-in {path} is no longer there"

"""Control groups as files: the same questions on version 1, on both, and on version 2."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agentd import procfs
from agentd.cgroups import NO_LIMIT, Cgroups, GroupLimits, MemoryLeft, Mode

UNIT = "agentd.slice/agent@research-9101.service"
MAX_V1 = "9223372036854771712\n"

V2 = "30 23 0:26 / /cg rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
V1 = (
    "40 31 0:37 / /systemd rw,nosuid - cgroup cgroup rw,xattr,name=systemd\n"
    "35 31 0:32 / /memory rw - cgroup cgroup rw,memory\n"
    "36 31 0:29 / /cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "37 31 0:36 / /pids rw - cgroup cgroup rw,pids\n"
)

Tree = Callable[[dict[str, str]], Cgroups]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes files below a directory, which is then the root of a host."""

    def make(files: dict[str, str]) -> Cgroups:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return Cgroups(tmp_path)

    return make


def group(folder: str, files: dict[str, str], path: str = UNIT) -> dict[str, str]:
    return {f"{folder}/{path}/{name}": text for name, text in files.items()}


ON_V2 = {"proc/self/mountinfo": V2, "cg/cgroup.controllers": "cpu io memory pids\n"} | group(
    "cg",
    {
        "memory.current": "9000000\n",
        "memory.stat": "anon 5\nworkingset_inactive_file 7\ninactive_file 2000000\nactive_file 3\n",
        "memory.peak": "9500000\n",
        "memory.max": "50000000\n",
        "memory.high": "max\n",
        "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n",
        "memory.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=1.00 total=1\n",
        "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nthrottled_usec 750000\n",
        "cpu.max": "20000 100000\n",
        "cpu.weight": "33\n",
        "pids.current": "4\n",
        "pids.max": "20\n",
        "io.weight": "default 50\n8:0 200\n",
        "cgroup.procs": "12\n7\n",
        "worker/cgroup.procs": "9\n",
    },
)
ON_V1 = (
    {"proc/self/mountinfo": V1}
    | group(
        "memory",
        {
            "memory.usage_in_bytes": "9000000\n",
            "memory.stat": "inactive_file 1\ntotal_inactive_file 2000000\n",
            "memory.max_usage_in_bytes": "9500000\n",
            "memory.limit_in_bytes": "50000000\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
        },
    )
    | group(
        "cpu,cpuacct",
        {
            "cpuacct.usage": "2500000000\n",
            "cpu.stat": "nr_periods 3\nthrottled_time 750000000\n",
            "cpu.cfs_quota_us": "20000\n",
            "cpu.cfs_period_us": "100000\n",
            "cpu.shares": "337\n",
        },
    )
    | group("pids", {"pids.current": "4\n", "pids.max": "20\n"})
    | group("systemd", {"cgroup.procs": "12\n7\n", "worker/cgroup.procs": "9\n"})
)


@pytest.mark.parametrize(("files", "version"), [(ON_V2, 2), (ON_V1, 1)], ids=["v2", "v1"])
def test_both_versions_give_the_same_answers(tree: Tree, files: dict[str, str], version: int) -> None:
    groups = tree(files)
    assert groups.mode is (Mode.V2 if version == 2 else Mode.V1)
    assert groups.controllers >= {"cpu", "memory", "pids"}
    assert groups.exists(UNIT)
    assert groups.memory_bytes(UNIT) == 7_000_000
    assert groups.memory_peak_bytes(UNIT) == 9_500_000
    assert groups.cpu_s(UNIT) == 2.5
    assert groups.throttled_s(UNIT) == 0.75
    assert groups.tasks(UNIT) == 4
    assert groups.pids(UNIT) == (7, 9, 12)
    assert groups.oom_kills(UNIT) == 1
    assert groups.memory_wall_bytes(UNIT) == 50_000_000
    assert groups.pressure(UNIT, "memory") == (1.5 if version == 2 else None)
    assert groups.limits(UNIT) == GroupLimits(
        memory_max_bytes=50_000_000,
        memory_high_bytes=NO_LIMIT if version == 2 else None,
        cpu_quota_ratio=0.2,
        cpu_weight=33,
        tasks_max=20,
        io_weight=50 if version == 2 else None,
    )


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/mountinfo": V2}
        | group("cg", {"memory.max": "max\n", "memory.high": "max\n", "pids.max": "max\n", "cpu.max": "max 100000\n"}),
        {"proc/self/mountinfo": V1}
        | group("memory", {"memory.limit_in_bytes": MAX_V1})
        | group("pids", {"pids.max": "max\n"})
        | group("cpu,cpuacct", {"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}),
    ],
    ids=["v2", "v1"],
)
def test_no_limit_is_told_apart_from_an_unknown_one(tree: Tree, files: dict[str, str]) -> None:
    groups = tree(files)
    found = groups.limits(UNIT)
    assert (found.memory_max_bytes, found.tasks_max, found.cpu_quota_ratio) == (NO_LIMIT, NO_LIMIT, math.inf)
    assert (found.cpu_weight, found.io_weight) == (None, None)
    assert groups.memory_wall_bytes(UNIT) is None


@pytest.mark.parametrize("mounts", ["", V2, V1, V1 + V2], ids=["none", "v2", "v1", "hybrid"])
def test_where_there_is_no_group_nothing_is_known_and_nothing_fails(tree: Tree, mounts: str) -> None:
    groups = tree({"proc/self/mountinfo": mounts})
    assert groups.mode is {"": Mode.NONE, V2: Mode.V2, V1: Mode.V1, V1 + V2: Mode.HYBRID}[mounts]
    assert not groups.exists(UNIT)
    readings = (
        groups.memory_bytes(UNIT), groups.memory_peak_bytes(UNIT), groups.cpu_s(UNIT), groups.tasks(UNIT),
        groups.oom_kills(UNIT), groups.pressure(UNIT, "cpu"), groups.throttled_s(UNIT), groups.memory_wall_bytes(UNIT),
    )  # fmt: skip
    assert readings == (None,) * 8
    assert groups.limits(UNIT) == GroupLimits()
    assert (groups.pids(UNIT), groups.unit_pids("ollama.service"), groups.children("agentd.slice")) == ((), (), ())
    assert groups.own_memory_left() is None


def test_a_hybrid_host_counts_processor_time_and_pressure_in_version_2(tree: Tree) -> None:
    """systemd makes no group in cpuacct there when cpu and cpuacct are mounted apart."""
    groups = tree(
        {"proc/self/mountinfo": V1 + V2}
        | group("cg", {"cpu.stat": "usage_usec 1500000\n", "memory.pressure": "some avg10=3.00 total=1\n"})
        | group("memory", {"memory.usage_in_bytes": "8000\n", "memory.limit_in_bytes": "9000\n"})
    )
    assert groups.mode is Mode.HYBRID
    assert (groups.cpu_s(UNIT), groups.pressure(UNIT, "memory")) == (1.5, 3.0)
    assert (groups.memory_bytes(UNIT), groups.memory_wall_bytes(UNIT)) == (8_000, 9_000)


def test_without_any_count_of_the_groups_its_processes_are_added_up(tree: Tree) -> None:
    stat = "7 (a) b) S 1 7 7 0 -1 4194560 0 0 0 0 100 50 30 20 20 0 1 0 5\n"
    groups = tree(
        {"proc/self/mountinfo": V1, "proc/7/stat": stat, "proc/9/stat": stat, "proc/9/statm": "900 300 100 1 0 9 0\n"}
        | group("systemd", {"cgroup.procs": "7\n8\n", "worker/cgroup.procs": "9\n"})
    )
    assert groups.cpu_s(UNIT) == 2 * 200 / os.sysconf("SC_CLK_TCK"), "8 is gone, or hidden from us"
    assert groups.memory_bytes(UNIT) == 200 * procfs.PAGE_BYTES


def test_memory_ends_where_it_would_be_slowed_down(tree: Tree) -> None:
    groups = tree({"proc/self/mountinfo": V2} | group("cg", {"memory.max": "max\n", "memory.high": "30000000\n"}))
    assert groups.memory_wall_bytes(UNIT) == 30_000_000


def test_a_host_in_a_directory_has_its_mounts_there(tree: Tree, tmp_path: Path) -> None:
    tree(ON_V2)
    assert Cgroups(tmp_path).memory_bytes(UNIT) == 7_000_000
    assert Cgroups(tmp_path / "elsewhere").mode is Mode.NONE


def test_children_are_the_groups_right_below(tree: Tree) -> None:
    groups = tree(ON_V2 | {"cg/agentd.slice/agentd-agents.slice/x/cgroup.procs": ""})
    assert groups.children("agentd.slice") == ("agent@research-9101.service", "agentd-agents.slice")


def test_a_units_processes_are_found_in_its_slice_and_below(tree: Tree) -> None:
    groups = tree(
        {
            "proc/self/mountinfo": V2,
            "cg/system.slice/ollama.service/cgroup.procs": "7\n5\n",
            "cg/system.slice/ollama.service/runner/cgroup.procs": "9\n",
            "cg/system.slice/system-llm.slice/llm@1.service/cgroup.procs": "11\n",
        }
    )
    assert groups.unit_pids("ollama.service") == (5, 7, 9)
    assert groups.unit_pids("llm@1.service") == (11,)
    assert groups.unit_pids("absent.service") == ()


# -- our own group -------------------------------------------------------------------------------


def test_the_tightest_memory_limit_of_our_group_and_its_parents_counts(tree: Tree) -> None:
    groups = tree(
        {
            "proc/self/mountinfo": V2,
            "proc/self/cgroup": "0::/pod/agentd\n",
            "cg/pod/memory.max": "1000000\n",
            "cg/pod/memory.current": "900000\n",
            "cg/pod/memory.stat": "anon 600000\ninactive_file 300000\n",
            "cg/pod/agentd/memory.max": "800000\n",
            "cg/pod/agentd/memory.current": "100000\n",
            "cg/pod/agentd/memory.stat": "inactive_file 0\n",
        }
    )
    assert groups.own_memory_left() == MemoryLeft(total_bytes=800_000, available_bytes=400_000)


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a\n", "cg/a/memory.max": "max\n", "cg/a/memory.current": "5\n"},
        {"proc/self/cgroup": "0::/gone\n"},
        {},
    ],
    ids=["max", "no such group", "no control groups"],
)
def test_without_a_limit_there_is_none(tree: Tree, files: dict[str, str]) -> None:
    assert tree({"proc/self/mountinfo": V2} | files).own_memory_left() is None


def test_a_limit_of_version_1_is_found_in_a_container_that_sees_only_its_own_group(tree: Tree) -> None:
    groups = tree(
        {
            "proc/self/mountinfo": "35 31 0:32 /docker/abc /memory rw - cgroup cgroup rw,memory\n",
            "proc/self/cgroup": "4:memory:/docker/abc\n",
            "memory/memory.limit_in_bytes": "500000\n",
            "memory/memory.usage_in_bytes": "450000\n",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50000\n",
        }
    )
    assert groups.own_memory_left() == MemoryLeft(total_bytes=500_000, available_bytes=100_000)


def test_version_1_says_no_limit_with_a_huge_number(tree: Tree) -> None:
    groups = tree(
        {
            "proc/self/mountinfo": "35 31 0:32 / /memory rw - cgroup cgroup rw,memory\n",
            "proc/self/cgroup": "4:memory:/\n",
            "memory/memory.limit_in_bytes": MAX_V1,
            "memory/memory.usage_in_bytes": "450000\n",
        }
    )
    assert groups.own_memory_left() is None

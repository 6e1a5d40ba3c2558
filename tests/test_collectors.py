"""The host collector on real processes of known use, and on made-up /proc trees for what this host does not have."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from agentd import collectors, procfs
from agentd.collectors import HostCollector
from agentd.core.model import InstanceId
from agentd.procfs import Process

RESEARCH = InstanceId("research-9101")
EXECUTION = InstanceId("execution-9201")
MIB = 1024 * 1024

HOLD_MEMORY = "import sys; held = bytearray(b'x') * {bytes}; print('ready', flush=True); sys.stdin.read()"
WITH_CHILD = (
    "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {program!r}], stdin=sys.stdin,"
    " start_new_session={new_session}); sys.exit(child.wait())"
)
BURN = "import sys, time\nwhile time.process_time() < {cpu_s}: pass\nprint('ready', flush=True); sys.stdin.read()"


@dataclass(frozen=True, slots=True)
class Spec:
    name: str
    process: str | None = None
    unit: str | None = None


@contextmanager
def running(program: str) -> Iterator[int]:
    """A Python process in a session of its own that has said ready; it ends with the block."""
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"ready\n"
        yield child.pid
    finally:
        child.stdin.close()
        child.wait(timeout=30)
        child.stdout.close()


def process(pid: int, *, parent: int = 1, session: int = 0, group: int = 0, zombie: bool = False) -> Process:
    return Process(pid, "python3", zombie, parent, group, session, 0, 0, MIB)


# -- the host ------------------------------------------------------------------------------------


def test_the_hosts_figures_are_within_what_is_possible(tmp_path: Path) -> None:
    sample = HostCollector(tmp_path, own_cgroup=False, processes_cpu_ratio=math.inf).sample({})
    assert sample.cores == os.cpu_count()
    assert 0.0 <= sample.cpu_used_cores <= sample.cores
    assert sample.memory_total_bytes == psutil.virtual_memory().total
    assert 0 < sample.memory_available_bytes <= sample.memory_total_bytes
    assert 0 < sample.disk_free_bytes <= psutil.disk_usage(os.fspath(tmp_path)).total
    assert sample.disk_read_bytes_per_s >= 0.0
    assert sample.disk_write_bytes_per_s >= 0.0
    assert (sample.instances, sample.watched) == ({}, ())


def test_the_free_space_of_a_directory_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    assert HostCollector(tmp_path / "not" / "yet", processes_cpu_ratio=math.inf).sample({}).disk_free_bytes > 0


def test_processor_use_is_the_mean_between_two_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    totals = [
        collectors._Totals(at=10.0, busy_s=100.0, read_bytes=0, written_bytes=5_000),
        collectors._Totals(at=12.0, busy_s=101.0, read_bytes=4_096, written_bytes=15_000),
        collectors._Totals(at=12.1, busy_s=101.0, read_bytes=4_096, written_bytes=15_000),
        collectors._Totals(at=14.1, busy_s=9_999.0, read_bytes=0, written_bytes=15_000),
    ]
    monkeypatch.setattr(collectors, "_totals", lambda: totals.pop(0))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.25, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    collector = HostCollector(Path("/"), processes_cpu_ratio=math.inf)
    first = collector.sample({})
    assert (first.cpu_used_cores, first.disk_read_bytes_per_s, first.disk_write_bytes_per_s) == (0.5, 2_048.0, 5_000.0)
    assert collector.sample({}).cpu_used_cores == 0.25, "too short a time to tell: the load average"
    last = collector.sample({})
    assert last.cpu_used_cores == 4.0
    assert last.disk_read_bytes_per_s == 0.0, "a counter that went back says nothing"


# -- instances -----------------------------------------------------------------------------------


@pytest.mark.host
def test_an_instances_memory_is_that_of_its_whole_tree() -> None:
    hold = HOLD_MEMORY.format(bytes=40 * MIB)
    with (
        running(hold) as alone,
        running(WITH_CHILD.format(program=hold, new_session=False)) as parent,
        running(WITH_CHILD.format(program=hold, new_session=True)) as parent_of_session,
    ):
        third = InstanceId("testing-9501")
        pids = {RESEARCH: alone, EXECUTION: parent, third: parent_of_session}
        used = HostCollector(Path("/"), processes_cpu_ratio=math.inf).sample(pids).instances
        for instance in pids:
            assert 40 * MIB <= used[instance].memory_bytes < 80 * MIB, instance


@pytest.mark.host
def test_an_instances_processor_time_counts_once() -> None:
    with running(BURN.format(cpu_s=0.3)) as pid:
        collector = HostCollector(Path("/"), processes_cpu_ratio=math.inf)
        assert collector.sample({RESEARCH: pid}).instances[RESEARCH].cpu_cores > 0.0, "its mean since it started"
        psutil.Process(pid).suspend()
        try:
            collector.sample({RESEARCH: pid})
            assert collector.sample({RESEARCH: pid}).instances[RESEARCH].cpu_cores == 0.0
        finally:
            psutil.Process(pid).resume()


@pytest.mark.host
def test_an_instance_that_is_gone_is_left_out_and_no_error() -> None:
    with running(HOLD_MEMORY.format(bytes=1)) as pid:
        collector = HostCollector(Path("/"), processes_cpu_ratio=math.inf)
        assert collector.sample({RESEARCH: pid, EXECUTION: 0}).instances.keys() == {RESEARCH}
    assert collector.sample({RESEARCH: pid}).instances == {}


def test_a_process_belongs_to_the_instance_of_its_session_its_group_or_its_ancestors() -> None:
    found = [
        process(10, session=10, group=10),
        process(11, parent=10, session=10, group=10),
        process(12, parent=1, session=10, group=12),  # orphaned, but in the session
        process(13, parent=12, session=13, group=13),  # a session of its own, below one of ours
        process(14, parent=13, session=13, group=13, zombie=True),
        process(20, session=5, group=20),
        process(21, parent=1, session=5, group=20),
        process(30, parent=1, session=30, group=30),
        process(40, parent=41, session=40, group=40),
        process(41, parent=40, session=41, group=41),
        process(2, parent=0),
    ]
    owners = collectors._owners(frozenset({10, 20}), {one.pid: one for one in found})
    assert owners == {10: 10, 11: 10, 12: 10, 13: 10, 20: 20, 21: 20}


# -- watched processes ---------------------------------------------------------------------------


@pytest.mark.host
def test_a_watched_program_is_shown_with_its_children_and_when_it_does_not_run(tmp_path: Path) -> None:
    named = tmp_path / "ollama-of-a-long-name"  # the kernel keeps 15 characters
    named.symlink_to(sys.executable)
    hold = HOLD_MEMORY.format(bytes=40 * MIB)
    parent = WITH_CHILD.format(program=hold, new_session=False)
    child = subprocess.Popen(
        [named, "-c", parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONHOME": sys.base_prefix},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"ready\n"
        specs = (Spec("ollama", process=named.name), Spec("absent", process="no-such-program"))
        found, absent = HostCollector(Path("/"), specs, processes_cpu_ratio=math.inf).sample({}).watched
        assert (found.name, found.running, found.pids) == ("ollama", True, 2)
        assert found.memory_bytes >= 40 * MIB
        assert (absent.name, absent.running, absent.pids, absent.memory_bytes) == ("absent", False, 0, 0)
    finally:
        child.stdin.close()
        child.wait(timeout=30)
        child.stdout.close()


# -- what the kernel tells in files --------------------------------------------------------------

Tree = Callable[[dict[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes files below a directory; `{root}` in a text stands for that directory."""

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text.replace("{root}", os.fspath(tmp_path)))
        return tmp_path / "proc"

    return make


STAT = "S 1 40 41 0 -1 4194560 100 0 0 0 250 50 7 7 20 0 3 0 777 9000000 2560 18446744073709551615 1 1\n"


def test_a_process_line_is_read_whatever_the_program_calls_itself(tree: Tree) -> None:
    proc = tree(
        {"proc/42/stat": f"42 (a) S 9 (9 {STAT}".replace("(9 S", "(9) S"), "proc/43/stat": "", "proc/x/stat": ""}
    )
    (found,) = procfs.processes(proc).values()
    assert found == Process(
        pid=42,
        name="a) S 9 (9",
        zombie=False,
        parent=1,
        group=40,
        session=41,
        ticks=300,
        started_ticks=777,
        resident_bytes=2_560 * procfs.PAGE_BYTES,
    )


def test_a_zombie_is_dead(tree: Tree) -> None:
    proc = tree({"proc/42/stat": f"42 (python3) {STAT.replace('S', 'Z', 1)}"})
    assert procfs.processes(proc)[42].zombie


def test_pressure_is_some_avg10_and_none_where_the_kernel_has_none(tree: Tree) -> None:
    proc = tree({"proc/pressure/memory": "some avg10=12.34 avg60=1.00 avg300=0.00 total=5\nfull avg10=3.00 total=1\n"})
    assert procfs.pressure("memory", proc) == 12.34
    assert procfs.pressure("io", proc) is None


V2 = "30 23 0:26 / {root}/cg rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"


def test_the_tightest_memory_limit_of_a_control_group_and_its_parents_counts(tree: Tree) -> None:
    proc = tree(
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
    assert procfs.memory_limit(proc) == procfs.MemoryLimit(total_bytes=800_000, available_bytes=400_000)


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
    assert procfs.memory_limit(tree({"proc/self/mountinfo": V2} | files)) is None


def test_a_limit_of_version_1_is_found_in_a_container_that_sees_only_its_own_group(tree: Tree) -> None:
    proc = tree(
        {
            "proc/self/mountinfo": "35 31 0:32 /docker/abc {root}/memory rw - cgroup cgroup rw,memory\n",
            "proc/self/cgroup": "4:memory:/docker/abc\n",
            "memory/memory.limit_in_bytes": "500000\n",
            "memory/memory.usage_in_bytes": "450000\n",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50000\n",
        }
    )
    assert procfs.memory_limit(proc) == procfs.MemoryLimit(total_bytes=500_000, available_bytes=100_000)


def test_version_1_says_no_limit_with_a_huge_number(tree: Tree) -> None:
    proc = tree(
        {
            "proc/self/mountinfo": "35 31 0:32 / {root}/memory rw - cgroup cgroup rw,memory\n",
            "proc/self/cgroup": "4:memory:/\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/memory.usage_in_bytes": "450000\n",
        }
    )
    assert procfs.memory_limit(proc) is None


def test_a_limit_makes_the_host_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "memory_limit", lambda: procfs.MemoryLimit(64 * MIB, 16 * MIB))
    inside = HostCollector(Path("/"), processes_cpu_ratio=math.inf).sample({})
    assert (inside.memory_total_bytes, inside.memory_available_bytes) == (64 * MIB, 16 * MIB)
    assert (
        HostCollector(Path("/"), own_cgroup=False, processes_cpu_ratio=math.inf).sample({}).memory_total_bytes
        > 64 * MIB
    )


def test_a_units_processes_are_found_in_its_slice_and_below(tree: Tree) -> None:
    proc = tree(
        {
            "proc/self/mountinfo": V2,
            "cg/system.slice/ollama.service/cgroup.procs": "7\n5\n",
            "cg/system.slice/ollama.service/runner/cgroup.procs": "9\n",
            "cg/system.slice/system-llm.slice/llm@1.service/cgroup.procs": "11\n",
        }
    )
    assert procfs.unit_pids("ollama.service", proc) == (5, 7, 9)
    assert procfs.unit_pids("llm@1.service", proc) == (11,)
    assert procfs.unit_pids("absent.service", proc) == ()

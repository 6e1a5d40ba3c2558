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

from agentd import collectors, procfs, units
from agentd.cgroups import Cgroups, MemoryLeft
from agentd.collectors import HostCollector
from agentd.core.model import InstanceId, Usage, Wall
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
    sample = HostCollector(tmp_path, own_cgroup=False, look_cpu_ratio=math.inf).sample({})
    assert sample.cores == os.cpu_count()
    assert 0.0 <= sample.cpu_used_cores <= sample.cores
    assert sample.memory_total_bytes == psutil.virtual_memory().total
    assert 0 < sample.memory_available_bytes <= sample.memory_total_bytes
    assert 0 < sample.disk_free_bytes <= psutil.disk_usage(os.fspath(tmp_path)).total
    assert sample.disk_read_bytes_per_s >= 0.0
    assert sample.disk_write_bytes_per_s >= 0.0
    assert (sample.instances, sample.watched) == ({}, ())


def test_the_free_space_of_a_directory_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    assert HostCollector(tmp_path / "not" / "yet", look_cpu_ratio=math.inf).sample({}).disk_free_bytes > 0


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
    collector = HostCollector(Path("/"), look_cpu_ratio=math.inf)
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
        used = HostCollector(Path("/"), look_cpu_ratio=math.inf).sample(pids).instances
        for instance in pids:
            assert 40 * MIB <= used[instance].memory_bytes < 80 * MIB, instance


@pytest.mark.host
def test_an_instances_processor_time_counts_once() -> None:
    with running(BURN.format(cpu_s=0.3)) as pid:
        collector = HostCollector(Path("/"), look_cpu_ratio=math.inf)
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
        collector = HostCollector(Path("/"), look_cpu_ratio=math.inf)
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
        found, absent = HostCollector(Path("/"), specs, look_cpu_ratio=math.inf).sample({}).watched
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


def test_a_limit_makes_the_host_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cgroups, "own_memory_left", lambda _: MemoryLeft(64 * MIB, 16 * MIB))
    inside = HostCollector(Path("/"), look_cpu_ratio=math.inf).sample({})
    assert (inside.memory_total_bytes, inside.memory_available_bytes) == (64 * MIB, 16 * MIB)
    assert HostCollector(Path("/"), own_cgroup=False, look_cpu_ratio=math.inf).sample({}).memory_total_bytes > 64 * MIB


# -- instances in control groups of their own ----------------------------------------------------

THIRD = InstanceId("testing-9501")
AGENTS = "cg/agentd.slice/agentd-agents.slice"


def group_of(instance: InstanceId, memory_bytes: int, cpu_s: float) -> dict[str, str]:
    folder = f"cg/{units.instance_cgroup(instance)}"
    return {f"{folder}/memory.current": f"{memory_bytes}\n", f"{folder}/cpu.stat": f"usage_usec {cpu_s * 1e6:.0f}\n"}


@pytest.fixture
def grouped(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> HostCollector:
    """A collector on a host whose groups are files of the test's, at a time that `later` moves on."""
    root = tree({"proc/self/mountinfo": "30 23 0:26 / /cg rw - cgroup2 cgroup2 rw\n"}).parent
    monkeypatch.setattr(procfs, "processes", lambda: pytest.fail("no process needs to be looked at"))
    return HostCollector(Path("/"), cgroups=Cgroups(root), own_cgroup=False, look_cpu_ratio=math.inf)


def at(collector: HostCollector, seconds: float) -> None:
    assert collector._groups is not None
    collector._groups._clock = lambda: seconds


def test_an_instance_with_a_group_is_measured_by_it_from_the_second_look_on(grouped: HostCollector, tree: Tree) -> None:
    pids = {RESEARCH: 0, EXECUTION: 0, THIRD: 0}
    at(grouped, 10.0)
    tree(group_of(RESEARCH, 5 * MIB, 3600.0))
    assert grouped.sample(pids).instances == {}, "over what time it has used an hour is not known"
    at(grouped, 14.0)
    tree(group_of(RESEARCH, 6 * MIB, 3602.0) | group_of(EXECUTION, MIB, 1.0))
    assert grouped.sample(pids).instances == {RESEARCH: Usage(6 * MIB, 0.5)}
    at(grouped, 18.0)
    assert grouped.sample(pids).instances == {RESEARCH: Usage(6 * MIB, 0.0), EXECUTION: Usage(MIB, 0.0)}


def test_a_group_made_anew_counts_from_zero(grouped: HostCollector, tree: Tree) -> None:
    for seconds, used, cores in ((10.0, 50.0, None), (14.0, 58.0, 2.0), (18.0, 1.0, 0.25)):
        at(grouped, seconds)
        tree(group_of(RESEARCH, MIB, used))
        found = grouped.sample({RESEARCH: 0}).instances.get(RESEARCH)
        assert (found.cpu_cores if found else None) == cores


def test_two_looks_close_together_tell_the_same(grouped: HostCollector, tree: Tree) -> None:
    for seconds, used in ((10.0, 0.0), (14.0, 4.0), (14.01, 5.0)):
        at(grouped, seconds)
        tree(group_of(RESEARCH, MIB, used))
        found = grouped.sample({RESEARCH: 0}).instances
    assert found == {RESEARCH: Usage(MIB, 1.0)}
    at(grouped, 18.0)
    assert grouped.sample({RESEARCH: 0}).instances == {RESEARCH: Usage(MIB, 0.25)}, "nothing was lost between"


def test_the_memory_limits_of_slices_are_walls(grouped: HostCollector, tree: Tree) -> None:
    tree(
        {
            f"{AGENTS}/memory.max": "max\n",
            f"{AGENTS}/memory.current": "900\n",
            f"{AGENTS}/agentd-agents-research.slice/memory.max": "1000\n",
            f"{AGENTS}/agentd-agents-research.slice/memory.current": "600\n",
            f"{AGENTS}/agentd-agents-testing.slice/memory.max": "max\n",
            f"{AGENTS}/agentd-agents-testing.slice/memory.current": "300\n",
            f"{AGENTS}/somebody-elses.slice/memory.max": "1\n",
            f"{AGENTS}/somebody-elses.slice/memory.current": "1\n",
        }
    )
    assert grouped.sample({}).walls == {"research": Wall(memory_max_bytes=1000, memory_bytes=600)}
    tree({f"{AGENTS}/memory.max": "5000\n", "cg/agentd.slice/memory.max": "2000\n"})
    assert grouped.sample({}).walls[""] == Wall(5000, 900), "of the slice around it no use is known"
    tree({"cg/agentd.slice/memory.current": "950\n"})
    assert grouped.sample({}).walls[""] == Wall(2000, 950), "the tighter one"


def some(percent: float) -> str:
    return f"some avg10={percent:.2f} avg60=0.00 avg300=0.00 total=1\n"


def test_who_waits_at_a_limit_of_its_own_is_no_pressure_on_the_host(
    grouped: HostCollector, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "pressure", lambda _: 55.0)
    pids = {RESEARCH: 0, THIRD: 0}
    throttled, free = (f"cg/{units.instance_cgroup(instance)}" for instance in pids)
    tree({f"{throttled}/memory.high": "1000\n", f"{throttled}/memory.max": "max\n"})
    tree({f"{throttled}/memory.pressure": some(40.0), f"{free}/memory.pressure": some(50.0)})
    tree(group_of(RESEARCH, 500, 0.0) | group_of(THIRD, 500, 0.0))
    assert grouped.sample(pids).memory_pressure_percent == 55.0, "both wait for memory of the host"
    tree(group_of(RESEARCH, 1001, 0.0))
    assert grouped.sample(pids).memory_pressure_percent == 15.0
    pool = f"{AGENTS}/agentd-agents-testing.slice"
    tree({f"{pool}/memory.max": "2000\n", f"{pool}/memory.current": "1999\n", f"{pool}/memory.pressure": some(30.0)})
    assert grouped.sample(pids).memory_pressure_percent == 0.0, "the wall of a pool is one too"


def test_a_host_without_pressure_readings_has_none(grouped: HostCollector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "pressure", lambda _: None)
    assert grouped.sample({RESEARCH: 0}).memory_pressure_percent is None


def test_processes_are_looked_at_where_some_are_watched(
    grouped: HostCollector, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(procfs, "processes", lambda: {7: process(7), 8: process(8, parent=7)})
    tree({"cg/system.slice/ollama.service/cgroup.procs": "7\n"})
    grouped.watch([Spec("ollama", unit="ollama.service")])
    (found,) = grouped.sample({RESEARCH: 0}).watched
    assert (found.name, found.running, found.pids) == ("ollama", True, 2)
    grouped.watch([])
    assert grouped.sample({RESEARCH: 0}).watched == ()


def test_without_groups_there_are_no_walls() -> None:
    assert HostCollector(Path("/"), look_cpu_ratio=math.inf).sample({}).walls == {}

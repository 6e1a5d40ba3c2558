"""The pure parts of the systemd driver: what states, results and refusals mean, without any systemd."""

from __future__ import annotations

import asyncio
import json
import shlex
from pathlib import Path

import pytest
from driver_worlds import ID, POOL, spec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from agentd.core.model import MIB, ExitCause, ExitKind, Incarnation, InstanceId, Resources, StartFailure
from agentd.drivers.systemd_bus import BusAway, BusError, SystemdBus, UnitRow, object_path, unit_at
from agentd.drivers.systemd_failures import POLKIT_RULE, setup_text, start_failed, start_refused
from agentd.drivers.systemd_files import InstanceFiles
from agentd.drivers.systemd_limits import Limits, MemoryWitness
from agentd.drivers.systemd_unit import Run, Standing, standing
from agentd.errors import AgentdError
from agentd.units import TEMPLATE, instance_cgroup, unit_name

UNIT = unit_name(ID)
RUN = Run(
    incarnation=Incarnation("a" * 32),
    sub="auto-restart",
    pid=70,
    started_wall=1.0,
    result="exit-code",
    exited=True,
    status=3,
    restarts=0,
    was_up=True,
    stopped_first=False,
    memory_max_bytes=None,
    restart_in_s=0.1,
)
SYSTEMD = "org.freedesktop.systemd1"


@pytest.mark.parametrize(
    ("active", "sub", "job", "expected"),
    [
        ("active", "running", "", Standing.RUNNING),
        ("reloading", "reload", "", Standing.RUNNING),
        ("activating", "start", "start", Standing.RUNNING),
        ("deactivating", "stop-sigterm", "stop", Standing.RUNNING),
        ("activating", "auto-restart", "", Standing.WAITING),
        ("activating", "auto-restart", "start", Standing.WAITING),
        ("activating", "auto-restart-queued", "start", Standing.WAITING),
        ("failed", "failed-before-auto-restart", "", Standing.WAITING),
        ("inactive", "dead-before-auto-restart", "", Standing.WAITING),
        ("failed", "failed", "", Standing.FAILED),
        ("failed", "failed", "start", Standing.MOVING),
        ("inactive", "dead", "start", Standing.MOVING),
        ("inactive", "dead", "", Standing.GONE),
    ],
)
def test_the_sub_state_and_the_job_decide_how_a_unit_stands(
    active: str, sub: str, job: str, expected: Standing
) -> None:
    assert standing(UnitRow(UNIT, active, sub, job)) is expected


def test_a_unit_that_is_not_loaded_is_gone() -> None:
    assert standing(None) is Standing.GONE


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ExitCause(ExitKind.EXIT, 3)),
        ({"result": "success", "status": 0}, ExitCause(ExitKind.EXIT, 0)),
        ({"result": "signal", "exited": False, "status": 9}, ExitCause(ExitKind.SIGNAL, 9)),
        ({"result": "core-dump", "exited": False, "status": 11}, ExitCause(ExitKind.SIGNAL, 11)),
        ({"result": "oom-kill", "exited": False, "status": 9}, ExitCause(ExitKind.OOM, 9)),
        ({"result": "watchdog", "exited": False, "status": 6}, ExitCause(ExitKind.WATCHDOG, 6)),
        ({"result": "timeout", "exited": False, "status": 15}, ExitCause(ExitKind.TIMEOUT, 15)),
        ({"status": 226}, ExitCause(ExitKind.EXIT, 226)),
        ({"status": 226, "was_up": False}, ExitCause(ExitKind.SETUP, 226)),
        ({"result": "resources", "pid": 0, "status": 0, "exited": False}, ExitCause(ExitKind.UNKNOWN)),
    ],
)
def test_results_are_causes(changes: dict[str, object], expected: ExitCause) -> None:
    assert structs.replace(RUN, **changes).cause() == expected


def test_only_a_SIGKILL_can_be_blamed_on_memory() -> None:
    killed = structs.replace(RUN, result="signal", exited=False, status=9)
    assert killed.cause(out_of_memory=True) == ExitCause(ExitKind.OOM, 9)
    terminated = structs.replace(killed, status=15)
    assert terminated.cause(out_of_memory=True) == ExitCause(ExitKind.SIGNAL, 15)
    assert RUN.cause(out_of_memory=True) == ExitCause(ExitKind.EXIT, 3)


@pytest.mark.parametrize(
    ("changes", "job", "failure", "text"),
    [
        ({"status": 127, "was_up": False}, "failed", StartFailure.COMMAND_NOT_FOUND, "'agent' is no program"),
        ({"status": 203, "was_up": False}, "failed", StartFailure.SETUP_FAILED, "203/EXEC"),
        ({"status": 1, "was_up": False}, "failed", StartFailure.SPAWN_FAILED, "before it was ready: exit code 1"),
        ({"result": "timeout"}, "failed", StartFailure.TIMEOUT, "did not say in time"),
        ({"result": "resources", "pid": 0}, "failed", StartFailure.SPAWN_FAILED, "(resources)"),
        ({"result": "start-limit-hit", "pid": 0}, "failed", StartFailure.CRASH_LOOP, "too often"),
        ({"result": "success", "pid": 0}, "canceled", StartFailure.SPAWN_FAILED, "somebody stopped it"),
        ({"result": "success", "pid": 0}, "dependency", StartFailure.SPAWN_FAILED, "could not be started"),
        ({"result": "protocol", "pid": 0}, "failed", StartFailure.SPAWN_FAILED, "as failed (protocol)"),
    ],
)
def test_failed_starts_say_why_and_where_to_look(
    changes: dict[str, object], job: str, failure: StartFailure, text: str
) -> None:
    error = start_failed(ID, UNIT, "agent", structs.replace(RUN, **changes), job)
    assert error.cause is failure
    assert text in str(error)
    assert str(error).startswith(f"cannot start {ID}: ")
    assert f"journalctl -u {UNIT}" in str(error)


@pytest.mark.parametrize(
    ("error", "failure", "text"),
    [
        (BusError("org.freedesktop.DBus.Error.AccessDenied", "Permission denied"), StartFailure.DENIED, POLKIT_RULE),
        (
            BusError("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive"),
            StartFailure.DENIED,
            POLKIT_RULE,
        ),
        (BusError(f"{SYSTEMD}.UnitMasked", "Unit is masked."), StartFailure.UNIT_MISSING, f"`systemctl unmask {UNIT}`"),
        (BusError(f"{SYSTEMD}.NoSuchUnit", "Unit not found."), StartFailure.UNIT_MISSING, "systemd-analyze verify"),
        (BusError(f"{SYSTEMD}.BadUnitSetting", "Bad."), StartFailure.UNIT_MISSING, "systemd-analyze verify"),
        (BusAway("no answer"), StartFailure.DRIVER_AWAY, "no answer"),
        (
            BusError(f"{SYSTEMD}.TransactionIsDestructive", "is destructive"),
            StartFailure.SPAWN_FAILED,
            "is destructive",
        ),
    ],
)
def test_refusals_say_what_to_do(error: BusError, failure: StartFailure, text: str) -> None:
    refused = start_refused(ID, UNIT, error, Path("/nowhere"))
    assert refused.cause is failure
    assert text in str(refused)


@pytest.mark.parametrize(
    ("status", "text"), [(200, "200/CHDIR"), (223, "223"), (226, "226/NAMESPACE"), (244, "244/BPF"), (250, "250")]
)
def test_setup_statuses_have_systemd_s_words(status: int, text: str) -> None:
    assert setup_text(status) == text


def test_a_unit_has_systemd_s_object_path() -> None:
    path = "/org/freedesktop/systemd1/unit/agent_40research_2d9101_2eservice"
    assert object_path(UNIT) == path
    assert unit_at(path) == UNIT
    assert unit_at("/org/freedesktop/systemd1") == ""


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_every_unit_is_found_again_by_its_object(unit: str) -> None:
    assert unit_at(object_path(unit)) == unit


# -- files --------------------------------------------------------------------------------------


def files(directory: Path) -> InstanceFiles:
    return InstanceFiles(directory, agent_endpoint="unix:/run/agentd/agents.sock", sample_command=("sample", "{port}"))


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=1))
def test_any_word_survives_the_file(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    directory = tmp_path_factory.mktemp("instances")
    odd = {f"V{number}": word for number, word in enumerate(words)}
    files(directory).write(spec(command=("program", *words), env=odd))
    (path,) = directory.iterdir()
    # Within single quotes a shell takes every byte for itself, as systemd does.
    variables = dict(word.split("=", 1) for word in shlex.split(path.read_text(encoding="ascii")))
    order = json.loads(variables.pop("AGENTD_LAUNCH"))
    assert order["env"] == odd
    expected = [word.replace("{port}", "9101").replace("{instance}", ID).replace("{pool}", POOL) for word in words]
    assert order["command"] == ["program", *expected]
    assert variables["AGENTD_PORT"] == "9101"


def test_a_file_that_says_so_already_is_left_alone(tmp_path: Path) -> None:
    kept = files(tmp_path)
    kept.write(spec())
    (path,) = tmp_path.iterdir()
    inode = path.stat().st_ino
    kept.write(spec())
    assert path.stat().st_ino == inode
    kept.write(spec(command=()))
    assert path.stat().st_ino != inode
    assert '["sample", "9101"]' in path.read_text()


def test_instances_with_a_file_are_found(tmp_path: Path) -> None:
    kept = files(tmp_path)
    for port in (9102, 9101):
        kept.write(spec(port))
    for name in ("research-9103.new", "README", "x.env", "research-0.env"):
        (tmp_path / name).touch()
    assert kept.instances() == ["research-9101", "research-9102"]
    kept.remove(ID)
    kept.remove(ID)
    assert not kept.has(ID)
    assert kept.instances() == ["research-9102"]


def test_what_cannot_be_written_is_told_with_its_path(tmp_path: Path) -> None:
    kept = files(tmp_path / "gone")
    with pytest.raises(OSError, match=f"^cannot write {tmp_path}/gone/{ID}.env: No such file or directory$"):
        kept.write(spec())
    kept.remove(ID)
    (tmp_path / f"{ID}.env").mkdir()
    with pytest.raises(OSError, match=f"^cannot write {tmp_path}/{ID}.env: Is a directory$"):
        files(tmp_path).write(spec())
    with pytest.raises(OSError, match=f"^cannot remove {tmp_path}/{ID}.env: Is a directory$"):
        files(tmp_path).remove(ID)


def test_a_directory_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first, second = files(tmp_path), files(tmp_path)
    first.lock()
    with pytest.raises(AgentdError, match="another agentd"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()


@pytest.mark.parametrize(
    ("mask", "command"),
    [
        (f"etc/systemd/system/{UNIT}", f"systemctl unmask {UNIT}"),
        (f"run/systemd/system/{UNIT}", f"systemctl unmask --runtime {UNIT}"),
        (f"etc/systemd/system/{TEMPLATE}", f"systemctl unmask {TEMPLATE}"),
        (f"run/systemd/system/{TEMPLATE}", f"systemctl unmask --runtime {TEMPLATE}"),
    ],
)
def test_a_mask_is_lifted_where_it_was_put(tmp_path: Path, mask: str, command: str) -> None:
    path = tmp_path / mask
    path.parent.mkdir(parents=True)
    path.symlink_to("/dev/null")
    other = tmp_path / "etc/systemd/system" / UNIT
    if not other.is_symlink():  # a unit that somebody wrote is no mask
        other.parent.mkdir(parents=True, exist_ok=True)
        other.touch()
    refused = start_refused(ID, UNIT, BusError(f"{SYSTEMD}.UnitMasked", "Unit is masked."), tmp_path)
    assert f"`{command}`" in str(refused)


# -- what is read of control groups -------------------------------------------------------------

GROUP = instance_cgroup(ID)
SLICE = str(Path(GROUP).parent)
V2 = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "30 23 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def host_with(root: Path, mounts: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/mountinfo": mounts, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_version_2_counts_the_kills_of_an_instance(tmp_path: Path) -> None:
    events = f"sys/fs/cgroup/{SLICE}/memory.events"
    assert MemoryWitness(host_with(tmp_path, V2, {"proc/vmstat": "oom_kill 9\n"})).kills(ID) == 0
    witness = MemoryWitness(host_with(tmp_path, V2, {events: "oom 3\noom_kill 2\n"}))
    assert witness.kills(ID) == 2
    assert not witness.blames_memory(ID, kills_at_birth=2, limit_bytes=MIB)
    assert witness.blames_memory(ID, kills_at_birth=1, limit_bytes=None)


@pytest.mark.parametrize(
    ("kills", "peak", "limit", "blamed"),
    [
        (5, 64 * MIB, 64 * MIB, True),
        (5, 64 * MIB - 4096, 64 * MIB, True),
        (5, 32 * MIB, 64 * MIB, False),  # it was somebody else
        (4, 64 * MIB, 64 * MIB, False),  # it reached its limit in an earlier life
        (5, 64 * MIB, None, False),  # there was nothing to reach
    ],
)
def test_version_1_takes_two_witnesses(tmp_path: Path, kills: int, peak: int, limit: int | None, blamed: bool) -> None:
    peaks = f"sys/fs/cgroup/memory/{SLICE}/memory.max_usage_in_bytes"
    root = host_with(tmp_path, V1, {"proc/vmstat": f"nr_free 1\noom_kill {kills}\n", peaks: f"{peak}\n"})
    assert MemoryWitness(root).blames_memory(ID, kills_at_birth=4, limit_bytes=limit) is blamed


def test_a_host_that_hides_its_counters_blames_nobody(tmp_path: Path) -> None:
    witness = MemoryWitness(host_with(tmp_path, V1, {}))
    assert witness.kills(ID) == 0
    assert not witness.blames_memory(ID, kills_at_birth=0, limit_bytes=MIB)


def test_limits_that_version_2_does_not_hold_are_named(tmp_path: Path) -> None:
    held = {
        "memory.max": "67108864",
        "memory.high": "max",
        "cpu.weight": "100",
        "cpu.max": "50000 100000",
        "pids.max": "40",
    }
    files = {f"sys/fs/cgroup/{GROUP}/{name}": f"{text}\n" for name, text in held.items()}
    limits = Limits(SystemdBus(None, NO_HINTS), host_with(tmp_path, V2, files), direct=True)
    wanted = Resources(
        memory_max_bytes=64 * MIB + 1,
        memory_high_bytes=48 * MIB,
        cpu_weight=50,
        cpu_quota_ratio=0.5,
        tasks_max=40,
        io_weight=50,
    )
    assert list(limits.amiss(ID, wanted)) == [
        "memory_high 48 MiB is not in force: the kernel holds no limit",
        "cpu_weight 50 is not in force: the kernel holds 100",
        "io_weight 50 is not in force: the control groups of this host (v2) do not offer it",
    ]
    assert list(limits.amiss(InstanceId("research-9102"), wanted)) == [], "nothing is said of what has ended"


def test_who_is_not_root_asks_the_service_and_never_systemd(tmp_path: Path) -> None:
    bus = SystemdBus(None, NO_HINTS)  # it has not been opened: a call would wait for a connection, in vain
    bus.manager = None  # type: ignore[method-assign, assignment]
    limits = Limits(bus, host_with(tmp_path, V2, {}), direct=False)
    with pytest.raises(BusError) as caught:
        asyncio.run(limits.set(ID, Resources(tasks_max=40)))
    failed = start_refused(ID, UNIT, caught.value, tmp_path)
    assert failed.cause is StartFailure.SPAWN_FAILED
    assert str(failed) == (
        f"cannot start {ID}: its limits cannot be set: {tmp_path}/run/agentd/limits.sock is closed (No such file or "
        "directory); `systemctl start agentd-limits.socket` opens it"
    )


class _NoHints:
    def unit_changed(self, unit: str, active: str, sub: str, incarnation: str) -> None: ...
    def job_ended(self, unit: str, job: str, result: str) -> None: ...
    def all_may_have_changed(self) -> None: ...


NO_HINTS = _NoHints()

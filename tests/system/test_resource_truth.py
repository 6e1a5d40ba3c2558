"""What agentd sets and tells of memory, processors and pressure is what the kernel holds and counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from system_agentd import NO_AUTOSCALING, NO_RESERVE, SAMPLE, Agentd, idle
from testhost import Host, wait_until

from agentd import units
from agentd.cgroups import Cgroups, Mode
from agentd.core.model import InstanceId, PoolName

MIB = 1024 * 1024
INSTANCE = InstanceId("research-9101")
UNIT = units.unit_name(INSTANCE)
LIMITS = {"memory_max": "64M", "memory_high": "48M", "cpu_weight": 50, "cpu_quota": "50%", "tasks_max": 40}
LIMITS |= {"io_weight": 50}
# Keeps a quarter of a core busy, and 40 MiB of memory.
WORK = """
import time
held = bytearray(b"x") * (40 << 20)
while True:
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    time.sleep(0.15)
"""
# Reads more files than its limit holds, again and again, and waits each time until the kernel has dropped others.
THRASH = """
import os, pathlib
files = [path for path in pathlib.Path("/usr/lib").rglob("*.so*") if path.is_file() and not path.is_symlink()]
while True:
    for path in files:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)  # else it is somebody else's page that is read
        while os.read(file, 1 << 16):
            pass
        os.close(file)
"""
HOARD = "held = [bytearray(b'x') * 1048576 for _ in range(200)]\nimport time; time.sleep(1000)"
BEATING = {"command": SAMPLE, "core": {}, "ports": [9101, 9110], "min": 1, "max": 2, "drain_timeout_sec": 5}


@pytest.fixture
def agentd(shared_host: Host) -> Iterator[Agentd]:
    made = Agentd(shared_host)
    yield made
    made.clean_up()


def cgroups(agentd: Agentd) -> Cgroups:
    return Cgroups(Path(f"/proc/{agentd.host.leader()}/root"))


def test_every_limit_is_in_force_and_one_that_is_not_is_told(agentd: Agentd) -> None:
    agentd.configure({"research": idle(1, resources=LIMITS)})
    agentd.start()
    agentd.wait_ready(1)
    groups = cgroups(agentd)
    held = groups.limits(units.instance_cgroup(INSTANCE))
    assert (held.memory_max_bytes, held.cpu_weight, held.cpu_quota_ratio, held.tasks_max) == (64 * MIB, 50, 0.5, 40)
    told = [event["reason"] for event in agentd.events("warning")]
    if groups.mode is Mode.V2:
        assert (held.memory_high_bytes, held.io_weight) == (48 * MIB, 50)
        assert told == []
    else:  # systemd ignores it there without a word
        [warning] = told
        assert warning.startswith("memory_high 48 MiB is not in force")


def test_other_limits_come_with_a_reload_and_the_next_start(agentd: Agentd) -> None:
    agentd.configure({"research": idle(1, resources={"memory_max": "64M", "tasks_max": 40})})
    agentd.start()
    before = agentd.wait_ready(1)
    agentd.configure({"research": idle(1, resources={"memory_max": "96M", "cpu_quota": "50%"})})
    agentd.ctl("reload")
    assert agentd.wait_ready(1) == before, "the agent that runs is left alone"
    agentd.ctl("restart", INSTANCE)
    wait_until(lambda: agentd.running().get(INSTANCE, before[INSTANCE]) != before[INSTANCE], "another one runs")
    agentd.wait_ready(1)
    groups = cgroups(agentd)
    held = groups.limits(units.instance_cgroup(INSTANCE))
    assert (held.memory_max_bytes, held.cpu_quota_ratio, held.tasks_max) == (96 * MIB, 0.5, 1024)
    assert groups.limits(units.slice_cgroup(PoolName("research"))).memory_max_bytes == 2 * 96 * MIB
    assert agentd.events("warning") == []


def test_what_an_agent_uses_is_told_as_the_kernel_counts_it(agentd: Agentd) -> None:
    agentd.configure({"research": idle(1, command=["/usr/bin/python3", "-c", WORK])})
    agentd.start()
    agentd.wait_ready(1)

    def is_told() -> bool:
        one = agentd.instances()[INSTANCE]
        return (one["memory_bytes"] or 0) > 40 * MIB and (one["cpu_cores"] or 0.0) > 0.05

    wait_until(is_told, "memory and processor time are told")
    assert agentd.instances()[INSTANCE]["memory_bytes"] < 200 * MIB
    shown = agentd.host.show(UNIT, "MemoryCurrent", "TasksCurrent", "CPUUsageNSec", "IOReadBytes", "IOWriteBytes")
    known = {name for name, value in shown.items() if value.isdecimal() and int(value) < 1 << 63}
    # Where processors and their accounting are two hierarchies systemd counts neither, and agentd itself does.
    assert known == (set(shown) if cgroups(agentd).mode is Mode.V2 else {"MemoryCurrent", "TasksCurrent"})


def test_an_idle_agent_goes_when_memory_is_short(agentd: Agentd) -> None:
    """Before the kernel chooses. Short: less is free than is to be kept, and somebody has to wait for memory."""
    scaling = {"multi_agent": {"enabled": True, "autoscaling": NO_AUTOSCALING | {"enabled": True}}}
    scaling["multi_agent"]["autoscaling"] |= {"check_interval_sec": 3600, "heartbeat_timeout_sec": 6}
    agentd.configure({"research": BEATING}, **scaling)
    agentd.start()
    agentd.ctl("up", "2", "--pool", "research")
    agentd.wait_ready(2)
    assert agentd.events("scale_down") == []
    short = NO_RESERVE | {"memory": "1T", "memory_pressure_percent": 0}
    agentd.configure({"research": BEATING}, **scaling, host={"starting_max": 64, "reserve": short})
    agentd.ctl("reload")
    agentd.host.exec(
        "systemd-run", "--quiet", "--unit=greedy", "--property=MemoryMax=24M", "/usr/bin/python3", "-c", THRASH
    )
    try:
        reason = agentd.wait_event("scale_down")[0]["reason"]
    finally:
        agentd.systemctl("stop", "greedy.service")
    assert reason.startswith("memory: ")
    assert reason.endswith(" is idle")
    assert len(agentd.wait_ready(1)) == 1


def test_an_agent_that_waits_at_its_own_limit_does_not_hold_the_others_up(agentd: Agentd) -> None:
    """The kernel counts its waiting as the host's, which has plenty."""
    hoarding = ["/usr/bin/python3", "-c", HOARD]
    greedy = idle(1, ports=[9401, 9401], command=hoarding, resources={"memory_high": "32M"})
    reserve = NO_RESERVE | {"memory_pressure_percent": 10}
    pools = {"research": idle(1, max=2), "greedy": greedy}
    agentd.configure(pools, host={"starting_max": 64, "reserve": reserve})
    agentd.start()
    agentd.wait_ready(2)
    if cgroups(agentd).mode is Mode.V2:  # elsewhere nothing slows it down, and it does not wait
        wait_until(lambda: pressure_percent(agentd.host) > 20, "it waits, and the kernel says that the host does")
    agentd.ctl("up", "2", "--pool", "research")
    agentd.wait_ready(3)


def pressure_percent(host: Host) -> float:
    """`some avg10` of the host."""
    return float(host.out("cat", "/proc/pressure/memory").partition("avg10=")[2].split()[0])

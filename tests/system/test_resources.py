"""What agents may use is enforced, and what they use is known: by the kernel of a booted host, read as agentd reads it.

The units are the package's own, the limits are set as an administrator would. Each reading is made by a unit with the
user, the groups and the sandbox of agentd.service.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from testhost import Host, HostError, wait_until

from agentd import units
from agentd.cgroups import Mode
from agentd.core.model import InstanceId, PoolName, parse_instance_id

PYTHON = "/usr/lib/agentd/venv/bin/python3"
# Of agentd.service, what decides over what it can see.
AS_AGENTD = (
    *("User=agentd", "SupplementaryGroups=systemd-journal", "NoNewPrivileges=yes", "CapabilityBoundingSet="),
    *("ProtectSystem=strict", "ProtectControlGroups=yes", "PrivateDevices=yes", "ProtectHome=yes"),
)
MIB = 1024 * 1024

BURN = "while True: pass"
HOLD = "held = bytearray(b'x') * {bytes}; import signal; signal.pause()"
GROW = "import time\nheld = []\nwhile True: held.append(bytearray(b'x') * 1048576)"
FORK = """
import os, signal
while True:
    try:
        if os.fork() == 0:
            signal.pause()
    except OSError:
        signal.pause()
"""
READ = """
import json
from agentd.cgroups import Cgroups
groups = Cgroups()
group, slice = {group!r}, {slice!r}
limits = groups.limits(group)
print(json.dumps({{
    "mode": groups.mode,
    "memory_bytes": groups.memory_bytes(group),
    "cpu_s": groups.cpu_s(group),
    "throttled_s": groups.throttled_s(group),
    "tasks": groups.tasks(group),
    "pids": groups.pids(group),
    "pressure": [groups.pressure(group, name) for name in ("memory", "cpu", "io")],
    "limits": [limits.memory_max_bytes, limits.cpu_quota_ratio, limits.cpu_weight, limits.tasks_max],
    "slice_oom_kills": groups.oom_kills(slice),
    "slice_memory_peak_bytes": groups.memory_peak_bytes(slice),
}}))
"""
SAMPLE = """
import json, pathlib, time
from msgspec import to_builtins
from agentd.cgroups import Cgroups
from agentd.collectors import HostCollector
from agentd.core.model import InstanceId
collector = HostCollector(pathlib.Path("/"), cgroups=Cgroups(), own_cgroup=False, look_cpu_ratio=1e9)
ids = {{InstanceId({instance!r}): 0}}
collector.sample(ids)
time.sleep(1.0)  # a mean needs a time to be a mean of
print(json.dumps(to_builtins(collector.sample(ids))))
"""
LOGS = """
import asyncio
from agentd.logfiles_journal import JournalLogs
async def read():
    async for piece in JournalLogs().read({instance!r}, {lines}, follow=False):
        print(piece.decode(), end="")
asyncio.run(read())
"""


class Agents:
    """Starts instances by their units, and stops them at the end."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.started: list[str] = []

    def start(self, name: str, program: str, *limits: str) -> InstanceId:
        instance = InstanceId(name)
        unit = units.unit_name(instance)
        order = json.dumps({"command": ["/usr/bin/python3", "-c", program], "env": {}, "notify": False})
        quoted = order.replace("'", "\\u0027")
        self.host.write(f"/run/agentd/instances/{name}.env", f"AGENTD_INSTANCE={name}\nAGENTD_LAUNCH='{quoted}'\n")
        if limits:
            self.host.exec("systemctl", "set-property", "--runtime", unit, *limits)
        self.started.append(unit)
        self.host.exec("systemctl", "start", unit)
        return instance

    def pid(self, instance: InstanceId) -> str:
        return self.host.show(units.unit_name(instance), "MainPID")["MainPID"]

    def end(self) -> None:
        self.host.exec("systemctl", "stop", *self.started)
        self.host.exec("systemctl", "reset-failed", *self.started, check=False)
        self.host.exec("systemctl", "revert", *self.started)


@pytest.fixture
def agents(shared_host: Host) -> Iterator[Agents]:
    made = Agents(shared_host)
    yield made
    made.end()


def as_agentd(host: Host, script: str) -> str:
    return host.run(PYTHON, "-c", script, properties=AS_AGENTD).stdout


def read(host: Host, instance: InstanceId) -> dict[str, Any]:
    pool, _ = parse_instance_id(instance)
    script = READ.format(group=units.instance_cgroup(instance), slice=units.slice_cgroup(pool))
    found = json.loads(as_agentd(host, script))
    assert isinstance(found, dict)
    return found


def sample(host: Host, instance: InstanceId) -> dict[str, Any]:
    found = json.loads(as_agentd(host, SAMPLE.format(instance=instance)))
    assert isinstance(found, dict)
    return found


def test_a_memory_limit_kills_who_exceeds_it_and_nobody_else(agents: Agents, shared_host: Host) -> None:
    beside = agents.start("memory-9101", HOLD.format(bytes=MIB))
    before = agents.pid(beside)
    greedy = agents.start("memory-9102", GROW, "MemoryMax=64M")
    unit = units.unit_name(greedy)
    wait_until(lambda: int(shared_host.show(unit, "NRestarts")["NRestarts"]) > 0, "the kernel kills it")
    found = read(shared_host, greedy)
    if found["mode"] == Mode.V2:
        assert found["slice_oom_kills"] >= 1
    else:  # the count goes with the group of the unit; that the slice was at the limit stays known
        assert found["slice_memory_peak_bytes"] >= 60 * MIB
    said = " ".join(entry["MESSAGE"] for entry in shared_host.journal(f"UNIT={unit}"))
    assert "oom-kill" in said or "status=9/KILL" in said
    assert agents.pid(beside) == before


def test_a_quota_throttles_and_the_use_of_it_is_known(agents: Agents, shared_host: Host) -> None:
    busy = agents.start("cpu-9101", BURN, "CPUQuota=20%")
    wait_until(lambda: (read(shared_host, busy)["throttled_s"] or 0.0) > 0.2, "it is throttled")
    usage = sample(shared_host, busy)["instances"][busy]
    assert 0.02 < usage["cpu_cores"] < 0.3
    assert usage["memory_bytes"] > MIB


def test_a_fork_bomb_is_contained(agents: Agents, shared_host: Host) -> None:
    beside = agents.start("fork-9101", HOLD.format(bytes=MIB))
    before = agents.pid(beside)
    bomb = agents.start("fork-9102", FORK, "TasksMax=40")
    wait_until(lambda: read(shared_host, bomb)["tasks"] == 40, "it has forked as far as it may")
    assert len(read(shared_host, bomb)["pids"]) == 40
    assert agents.pid(beside) == before
    shared_host.exec("systemctl", "stop", units.unit_name(bomb))
    assert read(shared_host, bomb)["pids"] == [], "nothing of it is left"


def test_limits_are_read_as_they_were_set(agents: Agents, shared_host: Host) -> None:
    limits = ("MemoryMax=96M", "CPUQuota=150%", "CPUWeight=33", "TasksMax=77")
    limited = agents.start("limits-9101", HOLD.format(bytes=MIB), *limits)
    assert read(shared_host, limited)["limits"] == [96 * MIB, 1.5, 33, 77]


def test_memory_and_pressure_of_an_agent_are_its_own(agents: Agents, shared_host: Host) -> None:
    small = agents.start("use-9101", HOLD.format(bytes=MIB))
    large = agents.start("use-9102", HOLD.format(bytes=80 * MIB))

    def has_grown() -> bool:
        return bool(read(shared_host, large)["memory_bytes"] > 80 * MIB)

    wait_until(has_grown, "it holds what it asked for")
    assert read(shared_host, small)["memory_bytes"] < 40 * MIB
    assert read(shared_host, large)["cpu_s"] > 0.0
    if "some" in shared_host.out("cat", "/proc/pressure/memory", check=False):
        assert None not in read(shared_host, large)["pressure"]


def test_the_limit_of_a_slice_is_a_wall_for_its_pool(agents: Agents, shared_host: Host) -> None:
    inside = agents.start("wall-9101", HOLD.format(bytes=20 * MIB))
    around = units.pool_slice(PoolName("wall"))
    shared_host.exec("systemctl", "set-property", "--runtime", around, "MemoryMax=500M")
    wall = sample(shared_host, inside)["walls"]["wall"]
    assert wall["memory_max_bytes"] == 500 * MIB
    assert 0 < wall["memory_bytes"] < 500 * MIB
    shared_host.exec("systemctl", "revert", around)


def test_what_an_agent_wrote_is_read_from_the_journal(agents: Agents, shared_host: Host) -> None:
    program = "print('one'); print('gr\\u00fcn', flush=True); import signal; signal.pause()"
    writer = agents.start("logs-9101", program)
    last_line = LOGS.format(instance=writer, lines=1)

    def has_written() -> bool:
        try:
            return as_agentd(shared_host, last_line) == "grün\n"
        except HostError:  # it has written nothing yet
            return False

    wait_until(has_written, "its last line is in the journal")
    assert as_agentd(shared_host, LOGS.format(instance=writer, lines=100)) == "one\ngrün\n"
    stranger = shared_host.run(PYTHON, "-c", last_line, properties=("User=nobody",), check=False)
    assert stranger.returncode != 0
    assert "cannot read the journal: No journal files were opened due to insufficient permissions" in stranger.stderr

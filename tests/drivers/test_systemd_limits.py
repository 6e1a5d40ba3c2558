"""Limits that the kernel holds, warnings where it does not, and the memory kill that is told from others."""

from __future__ import annotations

import pytest
from driver_worlds import FOREVER, ID, Reports, asynchronous, spec, until, watching
from msgspec import structs
from systemd_world import SystemdWorld

from agentd.cgroups import NO_LIMIT, Mode
from agentd.core.messages import InstanceExited, InstanceWarned
from agentd.core.model import MIB, ExitCause, ExitKind, InstanceId, InstanceSpec, PoolName, Resources, instance_id
from agentd.drivers.systemd import SystemdDriver
from agentd.drivers.systemd_limits import TASKS_MAX_DEFAULT
from agentd.units import instance_cgroup, pool_slice, slice_cgroup

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]

EATER = """
import time
eaten = []
while True:
    eaten.append(bytearray(1 << 20))
    time.sleep(0.001)
"""
FORKER = """
import os, time
try:
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(1000)
except BlockingIOError:
    open("refused", "w").close()
time.sleep(1000)
"""
NOT_ON_V1 = "memory_high 48 MiB is not in force: the control groups of this host ({mode}) do not offer it"


def python(script: str) -> tuple[str, ...]:
    return ("/usr/bin/python3", "-c", script)


def limited(
    resources: Resources, port: int = 9101, *, command: tuple[str, ...] = FOREVER, pool_max: int = 0
) -> InstanceSpec:
    return structs.replace(spec(port, command=command), resources=resources, pool_max=pool_max)


def of_pool(pool: PoolName, port: int, resources: Resources, pool_max: int) -> InstanceSpec:
    return structs.replace(limited(resources, port, pool_max=pool_max), id=instance_id(pool, port), pool=pool)


@asynchronous
async def test_limits_are_in_force_from_the_first_instruction(systemd_world: SystemdWorld) -> None:
    resources = Resources(
        memory_max_bytes=64 * MIB,
        memory_high_bytes=48 * MIB,
        cpu_weight=50,
        cpu_quota_ratio=0.5,
        tasks_max=40,
        io_weight=50,
    )
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await driver.start(limited(resources))
        held = systemd_world.cgroups.limits(instance_cgroup(ID))
        assert (held.memory_max_bytes, held.cpu_weight, held.cpu_quota_ratio, held.tasks_max) == (64 * MIB, 50, 0.5, 40)
        warned = await warnings(driver, reports)
        if systemd_world.cgroups.mode is Mode.V2:
            assert held.memory_high_bytes == 48 * MIB
            assert warned == []
        else:
            assert warned == [NOT_ON_V1.format(mode=systemd_world.cgroups.mode)]


async def warnings(driver: SystemdDriver, reports: Reports) -> list[str]:
    """What has been warned of until now."""
    await driver.list()  # which returns when all reports have been taken
    return [report.text for report in reports if isinstance(report, InstanceWarned)]


@asynchronous
async def test_limits_that_are_not_configured_any_more_are_taken_back(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await driver.start(limited(Resources(memory_max_bytes=64 * MIB, cpu_quota_ratio=0.5, tasks_max=40)))
        await driver.stop(ID, grace_s=10.0)
        await driver.start(limited(Resources(memory_max_bytes=96 * MIB)))
        held = systemd_world.cgroups.limits(instance_cgroup(ID))
        assert (held.memory_max_bytes, held.tasks_max) == (96 * MIB, TASKS_MAX_DEFAULT)
        # With version 2 a group has the controller of processors only while somebody asks for it.
        assert held.cpu_quota_ratio in (None, float("inf"))
        await driver.stop(ID, grace_s=10.0)
        await driver.start(limited(Resources()))
        assert systemd_world.cgroups.limits(instance_cgroup(ID)).memory_max_bytes == NO_LIMIT
        assert await warnings(driver, reports) == []


@asynchronous
async def test_an_instance_without_limits_costs_no_setting(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver):
        await driver.start(limited(Resources(), pool_max=5))
        assert not (systemd_world.root / "run/systemd/system.control").exists() or not any(
            (systemd_world.root / "run/systemd/system.control").iterdir()
        )


@asynchronous
async def test_an_administrator_s_other_limit_wins_and_is_told(systemd_world: SystemdWorld) -> None:
    systemd_world.drop_in(ID, "[Service]\nMemoryMax=128M\nTasksMax=infinity")
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        await driver.start(limited(Resources(memory_max_bytes=64 * MIB, tasks_max=40)))
        assert await warnings(driver, reports) == [
            "memory_max 64 MiB is not in force: the kernel holds 128 MiB",
            "tasks_max 40 is not in force: the kernel holds no limit",
        ]


def test_the_template_has_the_limit_that_is_the_default(systemd_world: SystemdWorld) -> None:
    template = (systemd_world.root / "usr/lib/systemd/system/agent@.service").read_text()
    assert f"\nTasksMax={TASKS_MAX_DEFAULT}\n" in template


@asynchronous
async def test_the_pool_s_slice_is_a_second_wall(systemd_world: SystemdWorld) -> None:
    pool = PoolName("walled")
    driver = systemd_world.driver()

    def wall() -> tuple[int | None, int | None]:
        held = systemd_world.cgroups.limits(slice_cgroup(pool))
        return held.memory_max_bytes, held.tasks_max

    small, large = (Resources(memory_max_bytes=mib * MIB, tasks_max=mib) for mib in (32, 64))
    async with watching(driver):
        await driver.start(of_pool(pool, 9101, large, pool_max=3))
        assert wall() == (256 * MIB, 256)
        await driver.start(of_pool(pool, 9102, small, pool_max=3))
        assert wall() == (256 * MIB, 256), "what runs was started under the higher wall"
        await driver.start(of_pool(pool, 9103, large, pool_max=7))
        assert wall() == (512 * MIB, 512)
        for port in (9101, 9102, 9103):
            await driver.stop(instance_id(pool, port), grace_s=10.0)
        await driver.start(of_pool(pool, 9101, small, pool_max=3))
        assert wall() == (128 * MIB, 128)
    second = systemd_world.driver()
    async with watching(second):
        await second.start(of_pool(pool, 9102, small, pool_max=1))
        assert wall() == (128 * MIB, 128), "a later agentd does not lower it either"
        await second.stop(instance_id(pool, 9101), grace_s=10.0)
        await second.stop(instance_id(pool, 9102), grace_s=10.0)
        await second.start(of_pool(pool, 9101, Resources(), pool_max=1))
        assert wall() == (NO_LIMIT, NO_LIMIT)
    await systemd_world.systemctl("stop", pool_slice(pool))


@asynchronous
async def test_a_kill_for_memory_is_told_as_one(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        eater = limited(Resources(memory_max_bytes=48 * MIB), 9120, command=python(EATER))
        await driver.start(systemd_world.unhurried(eater))
        for count in (1, 2):
            exited = await reports.first(InstanceExited, count)
            assert isinstance(exited, InstanceExited)
            assert exited.cause == ExitCause(ExitKind.OOM, 9), f"exit {count}"


@asynchronous
async def test_a_kill_by_a_person_is_not_told_as_one_for_memory(systemd_world: SystemdWorld) -> None:
    driver = systemd_world.driver()
    async with watching(driver) as reports:
        roomy = systemd_world.unhurried(limited(Resources(memory_max_bytes=512 * MIB), 9121))
        started = await driver.start(roomy)
        await systemd_world.exit(started)
        exited = await reports.first(InstanceExited)
        assert isinstance(exited, InstanceExited)
        assert exited.cause == ExitCause(ExitKind.SIGNAL, 9)


@asynchronous
async def test_a_quota_and_a_bound_on_tasks_really_bite(systemd_world: SystemdWorld) -> None:
    slow, crowd = InstanceId(spec(9131).id), InstanceId(spec(9132).id)
    driver = systemd_world.driver()
    async with watching(driver):
        burner = ("sh", "-c", "while :; do :; done")
        await driver.start(limited(Resources(cpu_quota_ratio=0.1), 9131, command=burner))
        await driver.start(limited(Resources(tasks_max=20), 9132, command=python(FORKER)))
        throttled_s = systemd_world.cgroups.throttled_s
        await until(lambda: bool(throttled_s(instance_cgroup(slow))), "the quota to be used up")
        await systemd_world.home(crowd, "refused")
        assert systemd_world.running(crowd) == 20

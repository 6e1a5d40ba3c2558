"""The names of systemd units and control groups."""

from __future__ import annotations

import pytest

from agentd.core.model import InstanceId, PoolName
from agentd.units import instance_cgroup, instance_of, instance_of_cgroup, pool_slice, slice_cgroup, unit_name

ID = InstanceId("research-9101")


def test_an_instance_and_its_unit_name_each_other() -> None:
    assert unit_name(ID) == "agent@research-9101.service"
    assert instance_of("agent@research-9101.service") == ID


@pytest.mark.parametrize(
    "unit",
    [
        "agent@.service",
        "agent@research.service",
        "agent@research-0.service",
        "agentd.service",
        "agent@research-9101.scope",
        "xagent@research-9101.service",
        "agent@Research-9101.service",
        "research-9101.service",
    ],
)
def test_other_units_run_no_instance(unit: str) -> None:
    assert instance_of(unit) is None


def test_groups_nest_as_systemd_nests_the_slices() -> None:
    assert slice_cgroup() == "agentd.slice/agentd-agents.slice"
    assert slice_cgroup(PoolName("research")).endswith(f"/agentd-agents.slice/{pool_slice(PoolName('research'))}")
    assert instance_cgroup(ID) == (
        "agentd.slice/agentd-agents.slice/agentd-agents-research.slice/agentd-agents-research-9101.slice/"
        "agent@research-9101.service"
    )


@pytest.mark.parametrize("below", ["", "/worker", "/agent@research-9102.service", f"/{instance_cgroup(ID)}"])
def test_a_group_is_the_instances_and_so_is_what_is_below_it(below: str) -> None:
    assert instance_of_cgroup(instance_cgroup(ID) + below) == ID


@pytest.mark.parametrize(
    "path",
    [
        "",
        "system.slice/cron.service",
        f"user.slice/user-1000.slice/user@1000.service/{instance_cgroup(ID)}",
        f"/{instance_cgroup(ID)}",
        f"{slice_cgroup(PoolName('research'))}/{unit_name(ID)}",
        f"{slice_cgroup(PoolName('research'))}/agentd-agents-research-9102.slice/{unit_name(ID)}",
        instance_cgroup(ID).removesuffix(f"/{unit_name(ID)}"),
    ],
)
def test_a_group_elsewhere_is_no_instances_whatever_it_is_called(path: str) -> None:
    assert instance_of_cgroup(path) is None

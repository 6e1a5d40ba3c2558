"""Several pools that want more than the host carries: what each gets of it, and what it is told."""

from __future__ import annotations

from typing import Any

from fleets import STORIES
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from world import World

from agentd.core.messages import HostSampled, Propose
from agentd.core.model import (
    MIB,
    Decision,
    FleetConfig,
    HostReserve,
    HostSample,
    InstanceId,
    PoolConfig,
    PoolName,
    PortRange,
    Usage,
    Wall,
)
from agentd.core.rules import ExternalTrigger

NAMES = ("analysis", "execution", "research")


def world(*, available_mib: int, driver_max: int | None = None, wall_mib: int | None = None, **pools: Any) -> World:
    """Pools of 100 MiB an instance that follow what programs ask for; starts last."""
    configs = {
        PoolName(name): PoolConfig(
            PoolName(name), min=0, max=30, ports=PortRange(9101 + 100 * n, 9150 + 100 * n),
            triggers=(ExternalTrigger(),), **pools.get(name, {}),
        )
        for n, name in enumerate(NAMES)
    }  # fmt: skip
    fleet = FleetConfig(configs, enabled=True, autoscaling_enabled=True, reserve=HostReserve(cpu_ratio=None))
    made = World(fleet, start_delay_s=1000.0)
    made.controller.set_capacity(driver_max)
    made.boot()
    walls = {} if wall_mib is None else {"": Wall(wall_mib * MIB, 0)}
    made.step(HostSampled(HostSample(8, 1.0, 4096 * MIB, (available_mib + 512) * MIB, 10**12, walls=walls)))
    return made


def ask(made: World, **counts: int) -> dict[str, Decision]:
    """What an evaluation of all pools at once grants."""
    for name, count in counts.items():
        made.step(Propose(PoolName(name), "oracle", count, "alice"))
    made.now = 11.0
    return {pool.name: pool.next for pool in made.view().pools}


def granted(found: dict[str, Decision]) -> dict[str, int]:
    return {name: decision.granted for name, decision in found.items()}


def test_what_fits_together_is_granted_and_nobody_is_told_of_others() -> None:
    found = ask(world(available_mib=700), analysis=3, research=4)
    assert granted(found) == {"analysis": 3, "execution": 0, "research": 4}
    assert all(not decision.limits for decision in found.values())


def test_who_gets_less_is_told_who_went_first_and_why() -> None:
    found = ask(world(available_mib=600, research={"priority": 5}), analysis=3, research=4)
    assert granted(found) == {"analysis": 2, "execution": 0, "research": 4}
    (limit,) = found["analysis"].limits
    assert limit.code == "host_memory"
    assert limit.text.endswith("; research went first: priority 5")
    assert found["research"].limits == ()


def test_of_equal_priority_those_with_more_tasks_an_agent() -> None:
    found = ask(world(available_mib=400, research={"concurrency": 4}), analysis=3, research=3)
    assert granted(found) == {"analysis": 1, "execution": 0, "research": 3}
    assert found["analysis"].limits[0].text.endswith("; research went first: it relieves more tasks per MiB")


def test_the_places_of_the_driver_and_the_slice_of_all_are_shared_too() -> None:
    found = ask(world(available_mib=3000, driver_max=5, execution={"priority": 1}), analysis=4, execution=3)
    assert granted(found) == {"analysis": 2, "execution": 3, "research": 0}
    assert [limit.code for limit in found["analysis"].limits] == ["driver_capacity"]
    assert found["analysis"].limits[0].text.endswith("; execution went first: priority 1")
    found = ask(world(available_mib=3000, wall_mib=500, execution={"priority": 1}), analysis=4, execution=3)
    assert granted(found) == {"analysis": 2, "execution": 3, "research": 0}
    assert [limit.code for limit in found["analysis"].limits] == ["slice_memory"]


def test_a_minimum_goes_first_as_soon_as_it_fits() -> None:
    """Until then it holds nobody up: one that never fits must not stand still the whole fleet."""
    made = world(available_mib=250, research={"priority": 5})
    fleet = made.controller._fleet
    pool = fleet.pools[PoolName("analysis")]
    pool.footprint_bytes = 300 * MIB
    pool.config = replace(pool.config, min=1)
    assert granted(ask(made, research=3)) == {"analysis": 0, "execution": 0, "research": 2}
    made.step(HostSampled(HostSample(8, 1.0, 4096 * MIB, (350 + 512) * MIB, 10**12)))
    found = made.view()
    assert {i.pool for i in found.instances} == {"analysis"}  # repair has started it


@settings(STORIES)
@given(
    wishes=st.fixed_dictionaries({name: st.integers(0, 12) for name in NAMES}),
    priorities=st.fixed_dictionaries({name: st.integers(0, 2) for name in NAMES}),
    available_mib=st.integers(0, 2000),
    driver_max=st.none() | st.integers(0, 20),
)
def test_together_no_more_than_the_host_carries(
    wishes: dict[str, int], priorities: dict[str, int], available_mib: int, driver_max: int | None
) -> None:
    pools = {name: {"priority": priority} for name, priority in priorities.items()}
    made = world(available_mib=available_mib, driver_max=driver_max, **pools)
    found = granted(ask(made, **wishes))
    most = min(available_mib // 100, 10_000 if driver_max is None else driver_max)
    assert sum(found.values()) == min(most, sum(wishes.values()))
    for name, other in ((name, other) for name in NAMES for other in NAMES):
        if priorities[name] > priorities[other] and found[name] < wishes[name]:
            assert found[other] == 0
    made.run_until(11.0)
    assert len(made.view().instances) == sum(found.values())  # and that is what is done


def test_footprints_are_each_pools_own() -> None:
    made = world(available_mib=1000)
    made.start_delay_s = 0.0
    made.step(Propose(PoolName("research"), "oracle", 1, "alice"))
    made.run_until(12.0)
    usage = {InstanceId("research-9301"): Usage(400 * MIB, 0.1)}
    made.step(HostSampled(HostSample(8, 1.0, 4096 * MIB, (1000 + 512) * MIB, 10**12, instances=usage)))
    made.start_delay_s = 1000.0
    for name, count in (("research", 4), ("analysis", 4)):
        made.step(Propose(PoolName(name), "oracle", count, "alice"))
    found = {pool.name: pool.next.granted for pool in made.view().pools}
    assert found == {"analysis": 4, "execution": 0, "research": 2}  # 4 of 100 MiB relieve more than one of 400

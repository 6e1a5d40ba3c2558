"""The nouns: ids that parse back, delays that stay in bounds, the reserve of a host."""

from __future__ import annotations

import pytest
from fleets import STORIES
from hypothesis import given
from hypothesis import strategies as st

from agentd.core.model import (
    POOL_NAME,
    ExitCause,
    ExitKind,
    FleetConfig,
    HostReserve,
    PoolName,
    PortRange,
    RestartPolicy,
    instance_id,
    parse_instance_id,
)

MIB = 1024 * 1024


@STORIES
@given(st.from_regex(POOL_NAME, fullmatch=True), st.integers(1, 65535))
def test_an_instance_id_parses_back(name: str, port: int) -> None:
    assert parse_instance_id(instance_id(PoolName(name), port)) == (name, port)


@pytest.mark.parametrize(
    "text",
    ["", "research", "research-", "-9101", "Research-9101", "research-0", "research-65536", "research-09101",
     "research-9101 ", "research-9101\n", "re-search-9101", "9research-9101", "a" * 20 + "-1", "research-٩"],
)  # fmt: skip
def test_what_is_no_instance_id_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="for example research-9101"):
        parse_instance_id(text)


def test_restart_delays_double_up_to_their_cap() -> None:
    policy = RestartPolicy(initial_s=0.1, max_s=1.0, factor=2.0)
    assert [policy.delay_s(failures, 0.0) for failures in (1, 2, 3, 4, 5)] == [0.1, 0.2, 0.4, 0.8, 1.0]


@STORIES
@given(st.integers(-5, 10**9), st.floats(0.0, 1.0, exclude_max=True))
def test_a_restart_delay_is_never_above_its_cap_nor_below_its_start(failures: int, chance: float) -> None:
    policy = RestartPolicy()
    plain = policy.delay_s(failures, 0.0)
    assert policy.initial_s <= plain <= policy.delay_s(failures, chance) <= policy.max_s
    assert policy.delay_s(failures, chance) <= plain * (1 + policy.jitter_ratio)


def test_a_port_range_holds_both_its_ends() -> None:
    ports = PortRange(9101, 9103)
    assert [port in ports for port in (9100, 9101, 9103, 9104)] == [False, True, True, False]
    assert len(ports) == 3


def test_the_memory_reserve_is_the_larger_of_share_and_amount() -> None:
    reserve = HostReserve(memory_bytes=512 * MIB, memory_ratio=0.10)
    assert reserve.memory_reserve_bytes(1024 * MIB) == 512 * MIB
    assert reserve.memory_reserve_bytes(10240 * MIB) == 1024 * MIB


@pytest.mark.parametrize(("timeout_s", "interval_s"), [(120.0, 10.0), (30.0, 10.0), (15.0, 5.0), (0.3, 0.1)])
def test_agents_beat_three_times_per_timeout_and_at_least_every_ten_seconds(
    timeout_s: float, interval_s: float
) -> None:
    assert FleetConfig(pools={}, heartbeat_timeout_s=timeout_s).heartbeat_interval_s == pytest.approx(interval_s)


def test_every_kind_of_exit_has_words() -> None:
    assert [str(ExitCause(kind, 9)) for kind in ExitKind] == [
        "exit code 9", "signal 9", "out of memory", "watchdog: no sign of life in time",
        "killed: took too long to start or to stop", "could not be set up (status 9)", "ended unwatched",
    ]  # fmt: skip

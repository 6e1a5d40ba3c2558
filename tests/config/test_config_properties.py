"""Any input is a configuration that the rest of agentd can rely on, or a list of problems."""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.config import AUTOSCALING_KEYS, MULTI_AGENT_KEYS, TOP_KEYS, Config, parse
from agentd.config.model import DRIVERS
from agentd.config.pools import POOL_KEYS
from agentd.config.settings import LISTEN_KEYS, RESERVE_KEYS
from agentd.core.model import PoolName
from agentd.core.rules import ThresholdTrigger
from agentd.errors import ConfigError

ALL_KEYS = [*TOP_KEYS, *MULTI_AGENT_KEYS, *AUTOSCALING_KEYS, *POOL_KEYS, *RESERVE_KEYS, *LISTEN_KEYS, "reserve"]
WORDS = st.sampled_from([*ALL_KEYS, "research", "primary", "extra", "check", "type", "threshold", "http", "off"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-10, 70_000), st.floats(), WORDS, st.text(max_size=5), st.just("512M")
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(WORDS, TREES, max_size=6))
def test_any_tree_is_a_valid_configuration_or_a_list_of_problems(tree: dict[str, Any]) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True)
    try:
        check_invariants(parse(text, "f.yaml"))
        return
    except ConfigError as error:
        problems = error.problems
    assert problems
    lines = len(re.split("\r\n|[\n\r\x85\u2028\u2029]", text))  # what YAML counts as a line
    assert all(1 <= problem.line <= lines for problem in problems)
    assert all(str(problem).isprintable() for problem in problems)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60))
def test_any_text_is_a_valid_configuration_or_a_list_of_problems(text: str) -> None:
    try:
        check_invariants(parse(text, "f.yaml"))
        return
    except ConfigError as error:
        problems = error.problems
    assert problems


@settings(max_examples=60, deadline=None)
@given(
    up=st.floats(0, 1),
    down=st.floats(0, 1),
    low=st.integers(0, 60),
    high=st.integers(0, 60),
    first=st.integers(9590, 9700),
    count=st.integers(1, 60),
)
def test_a_file_is_accepted_exactly_when_its_rules_agree(
    up: float, down: float, low: int, high: int, first: int, count: int
) -> None:
    text = yaml.safe_dump(
        {
            "scale_up_threshold": up,
            "scale_down_threshold": down,
            "pools": {"extra": {"min": low, "max": high, "ports": [first, first + count - 1]}},
        }
    )
    agrees = down < up and low <= high and low <= count
    try:
        config = parse(text, "f.yaml")
    except ConfigError:
        assert not agrees
        return
    assert agrees
    extra = config.fleet.pools[PoolName("extra")]
    assert (extra.min, extra.max, extra.triggers) == (low, high, (ThresholdTrigger(up, down),))


def check_invariants(config: Config) -> None:
    """What the rest of agentd relies on in every configuration."""
    ports: list[int] = []
    names: list[str] = []
    for pool in config.fleet.pools.values():
        own = list(range(pool.ports.first, pool.ports.last + 1)) if pool.ports else []
        ports += own + [agent.port for agent in pool.core]
        names += [agent.name for agent in pool.core]
        assert len(pool.core) <= pool.max
        assert pool.min <= min(pool.max, len(pool.core) + len(own))
        assert all(0 <= rule.scale_down_threshold < rule.scale_up_threshold <= 1 for rule in pool.triggers)
    assert len(set(ports)) == len(ports)
    assert len(set(names)) == len(names)
    assert all(1024 <= port <= 65535 for port in ports)
    assert config.driver in DRIVERS
    assert math.isfinite(config.fleet.check_interval_s)

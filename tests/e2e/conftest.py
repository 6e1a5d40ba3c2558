"""Fixtures of the end-to-end tests: a real agentd, started by the test, with everything it starts ended after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from e2e_fleet import Fleet
from e2e_hosts import Ports


@pytest.fixture
def ports() -> Iterator[Ports]:
    """A block of free ports for this test alone."""
    block = Ports()
    try:
        yield block
    finally:
        block.close()


@pytest.fixture
def make_fleet(ports: Ports) -> Iterator[Callable[..., Fleet]]:
    """Make fleets in directories of their own, on the same block of ports."""
    made: list[Fleet] = []

    def make(state_dir: Path | None = None) -> Fleet:
        made.append(Fleet(ports, state_dir=state_dir))
        return made[-1]

    try:
        yield make
    finally:
        for fleet in made:
            fleet.close()


@pytest.fixture
def fleet(make_fleet: Callable[..., Fleet]) -> Fleet:
    """A fleet with nothing configured yet."""
    return make_fleet()

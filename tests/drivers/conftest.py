"""Fixtures of the drivers' tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from driver_worlds import MemoryWorld, ProcessWorld, World


@pytest.fixture(params=["memory", pytest.param("process", marks=pytest.mark.host)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A host to run instances on, once for each driver."""
    yield from _opened(MemoryWorld() if request.param == "memory" else ProcessWorld(tmp_path / "log"))


@pytest.fixture
def process_world(tmp_path: Path) -> Iterator[ProcessWorld]:
    """The real host."""
    world = ProcessWorld(tmp_path / "log")
    try:
        yield world
    finally:
        world.clean_up()


def _opened(world: World) -> Iterator[World]:
    try:
        yield world
    finally:
        world.clean_up()

"""Fixtures of the drivers' tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from driver_worlds import MemoryWorld, ProcessWorld, World
from host_fixtures import FindBase
from systemd_world import SystemdWorld, lay_out, prepare
from testhost import Host, unmet

BOOT_TIMEOUT_S = 400  # the first use on a machine builds what is booted


@pytest.fixture(
    params=[
        "memory",
        pytest.param("process", marks=pytest.mark.host),
        pytest.param("systemd", marks=(pytest.mark.host, pytest.mark.booted, pytest.mark.timeout(BOOT_TIMEOUT_S))),
    ]
)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A host to run instances on, once for each driver."""
    match request.param:
        case "memory":
            yield from _opened(MemoryWorld())
        case "process":
            yield from _opened(ProcessWorld(tmp_path / "log"))
        case _:
            yield from _opened(SystemdWorld(request.getfixturevalue("agents_host")))


@pytest.fixture(scope="session")
def agents_host(clean_base: FindBase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A booted host with all that agents need and without agentd; one for all tests.

    AGENTD_TEST_SUITE names another release to boot than the oldest.
    """
    if why := unmet():
        pytest.skip(f"test hosts cannot run here: {'; '.join(why)}")
    layer = tmp_path_factory.mktemp("agents") / "layer"
    lay_out(layer)
    host = Host()
    host.up(layer, clean_base(os.environ.get("AGENTD_TEST_SUITE", "bookworm")))
    try:
        prepare(host)
        yield host
    finally:
        host.down()


@pytest.fixture
def systemd_world(agents_host: Host) -> Iterator[SystemdWorld]:
    """The booted host."""
    world = SystemdWorld(agents_host)
    try:
        yield world
    finally:
        world.clean_up()


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

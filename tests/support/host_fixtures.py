"""Fixtures that boot real systemd hosts, for all tests: tests/conftest.py names this module as a plugin.

    bookworm_base, trixie_base   session   the clean root of a Debian release, to boot from; never write to it
    clean_base                   session   clean_base(suite): the same by name
    agentd_deb                   session   agentd_deb(suite): the agentd package, built for that release once
    installed_base               session   installed_base(suite): a root with that package installed, made once;
                                           workers of one run share both
    make_host                    function  make_host(base, binds=, size=): boot one, as Host.up does; any number
    host                         function  a fresh host on Debian 12 with agentd installed and not yet started
    make_shared_host             module    as make_host, for hosts that all tests of a module use
    shared_host                  module    as host, shared: a test leaves it as it found it

Every host goes down at the end of its scope, whatever happened. Where hosts cannot run, the test is skipped with the
reason; a package that cannot be built or installed is an error. A test that uses them has the mark `host`, and a
timeout long enough for the first use on a machine, which builds (tests/system/conftest.py gives its own both).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import host_bases
import pytest
from host_bases import BaseError
from testhost import Host, unmet

FindBase = Callable[[str], Path]
MakeHost = Callable[..., Host]


class SharedDirectories:
    """Directories that the workers of one run share: made by the first that needs one, removed by the last."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._used: dict[Path, TextIO] = {}  # open while it is used, with a shared lock

    def get(self, name: str, make: Callable[[Path], None]) -> Path:
        """The directory `name`, filled by `make`; another worker may be at it already, and is waited for."""
        directory = self._parent / name
        with self._alone(directory):
            if not directory.exists():
                unfinished = self._parent / f"{name}.part"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(directory)
            self._used[directory] = users = (self._parent / f"{name}.users").open("w")
            fcntl.flock(users, fcntl.LOCK_SH)
        return directory

    def close(self) -> None:
        """Remove what nobody else uses."""
        for directory, users in self._used.items():
            with self._alone(directory), users:
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(directory)

    @contextlib.contextmanager
    def _alone(self, directory: Path) -> Iterator[None]:
        with directory.with_name(f"{directory.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


@pytest.fixture(scope="session")
def clean_base() -> FindBase:
    @_once
    def find(suite: str) -> Path:
        _need_hosts()
        try:
            return host_bases.clean_base(suite)
        except BaseError as trouble:
            pytest.skip(f"there is no root of {suite} to boot: {trouble}")

    return find


@pytest.fixture(scope="session")
def bookworm_base(clean_base: FindBase) -> Path:
    return clean_base("bookworm")


@pytest.fixture(scope="session")
def trixie_base(clean_base: FindBase) -> Path:
    return clean_base("trixie")


@pytest.fixture(scope="session")
def shared_directories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedDirectories]:
    own = tmp_path_factory.getbasetemp()
    made = SharedDirectories(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)
    yield made
    made.close()


@pytest.fixture(scope="session")
def agentd_deb(clean_base: FindBase, shared_directories: SharedDirectories) -> FindBase:
    @_once
    def build(suite: str) -> Path:
        def make(directory: Path) -> None:
            host_bases.build_deb(clean_base(suite), directory)

        return next(shared_directories.get(f"deb-{suite}", make).glob("*.deb"))

    return build


@pytest.fixture(scope="session")
def installed_base(clean_base: FindBase, agentd_deb: FindBase, shared_directories: SharedDirectories) -> FindBase:
    @_once
    def install(suite: str) -> Path:
        def make(directory: Path) -> None:
            host_bases.install_deb(agentd_deb(suite), clean_base(suite), directory / "root")

        return shared_directories.get(f"installed-{suite}", make) / "root"

    return install


@pytest.fixture
def make_host() -> Iterator[MakeHost]:
    yield from _hosts()


@pytest.fixture(scope="module")
def make_shared_host() -> Iterator[MakeHost]:
    yield from _hosts()


@pytest.fixture
def host(installed_base: FindBase, make_host: MakeHost) -> Host:
    return make_host(installed_base("bookworm"))


@pytest.fixture(scope="module")
def shared_host(installed_base: FindBase, make_shared_host: MakeHost) -> Host:
    return make_shared_host(installed_base("bookworm"))


def _hosts() -> Iterator[MakeHost]:
    """Give what boots hosts; take them all down afterwards, and say of one that does not go when all have been told."""
    made: list[Host] = []

    def make(*layers: Path, binds: Sequence[str] = (), size: str = "2G") -> Host:
        _need_hosts()
        made.append(Host())
        made[-1].up(*layers, binds=binds, size=size)
        return made[-1]

    yield make
    troubles = []
    for host in made:
        try:
            host.down()
        except Exception as trouble:
            troubles.append(trouble)
    if troubles:
        raise ExceptionGroup("test hosts that did not go down", troubles)


def _once(make: FindBase) -> FindBase:
    """Make each suite's thing once. What could not be made the first time is not tried again: it takes long."""
    outcomes: dict[str, Path | BaseException] = {}

    def get(suite: str) -> Path:
        if suite not in outcomes:
            try:
                outcomes[suite] = make(suite)
            except (Exception, pytest.skip.Exception) as trouble:
                outcomes[suite] = trouble
        outcome = outcomes[suite]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return get


def _need_hosts() -> None:
    if why := unmet():
        pytest.skip(f"test hosts cannot run here: {'; '.join(why)}")

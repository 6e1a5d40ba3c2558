"""Exceptions from the sandbox as links for each instance, in a directory that stands for systemd's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from agentd import dropins
from agentd.core.model import CoreAgent, PoolConfig, PoolName, PortRange
from agentd.dropins import LINK

RESEARCH = PoolConfig(
    name=PoolName("research"), core=(CoreAgent("researcher", 9002),), max=4, ports=PortRange(9101, 9102)
)
PLAIN = PoolConfig(name=PoolName("planning"), ports=PortRange(9401, 9402))
LINKS = {f"agent@research-{port}.service.d/{LINK}" for port in (9002, 9101, 9102)}


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    directory = tmp_path / "sandbox"
    directory.mkdir()
    (directory / "research.conf").write_text("[Service]\nPrivateDevices=no\n")
    return directory


@pytest.fixture
def units(tmp_path: Path) -> Path:
    directory = tmp_path / "units"
    directory.mkdir()
    return directory


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_symlink() or path.is_file()}


def test_every_instance_a_pool_may_have_gets_its_exception(sandbox: Path, units: Path) -> None:
    dropins.synchronize(units, dropins.wanted([RESEARCH, PLAIN], sandbox))
    assert files(units) == LINKS
    assert {(units / link).readlink() for link in LINKS} == {sandbox / "research.conf"}


def test_what_is_right_is_left_alone(sandbox: Path, units: Path) -> None:
    wanted = dropins.wanted([RESEARCH], sandbox)
    dropins.synchronize(units, wanted)
    before = {link: (units / link).lstat() for link in LINKS}
    dropins.synchronize(units, wanted)
    assert {link: (units / link).lstat() for link in LINKS} == before
    assert dropins.existing(units) == wanted


def test_what_no_longer_holds_goes_and_what_is_others_stays(sandbox: Path, units: Path) -> None:
    dropins.synchronize(units, dropins.wanted([RESEARCH], sandbox))
    others = units / "agent@research-9101.service.d" / "override.conf"
    others.write_text("[Service]\nNice=5\n")
    (sandbox / "research.conf").unlink()  # which leaves links that lead nowhere
    dropins.synchronize(units, dropins.wanted([RESEARCH], sandbox))
    assert files(units) == {"agent@research-9101.service.d/override.conf"}
    assert [path.name for path in units.iterdir()] == ["agent@research-9101.service.d"]


def test_a_port_range_that_moves_takes_its_exception_along(sandbox: Path, units: Path) -> None:
    dropins.synchronize(units, dropins.wanted([RESEARCH], sandbox))
    moved = replace(RESEARCH, ports=PortRange(9102, 9103))
    dropins.synchronize(units, dropins.wanted([moved], sandbox))
    assert files(units) == {f"agent@research-{port}.service.d/{LINK}" for port in (9002, 9102, 9103)}


def test_a_link_that_leads_elsewhere_is_set_right(sandbox: Path, units: Path) -> None:
    wanted = dropins.wanted([RESEARCH], sandbox)
    dropins.synchronize(units, {path: Path("/elsewhere") for path in wanted})
    dropins.synchronize(units, wanted)
    assert dropins.existing(units) == wanted


def test_an_exception_for_no_pool_is_noticed(sandbox: Path) -> None:
    for name in ("reserach.conf", "README"):
        (sandbox / name).touch()
    assert dropins.strangers({RESEARCH.name: RESEARCH}, sandbox) == (sandbox / "reserach.conf",)


def test_a_missing_directory_of_exceptions_is_none(tmp_path: Path) -> None:
    assert dropins.wanted([PLAIN], tmp_path / "none") == {}
    assert dropins.strangers({}, tmp_path / "none") == ()


def test_a_bad_configuration_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "agentd.yaml"
    file.write_text("pools: [")
    monkeypatch.setattr("sys.argv", ["agentd.dropins", "--config", str(file)])
    with pytest.raises(SystemExit) as ended:
        dropins.main()
    assert ended.value.code == 78
    assert "stay as they are" in capsys.readouterr().err


@pytest.mark.host
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_what_systemd_does_not_understand_is_told_with_its_line(sandbox: Path) -> None:
    assert dropins.mistakes([RESEARCH.name, PLAIN.name], sandbox) == ()
    (sandbox / "research.conf").write_text("[Service]\nReadWritePaths=/srv/%i\nPrivteDevices=no\n[Sevice]\nNice=5\n")
    (sandbox / "other.conf").write_text("[Service]\nNoSuchThing=1\n")
    key, section = dropins.mistakes([RESEARCH.name, PLAIN.name], sandbox)
    assert key.startswith(f"{sandbox}/research.conf:3: ")
    assert "PrivteDevices" in key
    assert section.startswith(f"{sandbox}/research.conf:4: ")
    assert "Sevice" in section


def test_without_systemds_tool_nothing_is_said(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(sandbox))
    (sandbox / "research.conf").write_text("[Service]\nPrivteDevices=no\n")
    assert dropins.mistakes([RESEARCH.name], sandbox) == ()

"""Agents that say nothing of themselves any more: their birth was noted."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agentd.core.model import Incarnation, InstanceId
from agentd.drivers.process_births import Births
from agentd.drivers.process_table import Owner, ProcessTable, read_stat

OWNER = Owner(InstanceId("research-9101"), Incarnation("first"))


@pytest.mark.host
def test_a_process_with_another_environment_is_found_by_its_birth(tmp_path: Path) -> None:
    process = subprocess.Popen(["env", "-i", "sleep", "60"], start_new_session=True)
    try:
        stat = read_stat(process.pid)
        assert stat is not None
        Births(tmp_path / "births").note(OWNER, process.pid, stat.start_ticks)
        again = Births(tmp_path / "births")
        leader = ProcessTable("a state", again.owner).scan().leaders()[OWNER]
        assert leader is not None
        assert leader.pid == process.pid
    finally:
        process.kill()
        process.wait()


def test_births_of_another_boot_or_of_the_dead_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "births"
    stat = read_stat(os.getpid())
    assert stat is not None
    Births(path, boot_id="one").note(OWNER, os.getpid(), stat.start_ticks)
    assert Births(path, boot_id="one").owner(os.getpid(), stat.start_ticks) == OWNER
    assert Births(path, boot_id="two").owner(os.getpid(), stat.start_ticks) is None
    Births(path, boot_id="one").note(OWNER, os.getpid(), stat.start_ticks + 1)
    assert Births(path, boot_id="one").owner(os.getpid(), stat.start_ticks + 1) is None


def test_a_line_that_was_cut_short_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "births"
    stat = read_stat(os.getpid())
    assert stat is not None
    path.write_text(f"one\n{os.getpid()} {stat.start_ticks} research-9101 first\n12 34 rese", encoding="ascii")
    assert Births(path, boot_id="one").owner(os.getpid(), stat.start_ticks) == OWNER

"""Whose processes are whose, told from rows; no process is needed for that."""

from __future__ import annotations

import os

from agentd.core.model import Incarnation, InstanceId
from agentd.drivers.process_table import Birth, Owner, Remains, Row, Snapshot, read_stat

FIRST = Owner(InstanceId("research-9101"), Incarnation("a"))
SECOND = Owner(InstanceId("research-9101"), Incarnation("b"))
BLANK = Birth(None, blank=True)


def row(pid: int, *, session: int, start: int = 100, owner: Owner | None = None, alive: bool = True) -> Row:
    return Row(pid, start, alive, session, Birth(owner, blank=False))


def test_the_oldest_session_leader_leads() -> None:
    leader = row(10, session=10, owner=FIRST)
    escaped = row(9, session=9, start=101, owner=FIRST)
    child = row(11, session=10, start=100, owner=FIRST)
    assert Snapshot([escaped, child, leader]).leaders() == {FIRST: leader}


def test_each_incarnation_has_its_own_leader() -> None:
    old, new = row(10, session=10, owner=FIRST), row(20, session=20, owner=SECOND)
    assert Snapshot([old, new]).leaders() == {FIRST: old, SECOND: new}


def test_a_leader_that_overwrote_its_environment_is_found_by_its_children() -> None:
    leader = Row(10, 100, True, 10, BLANK)
    assert Snapshot([leader, row(11, session=10, owner=FIRST)]).leaders() == {FIRST: leader}


def test_a_shell_that_tries_an_agent_s_environment_is_not_taken_for_the_agent() -> None:
    shell = row(10, session=10)
    assert Snapshot([shell, row(11, session=10, owner=FIRST)]).leaders() == {FIRST: None}


def test_a_zombie_neither_leads_nor_is_left() -> None:
    zombie = row(10, session=10, owner=FIRST, alive=False)
    snapshot = Snapshot([zombie])
    assert snapshot.leaders() == {}
    assert snapshot.left_of(Remains(FIRST.incarnation, 10, 100)) == []


def test_left_is_the_session_and_who_escaped_it() -> None:
    without_environment = row(11, session=10, start=101)
    escaped = row(12, session=12, start=102, owner=FIRST)
    foreign, other = row(13, session=13), row(20, session=20, owner=SECOND)
    snapshot = Snapshot([escaped, without_environment, foreign, other])
    assert snapshot.left_of(Remains(FIRST.incarnation, 10, 100)) == [without_environment, escaped]


def test_the_session_of_a_pid_given_out_again_is_spared() -> None:
    reused = row(10, session=10, start=5000)
    member = row(11, session=10, start=5001)
    assert Snapshot([reused, member]).left_of(Remains(FIRST.incarnation, 10, 100)) == []


def test_agentd_never_counts_itself_among_leftovers() -> None:
    here = row(os.getpid(), session=10, owner=FIRST)
    assert Snapshot([here]).left_of(Remains(FIRST.incarnation, 10, 100)) == []


def test_a_process_that_does_not_exist_has_no_stat() -> None:
    assert read_stat(2**22 + 1) is None
    mine = read_stat(os.getpid())
    assert mine is not None
    assert (mine.alive, mine.session) == (True, os.getsid(0))

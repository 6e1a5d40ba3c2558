"""The table of states: what may follow what, and that a forbidden move crashes."""

from __future__ import annotations

import itertools

import pytest

from agentd.core.lifecycle import COMMITTED, LEAVING, MOVES, ON_ITS_WAY, RUNNING, check_move
from agentd.core.model import State


@pytest.mark.parametrize(("old", "new"), list(itertools.product(State, State)))
def test_a_move_is_allowed_or_crashes(old: State, new: State) -> None:
    if new in MOVES[old]:
        check_move(old, new)
    else:
        with pytest.raises(AssertionError, match=f"from {old} to {new}"):
            check_move(old, new)


def test_nothing_follows_stopped_and_everything_else_can_end() -> None:
    assert MOVES[State.STOPPED] == frozenset()
    reached = {State.STOPPED}
    for _ in State:
        reached |= {old for old in State if MOVES[old] & reached}
    assert reached == set(State)


def test_what_was_told_to_stop_takes_no_work_again_and_what_drains_only_as_it_is() -> None:
    assert MOVES[State.STOPPING] == {State.STOPPED, State.PENDING}
    assert State.STARTING not in MOVES[State.DRAINING]
    assert not COMMITTED & LEAVING


def test_only_a_process_that_was_started_becomes_ready() -> None:
    assert {old for old in State if State.READY in MOVES[old]} == {State.STARTING, State.DRAINING}
    assert State.PENDING not in RUNNING
    assert {State.PENDING, State.STARTING} == ON_ITS_WAY

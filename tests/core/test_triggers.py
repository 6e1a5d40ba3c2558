"""Seed A's rule at its edges, and how it prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentd.core.metrics import Totals
from agentd.core.model import Proposal, Reason
from agentd.core.rules import ThresholdTrigger
from agentd.core.triggers import compare, decisive, highest, threshold

TRIGGER = ThresholdTrigger(0.75, 0.25)
EMPTY = Totals(3, 3, 0, 0, 0, 0, (), 0, 0)


@pytest.mark.parametrize(
    ("loads", "count", "code", "text"),
    [
        ((0.9, 0.85), 4, "high_load", "High load: 0.88 > 0.75"),
        ((0.75,), 3, "in_band", "load 0.75 is between 0.25 and 0.75"),
        ((0.7501,), 4, "high_load", "High load: 0.7501 > 0.7500"),
        ((0.25,), 3, "in_band", "load 0.25 is between 0.25 and 0.75"),
        ((0.2499,), 2, "low_load", "Low load: 0.2499 < 0.2500"),
        ((0.1, 0.15, 0.05), 2, "low_load", "Low load: 0.10 < 0.25"),
        ((1.0,), 4, "high_load", "High load: 1.00 > 0.75"),
        ((0.0,), 2, "low_load", "Low load: 0.00 < 0.25"),
    ],
)
def test_one_more_above_one_fewer_below_and_both_strictly(
    loads: tuple[float, ...], count: int, code: str, text: str
) -> None:
    proposal = threshold(replace(EMPTY, loads=loads), TRIGGER)
    assert (proposal.count, proposal.reason.code, proposal.reason.text) == (count, code, text)


def test_without_a_sample_the_trigger_abstains() -> None:
    proposal = threshold(EMPTY, TRIGGER)
    assert (proposal.count, proposal.reason.code) == (None, "no_sample")


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_both_sides_print_differently_wherever_they_differ(left: float, right: float) -> None:
    printed_left, sign, printed_right = compare(left, ">", right).split(" ")
    assert sign == ">"
    assert len(printed_left) == len(printed_right) >= 4
    if abs(left - right) > 1e-15:
        assert printed_left != printed_right
        assert (float(printed_left) > float(printed_right)) == (left > right)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_more_load_never_wants_fewer(loads: list[float], more: float, up: float) -> None:
    trigger = ThresholdTrigger(up, up / 3.0)
    counts = [
        threshold(replace(EMPTY, loads=tuple(min(1.0, load + extra) for load in loads)), trigger).count or 0
        for extra in (0.0, more)
    ]
    assert counts[0] <= counts[1]


def test_the_highest_proposal_wins_ties_by_order_and_abstentions_only_alone() -> None:
    none, two, other_two, three = (
        Proposal(name, count, Reason("r", "r")) for name, count in (("a", None), ("b", 2), ("c", 2), ("d", 3))
    )
    assert highest([none, two, three]) is three
    assert highest([two, other_two]) is two
    assert highest([none, two]) is two
    assert highest([none]) is none


def test_nobody_is_let_go_while_a_number_cannot_be_read() -> None:
    unread = Proposal("target", None, Reason("no_reading", "jobs was last read 61 s ago"))
    unknown = Proposal("external", None, Reason("no_offer", "no program asks for a count"))
    two, five = (Proposal("threshold", count, Reason("r", "r")) for count in (2, 5))
    assert decisive([two, unread], 3) is unread
    assert decisive([two, unread], 2) is two
    assert decisive([five, unread], 3) is five
    assert decisive([two, unknown], 3) is two

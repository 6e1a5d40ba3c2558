"""`agentctl propose`: what is asked for, what is shown, and how proposals appear elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agentd.sdk.control import ControlClient
from agentd.v1 import control_pb2 as pb


def test_a_program_asks_for_a_count_for_a_while(ctl: Callable[..., Any], daemon: Any) -> None:
    result = ctl("propose", "research", "6", "--as", "ai-optimizer", "--for", "9m", "--reason", "batch")
    assert (result.code, result.out) == (0, "ai-optimizer asks for 6 (batch), for 9m more\n")
    (request,) = daemon.fake.requests
    assert (request.pool, request.source, request.count, request.for_s) == ("research", "ai-optimizer", 6, 540.0)
    assert (request.reason, request.withdraw) == ("batch", False)


def test_it_takes_that_back(ctl: Callable[..., Any], daemon: Any) -> None:
    result = ctl("propose", "research", "--withdraw", "--as", "ai-optimizer")
    assert (result.code, result.out) == (0, "no program asks for instances of research\n")
    assert daemon.fake.requests[0].withdraw
    assert json.loads(ctl("propose", "research", "--withdraw", "--as", "x", "-o", "json").out) == {"offers": []}


@pytest.mark.parametrize("arguments", [("research",), ("research", "3", "--withdraw"), ("research", "-1")])
def test_a_count_or_withdraw_and_not_both(ctl: Callable[..., Any], daemon: Any, arguments: tuple[str, ...]) -> None:
    assert ctl("propose", *arguments, "--as", "x").code == 2
    assert daemon.fake.requests == []


def test_explain_shows_what_each_trigger_proposed_and_who_asks(ctl: Callable[..., Any], daemon: Any) -> None:
    pool = daemon.fake.status.pools[0]
    pool.policy = "demand, external"
    pool.offers.add(source="ai-optimizer", count=3, reason="night", expires_in_s=60.0)
    pool.next.trigger = "demand"
    pool.next.proposals.add(trigger="demand", count=5, reason=pb.Reason(code="high_demand", text="9 tasks wait"))
    pool.next.proposals.add(trigger="external", reason=pb.Reason(code="no_offer", text="nobody asks"))
    out = ctl("explain", "research").out
    assert "policy demand, external; " in out
    assert "ai-optimizer asks for 3 (night), for 1m" in out
    block = out.partition("PROPOSALS\n")[2].partition("\n\n")[0].splitlines()
    assert [line.strip() for line in block] == [
        "demand 5: 9 tasks wait",
        "external -: nobody asks",
        "demand decides: the highest count, of equal ones the first",
    ]


def test_a_program_proposes_by_the_client(daemon: Any) -> None:
    with ControlClient(daemon.address, owner="nightly") as client:
        assert client.propose("research", 4, source="ai-optimizer", reason="batch", for_s=60.0)[0].count == 4
        assert client.withdraw("research", source="ai-optimizer") == []
    asked, taken_back = daemon.fake.requests
    assert (asked.owner, asked.for_s, asked.count, taken_back.withdraw) == ("nightly", 60.0, 4, True)

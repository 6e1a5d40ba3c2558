"""`agentctl propose`: what is asked for, what is shown, and how proposals appear elsewhere."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentd.agentctl.propose import OFFER_S_MAX
from agentd.core import signals
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


def test_a_wish_lasts_for_at_most_thirty_days(ctl: Callable[..., Any], daemon: Any) -> None:
    assert ctl("propose", "research", "2", "--as", "x", "--for", "30d").code == 0
    result = ctl("propose", "research", "2", "--as", "x", "--for", "31d")
    assert (result.code, "'31d' is above the maximum of 30d" in result.err) == (2, True)
    assert [request.for_s for request in daemon.fake.requests] == [OFFER_S_MAX] == [signals.OFFER_S_MAX]


class Slept(Exception):
    """A program of the page has been through its loop once."""


def program(name: str) -> str:
    """The Python program below `name` on the page of the four agents."""
    page = (Path(__file__).parents[2] / "docs" / "external.md").read_text()
    return page.partition(f"**{name}**")[2].partition("```python\n")[2].partition("```")[0]


def run_once(text: str, daemon: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What it asks for in one turn."""

    def sleep(_: float) -> None:
        raise Slept

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setenv("AGENTD_ADDRESS", daemon.address)
    with contextlib.suppress(Slept):
        exec(compile(text, "external.md", "exec"), {})
    return [request for request in daemon.fake.requests if isinstance(request, pb.ProposeRequest)]


def test_the_performance_optimizer_of_the_page_asks_for_more_than_there_are(
    daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = daemon.fake.status.instances
    del instances[1:]
    instances[0].pool, instances[0].response_time_p95_s, instances[0].in_flight = "research", 6.0, 0
    assert run_once(program("performance-optimizer"), daemon, monkeypatch) == []  # nobody is at work any more
    instances[0].in_flight = 1
    (asked,) = run_once(program("performance-optimizer"), daemon, monkeypatch)
    assert (asked.count, asked.for_s, asked.reason) == (2, 60.0, "p95 is 6.0 s")


def test_the_workflow_learner_of_the_page_asks_for_what_was_in_force(
    daemon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asked,) = run_once(program("workflow-learner"), daemon, monkeypatch)
    explained = next(request for request in daemon.fake.requests if isinstance(request, pb.ExplainRequest))
    assert explained.at_wall == pytest.approx(time.time() - 86_400 + 900, abs=60.0)
    assert (asked.source, asked.count, asked.for_s) == ("workflow-learner", 3, 900.0)


def test_explain_tells_that_a_number_which_cannot_be_read_holds_the_pool(ctl: Callable[..., Any], daemon: Any) -> None:
    pool = daemon.fake.status.pools[0]
    del pool.next.reasons[:], pool.next.proposals[:]
    unread = pb.Reason(code="no_reading", text="jobs was last read 61 s ago")
    pool.next.trigger = "target"
    pool.next.reasons.append(unread)
    pool.next.proposals.add(trigger="threshold", count=1, reason=pb.Reason(code="low_load", text="Low load"))
    pool.next.proposals.add(trigger="target", reason=unread)
    out = ctl("explain", "research").out
    assert "target decides: nobody is let go while its number cannot be read" in out


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

"""What `agentctl status --full` shows, and that nothing of costs is shown where none is configured."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from agentd.agentctl.costs import money
from agentd.agentctl.status import full_lines, status_lines
from agentd.v1 import control_pb2 as pb

TITLES = [
    "INSTANCES AND CAPACITY",
    "RESOURCES",
    "NEXT",
    "RECOMMENDATIONS",
    "EFFECT OF SCALINGS",
    "COSTS",
    "AUTOMATIC SCALING",
]


def sections(text: str) -> dict[str, str]:
    """The text of each section, its white space made one."""
    found, title = dict[str, list[str]](), "HEAD"
    for line in text.splitlines():
        title = line if line in TITLES else title
        found.setdefault(title, []).append(line)
    return {title: " ".join(" ".join(lines[1:]).split()) for title, lines in found.items()}


def test_the_sections_come_in_their_order(ctl: Callable[..., Any]) -> None:
    lines = ctl("status", "--full").out.splitlines()
    assert [line for line in lines if line in TITLES] == TITLES
    assert lines[0].startswith("DEGRADED")


@pytest.mark.parametrize(
    ("title", "fact"),
    [
        ("INSTANCES AND CAPACITY", "research 3 3 1 5 0.88 0.25 0.75 12 3/6"),
        ("RESOURCES", "2.5 of 4 cores free"),
        ("RESOURCES", "research 3 8.0 GiB 100 MiB 0.50 1 memory"),
        ("RESOURCES", "execution 1 - ~100 MiB"),
        ("NEXT", "2 -> 3, wants 4: High load: 0.88 > 0.75"),
        ("RECOMMENDATIONS", "research has wanted 4 for 40 min and stays at 3: host_memory [held_long]"),
        ("RECOMMENDATIONS", "all bob switched it off 3 days ago: agentctl auto on ends that [autoscaling_off]"),
        ("EFFECT OF SCALINGS", "nothing was scaled yet"),
        ("COSTS", "research 1.50 0.50 0.75 21.00 340.25 812.50"),
        ("COSTS", "all pools 1.50"),
        ("COSTS", "amounts in EUR; hours, days and months are those of UTC; this month: 640.0 agent-hours, "
                  "31.5 CPU-hours, 0.020 GiB-hours, 12345 tasks"),
        ("COSTS", "budget of all pools: 21.00 of 20.00 EUR spent today, 1.00 too much; it ends in 1h"),
        ("COSTS", "budget of research: 340.25 of 1000.00 EUR spent this month, 659.75 left; it ends in 10d"),
        ("COSTS", "research -2: saves 1.00 EUR per hour [7-3]"),
        ("AUTOMATIC SCALING", "autoscaling off, set by bob"),
        ("AUTOMATIC SCALING", "research from 1 to 5, 1 core; policy threshold"),
        ("AUTOMATIC SCALING", "scale_up_threshold 0.75, scale_down_threshold 0.25; cooldown up 5m, down 10m"),
        ("AUTOMATIC SCALING", "adaptive: cooldown up 0s, down 0s"),
        ("AUTOMATIC SCALING", "may grow in 3m30s"),
        ("AUTOMATIC SCALING", "guards: rate.up count 4 in 60 s"),
        ("AUTOMATIC SCALING", 'down paused by carol, for another 1m: "release"'),
        ("AUTOMATIC SCALING", 'target 4 set by alice, for another 42m: "batch run"'),
    ],
)  # fmt: skip
def test_it_shows_what_bears_on_the_size_of_the_fleet(ctl: Callable[..., Any], title: str, fact: str) -> None:
    assert fact in sections(ctl("status", "--full").out)[title]


def test_what_scalings_brought_is_shown(daemon: Any, ctl: Callable[..., Any]) -> None:
    pool = daemon.fake.status.pools[0]
    pool.effect.CopyFrom(pb.Effect(decision="7-2", verdict="helped", reason="response time -31 %"))
    pool.measuring = "7-3"
    pool.start_times.CopyFrom(pb.StartTimes(p50_s=1.5, p95_s=2.0, counted=7))
    shown = sections(ctl("status", "--full").out)["EFFECT OF SCALINGS"]
    for fact in ("[7-2] helped: response time -31 %", "the effect of 7-3 is being measured", "ready 1.5s after the"):
        assert fact in shown


def test_a_pool_without_room_says_what_is_missing(daemon: Any, ctl: Callable[..., Any]) -> None:
    headroom = pb.Headroom(instances=0, resource="memory", text="memory: 310 MiB more needed")
    daemon.fake.status.pools[0].headroom.CopyFrom(headroom)
    assert "research: memory: 310 MiB more needed" in sections(ctl("status", "--full").out)["RESOURCES"]


def test_json_is_the_same_with_and_without_full(ctl: Callable[..., Any]) -> None:
    full = json.loads(ctl("status", "--full", "--output", "json").out)
    assert full == json.loads(ctl("status", "--output", "json").out)
    assert full["cost"]["budgets"][0] == {
        "window": "day",
        "amount": 20.0,
        "spent": 21.0,
        "left": -1.0,
        "ends_in_s": 3600.0,
    }
    assert full["cost"]["month"]["tasks"] == 12345.0
    assert full["advice"][1] == {
        "code": "autoscaling_off",
        "pool": "",
        "text": "bob switched it off 3 days ago: agentctl auto on ends that",
    }
    rule = full["pools"][0]["rules"][0]
    assert rule["parameters"][0] == {"name": "scale_up_threshold", "value": "0.75"}
    assert (rule["type"], rule["up_cooldown_s"], rule["down_cooldown_s"]) == ("threshold", 300.0, 600.0)
    assert (full["pools"][0]["held_s"], full["pools"][1]["held_s"], full["pools"][1]["cost"]) == (2400.0, None, None)


def test_where_no_cost_is_configured_none_is_shown() -> None:
    free = pb.Status(version="0.1.0", enabled=True, pools=[pb.Pool(name="research", count=1, ready=1)])
    assert not [line for line in status_lines(free, now=0.0) if "cost" in line]
    full = sections("\n".join(full_lines(free, now=0.0)))
    assert full["COSTS"] == "no cost is configured (pools.NAME.cost)"
    assert full["RECOMMENDATIONS"] == "none: nothing that agentd knows of asks for a change"
    assert full["RESOURCES"].startswith("the host has not been measured yet")


@pytest.mark.parametrize(("amount", "shown"), [(0.0, "0.00"), (3.2, "3.20"), (0.0125, "0.0125"), (-0.5, "-0.50")])
def test_amounts_read_as_those_of_agentd(amount: float, shown: str) -> None:
    assert money(amount) == shown
    assert money(amount, "EUR") == f"{shown} EUR"

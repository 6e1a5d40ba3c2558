"""The command configure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest


def test_it_asks_and_says_whom(ctl: Callable[..., Any], daemon: Any) -> None:
    result = ctl("configure", "research", "--concurrency", "4", "--interval", "2s")
    assert result.out == "asked research-9002, research-9101, research-9102\n"
    (request,) = daemon.fake.requests
    assert (request.name, request.concurrency, request.interval_s) == ("research", 4, 2.0)
    assert request.request_id


def test_what_is_not_said_stays(ctl: Callable[..., Any], daemon: Any) -> None:
    assert ctl("configure", "research", "--interval", "2s").code == 0
    (request,) = daemon.fake.requests
    assert not request.HasField("concurrency")


def test_as_json_it_is_the_instances(ctl: Callable[..., Any], daemon: Any) -> None:
    del daemon
    found = json.loads(ctl("configure", "research", "--concurrency", "4", "-o", "json").out)
    assert [one["id"] for one in found["instances"]] == ["research-9002", "research-9101", "research-9102"]
    assert "concurrency" in found["instances"][0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "say --concurrency, --interval, or both"),
        (("--concurrency", "0"), "0 is not in the range"),
        (("--interval", "0s"), "no duration above 0"),
    ],
)
def test_senseless_settings_are_a_mistake_of_usage(
    ctl: Callable[..., Any], daemon: Any, arguments: tuple[str, ...], text: str
) -> None:
    result = ctl("configure", "research", *arguments)
    assert result.code == 2
    assert text in result.err
    assert not daemon.fake.requests

"""agentctl collectors, what explain says of them, and config check --try-collectors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentd.agentctl.collectors import number
from agentd.v1 import control_pb2 as pb


def rows(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


READINGS = [
    pb.Reading(name="queue", type="redis-list", value=12, age_s=3, every_s=10),
    pb.Reading(name="rate", type="prometheus", value=0.25, age_s=95, every_s=10, stale=True, trouble="answered 502"),
    pb.Reading(name="mails", type="command", every_s=60, stale=True),
    pb.Reading(name="login", type="http-json", every_s=60, stale=True, trouble="answered 401 Unauthorized"),
    pb.Reading(name="blip", type="http-json", value=1, age_s=8, every_s=5, trouble="answered 503"),
]


@pytest.fixture
def reading(daemon: Any) -> None:
    pool = next(pool for pool in daemon.fake.status.pools if pool.name == "research")
    pool.readings.extend(READINGS)


@pytest.mark.usefixtures("reading")
def test_each_collector_is_shown_and_below_what_is_wrong(ctl: Callable[..., Any]) -> None:
    result = ctl("collectors")
    assert result.code == 0
    assert rows(result.out) == [
        "POOL NAME TYPE VALUE AGE EVERY STATE",
        "research queue redis-list 12 3s 10s ok",
        "research rate prometheus 0.25 1m35s 10s stale",
        "research mails command - - 1m waiting",
        "research login http-json - - 1m failing",
        "research blip http-json 1 8s 5s failing",
        "research.rate: answered 502",
        "research.login: answered 401 Unauthorized",
        "research.blip: answered 503",
    ]
    assert ctl("collectors", "research").out == result.out
    assert len(rows(ctl("collectors", "execution").out)) == 1


@pytest.mark.usefixtures("reading")
def test_as_json_it_is_a_list_with_the_unknown_null(ctl: Callable[..., Any]) -> None:
    queue, _, mails, *_ = json.loads(ctl("collectors", "research", "-o", "json").out)
    assert queue == {
        "pool": "research",
        "name": "queue",
        "type": "redis-list",
        "value": 12,
        "age_s": 3,
        "every_s": 10,
        "stale": False,
        "trouble": "",
    }
    assert (mails["value"], mails["age_s"], mails["stale"]) == (None, None, True)


@pytest.mark.usefixtures("daemon")
def test_a_pool_that_is_not_there_is_an_error(ctl: Callable[..., Any]) -> None:
    result = ctl("collectors", "reserch")
    assert result.code == 1
    assert result.err == "agentctl: there is no pool 'reserch' (there are research, execution)\n"


@pytest.mark.usefixtures("reading")
def test_explain_says_what_was_read(ctl: Callable[..., Any]) -> None:
    shown = rows(ctl("explain", "research").out)
    assert "collector queue: 12, read 3s ago" in shown
    assert "collector rate: 0.25, read 1m35s ago (too old to decide on); answered 502" in shown
    assert "collector login: not read yet; answered 401 Unauthorized" in shown


@pytest.mark.parametrize(
    ("value", "text"), [(12.0, "12"), (0.125, "0.125"), (1e20, "1e+20"), (-3.0, "-3"), (1234567.0, "1234567")]
)
def test_a_number_is_written_as_a_person_would(value: float, text: str) -> None:
    assert number(value) == text


FILE = """\
pools:
  research:
    collectors:
      queue: {type: command, argv: [/bin/echo, 12]}
      broken: {type: command, argv: [/bin/sh, -c, "echo nobody there >&2; exit 1"]}
"""


def test_collectors_of_a_file_are_tried_without_an_agentd(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(FILE)
    assert agentctl("config", "check", str(file)).out == f"{file}: OK\n"
    result = agentctl("config", "check", "--try-collectors", str(file))
    assert result.code == 1
    assert result.out.splitlines() == [
        f"{file}: OK",
        "research.queue: 12",
        "research.broken: /bin/sh ended with code 1: nobody there",
    ]
    value = json.loads(agentctl("config", "check", "--try-collectors", str(file), "-o", "json").out)
    assert value["ok"] is False
    assert value["readings"] == [
        {"pool": "research", "name": "queue", "type": "command", "value": 12.0, "trouble": ""},
        {
            "pool": "research",
            "name": "broken",
            "type": "command",
            "value": None,
            "trouble": "/bin/sh ended with code 1: nobody there",
        },
    ]


def test_trying_is_well_where_all_are_read(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(FILE.partition("      broken")[0])
    assert agentctl("config", "check", "--try-collectors", str(file)).code == 0
    file.write_text("pools: {research: {}}")
    result = agentctl("config", "check", "--try-collectors", str(file))
    assert (result.code, result.out.splitlines()[-1]) == (0, "no pool has a collector")


def test_a_file_with_errors_is_not_tried(agentctl: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(FILE + "nothing: [")
    result = agentctl("config", "check", "--try-collectors", str(file))
    assert result.code == 1
    assert "research.queue" not in result.out

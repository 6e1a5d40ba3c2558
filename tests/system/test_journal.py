"""What people find in the journal of a booted host: what agentd says, about whom, what it means and what to do."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from testhost import Host, wait_until

from agentd.catalog import MESSAGE_IDS
from agentd.core.messages import EventType

CONFIG = """
multi_agent:
  enabled: true
  autoscaling:
    enabled: true
    check_interval_sec: 0.5
pools:
  research:
    core: {researcher: 9002}
    ports: [9101, 9150]
host:
  reserve: {cpu_ratio: off, memory_pressure_percent: off, io_pressure_percent: off}
"""
READY_S = 60.0

Entry = dict[str, Any]


@pytest.fixture(scope="module")
def told(shared_host: Host) -> Host:
    """A host on which agentd has started, and has grown a pool because a person asked for it."""
    shared_host.write("/etc/agentd/agentd.yaml", CONFIG)
    shared_host.exec("systemctl", "start", "agentd")
    wait_until(lambda: events(shared_host, EventType.READY), "the core agent is ready", READY_S)
    shared_host.exec("agentctl", "up", "2", "--pool", "research")
    wait_until(lambda: len(events(shared_host, EventType.READY)) == 2, "a second agent is ready", READY_S)
    return shared_host


def events(host: Host, kind: EventType) -> list[Entry]:
    return host.journal(f"MESSAGE_ID={MESSAGE_IDS[kind]}")


def test_the_units_journal_is_what_agentd_says(told: Host) -> None:
    kinds = {entry["AGENTD_EVENT"] for entry in told.journal("-u", "agentd") if "AGENTD_EVENT" in entry}
    assert {"agentd_start", "start", "ready", "target", "scale_up"} <= kinds


def test_a_record_has_its_number_and_every_field(told: Host) -> None:
    (entry,) = events(told, EventType.SCALE_UP)
    assert re.fullmatch("agentd.service", entry["_SYSTEMD_UNIT"])
    expected = {
        "SYSLOG_IDENTIFIER": "agentd",
        "PRIORITY": "6",
        "AGENTD_EVENT": "scale_up",
        "AGENTD_POOL": "research",
        "AGENTD_INSTANCE": "research-9101",
    }
    assert expected.items() <= entry.items()
    assert {"AGENTD_REASON", "CODE_FILE", "CODE_LINE", "CODE_FUNC"} <= entry.keys()
    decision = json.loads(entry["AGENTD_DECISION"])
    assert decision["id"] == entry["AGENTD_DECISION_ID"]
    assert (decision["pool"], decision["current"], decision["granted"]) == ("research", 1, 2)
    assert decision["reasons"]
    (target,) = events(told, EventType.TARGET)
    assert target["AGENTD_ACTOR"]


def test_an_instances_journal_is_what_is_said_of_it_and_what_it_says_itself(told: Host) -> None:
    found = told.journal("AGENTD_INSTANCE=research-9101")
    units = {entry["_SYSTEMD_UNIT"] for entry in found if entry["SYSLOG_IDENTIFIER"] != "systemd"}
    assert units == {"agentd.service", "agent@research-9101.service"}
    assert any("sample agent listens on 127.0.0.1:9101" in entry["MESSAGE"] for entry in found)
    assert any(entry.get("AGENTD_EVENT") == "ready" for entry in found)
    assert not any("9002" in entry["MESSAGE"] for entry in found)


def test_the_catalog_tells_what_it_means_with_the_names_filled_in(told: Host) -> None:
    text = told.out("journalctl", "--no-pager", "-x", "-u", "agentd", "SYSLOG_IDENTIFIER=agentd")
    assert "Pool research has grown by research-9101" in text
    assert "Defined-By: agentd" in text
    assert not re.findall("@[A-Z_]+@", text)


def test_the_installation_has_made_the_catalog_known(told: Host) -> None:
    listed = told.out("journalctl", "--list-catalog").splitlines()
    assert {line.split()[0] for line in listed if " agentd: " in line} == set(MESSAGE_IDS.values())


def test_the_name_of_a_unit_in_the_catalog_is_whole(told: Host) -> None:
    """`agent@@AGENTD_INSTANCE@.service` has an `@` of its own before the field."""
    fields = {
        "MESSAGE": "fleet: held",
        "MESSAGE_ID": MESSAGE_IDS[EventType.HELD],
        "AGENTD_INSTANCE": "research-9109",
        "AGENTD_REASON": "stopped by hand",
    }
    told.exec("logger", "--journald", input="".join(f"{name}={value}\n" for name, value in fields.items()))
    told.exec("journalctl", "--sync")
    text = told.out("journalctl", "--no-pager", "-x", "AGENTD_INSTANCE=research-9109")
    assert "systemctl stop agent@research-9109.service" in text


def test_the_grep_of_the_first_guide_finds_scaling(told: Host) -> None:
    found = told.out("sh", "-c", 'journalctl -u agentd | grep -i "autoscaler\\|scale"')
    assert "autoscaler: scale_up pool=research instance=research-9101" in found

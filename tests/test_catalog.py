"""The journal's catalog says something about every kind of record, and about nothing else."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentd.catalog import MESSAGE_IDS
from agentd.core.messages import EventType

ROOT = Path(__file__).parent.parent
CATALOG = ROOT / "packaging" / "agentd.catalog"
# What `log.record` sends with every record; DECISION and ACTOR where there is one.
FIELDS = {"AGENTD_POOL", "AGENTD_INSTANCE", "AGENTD_REASON", "AGENTD_ACTOR"}
# A field that is not sent would be shown as it stands here.
WITH_ACTOR = {EventType.TARGET, EventType.AUTOSCALING, EventType.CONFIG, EventType.CONFIG_REJECTED}


@dataclass(frozen=True)
class Entry:
    """One entry: its header fields and its text."""

    number: str
    header: dict[str, str]
    text: str


def entries() -> list[Entry]:
    """Read the format as systemd documents it, strictly."""
    _, *parts = re.split(r"(?m)^-- ", CATALOG.read_text())
    found = []
    for part in parts:
        head, _, text = part.partition("\n\n")
        number, *lines = head.splitlines()
        found.append(Entry(number, dict(line.split(": ", 1) for line in lines), text.strip()))
    return found


def test_every_kind_of_record_has_one_number_and_one_entry() -> None:
    assert set(MESSAGE_IDS) == set(EventType)
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(re.fullmatch("[0-9a-f]{32}", number) for number in MESSAGE_IDS.values())
    assert [entry.number for entry in entries()] == list(MESSAGE_IDS.values())


def test_an_entry_says_what_it_means_and_what_to_do() -> None:
    for entry in entries():
        assert entry.header.keys() == {"Subject", "Defined-By", "Documentation"}
        assert entry.header["Defined-By"] == "agentd"
        assert len(entry.text.split("\n\n")) >= 2, entry
        assert all(len(line) <= 80 for line in entry.text.splitlines()), entry


def test_an_entry_names_only_fields_that_its_records_have() -> None:
    kinds = {number: kind for kind, number in MESSAGE_IDS.items()}
    for entry in entries():
        used = set(re.findall("@([A-Z_]+)@", entry.header["Subject"] + entry.text))
        assert used <= FIELDS, entry
        assert "AGENTD_ACTOR" not in used or kinds[entry.number] in WITH_ACTOR, entry


@pytest.mark.host
@pytest.mark.skipif(shutil.which("journalctl") is None, reason="journalctl is missing")
def test_systemd_takes_the_catalog_whole(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/systemd/catalog"
    place.mkdir(parents=True)
    shutil.copy(CATALOG, place)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    in_root = ["journalctl", f"--root={tmp_path}"]
    subprocess.run([*in_root, "--update-catalog"], check=True, timeout=60)
    listed = subprocess.run([*in_root, "--list-catalog"], check=True, timeout=60, capture_output=True, text=True).stdout
    assert {line.split()[0] for line in listed.splitlines()} == set(MESSAGE_IDS.values())

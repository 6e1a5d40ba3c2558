"""The guards as people read of them: the page has every limit, in the order in which they are asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentd.core.situation import lasting

ROOT = Path(__file__).parent.parent.parent
CORE = ROOT / "agentd" / "core"
PAGE = (ROOT / "docs" / "guards.md").read_text()
SOURCES = ("guards.py", "guards_time.py", "guards_down.py", "guards_up.py", "capacity.py", "costs.py")


def codes() -> set[str]:
    """The names of all limits that the guards can leave."""
    found: set[str] = set()
    for source in SOURCES:
        for raw in re.findall(r'Limit\(\s*f?"([^"]+)"', (CORE / source).read_text()):
            expanded = [raw]
            for placeholder, words in (
                ("{which}", ("up", "down")), ("{direction}", ("up", "down")), ("{name}", ("memory", "io")),
                ("{window}", ("hour", "day", "month")),
            ):  # fmt: skip
                expanded = [each.replace(placeholder, word) for each in expanded for word in words]
            found |= set(expanded)
    return found


def test_the_page_names_every_limit() -> None:
    assert len(codes()) >= 26
    assert {code for code in codes() if f"`{code}`" not in PAGE} == set()


def test_the_guards_are_listed_in_the_order_in_which_they_are_asked() -> None:
    asked = re.findall(r"^    guards_\w+\.(\w+),$", (CORE / "guards.py").read_text(), re.MULTILINE)
    rows = [line.split("|")[1].strip() for line in PAGE.splitlines() if line.startswith("| ")][2:]
    named = {"paused": "pause", "rolling": "rolling restart", "core_only": "core"}
    assert rows == [named.get(name, name.replace("_", " ")) for name in asked]


def test_every_limit_is_in_a_scenario() -> None:
    told = "\n".join(path.read_text() for path in sorted((ROOT / "tests" / "scenarios").glob("*.txt")))
    named = set(re.findall(r"limit (\w+):", told)) | set(re.findall(r"granted; (\w+):", told))
    assert codes() - named == set()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"), (0.2, "1 s"), (40.0, "40 s"), (1199.0, "1199 s"), (3561.0, "59m"), (3590.0, "1h"),
        (7260.0, "2h1m"), (86_000.0, "23h53m"), (86_390.0, "1d"), (717_140.0, "8d7h"),
    ],
)  # fmt: skip
def test_a_time_that_passes_is_told_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert lasting(seconds) == text

"""Decision tables of the peers' own tests, as data, and what a case of them is here.

The tables are files of `$AGENTD_SHARED/conformance`; its README.md tells where each comes from and what its fields
mean. A file has one adapter: it turns a case into calls of the peer's rules in `agentd.sim.peers` and compares only
what the case expects. Ages are seconds before "now", and now is 0 here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOW = 0.0
Json = Any
Check = Callable[[Json], int]


@dataclass(frozen=True)
class Case:
    """`run` makes the case's comparisons, raises AssertionError at the first that fails, and returns how many it made.
    `group` is upstream, derived (worked out by hand from the published rule) or legacy (an older rule).
    """

    id: str
    group: str
    run: Callable[[], int]


def directory() -> Path | None:
    """Where the tables are; None where nobody says."""
    shared = os.environ.get("AGENTD_SHARED")
    return Path(shared) / "conformance" if shared else None


def read(name: str) -> Json:
    place = directory()
    assert place is not None, "AGENTD_SHARED names no directory with conformance tables"
    return json.loads((place / f"{name}.json").read_text())


def table(entries: Iterable[Mapping[str, Json]], check: Check, group: str = "upstream") -> Iterator[Case]:
    """A case for each entry of a table."""
    for entry in entries:
        yield Case(entry["id"], group, lambda entry=entry: check(entry))


def same(expected: Mapping[str, Json], found: Mapping[str, Json]) -> int:
    """Compares what is expected, and no more; one comparison."""
    assert {name: found[name] for name in expected} == dict(expected)
    return 1

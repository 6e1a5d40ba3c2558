"""The comparison policies decide as the peers' own tests say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.__main__ import main
from tests.conformance.adapters import ADAPTERS, HELD, cases_of, passes
from tests.conformance.cases import Case, directory

WITHOUT = "AGENTD_SHARED names no directory with conformance tables"


def _parameters() -> Iterator[object]:
    for name in ADAPTERS:
        if directory() is None:
            yield pytest.param(None, id=name, marks=pytest.mark.skip(reason=WITHOUT))
        else:
            yield from (pytest.param(case, id=f"{name}-{case.group}-{case.id}") for case in cases_of(name))


@pytest.mark.parametrize("case", list(_parameters()))
def test_a_peer_decides_as_its_own_tests_say(case: Case) -> None:
    assert case.run() > 0


@pytest.mark.skipif(directory() is None, reason=WITHOUT)
@pytest.mark.parametrize("name", list(ADAPTERS))
def test_every_comparison_of_a_table_is_made(name: str) -> None:
    cases = cases_of(name)
    assert len({case.id for case in cases}) == len(cases)
    held, failed = passes(cases)
    assert dict(held) == dict(HELD[name])
    assert failed == {}


@pytest.mark.parametrize("place", ["", "none"])
def test_the_runner_says_that_it_has_no_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    monkeypatch.setenv("AGENTD_SHARED", str(tmp_path / place) if place else "")
    assert main() == 2
    assert capsys.readouterr().err == f"{WITHOUT}\n"

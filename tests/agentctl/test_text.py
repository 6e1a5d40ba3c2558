"""How values and tables read."""

from __future__ import annotations

import pytest

from agentd.agentctl.terminal import Column, Table
from agentd.agentctl.text import duration, moment, plural, printable, seconds, size, wrapped


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0s"),
        (-1.0, "0s"),
        (0.44, "0.4s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.6, "1m"),
        (190, "3m10s"),
        (3600, "1h"),
        (3661, "1h1m"),
        (86400 * 4 + 3600 * 3 + 59, "4d3h"),
        (86400, "1d"),
    ],
)
def test_duration(value: float, text: str) -> None:
    assert duration(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (310 * 2**20, "310 MiB"),
        (2**40, "1.0 TiB"),
        (2**54, "16384 TiB"),
    ],
)
def test_size(value: float, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0844, "84ms"), (0.9996, "1.0s"), (1.26, "1.3s"), (12.4, "12s")])
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


def test_an_old_moment_carries_its_date() -> None:
    assert len(moment(1_700_000_000.0, now=1_700_000_100.0)) == len("22:13:20")
    assert len(moment(1_700_000_000.0, now=1_800_000_000.0)) == len("2023-11-14 22:13:20")


def test_plural() -> None:
    assert [plural(n, "instance") for n in (0, 1, 2)] == ["0 instances", "1 instance", "2 instances"]


def test_printable_keeps_letters_of_all_scripts_and_no_controls() -> None:
    assert printable("grün 数\x1b[2J\r\n\x07") == "grün 数?[2J  ?"


def test_wrapped_indents_and_never_returns_nothing() -> None:
    assert wrapped("aa bb cc", width=22, first="first ", rest="  ") == ["first aa bb cc"]
    assert wrapped("x" * 30, width=26, first="- ", rest="  ") == ["- " + "x" * 24, "  " + "x" * 6]
    assert wrapped("", width=40, first="empty") == ["empty"]


def table() -> Table:
    made = Table((Column("ID"), Column("COUNT", right=True, drop=2), Column("LOAD", right=True, drop=1), Column("WHY")))
    made.add("research-9101", 3, None, "because of a long story that goes on and on")
    return made


def test_a_table_without_bound_shows_everything() -> None:
    assert table().lines(None) == [
        "ID             COUNT  LOAD  WHY",
        "research-9101      3     -  because of a long story that goes on and on",
    ]


def test_a_table_drops_columns_in_their_order_and_cuts_the_last() -> None:
    assert table().lines(44) == [
        "ID             LOAD  WHY",
        "research-9101     -  because of a long st...",
    ]
    assert table().lines(40) == ["ID             WHY", "research-9101  because of a long stor..."]


def test_a_table_without_rows_is_its_titles() -> None:
    assert Table((Column("ID"), Column("PID", right=True))).lines(80) == ["ID  PID"]

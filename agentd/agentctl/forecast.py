"""`agentctl forecast`: what a pool will have to do, by the time of the day and week, and how right that has been."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import Command, Session, show_json
from agentd.agentctl.terminal import show, styled, text_width
from agentd.agentctl.text import duration, printable, wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentd.v1 import control_pb2 as pb

HOURS_MAX = 24
_BAR_MIN, _BAR_MAX = 10, 60
# What came; what is nearly sure to come, what may come, and where the middle is.
_GLYPHS = ("█", "▒", "░", "│")
_ASCII = ("#", "=", "-", "|")


@click.command(
    cls=Command,
    examples=("agentctl forecast research", "agentctl forecast research --label workload=chat --hours 6"),
)
@click.argument("pool")
@click.option("--label", default="", metavar="KEY=VALUE", help="Of the tasks of agents with this label alone.")
@click.option(
    "--hours", type=click.IntRange(1, HOURS_MAX), default=HOURS_MAX, show_default=True, help="So far back and ahead."
)
@click.pass_obj
def forecast(session: Session, pool: str, label: str, hours: int) -> None:
    """Show what POOL will have to do in the next hours, and how right forecasts were.

    Tasks at work and waiting, of each hour the five minutes with the most: those that came, and those of which most is
    expected, with three quantiles of these five minutes: no more than the first come with a probability of 10 %, than
    the second with 50 %, than the last with 90 %. Times are those of this terminal. A pool whose policy is adaptive
    heeds its forecast where that has paid; it may raise the pool and never lowers it. In JSON there are all of them.
    """
    with session.client() as client:
        found = client.forecast(pool, label)
    if session.json:
        from agentd.agentctl.values import as_value

        show_json(as_value(found))
    else:
        show(forecast_lines(found, hours, text_width(), fancy=_fancy()))


def forecast_lines(found: pb.GetForecastResponse, hours: int, width: int, *, fancy: bool = True) -> list[str]:
    """The page."""
    what = f"{found.pool}, {found.label}" if found.label else found.pool
    lines = [styled(printable(what), "strong")]
    word = "heeded" if found.heeded else "not heeded"
    lines += wrapped(f"forecast {word}: {printable(found.reason.text)}", width=width, first="  ", rest="    ")
    if found.labels and not found.label:
        known = printable(", ".join(found.labels))
        lines += wrapped(f"labels with a forecast of their own: {known}", width=width, first="  ", rest="    ")
    if not any(slot.HasField("came") for slot in found.slots):
        return [*lines, "", "nothing is known yet: no agent of it has told its tasks, or only for minutes"]
    return [*lines, "", *_drawn(found, hours, width, _GLYPHS if fancy else _ASCII), "", *_skills(found)]


def _fancy() -> bool:
    try:
        "".join(_GLYPHS).encode(sys.stdout.encoding or "ascii")
    except UnicodeError:
        return False
    return True


# -- the picture ----------------------------------------------------------------------------------


def _drawn(found: pb.GetForecastResponse, hours: int, width: int, glyphs: Sequence[str]) -> list[str]:
    """A line for each hour, of its slot with the most."""
    near = [slot for slot in found.slots if abs(slot.wall - found.wall) <= hours * 3600.0]
    by_hour: dict[float, list[pb.ForecastSlot]] = {}
    for slot in near:
        by_hour.setdefault(_hour_of(slot.wall), []).append(slot)
    rows = {at: _row(slots) for at, slots in by_hour.items()}
    known = [at for at, row in rows.items() if _most(row) is not None]
    rows = {at: row for at, row in rows.items() if known and known[0] <= at <= known[-1]}
    most = max((_most(row) or 0.0 for row in rows.values()), default=0.0)
    bar = max(_BAR_MIN, min(_BAR_MAX, width - 34))
    unit = max(most, 1.0) / bar
    lines = [
        f"tasks at work and waiting, the most of each hour ({glyphs[0]} came, {glyphs[1]}{glyphs[2]} expected, "
        f"{glyphs[3]} the middle of it);",
        "in numbers: what came, of the 10, 50 and 90 % quantiles of what is expected",
    ]
    day = ""
    for at, row in rows.items():
        date = time.strftime("%a %d %b", time.localtime(at))
        if date != day:
            lines.append(styled(f"  {date}", "dim"))
            day = date
        now = ">" if at <= found.wall < at + 3600.0 else " "
        clock = time.strftime("%H:%M", time.localtime(at))
        lines.append(f"{now} {clock} {_bar(row, unit, bar, glyphs)} {_numbers(row)}".rstrip())
    return lines


def _hour_of(wall: float) -> float:
    """The begin of its hour on this terminal's clock."""
    local = time.localtime(wall)
    return wall - local.tm_min * 60.0 - local.tm_sec


_Row = tuple[float | None, float | None, float | None, float | None]


def _row(slots: Sequence[pb.ForecastSlot]) -> _Row:
    """What came, and the three quantiles; None: not known."""
    came = max((slot.came for slot in slots if slot.HasField("came")), default=None)
    expected = [slot for slot in slots if slot.HasField("middle")]
    if not expected:
        return came, None, None, None
    most = max(expected, key=lambda slot: slot.middle)  # its own quantiles: those of an hour would be others
    return came, most.low, most.middle, most.high


def _most(row: _Row) -> float | None:
    return max((value for value in row if value is not None), default=None)


def _bar(row: _Row, unit: float, width: int, glyphs: Sequence[str]) -> str:
    came, low, middle, high = row
    cells = [" "] * width
    if low is not None and middle is not None and high is not None:
        for place in range(min(width, round(high / unit))):
            cells[place] = glyphs[2] if place >= round(low / unit) else glyphs[1]
        cells[min(width - 1, round(middle / unit))] = glyphs[3]
    if came is not None:
        for place in range(min(width, round(came / unit))):
            cells[place] = glyphs[0]
    return "".join(cells)


def _numbers(row: _Row) -> str:
    came, low, middle, high = row
    parts = [f"{came:.0f}"] if came is not None else []
    if low is not None and middle is not None and high is not None:
        parts.append(f"{low:.0f} {middle:.0f} {high:.0f}")
    return " of ".join(parts) if len(parts) > 1 else "".join(parts) or "?"


# -- how right it was -----------------------------------------------------------------------------


def _skills(found: pb.GetForecastResponse) -> list[str]:
    lines = [f"{'ahead':<8} {'off by':>7} {'yesterday':>10} {'within':>7}   (80 % would be right)"]
    for skill in found.skills:
        if not skill.scored:
            lines.append(f"{duration(skill.ahead_s):<8} nothing to compare with yet")
            continue
        naive = f"{skill.naive_off_by:.1f}" if skill.HasField("naive_off_by") else "-"
        within = 100.0 * (skill.at_or_below[2] - skill.at_or_below[0])
        lines.append(f"{duration(skill.ahead_s):<8} {skill.off_by:>7.1f} {naive:>10} {within:>5.0f} %")
    lines.append("off by: the middle, in tasks, in the mean; yesterday: if the same as the day before were expected")
    return lines

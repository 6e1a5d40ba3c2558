"""Standard output as a place with a width and perhaps colours, and tables that fit into it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from agentd.agentctl.text import printable

_STYLES = {"good": "32", "warn": "33", "bad": "31;1", "dim": "2", "strong": "1"}
_STATE_STYLES = {"ready": "good", "failed": "bad", "backoff": "bad", "stopped": "dim", "held": "warn"}
_WIDTH_MIN = 40
_LAST_COLUMN_MIN = 20


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. Where the width does not suffice, the highest `drop` goes first; 0 stays."""

    title: str
    right: bool = False
    drop: int = 0


@dataclass(slots=True)
class Table:
    """Rows of text under titles; None is shown as a dash. `styles` colours a cell by (row, column).

    `widths` is how wide each column is at least, and after `lines` how wide it has become: given to the next table
    of the same columns, they stay where they are.
    """

    columns: Sequence[Column]
    rows: list[list[str]] = field(default_factory=list)
    styles: dict[tuple[int, int], str] = field(default_factory=dict)
    widths: Sequence[int] = ()

    def add(self, *cells: object, **styles: str) -> None:
        """One row; `styles` gives the style of the cell under a title in lower case."""
        assert len(cells) == len(self.columns), f"{len(cells)} cells under {len(self.columns)} titles"
        for number, column in enumerate(self.columns):
            if style := styles.get(column.title.lower()):
                self.styles[len(self.rows), number] = style
        self.rows.append(["-" if cell is None else printable(str(cell)) for cell in cells])

    def lines(self, width: int | None) -> list[str]:
        """The table in lines of at most `width` as far as dropping columns achieves that; None: no bound."""
        titles = [column.title for column in self.columns]
        least = self.widths or [0] * len(titles)
        widths = [max(len(title), least[n], *(len(row[n]) for row in self.rows)) for n, title in enumerate(titles)]
        self.widths = widths
        shown = self._fitting(widths, width)
        lines = [self._line(titles, None, shown, widths, width)]
        return lines + [self._line(row, number, shown, widths, width) for number, row in enumerate(self.rows)]

    def _fitting(self, widths: list[int], width: int | None) -> list[int]:
        """The columns to show. Text in the last one can be cut, so that it pushes no other column out."""
        wanted = list(widths)
        if not self.columns[-1].right:
            wanted[-1] = min(wanted[-1], _LAST_COLUMN_MIN)
        shown = list(range(len(self.columns)))
        while width is not None and sum(wanted[n] + 2 for n in shown) - 2 > width:
            victim = max(shown, key=lambda n: self.columns[n].drop)
            if self.columns[victim].drop == 0:
                break
            shown.remove(victim)
        return shown

    def _line(self, row: list[str], number: int | None, shown: list[int], widths: list[int], width: int | None) -> str:
        parts: list[str] = []
        used = 0
        for n in shown:
            last = n == shown[-1] and not self.columns[n].right
            cell = row[n].rjust(widths[n]) if self.columns[n].right else row[n] if last else row[n].ljust(widths[n])
            if last and width is not None and used + len(cell) > width:
                cell = cell[: max(width - used - 3, 8)] + "..."
            used += len(cell) + 2
            style = "dim" if number is None else self.styles.get((number, n), "")
            parts.append(styled(cell, style))
        return "  ".join(parts).rstrip()


def show(lines: Sequence[str]) -> None:
    """Lines on standard output, at once: a plan is seen before it is carried out."""
    if lines:
        print("\n".join(lines), flush=True)


def styled(text: str, style: str) -> str:
    """`text` in `style` (good, warn, bad, dim, strong) where standard output shows colours."""
    if not style or not text.strip() or not colours():
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def state_style(state: str) -> str:
    """The style of the name of an instance's state."""
    return _STATE_STYLES.get(state, "warn")


def colours() -> bool:
    """Whether standard output is a terminal whose user wants colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def text_width() -> int:
    """Columns for running text; long lines are hard to read, so never above 100."""
    return min(max(shutil.get_terminal_size().columns, _WIDTH_MIN), 100)


def table_width() -> int | None:
    """Columns for a table; None, without bound, when neither a terminal nor $COLUMNS gives one."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return max(shutil.get_terminal_size().columns, _WIDTH_MIN)
    return None

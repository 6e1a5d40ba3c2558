"""How values read: durations, sizes, shares, moments. Pure; nothing here knows a terminal or a message."""

from __future__ import annotations

import textwrap
import time

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


def printable(text: str) -> str:
    """`text` without what would move a terminal's cursor or change its colours; a line break becomes a space."""
    return "".join(c if c.isprintable() else " " if c in "\n\t\r" else "?" for c in text)


def duration(seconds: float) -> str:
    """The two largest units: 42s, 3m10s, 2h, 4d3h. Below ten seconds with a decimal: 0.4s."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}".removesuffix(".0") + "s"
    left = round(seconds)
    largest = next(n for n, (_, unit_s) in enumerate(_UNITS) if left >= unit_s)
    parts = ""
    for unit, unit_s in _UNITS[largest : largest + 2]:
        count, left = divmod(left, unit_s)
        parts += f"{count}{unit}" if count else ""
    return parts


def size(count: float) -> str:
    """Bytes in the unit that leaves up to four digits: 310 MiB, 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.0f} TiB" if count >= 10 else f"{count:.1f} TiB"


def ratio(value: float) -> str:
    """A load or a threshold, to two decimals."""
    return f"{value:.2f}"


def seconds(value: float) -> str:
    """A response time: 84ms, 1.3s, 12s."""
    if value < 0.9995:
        return f"{value * 1000:.0f}ms"
    return f"{value:.1f}s" if value < 9.95 else f"{value:.0f}s"


def moment(wall: float, *, now: float) -> str:
    """A wall-clock time in the local zone: only the time for the last day, else the date with it."""
    local = time.localtime(wall)
    return time.strftime("%H:%M:%S" if abs(now - wall) < 86400 else "%Y-%m-%d %H:%M:%S", local)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def wrapped(text: str, *, width: int, first: str = "", rest: str = "") -> list[str]:
    """`text` in lines of at most `width`, the first behind `first`, the others behind `rest`."""
    width = max(width, len(first) + 20)
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False) or [first]

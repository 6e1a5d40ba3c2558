"""The result of a simulation as a picture: agents and demand over time, and when requests were late.

An SVG of our own making, the same bytes for the same results. A PNG is made of it by the module cairosvg, which the
optional extra `agentd[plot]` brings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from agentd.sim.measure import Moment, Result

WIDTH, PANEL_HEIGHT = 1000, 240
LEFT, RIGHT, TOP, GAP, ROW = 60, 20, 55, 50, 18
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#333333")
_TICKS = 5
_UNITS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


class PlotError(Exception):
    """A picture cannot be made or written; the text says why."""


def write(path: Path, title: str, results: Sequence[Result], concurrency: int) -> None:
    """Write the picture to `path`, by its ending an SVG or a PNG.

    Raises:
        PlotError: it has another ending, cannot be written, or is a PNG and the module for that is missing.
    """
    check(path)
    text = svg(title, results, concurrency)
    try:
        if path.suffix.lower() == ".svg":
            path.write_text(text, encoding="utf-8")
        else:
            path.write_bytes(_png(path, text))
    except OSError as error:
        raise PlotError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def check(path: Path) -> None:
    """Whether a picture can be made for `path`, before there is one: what it is of may take minutes.

    Raises:
        PlotError: it cannot.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise PlotError(f"cannot plot to {path}: its name must end in .svg or .png")
    if not path.parent.is_dir():
        raise PlotError(f"cannot write {path}: {path.parent} is no directory")
    if path.suffix.lower() == ".png":
        _converter(path)


def svg(title: str, results: Sequence[Result], concurrency: int) -> str:
    """The picture: a panel of agents over demand, a panel of late requests, and a line for each policy."""
    end_s = max((result.timeline[-1].offset_s for result in results if result.timeline), default=1.0)
    height = TOP + 2 * (PANEL_HEIGHT + GAP) + ROW * (len(results) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(LEFT, 22, title, size=15),
    ]
    calm = min(results, key=lambda result: result.late_share)  # under others more of the demand is a queue of theirs
    first = calm.timeline
    demand = [(moment.busy + moment.queue) / concurrency for moment in first]
    agents = _Panel(TOP, end_s, max([1.0, *(m.agents for r in results for m in r.timeline)]), "agents")
    parts += agents.frame()
    parts.append(agents.area(first, [min(value, agents.top_value) for value in demand]))
    lates = [[100.0 * m.late / m.arrivals if m.arrivals else 0.0 for m in result.timeline] for result in results]
    late = _Panel(TOP + PANEL_HEIGHT + GAP, end_s, 100.0, "late requests, %")
    parts += late.frame()
    for number, result in enumerate(results):
        colour = _COLOURS[number % len(_COLOURS)]
        parts.append(agents.line(result.timeline, [moment.agents for moment in result.timeline], colour))
        parts.append(late.line(result.timeline, lates[number], colour))
        y = TOP + 2 * (PANEL_HEIGHT + GAP) + ROW * number
        parts.append(f'<rect x="{LEFT}" y="{y - 9}" width="14" height="10" fill="{colour}"/>')
        parts.append(_text(LEFT + 22, y, _summary(result)))
    y = TOP + 2 * (PANEL_HEIGHT + GAP) + ROW * len(results)
    parts.append(f'<rect x="{LEFT}" y="{y - 9}" width="14" height="10" fill="#dddddd"/>')
    parts.append(_text(LEFT + 22, y, f"demand under {calm.policy}: tasks in service and waiting, in agents"))
    return "\n".join([*parts, "</svg>", ""])


def _summary(result: Result) -> str:
    return (
        f"{result.policy}: {100.0 * result.late_share:.2f} % late, wait p50 {result.wait_p50_s:.1f} s, "
        f"p95 {result.wait_p95_s:.1f} s, p99 {result.wait_p99_s:.1f} s; {result.agent_hours:.1f} agent-hours, "
        f"{result.starts} starts, at most {result.peak} agents"
    )


class _Panel:
    """A frame whose lower left corner is (0 s, 0), and what is drawn into it."""

    def __init__(self, y: int, end_s: float, most: float, label: str) -> None:
        self.y, self.end_s, self.label = y, end_s, label
        self.step = _step(most / _TICKS)
        self.top_value = self.step * math.ceil(most / self.step)

    def frame(self) -> list[str]:
        parts = [_text(LEFT, self.y - 6, self.label)]
        for tick in range(round(self.top_value / self.step) + 1):
            y = self._y(tick * self.step)
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e0e0e0"/>')
            parts.append(_text(LEFT - 6, y + 4, f"{tick * self.step:g}", anchor="end"))
        unit_s, unit = next(pair for pair in _UNITS if self.end_s >= 2.0 * pair[0] or pair[0] == 1.0)
        step = _step(self.end_s / unit_s / 10)
        for tick in range(int(self.end_s / unit_s / step) + 1):
            x = self._x(tick * step * unit_s)
            parts.append(_text(x, self.y + PANEL_HEIGHT + 15, f"{tick * step:g} {unit}", anchor="middle"))
        return parts

    def line(self, moments: Sequence[Moment], values: Sequence[float], colour: str) -> str:
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.3" points="{self._points(moments, values)}"/>'

    def area(self, moments: Sequence[Moment], values: Sequence[float]) -> str:
        if not moments:
            return ""
        base = self._y(0.0)
        first, last = self._x(moments[0].offset_s), self._x(moments[-1].offset_s)
        points = f"{first:.1f},{base:.1f} {self._points(moments, values)} {last:.1f},{base:.1f}"
        return f'<polygon fill="#dddddd" points="{points}"/>'

    def _points(self, moments: Sequence[Moment], values: Sequence[float]) -> str:
        pairs = zip(moments, values, strict=True)
        return " ".join(f"{self._x(moment.offset_s):.1f},{self._y(value):.1f}" for moment, value in pairs)

    def _x(self, offset_s: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * offset_s / self.end_s

    def _y(self, value: float) -> float:
        return self.y + PANEL_HEIGHT * (1.0 - value / self.top_value)


def _step(least: float) -> float:
    """The least of 1, 2, 5, 10, 20, ... that is no less than `least`; fractions likewise."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * (1.0 - 1e-9))


def _text(x: float, y: float, text: str, *, size: int = 12, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'


def _png(path: Path, text: str) -> bytes:
    return _converter(path)(text.encode())


def _converter(path: Path) -> Callable[[bytes], bytes]:
    """What makes a PNG of an SVG."""
    try:
        import cairosvg
    except (ImportError, OSError) as error:
        why = "a PNG needs the module cairosvg: pip install 'agentd[plot]', or write an .svg"
        raise PlotError(f"cannot plot to {path}: {why}") from error

    def convert(text: bytes) -> bytes:
        made = cairosvg.svg2png(bytestring=text, scale=2)
        assert isinstance(made, bytes), "broken invariant: a PNG is bytes"
        return made

    return convert

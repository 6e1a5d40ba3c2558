"""The picture of a simulation: well-formed, the same each time, and told where it cannot be made."""

from __future__ import annotations

import importlib.util
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from worlds import arrivals

from agentd.sim import plot
from agentd.sim.measure import Result
from agentd.sim.options import Options
from agentd.sim.run import simulate

TRACE = arrivals(*[(3.0 * n, 10.0) for n in range(200)])
SVG = "{http://www.w3.org/2000/svg}"


def results() -> list[Result]:
    return [simulate(name, TRACE, Options()) for name in ("static:4", "static:2")]


def test_a_picture_has_a_line_for_each_policy_in_each_panel_and_its_figures() -> None:
    found = results()
    text = plot.svg("a <trace> & more", found, 1)
    assert text == plot.svg("a <trace> & more", results(), 1)
    tree = ET.fromstring(text)
    assert len(tree.findall(f"{SVG}polyline")) == 4
    assert len(tree.findall(f"{SVG}polygon")) == 1
    words = [element.text or "" for element in tree.findall(f"{SVG}text")]
    assert "a <trace> & more" in words
    assert any(word.startswith("static:2: ") and "% late" in word for word in words)
    inside = [
        float(part)
        for line in tree.findall(f"{SVG}polyline")
        for part in line.attrib["points"].replace(",", " ").split()
    ]
    assert min(inside) >= 0.0
    assert max(inside) <= plot.WIDTH


def test_a_trace_of_one_moment_has_an_empty_picture() -> None:
    found = simulate("static:1", arrivals((0.0, 1.0)), Options())
    assert found.timeline == ()
    ET.fromstring(plot.svg("one", [found], 1))


def test_the_ending_says_what_is_written(tmp_path: Path) -> None:
    found = results()
    plot.write(tmp_path / "a.svg", "a", found, 1)
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == plot.svg("a", found, 1)
    with pytest.raises(plot.PlotError, match=r"must end in \.svg or \.png"):
        plot.write(tmp_path / "a.jpg", "a", found, 1)
    with pytest.raises(plot.PlotError, match=r"cannot write .*/none is no directory"):
        plot.write(tmp_path / "none/a.svg", "a", found, 1)


def test_a_png_is_drawn_or_says_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    if importlib.util.find_spec("cairosvg") is None:
        with pytest.raises(plot.PlotError, match=r"needs the module cairosvg: pip install 'agentd\[plot\]'"):
            plot.write(path, "a", results(), 1)
        return
    plot.write(path, "a", results(), 1)
    assert path.read_bytes().startswith(b"\x89PNG")

"""The bundled trace: small, reproducible, and a story that the demo's pool can tell."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pytest

from agentd.demo import synthetic
from agentd.traces import Arrival, read_trace


def busy_slots(arrivals: list[Arrival], start: float, end: float) -> float:
    return sum(arrival.service_s for arrival in arrivals if start <= arrival.offset_s < end) / (end - start)


def test_the_bundled_file_is_what_the_script_makes() -> None:
    # Compared unpacked: another build of zlib may pack the same rows into other bytes.
    assert gzip.decompress(synthetic.bundled().read_bytes()) == gzip.decompress(synthetic.encode(synthetic.make()))
    assert read_trace(synthetic.bundled()) == synthetic.make()
    assert synthetic.bundled().stat().st_size < 20_000


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        synthetic.main([str(file)])
    assert files[0].read_bytes() == files[1].read_bytes()
    assert synthetic.encode(synthetic.make(seed=12)) != files[0].read_bytes()


def test_it_goes_from_quiet_to_a_surge_to_quiet() -> None:
    arrivals = synthetic.make()
    # One agent with two slots carries the quiet; the surge needs four or five, of at most six.
    assert busy_slots(arrivals, 0, 15) < 0.5
    assert 6.0 < busy_slots(arrivals, 50, 95) < 10.0
    assert busy_slots(arrivals, 115, 170) < 0.5
    assert arrivals[-1].offset_s < synthetic.LENGTH_S


def test_nothing_scales_at_first_because_two_requests_met() -> None:
    first = [arrival for arrival in synthetic.make() if arrival.offset_s < 15.0]
    assert len(first) >= 2
    for one, next_one in itertools.pairwise(first):
        assert one.offset_s + one.service_s < next_one.offset_s


def test_the_load_between_two_points_is_on_a_straight_line() -> None:
    assert synthetic.load_at(0.0) == 0.25
    assert synthetic.load_at(20.0) == pytest.approx((0.35 + 4.0) / 2)
    with pytest.raises(ValueError, match="cannot tell the load"):
        synthetic.load_at(synthetic.LENGTH_S)

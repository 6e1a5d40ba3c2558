"""Reading traces: both forms, the fixed expansion, windows and speed."""

from __future__ import annotations

import gzip
import math
import os
import random
from pathlib import Path

import pytest

from agentd.traces import (
    Arrival,
    TraceError,
    duration,
    expand,
    has_times,
    initial_agents,
    read_trace,
    trace_name,
    window,
)


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()))
    return path


def test_a_trace_of_requests(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv.gz", "offset_s,service_s\n0.00,1.16\n0.05,0.80\n0.05,0\n")
    assert read_trace(path) == [Arrival(0.0, 1.16), Arrival(0.05, 0.8), Arrival(0.05, 0.0)]


def test_a_count_series_is_expanded_by_the_fixed_rule(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv.gz", "offset_s,arrivals\n0,2\n60,0\n120,3\n")
    # The rule as the format's description gives it, written out once more.
    rng = random.Random(20260101)
    mu, sigma = math.log(30.0) - math.log(2) / 2, math.sqrt(math.log(2))
    expected: list[tuple[float, float]] = []
    for start, n in ((0.0, 2), (60.0, 0), (120.0, 3)):
        if n > 0:
            offsets = [start + 60.0 * u for u in sorted(rng.random() for _ in range(n))]
            expected += zip(offsets, [rng.lognormvariate(mu, sigma) for _ in range(n)], strict=True)
    assert [(arrival.offset_s, arrival.service_s) for arrival in read_trace(path, 30.0)] == expected


def test_the_expanded_service_times_have_the_mean_and_variation_of_the_rule() -> None:
    services = [arrival.service_s for arrival in expand([(0.0, 20_000), (10.0, 0)], 40.0)]
    mean = sum(services) / len(services)
    deviation = math.sqrt(sum((service - mean) ** 2 for service in services) / len(services))
    assert 39 < mean < 41
    assert 0.95 < deviation / mean < 1.05


def test_known_count_series_need_no_mean_and_others_do(tmp_path: Path) -> None:
    counts = "offset_s,arrivals\n0,1\n10,1\n"
    assert len(read_trace(write(tmp_path / "nasa-jul95-14d.csv.gz", counts))) == 2
    with pytest.raises(TraceError, match=r"--service\)"):
        read_trace(write(tmp_path / "other.csv.gz", counts))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no header"),
        ("time,load\n", r"'time,load', no header of a trace \(offset_s,service_s or offset_s,arrivals\)"),
        ("offset_s,service_s\n1\n", "line 2: expected two numbers"),
        ("offset_s,service_s\n0,1\nx,1\n", "line 3: expected two numbers"),
        ("offset_s,service_s\n1,1\n0,1\n", "line 3: .* out of order"),
        ("offset_s,service_s\n1,-1\n", "line 2: .* out of range"),
        ("offset_s,service_s\nnan,1\n", "line 2: .* out of range"),
        ("offset_s,service_s\n-1,1\n", "line 2: .* out of range"),
        ("offset_s,service_s\n0,1\ninf,1\n", "line 3: .* out of range"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read_trace(write(tmp_path / "t.csv.gz", text))


def test_one_bucket_has_no_length(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"t\.csv\.gz: of fewer than two pieces"):
        read_trace(write(tmp_path / "t.csv.gz", "offset_s,arrivals\n0,1\n"), 1.0)
    with pytest.raises(TraceError, match="fewer than two buckets"):
        list(expand([(0.0, 1)], 1.0))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0,2\n60,1.5\n", "line 3: 1.5 arrivals are no whole number"),
        ("0,2\n60,1\n90,1\n", "line 4: 90 lies in the piece before, which begins at 60: .* a piece is 60 s long"),
        ("0,2\n0,1\n60,1\n", "line 3: 0 lies in the piece before"),
    ],
)
def test_counts_are_whole_and_pieces_follow_each_other(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read_trace(write(tmp_path / "t.csv.gz", f"offset_s,arrivals\n{rows}"), 1.0)


def test_pieces_without_arrivals_may_be_left_out_and_offsets_be_rounded(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.csv.gz", "offset_s,arrivals\n0,2\n33.4,0\n66.7,0\n100,3\n133.4,0\n")
    short = write(tmp_path / "short.csv.gz", "offset_s,arrivals\n0,2\n33.4,0\n100,3\n133.4,0\n")
    assert read_trace(whole, 1.0) == read_trace(short, 1.0)
    assert len(read_trace(whole, 1.0)) == 5


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    """As spreadsheets write them."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbfoffset_s,service_s\r\n1,2\r\n")
    assert read_trace(path) == [Arrival(1.0, 2.0)]


def test_a_trace_says_whether_it_has_times(tmp_path: Path) -> None:
    assert has_times(write(tmp_path / "t.csv.gz", "offset_s,service_s\n0,1\n"))
    assert not has_times(write(tmp_path / "c.csv.gz", "offset_s,arrivals\n0,1\n"))
    with pytest.raises(TraceError, match="no header"):
        has_times(write(tmp_path / "n.csv.gz", "a,b\n"))


def test_a_plain_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    for name in ("plain.csv", "plain.csv.gz"):
        path = tmp_path / name
        path.write_text("offset_s,service_s\n1,2\n")
        assert read_trace(path) == [Arrival(1.0, 2.0)]
        assert trace_name(path) == "plain"


def test_the_agents_at_the_start_are_right_for_the_opening() -> None:
    # In service in the seconds 30 to 330: 20 s of the first, 300 s of the second, 30 s of the third, none of the last.
    arrivals = [Arrival(0.0, 50.0), Arrival(1.0, 1000.0), Arrival(300.0, 60.0), Arrival(330.0, 1.0)]
    assert initial_agents(arrivals, 1) == math.ceil(1.3 * (20 + 300 + 30) / 300) == 2
    assert initial_agents(arrivals * 10, 4) == 1  # nothing after the end of the opening counts
    assert initial_agents([arrival for arrival in arrivals for _ in range(10)], 4) == 4
    assert initial_agents([], 1) == 0


def test_a_file_that_is_no_text_or_is_cut_off_or_missing(tmp_path: Path) -> None:
    binary, cut = tmp_path / "binary.csv", tmp_path / "cut.csv.gz"
    binary.write_bytes(b"\xff\xfe\n")
    cut.write_bytes(gzip.compress(b"offset_s,service_s\n" + b"1,1\n" * 1000)[:-20])
    for path in (binary, cut):
        with pytest.raises(TraceError, match="cannot read"):
            read_trace(path)
    with pytest.raises(TraceError, match=r"missing\.csv\.gz: no such file\Z"):
        read_trace(tmp_path / "missing.csv.gz")
    with pytest.raises(TraceError, match="is a directory"):
        read_trace(tmp_path)


def test_a_window_starts_at_zero_and_speed_divides_offsets_and_services() -> None:
    arrivals = [Arrival(float(at), 6.0) for at in range(0, 50, 10)]
    found = window(arrivals, start_s=10.0, length_s=20.0, speed=2.0)
    assert found == [Arrival(0.0, 3.0), Arrival(5.0, 3.0)]
    assert len(window(arrivals, start_s=0.0, length_s=math.inf, speed=1.0)) == 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5h", 5400), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1d2h", 93600)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "2x", "-1", "1m2h", "1 h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="cannot read duration"):
        duration(text)


@pytest.mark.skipif("AGENTD_SHARED" not in os.environ, reason="AGENTD_SHARED names no directory with traces")
@pytest.mark.parametrize(
    ("name", "requests"),
    [("azure-code-2023", 8_819), ("worldcup98-group-14d", 279_490), ("nab-tweets-amzn-14d", 226_921)],
)
def test_public_traces_have_the_requests_that_their_description_counts(name: str, requests: int) -> None:
    assert len(read_trace(Path(os.environ["AGENTD_SHARED"]) / f"traces/{name}.csv.gz")) == requests

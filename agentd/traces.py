"""Request traces: CSV or gzip CSV with one header line, sorted by `offset_s`, in one of two forms.

    offset_s,service_s   one row per request; `service_s`: how long one slot of one agent is busy with it
    offset_s,arrivals    one row per bucket of equal length, empty ones included; `offset_s`: the bucket's start

A count series is expanded into requests by a fixed rule with a fixed seed, so that everybody who replays it
replays the same requests.
"""

from __future__ import annotations

import csv
import gzip
import math
import random
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from msgspec import Struct

EXPANSION_SEED = 20260101
# Mean service times, in seconds, of the public count series, which record none.
SERVICE_MEANS_S = {"worldcup98-group-14d": 40.0, "nasa-jul95-14d": 30.0, "nab-tweets-amzn-14d": 15.0}
# How many requests at a time an agent works on in the published figures for the public traces.
CONCURRENCIES = {
    "servegen-daily-14d": 2,
    "servegen-burst-14d": 2,
    "servegen-reasoning-1d": 4,
    "worldcup98-group-14d": 2,
    "nasa-jul95-14d": 2,
    "nab-tweets-amzn-14d": 2,
}
# The size at the start is right for what comes after the first agents would have started: these seconds of the trace.
OPENING_FROM_S, OPENING_UNTIL_S = 30.0, 330.0
OPENING_RATIO = 1.3

_REQUESTS, _COUNTS = ["offset_s", "service_s"], ["offset_s", "arrivals"]
# Pieces of a count series may overlap by this share: their offsets may be rounded.
_OVERLAP_RATIO_MAX = 0.01

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?\Z")


class TraceError(Exception):
    """A trace that cannot be replayed; the text names the file and, where there is one, the line."""


class Arrival(Struct, frozen=True):
    """One request: seconds after the start of the trace, and seconds of work."""

    offset_s: float
    service_s: float


def read_trace(path: Path, service_mean_s: float | None = None) -> list[Arrival]:
    """All requests of the trace in `path`.

    `service_mean_s` is for a count series alone; without it the series must be one of the known ones.

    Raises:
        TraceError: the file cannot be read, or is no trace.
    """
    try:
        with _open(path) as file:
            rows = csv.reader(file)
            if _header(path, rows) == _REQUESTS:
                return [Arrival(offset_s, service_s) for offset_s, service_s in _numbers(path, rows)]
            mean_s = service_mean_s or SERVICE_MEANS_S.get(trace_name(path))
            if mean_s is None:
                raise TraceError(f"cannot replay {path}: it has no service times; give their mean (--service)")
            return list(expand(_buckets(path, rows), mean_s))
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except OSError as error:
        raise TraceError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except (EOFError, csv.Error, zlib.error) as error:
        raise TraceError(f"cannot read {path}: {error}") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"cannot read {path}: it is no text") from error


def has_times(path: Path) -> bool:
    """Whether the trace in `path` says of each request how long it takes; else it is a count series.

    Raises:
        TraceError: the file cannot be read, or is no trace.
    """
    try:
        with _open(path) as file:
            return _header(path, csv.reader(file)) == _REQUESTS
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise TraceError(f"cannot read {path}: {error}") from error


def trace_name(path: Path) -> str:
    """The name of the trace in `path`: its file name without what says how it is written."""
    return path.name.removesuffix(".gz").removesuffix(".csv")


def initial_agents(arrivals: Iterable[Arrival], concurrency: int) -> int:
    """How many agents are right for the opening of a trace, with some to spare; 0 where nothing happens in it."""
    busy_s = 0.0
    for arrival in arrivals:
        if arrival.offset_s >= OPENING_UNTIL_S:
            break
        end_s = min(arrival.offset_s + arrival.service_s, OPENING_UNTIL_S)
        busy_s += max(0.0, end_s - max(arrival.offset_s, OPENING_FROM_S))
    mean_in_service = busy_s / (OPENING_UNTIL_S - OPENING_FROM_S)
    return math.ceil(OPENING_RATIO * mean_in_service / concurrency)


def expand(buckets: list[tuple[float, int]], service_mean_s: float, seed: int = EXPANSION_SEED) -> Iterator[Arrival]:
    """The requests of a count series of (bucket start, arrivals); log-normal service times of variation 1.

    Another `seed` than the fixed one gives other requests of the same counts.

    Raises:
        TraceError: with fewer than two buckets their length is unknown.
    """
    if len(buckets) < 2:
        raise TraceError("cannot expand a series of counts with fewer than two buckets")
    length_s = buckets[1][0] - buckets[0][0]
    rng = random.Random(seed)
    mu, sigma = math.log(service_mean_s) - math.log(2) / 2, math.sqrt(math.log(2))
    for start_s, count in buckets:
        # All offsets of a bucket are drawn before its service times: the order is part of the rule.
        offsets = [start_s + length_s * share for share in sorted(rng.random() for _ in range(count))]
        services = [rng.lognormvariate(mu, sigma) for _ in range(count)]
        yield from map(Arrival, offsets, services)


def window(arrivals: Iterable[Arrival], *, start_s: float, length_s: float, speed: float) -> list[Arrival]:
    """The requests from `start_s` for `length_s` seconds of trace time, moved to 0, all times divided by `speed`."""
    return [
        Arrival((arrival.offset_s - start_s) / speed, arrival.service_s / speed)
        for arrival in arrivals
        if start_s <= arrival.offset_s < start_s + length_s
    ]


def duration(text: str) -> float:
    """Seconds in `90`, `90s`, `30m`, `2h`, `1d` or `1h30m`.

    Raises:
        ValueError: `text` is none of these.
    """
    found = _DURATION.match(text)
    if not text or not found:
        raise ValueError(f"cannot read duration {text!r}: expected for example 90, 30m or 2h")
    return sum(float(part) * unit for part, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True) if part)


def _open(path: Path) -> TextIO:
    """`path` for reading, whether it is packed or not."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open("rt", encoding="utf-8-sig", newline="")


def _header(path: Path, rows: Iterator[list[str]]) -> list[str]:
    header = next(rows, [])
    if header not in (_REQUESTS, _COUNTS):
        wanted = " or ".join(",".join(one) for one in (_REQUESTS, _COUNTS))
        raise TraceError(
            f"cannot read {path}: its first line is {','.join(header)[:80]!r}, no header of a trace ({wanted})"
        )
    return header


def _buckets(path: Path, rows: Iterable[list[str]]) -> list[tuple[float, int]]:
    """The pieces of a count series, as long as the first. Empty ones may be left out after it."""
    buckets: list[tuple[float, int]] = []
    for line, (start_s, count) in enumerate(_numbers(path, rows), 2):
        if count != int(count):
            raise TraceError(f"cannot read {path}, line {line}: {count:g} arrivals are no whole number")
        if len(buckets) > 1:
            length_s = buckets[1][0] - buckets[0][0]
            if start_s - buckets[-1][0] < length_s * (1.0 - _OVERLAP_RATIO_MAX):
                raise TraceError(
                    f"cannot read {path}, line {line}: {start_s:g} lies in the piece before, which begins at"
                    f" {buckets[-1][0]:g}: as the first two lines say a piece is {length_s:g} s long"
                )
        buckets.append((start_s, int(count)))
    if len(buckets) < 2:
        raise TraceError(f"cannot read {path}: of fewer than two pieces nobody knows how long they are")
    if buckets[0][0] == buckets[1][0]:
        raise TraceError(f"cannot read {path}, line 3: {buckets[1][0]:g} lies in the piece before, which begins there")
    return buckets


def _numbers(path: Path, rows: Iterable[list[str]]) -> Iterator[tuple[float, float]]:
    last = 0.0
    for line, row in enumerate(rows, 2):
        try:
            first, second = map(float, row)
        except ValueError as error:
            raise TraceError(f"cannot read {path}, line {line}: expected two numbers, found {row}") from error
        if not (last <= first < math.inf and 0.0 <= second < math.inf):
            raise TraceError(f"cannot read {path}, line {line}: {row} is out of order or out of range")
        last = first
        yield first, second

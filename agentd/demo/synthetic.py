"""Makes the trace of the default demo: `python -m agentd.demo.synthetic [FILE]`.

Three minutes with one story: a quiet start with one request at a time, a rise that one agent cannot carry, a
plateau for four to five agents with two slots each, and quiet again. Arrivals are Poisson with a rate that
follows `LOAD`; service times are log-normal, with a mean of 1.4 s. The same seed makes the same bytes.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import random
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from agentd.traces import Arrival

SEED = 94
LENGTH_S = 170.0
SERVICE_MEAN_S = 1.4
SERVICE_MAX_S = 6.0
# Busy slots on average from each moment on, in between on a straight line.
LOAD = ((0.0, 0.25), (15.0, 0.35), (25.0, 4.0), (45.0, 6.5), (55.0, 7.5), (98.0, 7.5), (106.0, 0.3), (LENGTH_S, 0.3))


def make(seed: int = SEED) -> list[Arrival]:
    """The requests, in order of time, rounded as they are written."""
    rng = random.Random(seed)
    rate_max = max(level for _, level in LOAD) / SERVICE_MEAN_S
    mu, sigma = math.log(SERVICE_MEAN_S) - 0.5**2 / 2, 0.5
    arrivals: list[Arrival] = []
    at = 0.0
    while (at := at + rng.expovariate(rate_max)) < LENGTH_S:
        # Thinning: of a steady stream at the highest rate, keep the share that the moment's rate is of it.
        if rng.random() * rate_max < load_at(at) / SERVICE_MEAN_S:
            service_s = min(SERVICE_MAX_S, rng.lognormvariate(mu, sigma))
            arrivals.append(Arrival(round(at, 2), round(service_s, 2)))
    return arrivals


def load_at(at: float) -> float:
    """Busy slots on average at `at` seconds, 0 <= at < LENGTH_S."""
    for (start, before), (end, after) in itertools.pairwise(LOAD):
        if start <= at < end:
            return before + (after - before) * (at - start) / (end - start)
    raise ValueError(f"cannot tell the load at {at} s: the trace has {LENGTH_S} s")


def encode(arrivals: Sequence[Arrival]) -> bytes:
    """The file's bytes; without a time stamp, so that they depend on the requests alone."""
    rows = "".join(f"{arrival.offset_s:.2f},{arrival.service_s:.2f}\n" for arrival in arrivals)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as file:
        file.write(f"offset_s,service_s\n{rows}".encode("ascii"))
    return packed.getvalue()


def bundled() -> Path:
    """The trace that comes with agentd."""
    return Path(str(files("agentd.demo") / "synthetic.csv.gz"))


def main(argv: Sequence[str]) -> int:
    target = Path(argv[0]) if argv else bundled()
    arrivals = make()
    target.write_bytes(encode(arrivals))
    print(f"{target}: {len(arrivals)} requests in {LENGTH_S:g} s, {target.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

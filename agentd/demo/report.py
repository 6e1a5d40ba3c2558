"""What happened: counts, waiting times, the fleet over time, and how to show them. Memory is bounded.

Waits are measured in real seconds and shown in trace time: a replay at 20x that waits 0.1 s stands for a wait
of 2 s.
"""

from __future__ import annotations

import math
import os
import random
from array import array
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, field

WAITED_S = 0.1  # shorter, in real time, than this a request did not wait
SLOW_S = 5.0  # in trace time
WAITS_MAX = 1_000_000
SAMPLES_MAX = 2048
SPARK = "▁▂▃▄▅▆▇█"
SPARK_ASCII = "._-=+*%#"


class Tally:
    """Counts of requests, and their waits in real seconds; past `WAITS_MAX` a fair sample of them."""

    def __init__(self) -> None:
        self.sent = 0
        self.answered = 0
        self.retried = 0  # sent again because the agent died under them
        self.refused = 0  # sent elsewhere because the agent took none
        self.failed = 0  # answered with an error
        self.waited = 0
        self._waits = array("d")
        self._rng = random.Random(0)

    def answer(self, wait_s: float) -> None:
        self.answered += 1
        self.waited += wait_s > WAITED_S
        if len(self._waits) < WAITS_MAX:
            self._waits.append(wait_s)
        elif (place := self._rng.randrange(self.answered)) < WAITS_MAX:
            self._waits[place] = wait_s

    @property
    def unanswered(self) -> int:
        return self.sent - self.answered - self.failed

    def waits(self, speed: float) -> dict[str, float]:
        """Mean, quantiles, maximum (seconds of trace time) and the share above `SLOW_S`."""
        waits = sorted(wait_s * speed for wait_s in self._waits)
        if not waits:
            return {"mean_s": 0.0, "p50_s": 0.0, "p95_s": 0.0, "max_s": 0.0, "slow_ratio": 0.0}
        return {
            "mean_s": math.fsum(waits) / len(waits),
            "p50_s": _quantile(waits, 0.50),
            "p95_s": _quantile(waits, 0.95),
            "max_s": waits[-1],
            "slow_ratio": sum(wait_s > SLOW_S for wait_s in waits) / len(waits),
        }


class Sample(Struct, frozen=True):
    """The pool at one moment; `at_s` is real seconds since the load began."""

    at_s: float
    ready: int
    starting: int
    waiting: int
    in_flight: int
    load: float


class Timeline:
    """Samples at an interval that doubles whenever there are too many."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._interval_s = 1.0

    def add(self, sample: Sample) -> None:
        if self.samples and sample.at_s < self.samples[-1].at_s + self._interval_s:
            return
        self.samples.append(sample)
        if len(self.samples) >= SAMPLES_MAX:
            del self.samples[1::2]
            self._interval_s *= 2


class Summary(Struct, frozen=True):
    """Everything that is told at the end."""

    tally: Tally
    timeline: Timeline
    speed: float
    lasted_s: float
    events: dict[str, int] = field(default_factory=dict)  # event type -> how often

    def as_json(self) -> dict[str, object]:
        tally = self.tally
        return {
            "speed": self.speed,
            "lasted_s": round(self.lasted_s, 3),
            "sent": tally.sent,
            "answered": tally.answered,
            "retried": tally.retried,
            "refused": tally.refused,
            "failed": tally.failed,
            "unanswered": tally.unanswered,
            "waited": tally.waited,
            "waits_trace_time": {name: round(value, 4) for name, value in tally.waits(self.speed).items()},
            "agents_mean": round(_mean([sample.ready for sample in self.timeline.samples]), 3),
            "agents_max": max((sample.ready for sample in self.timeline.samples), default=0),
            "events": dict(sorted(self.events.items())),
            "over_time": [
                {
                    "at_s": round(sample.at_s, 1),
                    "ready": sample.ready,
                    "starting": sample.starting,
                    "waiting": sample.waiting,
                    "in_flight": sample.in_flight,
                    "load": round(sample.load, 3),
                }
                for sample in self.timeline.samples
            ],
        }

    def lines(self, *, unicode: bool) -> list[str]:
        tally, waits = self.tally, self.tally.waits(self.speed)
        share = tally.waited / tally.answered if tally.answered else 0.0
        what = [f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(self.events.items()) if count]
        return [
            f"requests: {tally.sent} sent, {tally.answered} answered, {tally.unanswered} unanswered, "
            f"{tally.failed} failed; {tally.retried} retried after their agent died, {tally.refused} sent elsewhere",
            f"waited:   {tally.waited} of them ({share:.0%}) more than {WAITED_S} s; in trace time mean "
            f"{waits['mean_s']:.2f} s, p50 {waits['p50_s']:.2f} s, p95 {waits['p95_s']:.2f} s, max "
            f"{waits['max_s']:.2f} s; {waits['slow_ratio']:.1%} above {SLOW_S:g} s",
            f"agents:   {_mean([s.ready for s in self.timeline.samples]):.2f} on average, "
            f"{max((s.ready for s in self.timeline.samples), default=0)} at most; events: {', '.join(what) or 'none'}",
            *_chart(self.timeline.samples, SPARK if unicode else SPARK_ASCII),
            *_table(self.timeline.samples),
        ]


def unwritable(path: Path) -> str:
    """Why no report can be written to `path`; empty where it can."""
    if path.is_dir():
        return "it is a directory"
    if not path.parent.is_dir():
        return f"there is no directory {path.parent}"
    return "" if os.access(path if path.exists() else path.parent, os.W_OK) else "it cannot be written"


def minutes(seconds: float) -> str:
    """`1:05` for 65 seconds, `2:00:00` for two hours."""
    whole = max(0, int(seconds))
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def sparkline(values: Sequence[float], width: int, symbols: str = SPARK) -> str:
    """At most `width` symbols; each stands for the highest value of its part, from 0 up to the highest of all."""
    if not values:
        return ""
    width = min(width, len(values))
    top = max(values)
    parts = [values[len(values) * i // width : len(values) * (i + 1) // width] for i in range(width)]
    return "".join(symbols[round(max(part) / top * (len(symbols) - 1)) if top > 0 else 0] for part in parts)


def _chart(samples: Sequence[Sample], symbols: str) -> list[str]:
    if not samples:
        return []
    rows = (
        ("ready", [float(sample.ready) for sample in samples], ".0f"),
        ("waiting", [float(sample.waiting) for sample in samples], ".0f"),
        ("load", [sample.load for sample in samples], ".2f"),
    )
    end = minutes(samples[-1].at_s)
    return [f"over time, 0:00 to {end}:"] + [
        f"  {name:8} {sparkline(values, 64, symbols)}  at most {max(values):{form}}" for name, values, form in rows
    ]


def _table(samples: Sequence[Sample], rows: int = 12) -> list[str]:
    if not samples:
        return []
    step = max(1, math.ceil(len(samples) / rows))
    return [f"  {'time':>8} {'ready':>6} {'waiting':>8} {'load':>6}"] + [
        f"  {minutes(sample.at_s):>8} {sample.ready:>6} {sample.waiting:>8} {sample.load:>6.2f}"
        for sample in samples[::step]
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _quantile(ascending: Sequence[float], share: float) -> float:
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]

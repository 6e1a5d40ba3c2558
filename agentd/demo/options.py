"""The options of the demo, checked."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

import agentd
from agentd.demo.synthetic import bundled
from agentd.sdk import address
from agentd.traces import duration

SPEED_MIN, SPEED_MAX = 0.01, 1000.0

_EPILOG = """
examples:
  scripts/run
  scripts/run --trace traces/azure-code-2023.csv.gz --speed 5 --max 16
  scripts/run --trace traces/servegen-chat-14d.csv.gz --speed 20 --from 33h --for 2h --report result.json
"""


class Options(Struct, frozen=True):
    """`trace` None: the bundled trace, again and again, with faults. Times of the trace in seconds."""

    config: Path
    trace: Path | None
    speed: float
    from_s: float
    for_s: float
    service_s: float | None
    pool: str
    concurrency: int | None
    instances_max: int | None
    state_dir: Path
    http: str | None
    hang: bool
    seconds: float
    report: Path | None

    @property
    def trace_file(self) -> Path:
        return self.trace or bundled()


def parse(argv: Sequence[str] | None) -> Options:
    """Options from the command line; ends the program with status 2 and a clear line when one is wrong."""
    given = _parser().parse_args(argv)
    return Options(
        config=given.config,
        trace=given.trace,
        speed=given.speed,
        from_s=given.from_s,
        for_s=given.for_s,
        service_s=given.service_s,
        pool=given.pool,
        concurrency=given.concurrency,
        instances_max=given.max,
        state_dir=given.state_dir.expanduser().absolute(),
        http=given.http,
        hang=not given.no_hang,
        seconds=given.seconds,
        report=given.report,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/run",
        description="Run agentd with sample agents and send them the requests of a trace, until Ctrl-C. "
        "Without --trace: a bundled three-minute trace, again and again; each time one agent is killed and one hangs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    state_dir = address.demo_state_dir(os.environ, os.getuid())
    config = Path(agentd.__file__).parents[1] / "config/demo.yaml"
    add(
        "--config", type=Path, default=config, metavar="FILE", help="agentd's configuration (default: config/demo.yaml)"
    )
    add(
        "--trace",
        type=Path,
        metavar="FILE",
        help="replay this trace once: gzip CSV, offset_s with service_s or arrivals",
    )
    add(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="N",
        help=f"divide the trace's and agentd's times by N, {SPEED_MIN:g} to {SPEED_MAX:g} (default: 1)",
    )
    add("--from", dest="from_s", type=_time, default=0.0, metavar="TIME", help="begin here in the trace: 90, 30m, 2h")
    add("--for", dest="for_s", type=_time, default=math.inf, metavar="TIME", help="replay this much of the trace")
    add(
        "--service", "--service-s", dest="service_s", type=_length, metavar="TIME",
        help="mean service time for a trace that has only counts: 1.5, 20s",
    )  # fmt: skip
    add("--pool", default="research", metavar="NAME", help="the pool that gets the requests (default: research)")
    add("--concurrency", type=_count, metavar="N", help="tasks an agent of the pool works on at a time")
    add("--max", type=_count, metavar="N", help="the most instances of the pool")
    add(
        "--state-dir",
        type=Path,
        default=state_dir,
        metavar="DIR",
        help="agentd's state (default: %(default)s)",
    )
    add("--http", metavar="HOST:PORT", help="address of the dashboard (default: 127.0.0.1:8766)")
    add("--no-hang", action="store_true", help="kill no agent and make none hang")
    add("--seconds", type=_length, default=math.inf, metavar="N", help="end after N seconds")
    add("--report", type=Path, metavar="FILE", help="write the summary to FILE as JSON")
    return parser


# argparse shows the text of its own error alone; of a ValueError it shows the function's name.


def _speed(text: str) -> float:
    expected = f"expected a number from {SPEED_MIN:g} to {SPEED_MAX:g}"
    value = _number(text, 0.0, math.inf, expected)
    if not SPEED_MIN <= value <= SPEED_MAX:
        raise argparse.ArgumentTypeError(f"{text}: {expected}")
    return value


def _number(text: str, above: float, below: float, expected: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not above < value < below:
        raise argparse.ArgumentTypeError(f"{text}: {expected}")
    return value


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, at least 1")
    return value


def _time(text: str) -> float:
    try:
        return duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _length(text: str) -> float:
    value = _time(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text}: expected a time above 0")
    return value

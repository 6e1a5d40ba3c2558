"""What a forecast is worth to `adaptive`: never heeded, heeded while it pays, always heeded.

On work that comes on time: four jobs a day of thirty tasks each, which begin within twenty seconds, and a task every
ten minutes besides; a start takes 30 s. The first two days are in it, in which nothing is heeded unless it is always.
With --traces DIR over the loads recorded there, too, where most of what is coming is seen in what is there already.

J = agent-hours / those of a clairvoyant plan + 0.1 for each percent of late requests, lower is better.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness import positive, print_table
from msgspec.structs import replace
from policies import PLANNED_HOURS

from agentd.core.rules import FORECASTS
from agentd.sim.options import Options
from agentd.sim.outcome import CLAIRVOYANT, score
from agentd.sim.run import simulate
from agentd.traces import CONCURRENCIES, Arrival, read_trace, trace_name

TIMETABLE = "timetable"
JOBS_AT_H = (1.0, 7.5, 12.0, 18.25)
JOB_TASKS, JOB_SPAN_S = 30, 20.0
JOB_TASK_S, OTHER_TASK_S = (30.0, 90.0), (20.0, 60.0)
OTHERS_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class Run:
    load: str
    forecast: str
    j: float
    late_percent: float
    agent_hours: float


def timetable(days: int, seed: int) -> list[Arrival]:
    """Jobs at the same times of each day, and a trickle of other tasks."""
    rng = random.Random(seed)
    found = []
    for day in range(days):
        for hour in JOBS_AT_H:
            begin_s = day * 86_400.0 + hour * 3_600.0
            found += [(begin_s + rng.uniform(0.0, JOB_SPAN_S), rng.uniform(*JOB_TASK_S)) for _ in range(JOB_TASKS)]
    at = rng.expovariate(1.0 / OTHERS_EVERY_S)
    while at < days * 86_400.0:
        found.append((at, rng.uniform(*OTHER_TASK_S)))
        at += rng.expovariate(1.0 / OTHERS_EVERY_S)
    return [Arrival(offset_s, service_s) for offset_s, service_s in sorted(found)]


def run(load: Path | None, forecasts: Sequence[str], options: Options, days: int) -> list[Run]:
    """In a process of its own: one load with each setting."""
    name = trace_name(load) if load else TIMETABLE
    arrivals = read_trace(load) if load else timetable(days, options.seed)
    options = replace(options, concurrency=CONCURRENCIES.get(name, 1))
    planned = PLANNED_HOURS.get(name) or simulate(CLAIRVOYANT, arrivals, options).agent_hours
    found = []
    for forecast in forecasts:
        result = simulate("adaptive", arrivals, replace(options, settings=(("forecast", forecast),)))
        found.append(Run(name, forecast, score(result, planned), 100.0 * result.late_share, result.agent_hours))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=positive, default=14, metavar="N", help="of the timetable (default: 14)")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="these recorded loads, too")
    parser.add_argument("--only", default="", metavar="TEXT", help="only traces whose name contains it")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, metavar="N", help="default: one per core")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as JSON")
    given = parser.parse_args()
    loads: list[Path | None] = [None]
    if given.traces:
        loads += sorted(path for path in given.traces.glob("*.csv*") if given.only in path.name)
    options = Options(seed=given.seed)
    forecasts = ("off", *(one for one in FORECASTS if one != "off"))
    with ProcessPoolExecutor(given.jobs) as pool:
        futures = [pool.submit(run, load, forecasts, options, given.days) for load in loads]
        found = [one for future in futures for one in future.result()]
    rows: list[tuple[str, ...]] = [("load", "forecast", "J", "late %", "agent-hours")]
    rows += [
        (one.load, one.forecast, f"{one.j:.2f}", f"{one.late_percent:.2f}", f"{one.agent_hours:.0f}") for one in found
    ]
    print_table(rows)
    if given.json:
        values = [
            {"load": one.load, "forecast": one.forecast, "j": one.j, "late_percent": one.late_percent,
             "agent_hours": one.agent_hours}
            for one in found
        ]  # fmt: skip
        given.json.write_text(json.dumps({"days": given.days, "runs": values}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

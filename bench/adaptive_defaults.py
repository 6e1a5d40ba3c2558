"""What becomes of `adaptive` when one of its constants is halved or doubled, or one expert is followed always.

Each variant runs over every trace as `bench/policies.py` does; the table has the mean of J, of the late share and of
the hours over all traces but azure-code, and the difference in J to what ships. A constant is well chosen where both
neighbours are worse or alike. Takes about a minute of CPU for each trace of two weeks and variant: choose with --only
and --variants, or take one day of each with --day, which is compared with a plan for that day.

The traces are those of $AGENTD_SHARED/traces, or of the directory given with --traces.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness import positive, print_table
from msgspec.structs import replace
from policies import APART, PLANNED_HOURS

from agentd.core import adaptive, experts, flow, shadow
from agentd.core.experts import NAMES
from agentd.sim.options import Options
from agentd.sim.outcome import CLAIRVOYANT, score
from agentd.sim.run import simulate
from agentd.traces import CONCURRENCIES, Arrival, read_trace, trace_name

DAY_S = 86_400.0
CONSTANTS = (
    (flow, "SHORT_RATIO"),
    (flow, "LONG_S"),
    (flow, "SHORT_S"),
    (experts, "PATIENCE_RATIO"),
    (experts, "START_S_USUAL"),
    (shadow, "MEMORY_S"),
    (shadow, "BETTER_RATIO"),
    (shadow, "DOUBT_S"),
    (shadow, "TRIAL_S"),
    (shadow, "NEEDED_RATIO"),
    (adaptive, "STEP_RATIO"),
    (adaptive, "HOLD_S"),
    (adaptive, "SEEN_S"),
    (adaptive, "START_S_DEFAULT"),
    (flow, "SPAN_S_MIN"),
    (flow, "SERVICE_S_DEFAULT"),
    (flow, "TASKS_REMEMBERED"),
)
MODULES = {name: module for module, name in CONSTANTS}


@dataclass(frozen=True, slots=True)
class Variant:
    """`name` of a constant and what it is multiplied with, or a setting of the trigger."""

    name: str
    factor: float = 1.0
    settings: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return self.name if self.factor == 1.0 else f"{self.name} x {self.factor:g}"


def variants() -> Iterator[Variant]:
    yield Variant("as shipped")
    for _, name in CONSTANTS:
        yield Variant(name, 0.5)
        yield Variant(name, 2.0)
    for name in NAMES:
        yield Variant(f"expert={name}", settings=(("expert", name),))
    for value in ("5", "20"):
        yield Variant(f"late_weight={value}", settings=(("late_weight", value),))


def day_of(arrivals: Sequence[Arrival], day: int) -> Sequence[Arrival]:
    """What comes on one day, counted from 1; all of a trace that ends before."""
    begins_s, ends_s = (day - 1) * DAY_S, day * DAY_S
    kept = [one for one in arrivals if begins_s <= one.offset_s < ends_s]
    return [replace(one, offset_s=one.offset_s - kept[0].offset_s) for one in kept] or arrivals


def read(path: Path, day: int | None) -> Sequence[Arrival]:
    return read_trace(path) if day is None else day_of(read_trace(path), day)


def planned_hours(path: Path, day: int | None) -> float:
    """Of the plan that knows all arrivals."""
    name = trace_name(path)
    if day is None:
        return PLANNED_HOURS[name]
    options = replace(Options(), concurrency=CONCURRENCIES.get(name, 1))
    return simulate(CLAIRVOYANT, read(path, day), options).agent_hours


def run(path: Path, variant: Variant, day: int | None, plan_hours: float) -> tuple[float, float, float]:
    """In a process of its own, for it changes constants: J, the late share in percent, and the hours ratio."""
    if variant.name in MODULES:
        setattr(MODULES[variant.name], variant.name, variant.factor * getattr(MODULES[variant.name], variant.name))
    name = trace_name(path)
    options = replace(Options(), concurrency=CONCURRENCIES.get(name, 1), settings=variant.settings)
    found = simulate("adaptive", read(path, day), options)
    return score(found, plan_hours), 100.0 * found.late_share, found.agent_hours / plan_hours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=Path, help="default: $AGENTD_SHARED/traces")
    parser.add_argument("--only", default="", metavar="TEXT", help="only traces whose name contains it")
    parser.add_argument(
        "--day", type=positive, metavar="N", help="only the N-th day of each trace; a shorter one whole"
    )
    parser.add_argument("--variants", default="", metavar="TEXT", help="only variants whose name contains it")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, metavar="N", help="default: one per core")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all figures to FILE as JSON")
    args = parser.parse_args()
    folder = args.traces or Path(os.environ["AGENTD_SHARED"]) / "traces"
    paths = [
        path
        for path in sorted(folder.glob("*.csv*"))
        if trace_name(path) in PLANNED_HOURS and trace_name(path) != APART and args.only in path.name
    ]
    chosen = [each for each in variants() if args.variants in str(each) or each.name == "as shipped"]
    if not paths:
        parser.error(f"no trace with a known plan in {folder}")
    # A process per run: a constant that one has changed must not be there in the next.
    with ProcessPoolExecutor(args.jobs, max_tasks_per_child=1) as pool:
        hours = list(pool.map(planned_hours, paths, [args.day] * len(paths)))
        futures = {
            str(each): [pool.submit(run, path, each, args.day, plan) for path, plan in zip(paths, hours, strict=True)]
            for each in chosen
        }
        found = {name: [future.result() for future in runs] for name, runs in futures.items()}
    means = {name: [statistics.fmean(column) for column in zip(*runs, strict=True)] for name, runs in found.items()}
    usual = means["as shipped"][0]
    rows = [("variant", "J", "to shipped", "late %", "hours ratio")]
    for name, (j, late, hours) in means.items():
        rows.append((name, f"{j:.3f}", f"{j - usual:+.3f}", f"{late:.2f}", f"{hours:.2f}"))
    print_table(rows)
    if args.out:
        report = {"day": args.day, "traces": [trace_name(path) for path in paths], "variants": found}
        args.out.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

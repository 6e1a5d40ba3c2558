"""How well policies size a pool, on recorded loads: lateness and agent-hours of each, in virtual time.

Every policy runs over every trace through the real controller, one process per core. J = agent-hours / those of a
clairvoyant plan + 0.1 for each percent of late requests, lower is better. The plan's hours of the public traces are
fixed, so that figures of different versions compare; a trace without is planned anew. The mean leaves azure-code out:
its bursts are faster than a start, and it is shown apart. At the end stands for each trace which policy of another
project has the lowest J, and by how much the first of agentd's own that was named is better or worse than that.

--thin SLOTS asks how small pools fare: of each trace requests are kept at random, with a fixed seed, until their work
keeps SLOTS slots busy in the mean (0.5: one agent of one slot has nothing to do half the time), and the plan is made
anew. A trace with less work than that stays as it is; the column `slots` has what each has in the end.

The traces are those of $AGENTD_SHARED/traces, or of the directory given with --traces.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from harness import positive, print_table
from msgspec import Struct
from msgspec.structs import replace

from agentd.sim.measure import Result
from agentd.sim.options import Options
from agentd.sim.outcome import CLAIRVOYANT, score
from agentd.sim.peers.policies import NAMES as PEERS
from agentd.sim.policies import OWN, PolicyError, check
from agentd.sim.run import simulate
from agentd.traces import CONCURRENCIES, Arrival, TraceError, read_trace, trace_name

# With a start of 30 s, 1 to 50 agents and an SLO of 5 s.
PLANNED_HOURS = {
    "servegen-chat-14d": 1864.0,
    "servegen-daily-14d": 853.0,
    "servegen-burst-14d": 652.0,
    "servegen-reasoning-1d": 129.0,
    "worldcup98-group-14d": 2037.0,
    "nasa-jul95-14d": 1580.0,
    "nab-tweets-amzn-14d": 836.0,
    "azure-code-2023": 6.7,
}
APART = "azure-code-2023"
THIN_SEED = 20260101
DEFAULTS = ("threshold", "demand", "hpa", "hpa-inflight", "kpa", "ray", "nomad")


class Run(Struct, frozen=True):
    """One policy on one trace, what it took, and the plan's hours to compare with. `slots`: the trace's mean demand."""

    trace: str
    slots: float
    result: Result
    cpu_s: float
    planned_hours: float = math.nan

    @property
    def j(self) -> float:
        return score(self.result, self.planned_hours)

    @property
    def hours_ratio(self) -> float:
        return self.result.agent_hours / self.planned_hours

    @property
    def late_percent(self) -> float:
        return 100.0 * self.result.late_share


class Verdict(Struct, frozen=True):
    """On one trace: the first of agentd's own policies, and the best of the others'. `better_percent`: of its J."""

    own: Run
    peer: Run

    @property
    def better_percent(self) -> float:
        return 100.0 * (1.0 - self.own.j / self.peer.j)

    @property
    def loses(self) -> bool:
        return self.own.j > self.peer.j


def mean_slots(arrivals: Sequence[Arrival]) -> float:
    """How many slots `arrivals` keep busy in the mean, until the last of them has ended."""
    end_s = max(one.offset_s + one.service_s for one in arrivals)
    return sum(one.service_s for one in arrivals) / end_s if end_s > 0.0 else 0.0


def thinned(arrivals: Sequence[Arrival], slots: float) -> Sequence[Arrival]:
    """As many of `arrivals`, at random but always the same, as keep `slots` busy in the mean; at least one."""
    share = slots / max(mean_slots(arrivals), 1e-9)
    if share >= 1.0:
        return arrivals
    left_s = share * sum(one.service_s for one in arrivals)
    kept = []
    for number in random.Random(THIN_SEED).sample(range(len(arrivals)), len(arrivals)):
        if left_s <= 0.0:
            break
        kept.append(number)
        left_s -= arrivals[number].service_s
    return [arrivals[number] for number in sorted(kept)]


def run(path: Path, policy: str, options: Options, thin_slots: float | None) -> Run:
    """In a process of its own: one policy on one trace, and the CPU it took."""
    name = trace_name(path)
    options = replace(options, concurrency=CONCURRENCIES.get(name, 1))
    arrivals: Sequence[Arrival] = read_trace(path)
    if not arrivals:
        raise TraceError(f"{path} has no requests")
    if thin_slots is not None:
        arrivals = thinned(arrivals, thin_slots)
    began = time.process_time()
    result = simulate(policy, arrivals, options)
    return Run(name, mean_slots(arrivals), replace(result, timeline=()), time.process_time() - began)


def runs(
    paths: Sequence[Path], policies: Sequence[str], options: Options, jobs: int, thin_slots: float | None = None
) -> list[Run]:
    """All of `policies` on all of `paths`, in that order."""
    usual = thin_slots is None and options == replace(Options(), seed=options.seed, settings=options.settings)
    fixed = PLANNED_HOURS if usual else {}
    wanted = [(path, policy) for path in paths for policy in policies]
    planned = [(path, CLAIRVOYANT) for path in paths if trace_name(path) not in fixed and CLAIRVOYANT not in policies]
    with ProcessPoolExecutor(jobs) as pool:
        futures = [pool.submit(run, path, policy, options, thin_slots) for path, policy in (*wanted, *planned)]
        done = []
        for number, future in enumerate(futures, 1):
            one = future.result()
            done.append(one)
            figures = f"{one.late_percent:.2f} % late, {one.result.agent_hours:.1f} agent-hours, {one.cpu_s:.0f} s"
            print(
                f"{number} of {len(futures)}: {one.trace}, {one.result.policy}: {figures}", file=sys.stderr, flush=True
            )
    hours = {one.trace: one.result.agent_hours for one in done if one.result.policy == CLAIRVOYANT} | fixed
    return [replace(one, planned_hours=hours[one.trace]) for one in done[: len(wanted)]]


def means(found: Sequence[Run], policies: Sequence[str]) -> Iterator[tuple[str, float, float, float]]:
    """Per policy the means of J, percent late and the ratio of hours, over all traces but the one apart."""
    for policy in policies:
        mine = [one for one in found if one.result.policy == policy and one.trace != APART]
        if mine:
            yield policy, *(sum(column) / len(mine) for column in zip(*map(_figures, mine), strict=True))


def verdicts(found: Sequence[Run], policies: Sequence[str]) -> Iterator[Verdict]:
    """For each trace, where policies of agentd and of others were run; `static:N` and a plan are nobody's."""
    own = next((policy for policy in policies if policy in OWN), None)
    for trace in dict.fromkeys(one.trace for one in found):
        here = [one for one in found if one.trace == trace]
        mine = [one for one in here if one.result.policy == own]
        others = [one for one in here if one.result.policy in PEERS]
        if mine and others:
            yield Verdict(mine[0], min(others, key=lambda one: one.j))


def _figures(one: Run) -> tuple[float, float, float]:
    return one.j, one.late_percent, one.hours_ratio


def show(found: Sequence[Run], policies: Sequence[str]) -> None:
    rows: list[tuple[str, ...]] = [
        ("trace", "policy", "slots", "J", "late %", "hours ratio", "unserved", "starts", "CPU s", "eval/s")
    ]
    for one in found:
        rate = one.result.evaluations / max(one.cpu_s, 1e-9)
        rows.append(
            (one.trace, one.result.policy, f"{one.slots:.2f}", f"{one.j:.2f}", f"{one.late_percent:.2f}",
             f"{one.hours_ratio:.2f}", str(one.result.unserved), str(one.result.starts), f"{one.cpu_s:.1f}",
             f"{rate:,.0f}")
        )  # fmt: skip
    print_table(rows)
    print()
    summary: list[tuple[str, ...]] = [("mean of all but azure-code", "J", "late %", "hours ratio")]
    summary += [(policy, *(f"{value:.2f}" for value in values)) for policy, *values in means(found, policies)]
    print_table(summary)
    show_verdicts(list(verdicts(found, policies)))


def show_verdicts(judged: Sequence[Verdict]) -> None:
    if not judged:
        return
    own = judged[0].own.result.policy
    rows: list[tuple[str, ...]] = [("trace", "best other", "its J", f"J of {own}", own, "")]
    for one in judged:
        words = "worse" if one.loses else "better"
        change = f"{abs(one.better_percent):.1f} % {words}"
        rows.append(
            (one.own.trace, one.peer.result.policy, f"{one.peer.j:.2f}", f"{one.own.j:.2f}", change,
             "LOSES" if one.loses else "")
        )  # fmt: skip
    print()
    print_table(rows)
    print(f"{own} loses on {sum(one.loses for one in judged)} of {len(judged)}")


def document(
    found: Sequence[Run], policies: Sequence[str], options: Options, thin_slots: float | None
) -> dict[str, object]:
    return {
        "startup_s": options.startup_s,
        "slo_s": options.slo_s,
        "max": options.agents_max,
        "seed": options.seed,
        "thin_slots": thin_slots,
        "set": dict(options.settings),
        "runs": [
            {
                "trace": one.trace, "policy": one.result.policy, "slots": one.slots, "j": one.j,
                "late_share": one.result.late_share, "hours_ratio": one.hours_ratio,
                "agent_hours": one.result.agent_hours, "unserved": one.result.unserved,
                "starts": one.result.starts, "peak": one.result.peak, "evaluations": one.result.evaluations,
                "cpu_s": one.cpu_s,
            }
            for one in found
        ],
        "means": {
            policy: {"j": j, "late_percent": late, "hours_ratio": ratio}
            for policy, j, late, ratio in means(found, policies)
        },
        "verdicts": [
            {
                "trace": one.own.trace, "policy": one.own.result.policy, "j": one.own.j,
                "peer": one.peer.result.policy, "peer_j": one.peer.j, "better_percent": one.better_percent,
                "loses": one.loses,
            }
            for one in verdicts(found, policies)
        ],
    }  # fmt: skip


def slots(text: str) -> float:
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no number of busy slots above 0; for example 0.5")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", metavar="POLICY", help=f"default: {' '.join(DEFAULTS)}")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="default: $AGENTD_SHARED/traces")
    parser.add_argument("--only", default="", metavar="TEXT", help="only traces whose name contains it")
    parser.add_argument("--thin", type=slots, metavar="SLOTS", help="keep requests at random, for so many busy slots")
    parser.add_argument("--startup", type=float, default=30.0, metavar="S", help="start-up delay (default: 30)")
    parser.add_argument("--max", type=positive, default=50, metavar="N", help="the most agents (default: 50)")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the pool's configuration")
    parser.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, metavar="N", help="default: one per core")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all figures to FILE as JSON")
    given = parser.parse_args()
    folder = given.traces or (Path(os.environ["AGENTD_SHARED"]) / "traces" if "AGENTD_SHARED" in os.environ else None)
    paths = sorted(path for path in folder.glob("*.csv*") if given.only in path.name) if folder else []
    if not paths:
        parser.error("no traces: name a directory with --traces, or in $AGENTD_SHARED the one above it")
    pairs = tuple((key, value) for key, _, value in (words.partition("=") for words in given.set))
    options = Options(startup_s=given.startup, agents_max=given.max, seed=given.seed, settings=pairs)
    policies = given.policies or list(DEFAULTS)
    try:
        check(policies, options)
        found = runs(paths, policies, options, given.jobs, given.thin)
    except (PolicyError, TraceError) as error:
        parser.error(str(error))
    show(found, policies)
    if given.out:
        given.out.write_text(
            json.dumps(document(found, policies, options, given.thin), indent=2) + "\n", encoding="utf-8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`agentctl optimize`: which settings would have served the recorded load better, and putting them in force."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentd.agentctl import loads, optimize_apply
from agentd.agentctl.command import USAGE, Command, Duration, Failure, Session, Whole, show_json
from agentd.agentctl.terminal import Column, Table, show, styled, table_width
from agentd.agentctl.text import duration, plural, printable, seconds

if TYPE_CHECKING:
    from agentd.core.model import PoolConfig
    from agentd.sim.optimize import Finding, Standing
    from agentd.sim.prices import Prices
    from agentd.sim.trials import Case
    from agentd.v1 import control_pb2 as pb

_BAR = 30
_INSTEAD = "a trace (--trace)"
# The mean number of agents in a simulation and on record that still go together.
_NEAR_RATIO = 1.3


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options say of every pool."""

    trace: Path | None
    for_s: float
    slo_s: float
    startup_s: float | None
    service_s: float | None
    runs: int
    seed: int
    limit_s: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one pool. `finding` None: `reason` says why there is none. `text`: the drop-in, with a best.

    `recorded`: how many agents it had, in the mean, in the last so many seconds of its history.
    """

    pool: str
    told: tuple[str, ...] = ()
    reason: str = ""
    finding: Finding | None = None
    prices: Prices | None = None
    text: str = ""
    recorded: Callable[[float], float] | None = None


@click.command(
    cls=Command,
    examples=(
        "agentctl optimize --pool research",
        "agentctl optimize --for 3d --slo 2s --time-limit 10m --apply",
        "agentctl optimize --pool research --trace load.csv.gz",
    ),
)
@click.option("--pool", "names", multiple=True, help="Only this pool; may be repeated. Default: all that can change.")
@click.option("--trace", type=loads.FILE, help="A recorded load instead of the history, as for simulate; needs --pool.")
@loads.FOR
@click.option(
    "--slo", "slo_s", type=Duration(), default="5s", show_default=True, help="A task that waits longer is late."
)
@click.option("--startup", "startup_s", type=Duration(), help="What a start takes. Default: as it did lately, or 30s.")
@click.option(
    "--service",
    "service_s",
    type=Duration(),
    help="Mean time of a task. Default: as in the history, or as agents report.",
)
@click.option("--budget-of-runs", "runs", type=Whole(4, 10_000), default=80, show_default=True, help="Simulations.")
@click.option("--time-limit", "limit_s", type=Duration(), default="2m", show_default=True, help="For all pools.")
@click.option("--seed", type=Whole(0, 2**31 - 1), default=1, show_default=True, help="Of the draws.")
@loads.CONFIG
@loads.STATE_DIR
@click.option("--apply", "applied", is_flag=True, help="Write what is recommended as a drop-in, and reload.")
@click.option("--yes", is_flag=True, help="With --apply: do not ask.")
@click.pass_obj
def optimize(
    session: Session, names: tuple[str, ...], trace: Path | None, for_s: float, slo_s: float, startup_s: float | None,
    service_s: float | None, runs: int, limit_s: float, seed: int, config_file: Path | None, state_dir: Path | None,
    *, applied: bool, yes: bool,
) -> None:  # fmt: skip
    """Search settings that would have served the recorded load of a pool better, and say which.

    The history of the running agentd, or a trace, is run again through agentd's own controller in virtual time, under
    today's settings and others. A change is recommended only where it is better by more than its uncertainty, with
    the exact configuration. Nothing changes without --apply, which writes a drop-in beside the configuration file
    (agentd.yaml.d/50-optimize-POOL.yaml) after showing it and asking, and reloads. docs/optimize.md says how.
    """
    if applied and session.json and not yes:
        raise Failure("--apply with --output json asks nothing: say --yes", USAGE)
    recorded = loads.source(session, config_file, state_dir)
    status, file, found = recorded.status, recorded.file, recorded.config
    if applied and file is None:
        raise Failure("--apply needs a configuration file to put a drop-in beside: give --config", USAGE)
    for name in names:
        if recorded.pool(name) is None:
            known = ", ".join(found.fleet.pools)
            raise Failure(f"--pool {name}: there is no such pool; the configuration has {known}", USAGE)
    pools = names or tuple(pool.name for pool in found.fleet.pools.values() if pool.ports and pool.min < pool.max)
    if trace is not None and len(pools) != 1:
        raise Failure(f"a trace is the load of one pool: say --pool; there are {', '.join(found.fleet.pools)}", USAGE)
    each_s = limit_s / max(1, len(pools))
    wishes = Wishes(trace, for_s, slo_s, startup_s, service_s, runs, seed, each_s)
    outcomes = [_one(pool, recorded, wishes) for pool in pools]
    advice = [one for one in status.advice if not names or one.pool in names] if status is not None else []
    if session.json:
        show_json({"pools": [_value(one) for one in outcomes], "advice": [_advice(one) for one in advice]})
    else:
        for outcome in outcomes:
            show(_report(outcome, slo_s))
        if advice:
            lines = [f"{one.pool or 'all'}: {one.text} [{one.code}]" for one in advice]
            show([styled("Besides", "strong"), *map(printable, lines)])
    texts = {one.pool: one.text for one in outcomes if one.text}
    if applied and file is not None and texts:
        reads = status is not None and Path(status.config_file).absolute() == file.absolute()
        optimize_apply.apply(session, file, texts, yes=yes, reads=reads)
    elif applied and not session.json:
        show(["there is nothing to apply"])


def _one(pool: str, recorded: loads.Source, wishes: Wishes) -> Outcome:
    """The search for one pool, with a bar on a terminal."""
    from agentd.sim.candidates import candidates
    from agentd.sim.optimize import Budget, OutOfTime, search
    from agentd.sim.subject import UnfitError, adaptive, subject
    from agentd.sim.trials import Case
    from agentd.sim.world import TRACE_WALL

    own, configured = recorded.pool(pool), recorded.config.fleet
    startup_s, origin = recorded.startup(pool, wishes.startup_s)
    try:
        subject(configured, pool, startup_s=startup_s, shows_queue=False)  # mistakes before reading much
        assert own is not None, "a pool that is not there is refused"
        if wishes.trace is not None:
            load = loads.from_trace(wishes.trace, wishes.service_s)
        else:
            load = loads.from_history(recorded, own, for_s=wishes.for_s, service_s=wishes.service_s, instead=_INSTEAD)
        fleet = subject(configured, pool, startup_s=startup_s, shows_queue=load.shows_queue)
    except (UnfitError, loads.TooLittle) as error:
        return Outcome(pool, reason=str(error))
    told = (*load.told, *_unseen(load, own), f"agents are ready after {seconds(startup_s)} ({origin})")
    like = adaptive(own)
    wall = TRACE_WALL if load.wall is None else load.wall
    case: Case = Case(fleet, load.requests, startup_s, wishes.slo_s, like.late_weight, wall, load.tells_tasks)
    try:
        finding = search(
            case, candidates(wishes.slo_s, like, tells_tasks=load.tells_tasks),
            Budget(wishes.runs, wishes.limit_s, time.monotonic),
            seed=wishes.seed, on_progress=_bar(pool),
        )  # fmt: skip
    except OutOfTime:
        reason = f"not even today's settings could be simulated in {duration(wishes.limit_s)}: give --time-limit"
        return Outcome(pool, told, reason)
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    text = ""
    if finding.best is not None:
        text = optimize_apply.dropin(recorded.file, pool, finding.best.candidate, _why(finding, wishes.slo_s))
    return Outcome(pool, told, "", finding, _prices(own, recorded.status), text, load.agents)


def _unseen(load: loads.Load, pool: PoolConfig) -> list[str]:
    """What the simulated policies do not see, as those of the recorded pool did not."""
    told = []
    if not load.tells_tasks:
        told.append(
            "      the simulated agents tell only their load either: settings that need to know of tasks are not tried"
        )
    if not load.shows_queue and pool.collector("queue") is None:
        told.append("      nothing was ever seen to wait: what would wait is seen by no policy either")
    return told


def _prices(own: PoolConfig, status: pb.Status | None) -> Prices:
    """With what the agents of the running agentd use now."""
    from agentd.sim.prices import prices

    if status is None:
        return prices(own)
    memory = [one.footprint_bytes for one in status.pools if one.name == own.name and one.footprint_learned]
    agents = [one for one in status.instances if one.pool == own.name and one.HasField("cpu_cores")]
    return prices(own, memory_bytes=memory[0] if memory else None, cores=[one.cpu_cores for one in agents])


def _bar(pool: str) -> Callable[[str, float], None]:
    shown = sys.stderr.isatty()

    def progress(name: str, share: float) -> None:
        if shown:
            filled = round(_BAR * min(1.0, share))
            drawn = f"{'#' * filled}{'.' * (_BAR - filled)}"
            print(f"\r\x1b[K{pool} [{drawn}] {name}"[:110], end="", file=sys.stderr, flush=True)

    return progress


def _why(finding: Finding, slo_s: float) -> list[str]:
    best, today = finding.best, finding.today
    assert best is not None, "a recommendation has a best"
    was = f"today {100.0 * today.late_share:.2f} %"
    late = f"{100.0 * best.late_share:.2f} % of tasks waiting above {seconds(slo_s)} ({was})"
    hours = f"{best.agent_hours:,.1f} agent-hours (today {today.agent_hours:,.1f})"
    return [
        f"Made by agentctl optimize: {best.candidate.name}.",
        f"Expected on the recorded load of {duration(finding.length_s)}: {late},",
        f"{hours}, better than today with {_sure(best)} confidence.",
    ]


def _sure(one: Standing) -> str:
    """A bootstrap cannot tell more than a few in a thousand from none."""
    return f"{100.0 * one.confidence:.0f} %" if one.confidence <= 0.99 else "over 99 %"


def _report(outcome: Outcome, slo_s: float) -> list[str]:
    finding = outcome.finding
    lines = [styled(printable(outcome.pool), "strong"), *(printable(line) for line in outcome.told)]
    if finding is None:
        return [*lines, printable(f"no recommendation: {outcome.reason}"), ""]
    compared = len(finding.others) + bool(finding.best)
    lines += [
        f"compared: {finding.tried} settings in {plural(finding.runs, 'simulation')}, then the best {compared} and"
        f" today's on {duration(finding.length_s)}, {plural(finding.seeds, 'seed')}; late: waits above {seconds(slo_s)}"
    ]
    if finding.held_out:
        lines.append(f"chosen without the last {duration(finding.length_s)} of the load, and measured on these alone")
    else:
        lines.append(
            "chosen and measured on the same load, too short to hold some of it back: expect less than it says"
        )
    if finding.cut_short:
        lines.append("the runs or the time did not suffice for all: --budget-of-runs, --time-limit")
    lines += ["", *_table(finding, outcome.prices).lines(table_width()), ""]
    lines.append(
        "GAIN: how much lower J = agent-hours / those of a plan that knows all arrivals + weight x late share is,"
        f" within 95 % bounds (bootstrap over {finding.pieces} pieces of {duration(finding.piece_s)})"
    )
    if outcome.prices is not None and outcome.prices.told:
        lines.append(outcome.prices.told)
    lines += _plausible(finding, outcome.recorded)
    if finding.best is None:
        return [*lines, "no change is recommended: nothing is better than today by more than its uncertainty", ""]
    return [*lines, f"recommended: {finding.best.candidate.name}", "", *outcome.text.splitlines(), ""]


def _plausible(finding: Finding, recorded: Callable[[float], float] | None) -> list[str]:
    """How many agents today's settings have beside how many were recorded, which is how wrong guesses show."""
    if recorded is None:
        return []
    mean, then = finding.today.agent_hours * 3600.0 / max(1.0, finding.length_s), recorded(finding.length_s)
    told = [f"today's settings have {mean:.1f} agents in the mean here, the pool had {then:.1f} in that time"]
    if max(mean, then) > _NEAR_RATIO * min(mean, then):
        told.append(
            "      that is far apart: where its settings were the same then, trust none of it, and say --service and"
            " --startup"
        )
    return told


def _table(finding: Finding, prices: Prices | None) -> Table:
    columns = [
        Column("SETTING"),
        Column("LATE", right=True),
        Column("P95 WAIT", right=True),
        Column("HOURS", right=True),
    ]
    columns += [Column("COST", right=True, drop=2)] * bool(prices)
    columns += [Column("VS TODAY", right=True), Column("GAIN", right=True, drop=1), Column("SURE", right=True)]
    table = Table(columns)
    today = finding.today
    rows: Sequence[Standing] = (today, *((finding.best,) if finding.best else ()), *finding.others)
    for one in rows:
        cells: list[object] = [
            one.candidate.name, f"{100.0 * one.late_share:.2f} %", seconds(one.wait_p95_s), f"{one.agent_hours:,.1f}"
        ]  # fmt: skip
        cells += [f"{prices.of(one.agent_hours, finding.requests):,.2f}"] if prices else []
        if one is today:
            table.add(*cells, None, None, None)
            continue
        change = 100.0 * (one.agent_hours / max(today.agent_hours, 1e-9) - 1.0)
        gain = f"{one.gain:+.2f} ({one.gain_low:+.2f} to {one.gain_high:+.2f})"
        table.add(*cells, f"{change:+.0f} % hours", gain, _sure(one))
    return table


def _value(outcome: Outcome) -> dict[str, object]:
    finding = outcome.finding
    value: dict[str, object] = {"pool": outcome.pool, "reason": outcome.reason, "told": list(outcome.told)}
    if finding is None:
        return value | {"today": None, "best": None, "others": [], "search": None, "config": ""}
    search = {
        "tried": finding.tried, "runs": finding.runs, "seeds": finding.seeds, "requests": finding.requests,
        "length_s": finding.length_s, "pieces": finding.pieces, "piece_s": finding.piece_s,
        "cut_short": finding.cut_short, "held_out": finding.held_out,
    }  # fmt: skip
    return value | {
        "today": _standing(finding.today, finding, outcome.prices),
        "best": None if finding.best is None else _standing(finding.best, finding, outcome.prices),
        "others": [_standing(one, finding, outcome.prices) for one in finding.others],
        "search": search,
        "config": outcome.text,
    }


def _advice(one: pb.Advice) -> dict[str, str]:
    return {"code": one.code, "pool": one.pool, "text": one.text}


def _standing(one: Standing, finding: Finding, prices: Prices | None) -> dict[str, object]:
    cost = prices.of(one.agent_hours, finding.requests) if prices else 0.0
    return {
        "setting": one.candidate.name, "late_share": one.late_share, "wait_p95_s": one.wait_p95_s,
        "agent_hours": one.agent_hours, "cost": cost, "peak": one.peak, "j": one.j, "gain": one.gain,
        "gain_low": one.gain_low, "gain_high": one.gain_high, "confidence": one.confidence,
    }  # fmt: skip

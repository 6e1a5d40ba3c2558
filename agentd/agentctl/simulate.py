"""`agentctl simulate`: policies on a recorded load, a trace or the history of a pool, in virtual time."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentd.agentctl import loads
from agentd.agentctl.command import USAGE, Command, Duration, Failure, Session, Whole, show_json
from agentd.agentctl.terminal import Column, Table, show, table_width
from agentd.agentctl.text import plural, printable, seconds

if TYPE_CHECKING:
    from agentd.core.model import FleetConfig, PoolConfig
    from agentd.sim.measure import Result
    from agentd.sim.options import Options
    from agentd.sim.outcome import Json
    from agentd.traces import Arrival

_BAR = 30
_AGENTS_MAX = 5_000
_DISPATCH = click.Choice(["least-loaded", "most-loaded", "first", "random", "at-once"])
_DRAIN = click.Choice(["finish", "deadline"])
_TELL = click.Choice(["tasks", "load"])
_SHARE = click.FloatRange(0.0, 0.9)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the options say of the agents and their tasks. None: as the load has it."""

    startup_s: float | None
    concurrency: int | None
    agents_max: int | None
    service_s: float | None
    tell: str | None


@dataclass(frozen=True, slots=True)
class Basis:
    """What all policies have in common. `told`: what a load was made into; `history`: the same of one, for programs."""

    name: str
    arrivals: Sequence[Arrival]
    options: Options
    service_s: float | None
    told: tuple[str, ...] = ()
    history: Json = None


def _settings(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{value!r} is no setting; write for example min=2", ctx, param)
        pairs.append((key.strip(), text.strip()))
    return tuple(pairs)


def _names(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    names = [name.strip() for value in values for name in value.split(",")]
    if values and not any(names):
        raise click.BadParameter("no policy is named", ctx, param)
    return tuple(dict.fromkeys(name for name in names if name))


@click.command(
    cls=Command,
    examples=(
        "agentctl simulate load.csv --policy threshold,hpa,clairvoyant",
        "agentctl simulate counts.csv.gz --service 20s --concurrency 2 --startup 5s",
        "agentctl simulate load.csv --set scale_up_threshold=0.8 --plot out.svg",
        "agentctl simulate --history research --for 3d --policy demand,clairvoyant",
    ),
)
@click.argument("trace", type=loads.FILE, required=False)
@click.option("--history", metavar="POOL", help="What agentd has recorded of this pool, instead of a TRACE.")
@loads.FOR
@loads.CONFIG
@loads.STATE_DIR
@click.option("--policy", "policies", multiple=True, callback=_names, help="Which, with commas. Default: threshold.")
@click.option("--startup", "startup_s", type=Duration(), help="What a start takes. Default: 30s, or the pool's.")
@click.option("--concurrency", type=Whole(1, 10_000), help="Tasks of an agent at a time. Default: 1, or the load's.")
@click.option("--max", "agents_max", type=Whole(1, _AGENTS_MAX), help="The most agents. Default: 50, or the pool's.")
@click.option("--service", "service_s", type=Duration(), help="Mean time of a task, where the load does not say it.")
@click.option("--slo", "slo_s", type=Duration(), default="5s", show_default=True, help="A longer wait is late.")
@click.option("--seed", type=Whole(0, 2**63 - 1), default=1, show_default=True, help="The same gives the same bytes.")
@click.option("--set", "settings", multiple=True, callback=_settings, help="KEY=VALUE of a pool's configuration.")
@click.option("--initial", type=Whole(0, 5_000), help="Agents at the start. Default: right for the load's opening.")
@click.option("--dispatch", type=_DISPATCH, default="least-loaded", show_default=True, help="Who gets a request.")
@click.option("--drain", type=_DRAIN, default="finish", show_default=True, help="What ends a drain: tasks, or time.")
@click.option("--beat-jitter", type=_SHARE, default=0.0, show_default=True, help="The share that beats may be early.")
@click.option("--beat-loss", type=_SHARE, default=0.0, show_default=True, help="The share of beats that is lost.")
@click.option("--tell", type=_TELL, help="Tasks beside the load, or load alone. Default: tasks, or as the pool's told.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw a picture: FILE.svg, or FILE.png.")
@click.pass_obj
def simulate(
    session: Session, trace: Path | None, history: str | None, for_s: float, config_file: Path | None,
    state_dir: Path | None, policies: tuple[str, ...], startup_s: float | None, concurrency: int | None,
    agents_max: int | None, service_s: float | None, slo_s: float, seed: int, settings: tuple[tuple[str, str], ...],
    initial: int | None, dispatch: str, drain: str, beat_jitter: float, beat_loss: float, tell: str | None,
    plot: Path | None,
) -> None:  # fmt: skip
    """Run policies over recorded requests, through the controller that agentd runs, in virtual time.

    TRACE is CSV or gzip CSV with the header offset_s,service_s (one line for each request) or offset_s,arrivals (one
    for each piece of time). With --history POOL instead the requests are rebuilt from what agentd has recorded of that
    pool, as for optimize, and the pool says how long a start takes, how many tasks an agent has, and how many agents
    there may be. The policies: agentd's own (threshold, target, demand, latency, adaptive), hpa, hpa-inflight, kpa,
    ray, nomad, static:N, and clairvoyant, which knows all arrivals; with it the table has
    J = agent-hours / clairvoyant's + 0.1 for each percent late.
    """
    from agentd.sim.options import Options

    options = Options(
        slo_s=slo_s, seed=seed, settings=settings, dispatch=dispatch, drain=drain, initial=initial,
        beat_jitter_ratio=beat_jitter, beat_loss_ratio=beat_loss,
    )  # fmt: skip
    wishes = Wishes(startup_s, concurrency, agents_max, service_s, tell)
    _one_load(trace, history)
    try:
        if trace is not None:
            basis = _traced(trace, wishes, options)
        else:
            recorded = loads.source(session, config_file, state_dir)
            basis = _recorded(recorded, history or "", for_s, wishes, options)
    except loads.TooLittle as error:
        raise Failure(str(error) if history is None else f"{history}: {error}") from None
    _simulate(session, basis, policies or ("threshold",), plot)


def _one_load(trace: Path | None, history: str | None) -> None:
    """Refuse none, two, and what says where a history is without asking for it."""
    if (trace is None) == (history is None):
        given = "neither is given" if trace is None else "both are given"
        raise Failure(f"the load is a TRACE or --history POOL: {given}; see agentctl simulate --help", USAGE)
    ctx = click.get_current_context()
    said = [
        option.opts[0]
        for option in ctx.command.params
        if option.name in ("for_s", "config_file", "state_dir")
        and ctx.get_parameter_source(option.name) is not click.core.ParameterSource.DEFAULT
    ]
    if trace is not None and said:
        raise Failure(f"{' and '.join(said)} can only be said with --history POOL, not of a TRACE", USAGE)


def _traced(trace: Path, wishes: Wishes, options: Options) -> Basis:
    from msgspec.structs import replace

    from agentd.traces import CONCURRENCIES, trace_name

    name = trace_name(trace)
    load = loads.from_trace(trace, wishes.service_s)
    options = replace(
        options,
        startup_s=wishes.startup_s or options.startup_s,
        concurrency=wishes.concurrency or CONCURRENCIES.get(name, options.concurrency),
        agents_max=wishes.agents_max or options.agents_max,
        tell=wishes.tell or options.tell,
    )
    return Basis(name, load.requests(options.seed), options, load.service_s, load.told[1:])


def _recorded(recorded: loads.Source, name: str, for_s: float, wishes: Wishes, options: Options) -> Basis:
    """What the history of the pool `name` and its configuration give; what the options say goes before."""
    from msgspec.structs import replace

    from agentd.sim.options import LOAD, TASKS
    from agentd.sim.subject import agents_max

    pool = recorded.pool(name)
    if pool is None:
        known = ", ".join(recorded.config.fleet.pools)
        raise Failure(f"--history {name}: there is no such pool; the configuration has {known}", USAGE)
    most = wishes.agents_max or max(1, agents_max(pool))
    if most > _AGENTS_MAX:
        raise Failure(f"{name} may have {most} agents, and a simulation {_AGENTS_MAX} at most: say --max", USAGE)
    load = loads.from_history(recorded, pool, for_s=for_s, service_s=wishes.service_s, instead="a TRACE")
    startup_s, origin = recorded.startup(name, wishes.startup_s)
    options = replace(
        options,
        startup_s=startup_s,
        concurrency=wishes.concurrency or pool.concurrency,
        agents_max=most,
        tell=wishes.tell or (TASKS if load.tells_tasks else LOAD),
        wall=load.wall,
    )
    ready = f"agents are ready after {seconds(startup_s)} ({origin})"
    terms = _configured(wishes, options, configured=recorded.file is not None)
    told = (*load.told, *_seen(load, pool, options), ready, *terms)
    about: dict[str, Json] = {"pool": name, "for_s": for_s, "told": list(told)}
    return Basis(name, load.requests(options.seed), options, load.service_s, told, about)


def _seen(load: loads.Load, pool: PoolConfig, options: Options) -> list[str]:
    """What the simulated policies see, where that is in question."""
    from agentd.sim.options import LOAD

    told = []
    if not load.tells_tasks:
        told.append(
            "      the simulated agents tell only their load either (--tell tasks: their tasks, too)"
            if options.tell == LOAD
            else "      the simulated agents tell their tasks all the same (--tell)"
        )
    if options.tell != LOAD and not load.shows_queue and pool.collector("queue") is None:
        told.append(
            "      nothing was ever seen to wait; what waits here is seen all the same (--tell load: it is not)"
        )
    return told


def _configured(wishes: Wishes, options: Options, *, configured: bool) -> list[str]:
    known = "as configured" if configured else "as without a configuration; say --config"
    tasks = known if wishes.concurrency is None else "--concurrency"
    most = known if wishes.agents_max is None else "--max"
    return [
        f"agents have {plural(options.concurrency, 'task')} at a time ({tasks}), there are {options.agents_max} at most"
        f" ({most});",
        "      nothing else of the pool's configuration counts here: --set",
    ]


def _simulate(session: Session, basis: Basis, policies: Sequence[str], plot: Path | None) -> None:
    from agentd.sim import plot as drawing
    from agentd.sim.policies import PolicyError, check

    options, arrivals = basis.options, basis.arrivals
    title = f"{basis.name}: {plural(len(arrivals), 'request')}"
    try:
        if plot is not None:
            drawing.check(plot)
        fleet = check(policies, options)  # mistakes before minutes of work
        results = [_run(policy, arrivals, options) for policy in policies]
    except PolicyError as error:
        raise Failure(str(error), USAGE) from error
    except drawing.PlotError as error:
        raise Failure(str(error)) from error
    _print(session, basis, fleet, results, title)
    try:
        if plot is not None:
            drawing.write(plot, title, results, options.concurrency)
    except drawing.PlotError as error:
        raise Failure(str(error)) from error


def _print(session: Session, basis: Basis, fleet: FleetConfig, results: Sequence[Result], title: str) -> None:
    from agentd.sim import outcome
    from agentd.sim.policies import POOL, initial

    options, arrivals = basis.options, basis.arrivals
    if session.json:
        document = outcome.document(
            basis.name, results, options, agents_min=fleet.pools[POOL].min, initial=initial(fleet, options, arrivals),
            service_s=basis.service_s, history=basis.history,
        )  # fmt: skip
        show_json(document)
        return
    told = map(printable, basis.told)
    show([f"{title}, late above {seconds(options.slo_s)}", *told, *outcome.behaviour(options), ""])
    show(_table(results, outcome.clairvoyant_hours(results), outcome.score).lines(table_width()))


def _run(policy: str, arrivals: Sequence[Arrival], options: Options) -> Result:
    """One policy, with a bar on a terminal, and how fast it was."""
    from agentd.sim.run import simulate as run

    bar = sys.stderr.isatty()

    def progress(share: float) -> None:
        filled = round(_BAR * share)
        drawn = f"{'#' * filled}{'.' * (_BAR - filled)}"
        print(f"\r{policy:>14} [{drawn}] {100.0 * share:3.0f} %", end="", file=sys.stderr, flush=True)

    began = time.process_time()
    result = run(policy, arrivals, options, progress if bar else None)
    took_s = max(1e-9, time.process_time() - began)
    if bar:
        print("\r\x1b[K", end="", file=sys.stderr)
    speed = f"{result.evaluations / took_s:,.0f} evaluations and {result.steps / took_s:,.0f} steps per second"
    print(f"{policy}: {took_s:.1f} s of CPU, {speed}", file=sys.stderr, flush=True)
    return result


def _table(results: Sequence[Result], hours: float | None, score: Callable[[Result, float], float]) -> Table:
    columns = [Column("POLICY")]
    columns += [Column("J", right=True)] * (hours is not None)
    columns += [Column(title, right=True, drop=drop) for title, drop in _COLUMNS]
    table = Table(columns)
    for result in results:
        cells: list[object] = [result.policy]
        cells += [f"{score(result, hours):.2f}"] if hours is not None else []
        table.add(
            *cells, f"{100.0 * result.late_share:.2f} %", result.unserved or None, seconds(result.wait_p50_s),
            seconds(result.wait_p95_s), seconds(result.wait_p99_s), f"{result.agent_hours:,.1f}", f"{result.cost:,.2f}",
            result.starts, result.peak, f"{result.ups}/{result.downs}/{result.held}",
        )  # fmt: skip
    return table


_COLUMNS = (
    ("LATE", 0), ("UNSERVED", 2), ("P50", 4), ("P95", 0), ("P99", 3), ("HOURS", 0), ("COST", 5), ("STARTS", 6),
    ("PEAK", 7), ("UP/DOWN/HELD", 8),
)  # fmt: skip

"""`agentctl simulate`: policies on a recorded load, in virtual time. It needs no agentd."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentd.agentctl.command import USAGE, Command, Duration, Failure, Session, Whole, show_json
from agentd.agentctl.terminal import Column, Table, show, table_width
from agentd.agentctl.text import plural, seconds

if TYPE_CHECKING:
    from agentd.sim.measure import Result
    from agentd.sim.options import Options
    from agentd.traces import Arrival

_BAR = 30
_DISPATCH = click.Choice(["least-loaded", "most-loaded", "first", "random", "at-once"])
_DRAIN = click.Choice(["finish", "deadline"])
_TELL = click.Choice(["tasks", "load"])
_SHARE = click.FloatRange(0.0, 0.9)


def _settings(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key.strip():
            raise click.BadParameter(f"{value!r} is no setting; write for example min=2", ctx, param)
        pairs.append((key.strip(), text.strip()))
    return tuple(pairs)


def _names(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    del ctx, param
    names = [name.strip() for value in values for name in value.split(",")]
    return tuple(dict.fromkeys(name for name in names if name))


@click.command(
    cls=Command,
    examples=(
        "agentctl simulate load.csv --policy threshold,hpa,clairvoyant",
        "agentctl simulate counts.csv.gz --service 20s --concurrency 2 --startup 5s",
        "agentctl simulate load.csv --set scale_up_threshold=0.8 --plot out.svg",
    ),
)
@click.argument("trace", type=click.Path(path_type=Path, readable=False))
@click.option("--policy", "policies", multiple=True, callback=_names, help="Which, with commas. Default: threshold.")
@click.option("--startup", "startup_s", type=Duration(), default="30s", show_default=True, help="What a start takes.")
@click.option("--concurrency", type=Whole(1, 10_000), help="Tasks of an agent at a time. Default: 1, or the trace's.")
@click.option("--max", "agents_max", type=Whole(1, 5_000), default=50, show_default=True, help="The most agents.")
@click.option("--service", "service_s", type=Duration(), help="Mean time of a task, for a trace that counts arrivals.")
@click.option("--slo", "slo_s", type=Duration(), default="5s", show_default=True, help="A longer wait is late.")
@click.option("--seed", type=Whole(0, 2**63 - 1), default=1, show_default=True, help="The same gives the same bytes.")
@click.option("--set", "settings", multiple=True, callback=_settings, help="KEY=VALUE of a pool's configuration.")
@click.option("--initial", type=Whole(0, 5_000), help="Agents at the start. Default: right for the trace's opening.")
@click.option("--dispatch", type=_DISPATCH, default="least-loaded", show_default=True, help="Who gets a request.")
@click.option("--drain", type=_DRAIN, default="finish", show_default=True, help="What ends a drain: tasks, or time.")
@click.option("--beat-jitter", type=_SHARE, default=0.0, show_default=True, help="The share that beats may be early.")
@click.option("--beat-loss", type=_SHARE, default=0.0, show_default=True, help="The share of beats that is lost.")
@click.option("--tell", type=_TELL, default="tasks", show_default=True, help="Tasks beside the load, or load alone.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw a picture: FILE.svg, or FILE.png.")
@click.pass_obj
def simulate(
    session: Session,
    trace: Path,
    policies: tuple[str, ...],
    startup_s: float,
    concurrency: int | None,
    agents_max: int,
    service_s: float | None,
    slo_s: float,
    seed: int,
    settings: tuple[tuple[str, str], ...],
    initial: int | None,
    dispatch: str,
    drain: str,
    beat_jitter: float,
    beat_loss: float,
    tell: str,
    plot: Path | None,
) -> None:
    """Run policies over the requests in TRACE, through the controller that agentd runs, in virtual time.

    TRACE is CSV or gzip CSV with the header offset_s,service_s (one line for each request) or offset_s,arrivals (one
    for each piece of time). The policies: agentd's own (threshold, target, demand, latency, adaptive), hpa,
    hpa-inflight, kpa, ray, nomad, static:N, and clairvoyant, which knows all arrivals; with it the table has
    J = agent-hours / clairvoyant's + 0.1 for each percent late.
    """
    from agentd.sim.options import Options
    from agentd.traces import CONCURRENCIES, SERVICE_MEANS_S, trace_name

    name = trace_name(trace)
    options = Options(
        startup_s=startup_s,
        concurrency=concurrency or CONCURRENCIES.get(name, 1),
        agents_max=agents_max,
        slo_s=slo_s,
        seed=seed,
        settings=settings,
        dispatch=dispatch,
        drain=drain,
        initial=initial,
        beat_jitter_ratio=beat_jitter,
        beat_loss_ratio=beat_loss,
        tell=tell,
    )
    arrivals = _read(trace, service_s)
    _simulate(
        session, name, arrivals, policies or ("threshold",), options, service_s or SERVICE_MEANS_S.get(name), plot
    )


def _simulate(
    session: Session, name: str, arrivals: Sequence[Arrival], policies: Sequence[str], options: Options,
    service_s: float | None, plot: Path | None,
) -> None:  # fmt: skip
    from agentd.sim import outcome
    from agentd.sim import plot as drawing
    from agentd.sim.policies import POOL, PolicyError, check, opening

    try:
        if plot is not None:
            drawing.check(plot)
        pool = check(policies, options).pools[POOL]  # mistakes before minutes of work
        results = [_run(policy, arrivals, options) for policy in policies]
        if plot is not None:
            drawing.write(plot, f"{name}: {plural(len(arrivals), 'request')}", results, options.concurrency)
    except PolicyError as error:
        raise Failure(str(error), USAGE) from error
    except drawing.PlotError as error:
        raise Failure(str(error)) from error
    if session.json:
        initial = opening(pool, options, arrivals)
        show_json(outcome.document(name, results, options, agents_min=pool.min, initial=initial, service_s=service_s))
        return
    show(
        [
            f"{name}: {plural(len(arrivals), 'request')}, late above {seconds(options.slo_s)}",
            *outcome.behaviour(options),
            "",
        ]
    )
    show(_table(results, outcome.clairvoyant_hours(results), outcome.score).lines(table_width()))


def _read(trace: Path, service_s: float | None) -> Sequence[Arrival]:
    from agentd.traces import TraceError, read_trace

    try:
        arrivals = read_trace(trace, service_s)
    except TraceError as error:
        raise Failure(str(error)) from error
    if not arrivals:
        raise Failure(f"{trace} has no requests")
    return arrivals


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

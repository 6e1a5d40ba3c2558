"""How long starts take and what scalings brought, in words. Pure: it makes lines and asks nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd.agentctl.text import plural, printable, ratio, seconds, size, wrapped
from agentd.agentctl.values import as_value

if TYPE_CHECKING:
    from agentd.v1 import control_pb2 as pb

_METRICS = {
    "response_time_p50": "response time",
    "work_per_agent": "tasks in hand per agent",
    "load": "load",
}


def starts_text(pool: pb.Pool) -> str:
    """How long the pool's starts take; empty where nothing is known."""
    starts = pool.start_times
    failed = f"{plural(starts.failed, 'start')} failed" if starts.failed else ""
    if not starts.HasField("p50_s"):
        return failed
    took = f"ready {seconds(starts.p50_s)} after the start request (p50; p95 {seconds(starts.p95_s)})"
    of = f"of the last {plural(starts.counted, 'start')}"
    return f"{took}, {of}" + (f"; {failed}" if failed else "")


def effect_lines(effect: pb.Effect, width: int) -> list[str]:
    """What a decision brought: the verdict, the same at equal demand on the whole pool, and the two windows."""
    texts = [f"{effect.verdict.replace('_', ' ')}: {effect.reason}"]
    if effect.HasField("whole"):
        texts.append(f"whole pool: {comparison_text(effect.whole)} at equal demand on all of it")
    for name in ("before", "after"):
        if effect.HasField(name):
            texts.append(f"{name}: {_measured(getattr(effect, name), by_arrivals=_by_arrivals(effect))}")
    return [line for text in texts for line in wrapped(printable(text), width=width, first=" " * 6, rest=" " * 8)]


def comparison_text(made: pb.Comparison) -> str:
    """A change with its interval: `response time -31 % (-42 % to -18 %)`."""
    change, low, high = (
        f"{value * 100:+.0f} %" if made.relative else f"{value:+.2f}" for value in (made.change, made.low, made.high)
    )
    return f"{_METRICS.get(made.metric, made.metric)} {change} ({low} to {high})"


def _by_arrivals(effect: pb.Effect) -> bool:
    one = effect.per_agent if effect.HasField("per_agent") else effect.whole
    return one.demand == "arrivals"


def _measured(window: pb.Measured, *, by_arrivals: bool) -> str:
    known = {name: value for name, value in as_value(window).items() if value is not None}
    facts = [f"{window.ready:.1f} ready over {plural(window.samples, 'sample')}"]
    if "demand_per_agent" in known and by_arrivals:
        facts.append(f"{known['demand_per_agent']:.2f} tasks/s arrive per agent")
    if "throughput_per_agent" in known:
        facts.append(f"{known['throughput_per_agent']:.2f} tasks/s done per agent")
    if "load" in known:
        facts.append(f"load {ratio(known['load'])}")
    names = [name for name in ("p50", "p95") if f"response_time_{name}_s" in known]
    if names:
        times = ", ".join(f"{name} {seconds(known[f'response_time_{name}_s'])}" for name in names)
        facts.append(f"response time {times}")
    if "queue_length" in known:
        facts.append(f"{known['queue_length']:.1f} tasks wait")
    host = [f"{known['cpu_used_cores']:.1f} cores"] if "cpu_used_cores" in known else []
    host += [size(known["memory_used_bytes"])] if "memory_used_bytes" in known else []
    pressures = [name for name in ("cpu", "memory", "io") if f"{name}_pressure_percent" in known]
    host += [f"{name} pressure {known[f'{name}_pressure_percent']:.0f} %" for name in pressures]
    if host:
        facts.append(f"host: {', '.join(host)}")
    return "; ".join(facts)

"""`agentctl status`: the fleet, the host and what happens next, on one page."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from agentd.agentctl.auto import pause_text
from agentd.agentctl.command import Command, Session, show_json
from agentd.agentctl.costs import cost_lines, cost_section
from agentd.agentctl.propose import offer_text
from agentd.agentctl.terminal import Column, Table, show, styled, table_width, text_width
from agentd.agentctl.text import duration, moment, plural, printable, ratio, size, wrapped
from agentd.agentctl.trouble import DISABLED, pool_lines

if TYPE_CHECKING:
    from agentd.v1 import control_pb2 as pb

_POOL_COLUMNS = (
    Column("POOL"),
    Column("COUNT", right=True),
    Column("CAPACITY", right=True),
    Column("MIN", right=True),
    Column("MAX", right=True),
    Column("LOAD", right=True),
    Column("DOWN<", right=True),
    Column("UP>", right=True),
    Column("QUEUE", right=True, drop=1),
    Column("BUSY", right=True, drop=2),
)
_INDENT = " " * 11
# In a limit's text: for how long it still holds. "90 s ago" and "in 30 s" are other times.
_TIME_LEFT = re.compile(r"\b(?:waits|next try in) [0-9]|[0-9] ?[smhd] left\b")


@click.command(cls=Command, examples=("agentctl status", "agentctl status --full", "agentctl status --output json"))
@click.option(
    "--full",
    is_flag=True,
    help="Resources of each pool, recommendations, effects of scalings, costs, and triggers with their parameters.",
)
@click.pass_obj
def status(session: Session, *, full: bool) -> None:
    """Show the fleet, the host and what happens next.

    For each pool: how many instances there are and how many there could be, the load against the thresholds
    (fewer below DOWN<, more above UP>), tasks waiting and tasks begun of those its ready instances can run
    at once, why instances do not run, what an evaluation now would do, and what holds it back. What is wrong
    with agentd itself comes first. JSON has all of it, with and without --full.
    """
    with session.client() as client:
        answer = client.status()
        if session.json:
            from agentd.agentctl.values import as_value

            show_json(as_value(answer))
        else:
            show((full_lines if full else status_lines)(answer, now=time.time()))


def status_lines(status: pb.Status, *, now: float) -> list[str]:
    """The page, `now` being the wall-clock time."""
    width = text_width()
    lines = _head(status, width, now)
    lines += ["", *_pools(status, width)]
    lines += ["", styled("NEXT", "dim"), *_next(status, width)]
    if status.HasField("host"):
        lines += ["", styled("HOST", "dim"), *_host(status.host, width)]
    cost = cost_lines(status, width)
    return [*lines, "", *cost] if cost else lines


def full_lines(status: pb.Status, *, now: float) -> list[str]:
    """The page in sections, with everything that bears on the size of the fleet."""
    from agentd.agentctl import status_full as page

    width = text_width()
    parts = {
        "INSTANCES AND CAPACITY": _pools(status, width),
        "RESOURCES": page.resources(status, _host(status.host, width) if status.HasField("host") else [], width),
        "NEXT": _next(status, width),
        "RECOMMENDATIONS": page.recommendations(status, width),
        "EFFECT OF SCALINGS": page.effects(status, width, now),
        "COSTS": cost_section(status, width, now),
        "AUTOMATIC SCALING": page.automatic(status, _mode(status, now), target_text, width),
    }
    return _head(status, width, now, mode=False) + [
        line for title, part in parts.items() for line in page.section(title, part)
    ]


def _head(status: pb.Status, width: int, now: float, *, mode: bool = True) -> list[str]:
    """Trouble first, then who runs and, with `mode`, in which mode."""
    lines = [] if status.enabled else [styled(DISABLED, "warn")]
    lines += [
        styled(line, "bad")
        for text in status.degraded
        for line in wrapped(printable(text), width=width, first="DEGRADED ", rest=" " * 9)
    ]
    config = status.config_file or "built-in defaults"
    count = sum(pool.count for pool in status.pools)
    facts = [
        f"agentd {status.version}, up {duration(status.uptime_s)}, {plural(count, 'instance')} in "
        f"{plural(len(status.pools), 'pool')}, {status.driver} driver, configuration: {config}"
    ]
    if status.http_address:
        facts.append(f"dashboard: http://{status.http_address.removeprefix('http://')}")
    lines += [line for fact in facts for line in wrapped(printable(fact), width=width, rest="  ")]
    lines += wrapped(printable(_mode(status, now)), width=width, rest="  ") if mode else []
    if status.recovering_s > 0:
        lines.append(styled(f"recovering: nothing is replaced for {duration(status.recovering_s)}", "warn"))
    if status.unhealthy_agents:
        lines.append(styled(f"{plural(status.unhealthy_agents, 'instance')} late with heartbeats", "warn"))
    blocked = [one.id for one in status.instances if one.HasField("loop_blocked_s")]
    if blocked:
        more = f" and {len(blocked) - 1} more" if len(blocked) > 1 else ""
        lines.append(styled(printable(f"the event loop of {blocked[0]}{more} stands still"), "warn"))
    bundled = [pool.name for pool in status.pools if pool.bundled_agent]
    if bundled:
        text = f"the bundled sample agent runs in: {', '.join(bundled)} (no command is configured)"
        lines += wrapped(printable(text), width=width, rest="  ")
    return lines


def _mode(status: pb.Status, now: float) -> str:
    mode = status.autoscaling
    text = f"autoscaling {'on' if mode.enabled else 'off'}"
    if mode.owner:
        text += f", set by {mode.owner}"
    if mode.since_wall:
        text += f" at {moment(mode.since_wall, now=now)}"
    if mode.reason:
        text += f': "{mode.reason}"'
    text += "".join(f"; {pause_text(pause)}" for pause in mode.pauses)
    if status.HasField("next_check_s"):
        text += f"; next check in {duration(status.next_check_s)}"
    return f"{text}; scaled {plural(status.scaling_events, 'time')} so far"


def _pools(status: pb.Status, width: int) -> list[str]:
    table = Table(_POOL_COLUMNS)
    notes: list[str] = []
    for pool in status.pools:
        load = pool.load if pool.HasField("load") else None
        table.add(
            pool.name,
            pool.count,
            pool.capacity,
            pool.min,
            pool.max,
            None if load is None else ratio(load),
            ratio(pool.scale_down_threshold) if has_thresholds(pool) else None,
            ratio(pool.scale_up_threshold) if has_thresholds(pool) else None,
            pool.queue_length,
            f"{pool.in_flight}/{tasks_max(pool)}",
            load="warn" if load is not None and has_thresholds(pool) and load > pool.scale_up_threshold else "",
        )
        notes += pool_lines(pool, status.instances, width)
    return table.lines(table_width()) + notes


def has_thresholds(pool: pb.Pool) -> bool:
    """Whether its thresholds mean anything: one of its triggers looks at them."""
    return "threshold" in pool.policy.split(", ")


def tasks_max(pool: pb.Pool) -> int:
    """How many tasks the pool's ready instances can run at once."""
    return pool.concurrency * pool.ready


def _next(status: pb.Status, width: int) -> list[str]:
    """For each pool what an evaluation now would do, and the person who set a target."""
    lines: list[str] = []
    for pool in status.pools:
        if status.enabled:
            lines += decision_lines(pool.next, width, pool.name)
        else:  # nobody evaluates, so nothing that a decision says would happen
            lines.append(f"{pool.name.ljust(10)} nothing until multi_agent.enabled is true")
        facts = [condition_text(one) for one in pool.conditions if one.type == "ScalingLimited" and one.status]
        facts += [target_text(pool.target)] if pool.HasField("target") else []
        facts += [pause_text(pause) for pause in pool.pauses if not pause.everywhere]
        facts += [pool.scaling_law.text] if pool.HasField("scaling_law") else []
        facts += [offer_text(offer) for offer in pool.offers]
        facts += [f"headroom: {pool.headroom.text}"] if pool.headroom.text else []
        for fact in facts:
            lines += wrapped(printable(fact), width=width, first=_INDENT, rest=_INDENT + "  ")
    return lines


def decision_lines(decision: pb.Decision, width: int, pool: str) -> list[str]:
    """A decision about `pool`: what it does, why, what limits it, what would change it."""
    calm = decision.limits if at_rest(decision) else ()
    reasons = "; ".join(link.text for link in (*decision.reasons, *calm))
    head = f"{outcome(decision)}: {reasons}" if reasons else outcome(decision)
    lines = wrapped(printable(head), width=width, first=pool.ljust(10) + " ", rest=_INDENT)
    more = [f"limit: {limit_text(limit)}" for limit in decision.limits if not at_rest(decision)]
    if decision.counterfactual:
        more.append(f"would change: {decision.counterfactual}")
    for text in more:
        lines += wrapped(printable(text), width=width, first=_INDENT, rest=_INDENT + "  ")
    return lines


def outcome(decision: pb.Decision) -> str:
    """What a decision does, in a few words: `3 -> 4`, `stays at 3`, `stays at 3, wants 4`."""
    text = (
        f"{decision.current} -> {decision.granted}"
        if decision.granted != decision.current
        else f"stays at {decision.current}"
    )
    return text if decision.wanted == decision.granted or at_rest(decision) else f"{text}, wants {decision.wanted}"


def at_rest(decision: pb.Decision) -> bool:
    """Whether only the floor keeps an idle pool where it is: nobody waits for anything."""
    asked_for = any(reason.code == "target" for reason in decision.reasons)
    return not asked_for and any(limit.code in ("min_agents", "only_core_left") for limit in decision.limits)


def limit_text(limit: pb.Limit) -> str:
    """A limit with its name and, where known, how long it still holds: told once."""
    told = not limit.HasField("lifts_in_s") or _TIME_LEFT.search(limit.text)
    left = "" if told else f" (lifts in {duration(limit.lifts_in_s)})"
    return f"{limit.code}: {limit.text}{left}"


def condition_text(condition: pb.Condition) -> str:
    """`ScalingLimited since 12:03:10: max_agents`."""
    return f"{condition.type} since {moment(condition.since_wall, now=time.time())}: {condition.reason}"


def target_text(target: pb.Target) -> str:
    """The count a person set, with owner, expiry and reason."""
    until = f"for another {duration(target.expires_in_s)}" if target.HasField("expires_in_s") else "without expiry"
    reason = f': "{target.reason}"' if target.reason else ""
    return f"target {target.count} set by {target.owner}, {until}{reason}"


def _host(host: pb.Host, width: int) -> list[str]:
    cores_free = max(host.cores - host.cpu_used_cores, 0.0)
    memory_left = max(host.memory_available_bytes - host.memory_reserve_bytes, 0)
    rows: list[tuple[str, str, float | None]] = [
        (
            "cpu",
            f"{cores_free:.1f} of {host.cores} cores free, load average {host.load_average:.2f}",
            host.cpu_pressure_percent if host.HasField("cpu_pressure_percent") else None,
        ),
        (
            "memory",
            f"{size(host.memory_available_bytes)} of {size(host.memory_total_bytes)} available, "
            f"reserve {size(host.memory_reserve_bytes)}, so {size(memory_left)} to use",
            host.memory_pressure_percent if host.HasField("memory_pressure_percent") else None,
        ),
        (
            "disk",
            f"{size(host.disk_free_bytes)} free, reads {size(host.disk_read_bytes_per_s)}/s, "
            f"writes {size(host.disk_write_bytes_per_s)}/s",
            host.io_pressure_percent if host.HasField("io_pressure_percent") else None,
        ),
    ]
    rows += [(process.name, _watched(process), None) for process in host.watched]
    lines: list[str] = []
    for name, text, percent in rows:
        lines += wrapped(
            printable(text + _pressure(percent)), width=width, first=f"{printable(name):<8} ", rest=" " * 9
        )
    return lines


def _pressure(percent: float | None) -> str:
    """The share of the last 10 s in which something waited for the resource; nothing where unknown."""
    return "" if percent is None else f", pressure {percent:.1f} %"


def _watched(process: pb.WatchedProcess) -> str:
    if not process.running:
        return "not running"
    count = "1 process" if process.pids == 1 else f"{process.pids} processes"
    return f"running, {count}, {size(process.memory_bytes)}, {process.cpu_cores:.1f} cores"

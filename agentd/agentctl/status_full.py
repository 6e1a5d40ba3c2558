"""`agentctl status --full`: everything that bears on the size of the fleet, in sections. Pure: it makes lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from agentd.agentctl.auto import pause_text
from agentd.agentctl.collectors import reading_text
from agentd.agentctl.effects import effect_lines, starts_text
from agentd.agentctl.propose import offer_text
from agentd.agentctl.terminal import Column, Table, styled, table_width
from agentd.agentctl.text import duration, moment, printable, size, wrapped

if TYPE_CHECKING:
    from agentd.v1 import control_pb2 as pb

_INDENT = " " * 11
_RESOURCE_COLUMNS = (
    Column("POOL"),
    Column("AGENTS", right=True),
    Column("MEMORY", right=True),
    Column("EACH", right=True),
    Column("CORES", right=True),
    Column("ROOM FOR", right=True),
    Column("LIMITED BY"),
)


def resources(status: pb.Status, host: list[str], width: int) -> list[str]:
    """The host, what each pool uses of it, and how many more it could carry."""
    table, assumed = Table(_RESOURCE_COLUMNS), False
    for pool in status.pools:
        mine = [one for one in status.instances if one.pool == pool.name]
        memory = [one.memory_bytes for one in mine if one.HasField("memory_bytes")]
        cores = [one.cpu_cores for one in mine if one.HasField("cpu_cores")]
        assumed = assumed or not pool.footprint_learned
        table.add(
            pool.name,
            len(mine),
            size(sum(memory)) if memory else None,
            f"{'' if pool.footprint_learned else '~'}{size(pool.footprint_bytes)}",
            f"{sum(cores):.2f}" if cores else None,
            pool.headroom.instances if pool.headroom.HasField("instances") else None,
            pool.headroom.resource,
        )
    lines = [*(host or ["the host has not been measured yet"]), "", *table.lines(table_width())]
    short = [
        f"{pool.name}: {pool.headroom.text}" for pool in status.pools if pool.headroom.HasField("instances")
        and not pool.headroom.instances
    ]  # fmt: skip
    notes = [*short, *(["~: assumed, none was measured yet"] if assumed else [])]
    return lines + [line for note in notes for line in wrapped(printable(note), width=width, rest="  ")]


def recommendations(status: pb.Status, width: int) -> list[str]:
    """What a person might change."""
    lines: list[str] = []
    for advice in status.advice:
        text = f"{advice.text} [{advice.code}]"
        first = (advice.pool or "all").ljust(10) + " "
        lines += wrapped(printable(text), width=width, first=first, rest=_INDENT)
    return lines or ["none: nothing that agentd knows of asks for a change"]


def effects(status: pb.Status, width: int, now: float) -> list[str]:
    """What the last scaling of each pool that was judged has brought, and how long starts take."""
    lines: list[str] = []
    for pool in status.pools:
        if pool.HasField("effect"):
            head = f"{pool.name.ljust(10)} scaling of {moment(pool.effect.wall, now=now)} [{pool.effect.decision}]"
            lines += [head, *effect_lines(pool.effect, width)]
        facts = [f"the effect of {pool.measuring} is being measured"] if pool.measuring else []
        facts += [text] if (text := starts_text(pool)) else []
        for number, fact in enumerate(facts):
            named = number or pool.HasField("effect")
            lines += wrapped(
                printable(fact), width=width, first=_INDENT if named else pool.name.ljust(10) + " ", rest=_INDENT
            )
    return lines or ["nothing was scaled yet"]


def automatic(status: pb.Status, mode: str, target_text: Callable[[pb.Target], str], width: int) -> list[str]:
    """How each pool is told to scale: bounds, triggers with their parameters, cooldowns, and who has a say besides."""
    lines = wrapped(printable(mode), width=width, rest="  ")
    for pool in status.pools:
        first = f"from {pool.min} to {pool.max}, {pool.core} core; policy {pool.policy}"
        facts = [first, *_rules(pool.rules)]
        facts += [f"may grow in {duration(pool.up_cooldown_s)}"] if pool.up_cooldown_s else []
        facts += [f"may shrink in {duration(pool.down_cooldown_s)}"] if pool.down_cooldown_s else []
        facts += [f"guards: {_parameters(pool.guards)}"] if pool.guards else []
        facts += [pause_text(pause) for pause in pool.pauses]
        facts += [reading_text(reading) for reading in pool.readings]
        facts += [target_text(pool.target)] if pool.HasField("target") else []
        facts += [offer_text(offer) for offer in pool.offers]
        for number, fact in enumerate(facts):
            lead = pool.name.ljust(10) + " " if number == 0 else _INDENT
            lines += wrapped(printable(fact), width=width, first=lead, rest=_INDENT + "  ")
    return lines


def section(title: str, lines: list[str]) -> list[str]:
    return ["", styled(title, "strong"), *lines]


def _rules(rules: Iterable[pb.Rule]) -> list[str]:
    texts = []
    for rule in rules:
        parameters = _parameters(rule.parameters)
        waits = f"cooldown up {duration(rule.up_cooldown_s)}, down {duration(rule.down_cooldown_s)}"
        texts.append(f"{rule.type}: {parameters}; {waits}" if parameters else f"{rule.type}: {waits}")
    return texts


def _parameters(given: Iterable[pb.Parameter]) -> str:
    return ", ".join(f"{each.name} {each.value}" for each in given)

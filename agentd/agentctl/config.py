"""Commands about configuration files. They need no agentd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentd.agentctl.collectors import number
from agentd.agentctl.command import DONE, FAILED, Command, Session, show_json
from agentd.agentctl.terminal import show, styled
from agentd.agentctl.text import plural, printable

if TYPE_CHECKING:
    from agentd.config import Config


@click.group()
def config() -> None:
    """Work with configuration files."""


@config.command(
    cls=Command,
    examples=("agentctl config check config.yaml", "agentctl config check --try-collectors config.yaml"),
)
@click.option("--try-collectors", is_flag=True, help="Read each collector of the pools once.")
@click.argument("file", type=click.Path(path_type=Path, readable=False))  # `load` says who may read it
@click.pass_obj
def check(session: Session, file: Path, *, try_collectors: bool) -> int:
    """Check the configuration in FILE, with its drop-ins in FILE.d/*.yaml, without an agentd.

    Prints all errors at once, each with file:line:column, and ends with code 1 when there are any.

    With --try-collectors it also reads each collector once, as whoever runs it and with that environment, which may
    be another than agentd's, and prints the number or why there is none; that, too, ends with code 1.
    """
    import asyncio

    from agentd.config import load
    from agentd.errors import ConfigError, Problem

    problems: tuple[Problem, ...] = ()
    loaded: Config | None = None
    try:
        loaded = load(file)
    except ConfigError as error:
        problems = error.problems
    warnings = loaded.warnings if loaded else ()
    readings = asyncio.run(_read_once(loaded)) if loaded and try_collectors else []
    failed = any(reading.trouble for reading in readings)
    if session.json:
        texts = [{"file": one.file, "line": one.line, "column": one.column, "text": one.text} for one in problems]
        value = {"ok": not problems and not failed, "problems": texts, "warnings": list(warnings)}
        value["dropins"] = [str(path) for path in loaded.dropins] if loaded else []
        show_json(value | ({"readings": [asdict(reading) for reading in readings]} if try_collectors else {}))
    else:
        show([printable(f"with {path}") for path in loaded.dropins] if loaded else [])
        show(_report(file, [str(problem) for problem in problems], warnings))
        if loaded and try_collectors:
            show(_readings(readings))
    return FAILED if problems or failed else DONE


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one collector has read. `value` None: nothing, and `trouble` says why."""

    pool: str
    name: str
    type: str
    value: float | None
    trouble: str


async def _read_once(config: Config) -> list[_Reading]:
    """All at once: each has its time, and none waits for another."""
    import asyncio

    from agentd.collecting.attempts import Collector

    async def read(pool: str, collector: Collector) -> _Reading:
        value, trouble = await collector.attempt()
        await collector.close()
        return _Reading(pool, collector.config.name, collector.config.kind, value, trouble)

    pools = config.fleet.pools.values()
    return await asyncio.gather(*(read(pool.name, Collector(one)) for pool in pools for one in pool.collectors))


def _readings(readings: Sequence[_Reading]) -> list[str]:
    lines = [
        styled(printable(f"{one.pool}.{one.name}: {one.trouble}"), "bad")
        if one.value is None
        else f"{one.pool}.{one.name}: {number(one.value)}"
        for one in readings
    ]
    return lines or ["no pool has a collector"]


def _report(file: Path, problems: Sequence[str], warnings: Sequence[str]) -> list[str]:
    lines = [styled(printable(problem), "bad") for problem in problems]
    lines += [styled(printable(f"warning: {warning}"), "warn") for warning in warnings]
    summary = f"{plural(len(problems), 'error')}; agentd would not start with it" if problems else "OK"
    if warnings:
        summary += f", {plural(len(warnings), 'warning')}"
    return [*lines, printable(f"{file}: {summary}")]

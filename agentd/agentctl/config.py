"""Commands about configuration files. They need no agentd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from agentd.agentctl.command import DONE, FAILED, Command, Session, show_json
from agentd.agentctl.terminal import show, styled
from agentd.agentctl.text import plural, printable


@click.group()
def config() -> None:
    """Work with configuration files."""


@config.command(cls=Command, examples=("agentctl config check config.yaml",))
@click.argument("file", type=click.Path(path_type=Path, readable=False))  # `load` says who may read it
@click.pass_obj
def check(session: Session, file: Path) -> int:
    """Check the configuration in FILE without an agentd.

    Prints all errors at once, each with file:line:column, and ends with code 1 when there are any.
    """
    from agentd.config import load
    from agentd.errors import ConfigError, Problem

    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    try:
        warnings = load(file).warnings
    except ConfigError as error:
        problems = error.problems
    if session.json:
        texts = [{"file": one.file, "line": one.line, "column": one.column, "text": one.text} for one in problems]
        show_json({"ok": not problems, "problems": texts, "warnings": list(warnings)})
    else:
        show(_report(file, [str(problem) for problem in problems], warnings))
    return FAILED if problems else DONE


def _report(file: Path, problems: Sequence[str], warnings: Sequence[str]) -> list[str]:
    lines = [styled(printable(problem), "bad") for problem in problems]
    lines += [styled(printable(f"warning: {warning}"), "warn") for warning in warnings]
    summary = f"{plural(len(problems), 'error')}; agentd would not start with it" if problems else "OK"
    if warnings:
        summary += f", {plural(len(warnings), 'warning')}"
    return [*lines, printable(f"{file}: {summary}")]

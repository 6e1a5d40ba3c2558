"""`agentctl doctor`: what this host offers to agentd, what is missing, and what to do. It needs no agentd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentd import __version__
from agentd.agentctl.command import DONE, FAILED, Command, Session, show_json
from agentd.agentctl.terminal import show, styled
from agentd.agentctl.text import plural, printable

if TYPE_CHECKING:
    from agentd.agentctl.doctor_checks import Check

_STYLES = {"ok": "good", "warn": "warn", "fail": "bad"}


@click.command(cls=Command, examples=("agentctl doctor", "agentctl doctor --config agentd.yaml --output json"))
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration to check the host against. Default: the running agentd's, or /etc/agentd/agentd.yaml.",
)
@click.pass_obj
def doctor(session: Session, config_file: Path | None) -> int:
    """Check what this host offers to agentd, and say what to do about what is missing.

    It needs no agentd and changes nothing; a running one is asked too. A warning is something that agentd runs
    without, a failure something it cannot run with as it is set up; only a failure gives code 1. As root it
    sees more: who holds a port, whether polkit has agentd's rule.
    """
    from agentd.agentctl.doctor_checks import Level, checks
    from agentd.agentctl.doctor_look import gather

    found = checks(gather(session, config_file, __version__))
    failed = any(check.level is Level.FAIL for check in found)
    if session.json:
        values = [
            {"group": one.group, "name": one.name, "level": one.level.value, "text": one.text, "fix": one.fix}
            for one in found
        ]
        show_json({"ok": not failed, "checks": values})
    else:
        show(report(found))
    return FAILED if failed else DONE


def report(found: Sequence[Check]) -> list[str]:
    """The page: a line for each check under its group, what to do below it, and the sum of it."""
    names = max(len(check.name) for check in found)
    lines: list[str] = []
    group = ""
    for check in found:
        if check.group != group:
            group = check.group
            lines += ["", styled(group, "strong")] if lines else [styled(group, "strong")]
        level = styled(check.level.value.ljust(4), _STYLES[check.level.value])
        lines.append(f"  {level}  {check.name.ljust(names)}  {printable(check.text)}")
        if check.fix:
            lines.append(f"  {'':4}  {'':{names}}  {styled('-> ' + printable(check.fix), 'strong')}")
    return [*lines, "", _sum(found)]


def _sum(found: Sequence[Check]) -> str:
    counts = {level: sum(check.level.value == level for check in found) for level in _STYLES}
    if counts["fail"]:
        text = plural(counts["fail"], "failure") + (f", {plural(counts['warn'], 'warning')}" if counts["warn"] else "")
        return styled(text, "bad")
    return styled(plural(counts["warn"], "warning"), "warn") if counts["warn"] else styled("all is well", "good")

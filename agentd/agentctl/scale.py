"""Commands about size: up, down, check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from agentd.agentctl.command import DONE, PARTIAL, Command, Count, Duration, Session, show_json
from agentd.agentctl.status import decision_lines
from agentd.agentctl.terminal import Column, Table, show, table_width, text_width
from agentd.agentctl.text import printable, wrapped

if TYPE_CHECKING:
    from agentd.v1 import control_pb2 as pb

_GRANT_COLUMNS = (
    Column("POOL"),
    Column("PRESENT", right=True),
    Column("WANTED", right=True),
    Column("GRANTED", right=True),
    Column("LIMITS"),
)
# What ends the division of a total over all pools.
_OUTER_LIMITS = {
    "up": "every pool is at its maximum or has no free port",
    "down": "core agents and the minimum of each pool stay",
}
_Function = TypeVar("_Function", bound=Callable[..., object])


def _target_options(function: _Function) -> _Function:
    """The argument and options that up and down share."""
    function = click.option("--dry-run", is_flag=True, help="Show what would happen, change nothing.")(function)
    function = click.option("--reason", default="", help="Why; shown beside the target.")(function)
    function = click.option(
        "--for", "for_s", type=Duration(), help="How long it holds: 30s, 10m, 1h, 1d. Default: 1h."
    )(function)
    function = click.option("--pool", default="", help="Only this pool; N is then its own number of instances.")(
        function
    )
    return click.argument("count", metavar="N", type=Count())(function)


@click.command(cls=Command, examples=("agentctl up 12", "agentctl up 4 --pool research --for 2h --reason 'batch run'"))
@_target_options
@click.pass_obj
def up(session: Session, *, count: int, pool: str, for_s: float | None, reason: str, dry_run: bool) -> int:
    """Grow to N instances, core agents included.

    Without --pool N is the total of the fleet; agentd divides it, and the division is shown before it is
    carried out. The target holds for --for, while autoscaling is off until it is changed. Limits of pools,
    cooldowns and the host still apply: what is granted in part ends with exit code 4 and the names of the limits. An N
    below the present number is refused with exit code 2.
    """
    return _scale(session, "up", count, pool=pool, for_s=for_s, reason=reason, dry_run=dry_run)


@click.command(cls=Command, examples=("agentctl down 6", "agentctl down 1 --pool research --dry-run"))
@_target_options
@click.pass_obj
def down(session: Session, *, count: int, pool: str, for_s: float | None, reason: str, dry_run: bool) -> int:
    """Shrink to N instances, core agents included.

    The instances that go finish their work first. Without --pool N is the total of the fleet; agentd divides
    it, and the division is shown before it is carried out. Core agents and the minimum of each pool stay, and
    cooldowns hold for people too: scale_down_cooldown_sec after the last scaling. What is granted in part ends
    with exit code 4 and the names of the limits; the target stands, and what a cooldown holds back follows when
    that has passed, if the target (--for) lasts until then. An N above the present number is refused with exit
    code 2.
    """
    return _scale(session, "down", count, pool=pool, for_s=for_s, reason=reason, dry_run=dry_run)


def _scale(
    session: Session, way: str, count: int, *, pool: str, for_s: float | None, reason: str, dry_run: bool
) -> int:
    with session.client() as client:
        from agentd.sdk.control import DOWN, UP

        def ask(trial: bool) -> list[pb.Grant]:
            direction = UP if way == "up" else DOWN
            return client.scale(direction, count, pool=pool, reason=reason, for_s=for_s, dry_run=trial)

        planned = ask(True) if dry_run or not pool else None
        if planned is not None and not session.json:
            show(_grant_lines(planned))
        granted = planned if planned is not None and dry_run else ask(False)

    full = all(grant.granted == grant.wanted for grant in granted)
    if not pool:  # what no pool may take is in nobody's wish
        full = full and sum(grant.granted for grant in granted) == count
    if session.json:
        from agentd.agentctl.values import as_value

        grants = [as_value(grant) for grant in granted]
        show_json({"dry_run": dry_run, "granted_in_full": full, "grants": grants})
    else:
        if planned is None or _numbers(granted) != _numbers(planned):
            show(_grant_lines(granted))
        show(_verdict(granted, way=way, count=count, full=full, dry_run=dry_run))
    return DONE if full else PARTIAL


def _numbers(grants: Sequence[pb.Grant]) -> list[tuple[str, int, int]]:
    return [(grant.pool, grant.wanted, grant.granted) for grant in grants]


def _grant_lines(grants: Sequence[pb.Grant]) -> list[str]:
    table = Table(_GRANT_COLUMNS)
    for grant in grants:
        less = "warn" if grant.granted != grant.wanted else ""
        limits = ", ".join(grant.limits)
        table.add(grant.pool, grant.current, grant.wanted, grant.granted, limits, granted=less, limits=less)
    if len(grants) > 1:
        sums = [sum(getattr(grant, name) for grant in grants) for name in ("current", "wanted", "granted")]
        table.add("total", *sums, "")
    return table.lines(table_width())


def _verdict(grants: Sequence[pb.Grant], *, way: str, count: int, full: bool, dry_run: bool) -> list[str]:
    """What becomes of the wish, and where it is not granted in full, what limits it."""
    present, granted = sum(grant.current for grant in grants), sum(grant.granted for grant in grants)
    if granted == present:
        text = f"{'would stay' if dry_run else 'stays'} at {present}"
    else:
        text = f"{'would go' if dry_run else 'going'} from {present} to {granted}"
    if full:
        return [text]
    limits = [
        f"{grant.pool}: {limit}" for grant in grants if grant.granted != grant.wanted for limit in grant.limits
    ] or [_OUTER_LIMITS[way]]
    lines = [f"{text}, not {count}"]
    for limit in limits:
        lines += wrapped(printable(limit), width=text_width(), first="  limit: ", rest="    ")
    return lines


@click.command(cls=Command, examples=("agentctl check", "agentctl check research"))
@click.argument("pool", default="")
@click.pass_obj
def check(session: Session, pool: str) -> None:
    """Evaluate POOL, or all pools, now.

    The decision is carried out as always; cooldowns and all other limits apply.
    """
    with session.client() as client:
        decisions = client.check(pool)
        if session.json:
            from agentd.agentctl.values import as_value

            show_json({"decisions": [as_value(decision) for decision in decisions]})
        else:
            width = text_width()
            show([line for decision in decisions for line in decision_lines(decision, width, decision.pool)])

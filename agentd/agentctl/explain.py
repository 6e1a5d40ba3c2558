"""`agentctl explain`: why a pool has the size it has, what limits it and would change it; or why an instance runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from agentd.agentctl.auto import pause_text
from agentd.agentctl.collectors import reading_text
from agentd.agentctl.command import Command, Session, Whole, show_json
from agentd.agentctl.effects import effect_lines, starts_text
from agentd.agentctl.explain_instance import story_lines, tell
from agentd.agentctl.explain_words import chain_text, change_text
from agentd.agentctl.instances import find_instance, is_instance_id
from agentd.agentctl.propose import offer_text
from agentd.agentctl.status import has_thresholds, limit_text, outcome, target_text, tasks_max
from agentd.agentctl.terminal import show, styled, text_width
from agentd.agentctl.text import duration, moment, plural, printable, ratio, size, wrapped
from agentd.agentctl.trouble import DISABLED, pool_lines
from agentd.agentctl.values import as_value
from agentd.agentctl.when import Moment

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb

HISTORY_MAX = 1000


@click.command(
    cls=Command,
    examples=(
        "agentctl explain research",
        "agentctl explain research --limit 3",
        "agentctl explain research --at 12:03:10",
        "agentctl explain research --at 10m --json",
        "agentctl explain research-9101",
    ),
)
@click.argument("name", metavar="POOL|ID|NAME")
@click.option(
    "--history",
    "--limit",
    "history",
    type=Whole(0, HISTORY_MAX),
    default=10,
    show_default=True,
    help="How many earlier decisions to show.",
)
@click.option(
    "--at",
    type=Moment(),
    default=None,
    help="Show the decision that was in force then: a time of today, 2026-01-31T12:03, or how long ago (10m).",
)
@click.pass_obj
def explain(session: Session, name: str, history: int, at: float | None) -> None:
    """Tell why a pool has the size it has, and what would change it; or why an instance runs.

    Of a pool first what an evaluation now would decide: the reasons with their numbers, the limits that hold
    it, and what would have to be different. Then the decisions before, newest first; below each that scaled,
    when that is known, what it brought: helped, made it worse, or unclear.

    Of an instance, named by its id or a core agent's name: why it was started, how it has ended, and the
    decisions that it was part of. A name that a pool has too is the pool's: of the core agent, give the id.

    With --at, of a pool: the last decision until that moment in full, the one that followed it, and those before.
    """
    with session.client() as client:
        answer = _of_pool(client, name, history if at is None else max(history, 1), at)
        if answer is None and at is not None:
            raise click.UsageError(f"--at is for pools, and {name!r} is an instance")
        if answer is None:
            story = tell(client, find_instance(client, name), history)
            if session.json:
                show_json(story.as_value())
            else:
                show(story_lines(story, now=time.time(), decision_lines=_past))
        elif session.json:
            show_json(as_value(answer))
        elif at is not None:
            show(explain_at_lines(answer, at, now=time.time()))
        else:
            show(explain_lines(answer, client.status(), now=time.time()))


def _of_pool(client: ControlClient, name: str, history: int, at: float | None) -> pb.ExplainResponse | None:
    """What agentd says of the pool `name`; None where it is an instance's name.

    Raises:
        ControlError: it is the name of neither.
    """
    from agentd.sdk.control import ControlError

    if is_instance_id(name):
        return None
    try:
        answer = client.explain(name, max(history, 1), at_wall=at)  # to the protocol 0 means the default number
    except ControlError as error:
        if error.reason == "UNKNOWN_POOL" and find_instance(client, name) != name:
            return None
        raise
    del answer.decisions[history:]
    return answer


def explain_lines(answer: pb.ExplainResponse, status: pb.Status, *, now: float) -> list[str]:
    """The page, `now` being the wall-clock time; `status` tells what is wrong with the pool's instances."""
    width = text_width()
    pool = answer.pool
    lines = [] if status.enabled else [styled(DISABLED, "warn")]
    lines.append(styled(f"{pool.name}: {outcome(pool.next)}", "strong"))
    lines += pool_lines(pool, status.instances, width)
    lines += _facts(pool, width)
    lines += _chain(pool.next, width, enabled=status.enabled, now=now)
    if answer.decisions:
        lines += ["", styled("HISTORY", "dim")]
        lines += [line for decision in answer.decisions for line in _past(decision, width, now)]
    if pool.measuring:
        text = f"what {pool.measuring} brings is being measured"
        lines += wrapped(printable(text), width=width, first="  ", rest="    ")
    return lines


def explain_at_lines(answer: pb.ExplainResponse, at: float, *, now: float) -> list[str]:
    """The decision that was in force at the wall-clock time `at`, the one that followed, and those before."""
    width, pool = text_width(), answer.pool
    if answer.decisions:
        held, *before = answer.decisions
        head = (
            f"{pool.name} at {moment(at, now=now)}: {outcome(held)}, decided {moment(held.wall, now=now)} [{held.id}]"
        )
        lines = [styled(printable(head), "strong"), *_chain(held, width, enabled=True, now=now)]
        if held.HasField("effect"):
            lines += ["", styled("EFFECT", "dim"), *effect_lines(held.effect, width)]
    else:
        before = []
        lines = [f"{pool.name} at {moment(at, now=now)}: no decision until then is known"]
    if answer.HasField("following"):
        lines += ["", styled("THEN", "dim"), *_past(answer.following, width, now)]
    if before:
        lines += ["", styled("BEFORE", "dim"), *(line for made in before for line in _past(made, width, now))]
    return lines


def _facts(pool: pb.Pool, width: int) -> list[str]:
    load = ratio(pool.load) if pool.HasField("load") else "unknown"
    footprint = "measured" if pool.footprint_learned else "assumed"
    rule = ""
    if has_thresholds(pool):
        rule = f": fewer below {ratio(pool.scale_down_threshold)}, more above {ratio(pool.scale_up_threshold)}"
    facts = [
        f"{plural(pool.count, 'instance')} ({pool.ready} ready, {pool.starting} starting, {pool.unhealthy} unhealthy), "
        f"{pool.core} core; besides {pool.draining} draining, {pool.failed} failed; min {pool.min}, max {pool.max}, "
        f"capacity {pool.capacity}",
        f"load {load}, policy {pool.policy}{rule}; {pool.queue_length} tasks wait, {pool.in_flight} of "
        f"{tasks_max(pool)} run",
        f"an instance takes {size(pool.footprint_bytes)} ({footprint})"
        + (f"; headroom: {pool.headroom.text}" if pool.headroom.text else ""),
    ]
    facts += [reading_text(reading) for reading in pool.readings]
    if starts := starts_text(pool):
        facts.append(starts)
    if pool.HasField("scaling_law"):
        facts.append(pool.scaling_law.text)
    if pool.up_cooldown_s or pool.down_cooldown_s:
        facts.append(f"cooldown: up for {duration(pool.up_cooldown_s)}, down for {duration(pool.down_cooldown_s)}")
    if pool.HasField("target"):
        facts.append(target_text(pool.target))
    facts += [pause_text(pause) for pause in pool.pauses]
    facts += [offer_text(offer) for offer in pool.offers]
    return [line for fact in facts for line in wrapped(printable(fact), width=width, first="  ", rest="    ")]


def _chain(decision: pb.Decision, width: int, *, enabled: bool, now: float) -> list[str]:
    lines = ["", styled("REASONS", "dim")]
    for reason in decision.reasons:
        lines += wrapped(printable(f"{reason.code}: {reason.text}"), width=width, first="  ", rest="    ")
    if not decision.reasons:
        lines.append("  none: nothing is asked of this pool")
    if len(decision.proposals) > 1:
        lines += ["", styled("PROPOSALS", "dim")]
        for proposal in decision.proposals:
            count = str(proposal.count) if proposal.HasField("count") else "-"
            text = f"{proposal.trigger} {count}: {proposal.reason.text}"
            lines += wrapped(printable(text), width=width, first="  ", rest="    ")
        wins = f"{decision.trigger} decides: the highest count, of equal ones the first"
        if decision.reasons and decision.reasons[0].code == "no_reading":
            wins = f"{decision.trigger} decides: nobody is let go while its number cannot be read"
        lines += wrapped(printable(wins), width=width, first="  ", rest="    ")
    lines += ["", styled("LIMITS", "dim")]
    for limit in decision.limits:
        lines += wrapped(printable(limit_text(limit)), width=width, first="  ", rest="    ")
    if chain := chain_text(decision):
        lines += wrapped(printable(chain), width=width, first="  ", rest="    ")
    if not decision.limits:
        lines.append("  none in force")
    if decision.victims:
        lines.append(f"  {'retired' if decision.id else 'would retire'}: {', '.join(decision.victims)}")
    # What agentd names would change a decision, and while it is disabled it makes none.
    change = change_text(decision, now=now) if enabled else "nothing until multi_agent.enabled is true"
    if change:
        lines += ["", styled("WOULD CHANGE", "dim")]
        lines += wrapped(printable(change), width=width, first="  ", rest="  ")
    return lines


def _past(decision: pb.Decision, width: int, now: float) -> list[str]:
    links = [reason.text for reason in decision.reasons] + [limit_text(limit) for limit in decision.limits]
    if decision.victims:
        links.append(f"retires {', '.join(decision.victims)}")
    text = f"{outcome(decision)}: {'; '.join(links)}" if links else outcome(decision)
    lines = wrapped(
        printable(f"{moment(decision.wall, now=now)}  {text} [{decision.id}]"), width=width, first="  ", rest="    "
    )
    return lines + (effect_lines(decision.effect, width) if decision.HasField("effect") else [])

"""`agentctl explain research-9101`: why an instance was started, how it has ended, and what was decided about it.

It puts together what agentd keeps of its pool: the events that name the instance, and the decisions that they name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentd.agentctl.command import Failure
from agentd.agentctl.terminal import styled, text_width
from agentd.agentctl.text import duration, moment, plural, printable, wrapped
from agentd.agentctl.values import as_value, cause, state_word

if TYPE_CHECKING:
    from agentd.sdk.control import ControlClient
    from agentd.v1 import control_pb2 as pb

_BIRTHS = ("scale_up", "start", "restart", "adopt")
_WISHES = ("replace", "resumed")  # why a process was ended in order to begin again; "restart" by a person is one too
_ENDS = (
    *("exit", "oom_kill", "crash_loop", "start_failed", "port_conflict"),
    *("stop", "stop_forced", "vanished", "held"),
)
_EVENTS_MAX = _DECISIONS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Story:
    """What is known of one instance; `now` None: there is none at present. Each list begins with the newest."""

    id: str
    now: pb.Instance | None
    births: Sequence[pb.Event]
    ends: Sequence[pb.Event]
    decisions: Sequence[pb.Decision]

    def as_value(self) -> dict[str, Any]:
        """As JSON carries it."""
        return {
            "instance": None if self.now is None else as_value(self.now),
            "started": [as_value(event) for event in self.births],
            "ends": [as_value(event) for event in self.ends],
            "decisions": [as_value(decision) for decision in self.decisions],
        }


def tell(client: ControlClient, instance: str, history: int) -> Story:
    """Ask agentd for the story of `instance`, with the last `history` ends and decisions.

    Raises:
        Failure: there is no such instance, and never was one.
    """
    now = next((one for one in client.instances() if one.id == instance), None)
    events = client.events(_EVENTS_MAX, instance=instance)
    if now is None and not events:
        raise Failure(f"no instance {instance!r}, and no event of one; agentctl ps lists the instances there are")
    # Asked for by type: many late heartbeats would hide them among the last events.
    births = client.events(_EVENTS_MAX, instance=instance, types=(*_BIRTHS, *_WISHES, *_ENDS))
    ends = client.events(max(history, 1), instance=instance, types=_ENDS)[:history]
    named = {event.decision for event in (*events, *births, *ends)} - {""}
    decisions = [
        decision
        for decision in _decisions(client, instance.rpartition("-")[0])
        if decision.id in named or instance in decision.victims
    ]
    return Story(instance, now, last_birth(births), ends, decisions[:history])


def story_lines(
    story: Story, *, now: float, decision_lines: Callable[[pb.Decision, int, float], list[str]]
) -> list[str]:
    """The page, `now` being the wall-clock time. `decision_lines` words a decision that was made."""
    width = text_width()
    lines = wrapped(printable(f"{story.id}: {_state(story.now)}"), width=width, rest="  ")
    lines = [styled(line, "strong") for line in lines]
    for title, events, none in (("STARTED", story.births, "not known"), ("ENDS", story.ends, "none")):
        lines += ["", styled(title, "dim")]
        for event in events:
            by = f" [{event.decision}]" if event.decision else ""
            text = f"{moment(event.wall, now=now)}  {event.type}: {event.reason}{by}"
            lines += wrapped(printable(text), width=width, first="  ", rest="    ")
        if not events:
            lines.append(f"  {none}")
    lines += ["", styled("DECISIONS", "dim")]
    for decision in story.decisions:
        lines += decision_lines(decision, width, now)
    if not story.decisions:
        lines.append("  none: what agentd repairs it starts and stops without one")
    return lines


def _state(instance: pb.Instance | None) -> str:
    if instance is None:
        return "not there any more"
    facts = [f"{state_word(instance)} for {duration(instance.state_age_s)}"]
    facts += [f"core agent {instance.core_name}"] if instance.core_name else []
    facts += [f"pid {instance.pid}"] if instance.pid else []
    facts += [plural(instance.restarts, "restart")] if instance.restarts else []
    facts += [plural(instance.oom_kills, "kill") + " for want of memory"] if instance.oom_kills else []
    text = cause(instance)
    return ", ".join(facts) + (f": {text}" if text else "")


def last_birth(told: Sequence[pb.Event]) -> list[pb.Event]:
    """Why the present process runs, from an instance's events, newest first, as they are given.

    An adoption since; the start of the process; where that was a restart, what ended the one before and who wanted it;
    and why the instance was started at first.
    """
    process = next((number for number, event in enumerate(told) if _begins(event)), None)
    if process is None:  # only asked for as yet, or adopted without a known past
        return [event for event in told if event.type in _BIRTHS][:1]
    born, before = told[process], told[process + 1 :]
    story = [*[event for event in told[:process] if event.type == "adopt"][:1], born]
    if born.type == "restart":
        former = next((number for number, event in enumerate(before) if _begins(event)), len(before))
        between = before[:former]
        causes = [[one for one in between if one.type in _ENDS], [one for one in between if _wishes(one)]]
        story += [one for one in between if any(one is cause[0] for cause in causes if cause)]
        story += [one for one in before if one.type == "start" and one.decision == born.decision][:1]
    return story + [one for one in before if one.type == "scale_up" and one.decision and one.decision == born.decision]


def _begins(event: pb.Event) -> bool:
    """Whether a process has begun with it. A restart that somebody asks for has the same type, and an actor."""
    return event.type == "start" or (event.type == "restart" and not event.actor)


def _wishes(event: pb.Event) -> bool:
    return event.type in _WISHES or (event.type == "restart" and bool(event.actor))


def _decisions(client: ControlClient, pool: str) -> Sequence[pb.Decision]:
    from agentd.sdk.control import ControlError

    try:
        return client.explain(pool, _DECISIONS_MAX).decisions
    except ControlError as error:
        if error.reason != "UNKNOWN_POOL":  # one that is no longer configured has none to show
            raise
        return []

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

_BIRTHS = ("scale_up", "start", "adopt")
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
    births = client.events(_EVENTS_MAX, instance=instance, types=_BIRTHS)
    ends = client.events(max(history, 1), instance=instance, types=_ENDS)[:history]
    named = {event.decision for event in (*events, *births, *ends)} - {""}
    decisions = [
        decision
        for decision in _decisions(client, instance.rpartition("-")[0])
        if decision.id in named or instance in decision.victims
    ]
    return Story(instance, now, _last_birth(births), ends, decisions[:history])


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


def _last_birth(births: Sequence[pb.Event]) -> list[pb.Event]:
    """What tells of the last start: the event of it, and the one of the scale-up that asked for it."""
    if not births:
        return []
    last = births[0]
    return [event for event in births if event is last or (event.decision and event.decision == last.decision)]


def _decisions(client: ControlClient, pool: str) -> Sequence[pb.Decision]:
    from agentd.sdk.control import ControlError

    try:
        return client.explain(pool, _DECISIONS_MAX).decisions
    except ControlError as error:
        if error.reason != "UNKNOWN_POOL":  # one that is no longer configured has none to show
            raise
        return []

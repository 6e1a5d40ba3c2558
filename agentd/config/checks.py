"""What must be true between the parts of a configuration: bounds, thresholds, names and ports of pools.

Pure checks over what `config.pools` has read; they note problems and change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import yaml
from msgspec import Struct

from agentd.config.nodes import Problems, Section, is_later, line_in
from agentd.config.pools import Draft, Shared
from agentd.config.triggers import check_triggers
from agentd.core.model import PortRange, Resources
from agentd.core.rules import (
    QUEUE,
    AdaptiveTrigger,
    DemandTrigger,
    ExternalTrigger,
    LatencyTrigger,
    ScheduleTrigger,
    TargetTrigger,
    ThresholdTrigger,
    Trigger,
)

NO_LIMITS = "the driver process gives its children no limits"


def check_shared(shared: Shared, root: yaml.Node | None) -> None:
    """The rules for all pools agree with each other."""
    section = shared.section
    up, down = shared.trigger.scale_up_threshold, shared.trigger.scale_down_threshold
    place = section.place("scale_down_threshold", "scale_up_threshold") or root
    if place and section.sound("scale_down_threshold", "scale_up_threshold") and down >= up:
        section.problems.error(
            place,
            f"scale_down_threshold {down:g}{_default(section, 'scale_down_threshold')} must be less than "
            f"scale_up_threshold {up:g}{_default(section, 'scale_up_threshold')}",
        )
    place = section.place("min_agents_per_type", "max_agents_per_type") or root
    if place and section.sound("min_agents_per_type", "max_agents_per_type") and shared.min > shared.max:
        section.problems.error(
            place,
            f"min_agents_per_type {shared.min}{_default(section, 'min_agents_per_type')} is greater than "
            f"max_agents_per_type {shared.max}{_default(section, 'max_agents_per_type')}",
        )


def check_pools(drafts: Sequence[Draft], shared: Shared, problems: Problems, root: yaml.Node) -> None:
    """Each pool agrees with itself, and all with each other."""
    findings: list[_Finding] = []
    for draft in drafts:
        _check_thresholds(draft, shared)
        findings += _check_bounds(draft, shared, draft.at or root)
        findings += _check_first(draft, shared, draft.at or root)
        check_triggers(draft.section, draft.pool.triggers, tuple(each.name for each in draft.pool.collectors))
        _check_windows(draft)
    _note(findings, problems)
    _check_core_names(drafts, problems)
    _check_ports(drafts, problems)


def warn_about_http_port(drafts: Sequence[Draft], port: int, problems: Problems) -> None:
    """A pool's range that holds agentd's own port works, one agent short; better to know."""
    for draft in drafts:
        if draft.ports_at is not None and draft.pool.ports is not None and port in draft.pool.ports:
            problems.warn(
                draft.ports_at,
                f"the ports of pool {draft.pool.name} include {port}, where agentd itself serves HTTP",
            )


def warn_about_limits(drafts: Sequence[Draft], driver: str, problems: Problems) -> None:
    """Child processes get no limits; agentd itself says so where it chooses that driver by `auto`."""
    for draft in drafts:
        place = draft.section.place("resources")
        if driver == "process" and place is not None and draft.pool.resources != Resources():
            problems.warn(place, f"{draft.section.name}.resources has no effect: {NO_LIMITS}")


def _check_thresholds(draft: Draft, shared: Shared) -> None:
    keys = ("scale_down_threshold", "scale_up_threshold")
    place, pool = draft.section.place(*keys), draft.pool
    if place is None or "triggers" in draft.section or not draft.section.sound(*keys):
        return
    trigger = pool.threshold
    if trigger and trigger.scale_down_threshold >= trigger.scale_up_threshold and shared.section.sound(*keys):
        draft.section.problems.error(
            place,
            f"pool {pool.name}: scale_down_threshold {trigger.scale_down_threshold:g} must be less than "
            f"scale_up_threshold {trigger.scale_up_threshold:g}",
        )


class _Finding(Struct, frozen=True):
    """What is wrong (or `doubtful`: works, but not as written) with the bounds of one pool."""

    node: yaml.Node
    pool: str
    text: str
    doubtful: bool = False


def _check_bounds(draft: Draft, shared: Shared, at: yaml.Node) -> list[_Finding]:
    pool, section, rules = draft.pool, draft.section, shared.section
    if not (section.sound("min", "max", "core") and rules.sound("min_agents_per_type", "max_agents_per_type")):
        return []
    if draft.ports_at is not None and section.problems.failed(draft.ports_at):
        return []
    where_min = section.place("min") or rules.place("min_agents_per_type") or at
    where_max = section.place("max") or rules.place("max_agents_per_type") or at
    least = f"min {pool.min}{_inherited(draft, 'min')}"
    most = f"max {pool.max}{_inherited(draft, 'max')}"
    ports = len(pool.ports) if pool.ports else 0
    places = f"the {draft.capacity} places it has ({len(pool.core)} core, {ports} on its ports)"
    if draft.capacity == 0:
        return [_Finding(at, pool.name, "it can hold no instance: give it ports or core agents")]
    if pool.min > pool.max:
        own = section.place("min", "max")
        # Where the pool says neither, the mistake is in the rules for all pools, and noted there.
        return [_Finding(own, pool.name, f"{least} is greater than {most}")] if own else []
    if pool.min > draft.capacity:
        return [_Finding(where_min, pool.name, f"{least} is greater than {places}")]
    if pool.max < len(pool.core):
        where = section.place("core", "max") or where_max
        return [_Finding(where, pool.name, f"{most} is less than the number of its core agents, {len(pool.core)}")]
    if pool.max > draft.capacity:
        return [_Finding(where_max, pool.name, f"{most} is out of reach with {places}", doubtful=True)]
    return []


def _check_first(draft: Draft, shared: Shared, at: yaml.Node) -> list[_Finding]:
    """A pool that may be empty has something from outside that asks for its first agent."""
    pool, section = draft.pool, draft.section
    known = section.sound("min", "max", "core", "collectors", "triggers", "policy")
    if not known or pool.min > 0 or pool.max == 0 or pool.core or draft.capacity == 0:
        return []
    named = {collector.name for collector in pool.collectors}
    if any(_sees_work(trigger, named) for trigger in pool.triggers) or any(window.min for window in pool.windows):
        return []
    kinds = ", ".join(trigger.kind for trigger in pool.triggers)
    where = section.place("min") or shared.section.place("min_agents_per_type") or at
    text = (
        f"with min 0 it never starts its first agent by itself: {kinds} decides by agents that run. Give it min 1, "
        f"demand or adaptive with a collector named {QUEUE}, a schedule with a min, or external"
    )
    return [_Finding(where, pool.name, text, doubtful=True)]


def _sees_work(trigger: Trigger, collectors: Collection[str]) -> bool:
    """Whether `trigger` may want agents where there is none. A schedule only moves the bounds."""
    match trigger:
        case ExternalTrigger():
            return True
        case TargetTrigger():
            return trigger.signal in collectors or (trigger.signal == "demand" and QUEUE in collectors)
        case DemandTrigger() | AdaptiveTrigger():
            return QUEUE in collectors
        case ThresholdTrigger() | LatencyTrigger() | ScheduleTrigger():
            return False


def _check_windows(draft: Draft) -> None:
    """The bounds that a window of time gives are ones that the pool can have."""
    pool, place = draft.pool, draft.section.place("triggers")
    if place is None or not draft.section.sound("triggers", "min", "max", "core", "ports"):
        return
    for window in pool.windows:
        least = pool.min if window.min is None else window.min
        most = pool.max if window.max is None else window.max
        text = ""
        if least > most:
            own = " of the pool" if window.min is None else ""
            text = f"min {least}{own} is greater than max {most}{'' if window.max is not None else ' of the pool'}"
        elif most < len(pool.core):
            text = f"max {most} is less than the number of its core agents, {len(pool.core)}"
        elif least > draft.capacity:
            text = f"min {least} is greater than the {draft.capacity} places it has"
        if text:
            draft.section.problems.error(place, f"pool {pool.name}, window {window.name}: {text}")


def _note(findings: Sequence[_Finding], problems: Problems) -> None:
    """One problem where a rule for all pools is wrong for several in the same way."""
    alike: dict[tuple[int, str], list[_Finding]] = {}
    for finding in findings:
        alike.setdefault((id(finding.node), finding.text), []).append(finding)
    for group in alike.values():
        first = group[0]
        note = problems.warn if first.doubtful else problems.error
        names = ", ".join(finding.pool for finding in group)
        note(first.node, f"{'pool' if len(group) == 1 else 'pools'} {names}: {first.text}")


def _check_core_names(drafts: Sequence[Draft], problems: Problems) -> None:
    seen: dict[str, Draft] = {}
    for draft in drafts:
        for agent in draft.pool.core:
            first = seen.setdefault(agent.name, draft)
            if first is draft:
                continue
            # One of the two is in the file: defaults have different names.
            place = draft.core_at.get(agent.name) or first.core_at.get(agent.name)
            assert place is not None, "two default pools share a core agent's name"
            problems.error(place, f"core agent {agent.name} is in two pools: {first.pool.name} and {draft.pool.name}")


class _Claim(Struct, frozen=True):
    """Ports that somebody wants. `node` None: by default."""

    ports: PortRange
    owner: str
    node: yaml.Node | None

    def told(self, at: yaml.Node) -> str:
        """For an error that stands at `at`."""
        first, last = self.ports.first, self.ports.last
        origin = line_in(self.node, at) if self.node else "the default"
        ports = f"port {first}" if first == last else f"ports {first}-{last}"
        return f"{ports} of {self.owner} ({origin})"


def _check_ports(drafts: Sequence[Draft], problems: Problems) -> None:
    claims = [
        _Claim(PortRange(agent.port, agent.port), f"core agent {agent.name}", draft.core_at.get(agent.name))
        for draft in drafts
        for agent in draft.pool.core
    ]
    claims += [
        _Claim(draft.pool.ports, f"pool {draft.pool.name}", draft.ports_at) for draft in drafts if draft.pool.ports
    ]
    # A range that could not be read is replaced by its default here: there is nothing to say about that.
    claims = [claim for claim in claims if claim.node is None or not problems.failed(claim.node)]
    claims.sort(key=lambda claim: (claim.ports.first, claim.ports.last, claim.owner))
    reach: _Claim | None = None  # the claim that reaches furthest so far
    for claim in claims:
        if reach is not None and claim.ports.first <= reach.ports.last:
            _report_overlap(claim, reach, problems)
        if reach is None or claim.ports.last > reach.ports.last:
            reach = claim


def _report_overlap(one: _Claim, other: _Claim, problems: Problems) -> None:
    """At the one that the file says; of two, at the later."""
    if one.node is None or (other.node is not None and is_later(other.node, one.node)):
        one, other = other, one
    assert one.node is not None, "the default ports overlap"
    problems.error(one.node, f"{one.told(one.node)} overlap with {other.told(one.node)}")


def _default(section: Section, key: str) -> str:
    return "" if key in section else " (the default)"


def _inherited(draft: Draft, key: str) -> str:
    if key in draft.section:
        return ""
    return f" ({key}_agents_per_type)" if draft.pool.ports else " (its core agents: it has no ports)"

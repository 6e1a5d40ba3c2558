"""Any event may come at any time, stale and in any order: the controller takes it, and always in the same way.

Drivers and agents are other programs; what they say may be late, doubled or wrong. `test_properties` looks at what
comes of a host that behaves, this at what no host should do.
"""

from __future__ import annotations

import pytest
from fleets import CONFIGS, EXECUTION, FLEET, RESEARCH, STORIES
from hypothesis import given
from hypothesis import strategies as st
from world import WALL

from agentd.core.controller import Controller
from agentd.core.messages import (
    Acknowledgement,
    Beat,
    Check,
    ConfigChanged,
    Event,
    InstanceExited,
    InstanceGaveUp,
    InstancesListed,
    InstanceStarted,
    InstanceStopped,
    Outcome,
    Probed,
    Restart,
    Restored,
    SetAutoscaling,
    SetTarget,
    Shutdown,
    Stage,
    Start,
    StartFailed,
    Tick,
)
from agentd.core.model import ExitCause, ExitKind, FleetConfig, Incarnation, InstanceId, Observed, Phase, StartFailure

_idents = st.sampled_from(
    [InstanceId(f"{pool}-{port}") for pool, port in (
        ("research", 9002), ("research", 9101), ("research", 9102), ("execution", 9201), ("execution", 9002),
        ("unheard", 9301),
    )]
)  # fmt: skip
_incarnations = st.sampled_from([Incarnation(mark) for mark in "abc"])
_failures = st.sampled_from(list(StartFailure))
_exits = st.builds(ExitCause, st.sampled_from(list(ExitKind)), st.integers(0, 15))
_observed = st.builds(Observed, _idents, _incarnations, st.integers(1, 9), st.sampled_from(list(Phase)))
_ratios = st.none() | st.floats(0.0, 1.0)
_counts = st.none() | st.integers(0, 9)
_beats = st.builds(
    Beat, _idents, _incarnations, st.integers(1, 5), load=_ratios, queue_length=_counts, in_flight=_counts,
    labels=st.none() | st.just({"model": "qwen"}),
    acks=st.lists(
        st.builds(
            Acknowledgement, st.integers(1, 4), st.sampled_from(Stage), st.sampled_from(["", "no"]), st.booleans()
        ),
        max_size=2,
    ).map(tuple),
)  # fmt: skip
_from_driver: st.SearchStrategy[Event] = st.one_of(
    st.builds(InstanceStarted, _idents, _incarnations, st.integers(1, 9)),
    st.builds(InstanceStarted, _idents, _incarnations, st.integers(1, 9)),
    st.builds(StartFailed, _idents, _failures, st.just("why")),
    st.builds(InstanceExited, _idents, _incarnations, _exits, st.sampled_from([-1.0, 0.1, 30.0])),
    st.builds(InstanceGaveUp, _idents, _failures, st.just("why")),
    st.builds(InstanceStopped, _idents, st.booleans()),
    st.builds(
        InstancesListed,
        st.lists(_observed, max_size=5, unique_by=lambda seen: seen.id).map(tuple),
        st.frozensets(_idents, max_size=2),
    ),
)
_from_people: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        SetTarget, st.sampled_from(["up", "down"]), st.integers(0, 9), st.sampled_from([None, RESEARCH, EXECUTION]),
        st.just("alice"), st.just(""), st.none() | st.floats(1.0, 100.0), st.booleans(),
    ),
    st.builds(SetAutoscaling, st.booleans(), st.just("alice"), st.just("")),
    st.builds(Check, st.just("alice"), st.sampled_from([None, RESEARCH, EXECUTION])),
    st.builds(Restart, st.lists(_idents, max_size=3).map(tuple), st.just("alice")),
    st.builds(ConfigChanged, st.sampled_from(CONFIGS)),
    st.builds(Shutdown, st.booleans(), st.just("alice")),
)  # fmt: skip
_TICK = Tick(WALL)  # its wall time is set when it is given
_events = st.one_of(
    st.just(_TICK), st.just(_TICK), _from_driver, _from_driver, _beats, st.builds(Probed, _idents, _incarnations),
    _from_people,
)  # fmt: skip
_steps = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 5.0, 20.0, 60.0]), _events), max_size=25)


def _begun(wall: float = WALL) -> Controller:
    controller = Controller(FLEET)
    controller.step(Restored({}, 0.0, wall, wall), 0.0)
    return controller


def _at(event: Event, now: float) -> Event:
    return Tick(WALL + now) if event == _TICK else event


@STORIES
@given(_steps)
def test_no_event_is_too_strange_and_no_deadline_stays_in_the_past(steps: list[tuple[float, Event]]) -> None:
    controller, now, listed, config = _begun(), 0.0, False, FLEET
    for passed_s, event in steps:
        now += passed_s
        outcome = controller.step(_at(event, now), now)
        listed |= isinstance(event, InstancesListed)
        config = event.config if isinstance(event, ConfigChanged) else config
        if not (listed and config.enabled):
            assert not any(isinstance(action, Start) for action in outcome.actions)
        if isinstance(event, Tick):
            assert controller.deadline is None or controller.deadline > now
        view = controller.view(now)
        assert len({instance.id for instance in view.instances}) == len(view.instances)


@STORIES
@given(_steps)
def test_the_same_events_have_the_same_outcomes_also_when_restored_after_every_one_of_them(
    steps: list[tuple[float, Event]],
) -> None:
    once, again, restored = _begun(), _begun(), _begun()
    now, config = 0.0, FLEET
    for passed_s, drawn in steps:
        now += passed_s
        event = _at(drawn, now)
        outcome = once.step(event, now)
        assert again.step(event, now) == outcome
        assert restored.step(event, now) == outcome
        config = event.config if isinstance(event, ConfigChanged) else config
        rows = once.snapshot()
        assert restored.snapshot() == rows
        restored = Controller.from_snapshot(config, rows, 1)
        assert restored.deadline == once.deadline
        assert restored.view(now) == once.view(now)


@STORIES
@given(_steps, _idents, st.integers(1, 9))
def test_a_beat_of_another_life_changes_nothing(steps: list[tuple[float, Event]], ident: InstanceId, seq: int) -> None:
    controller, now = _begun(), 0.0
    for passed_s, event in steps:
        now += passed_s
        controller.step(_at(event, now), now)
    before = controller.snapshot(), controller.deadline, controller.view(now)
    outcome = controller.step(
        Beat(ident, Incarnation("stale"), seq, load=1.0, acks=(Acknowledgement(1, Stage.DONE),)), now
    )
    assert outcome == Outcome(reply=outcome.reply)
    assert (controller.snapshot(), controller.deadline, controller.view(now)) == before


@pytest.mark.parametrize("config", CONFIGS)
def test_nothing_is_started_before_the_host_has_been_looked_at(config: FleetConfig) -> None:
    controller = _begun()
    controller.step(ConfigChanged(config), 0.0)
    for now in (1.0, 100.0, 1000.0):
        assert controller.step(Tick(WALL + now), now).actions == ()

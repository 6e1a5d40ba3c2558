"""What is saved: every field that decides later behaviour comes back as it was, moved in time where it is a time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fleets import RESEARCH, fleet, research

from agentd.core import rows, scalability, shadow
from agentd.core.effects import Comparison, Demand, Effect, Measured, Metric, Verdict
from agentd.core.experts import EXPERTS
from agentd.core.flow import Flow
from agentd.core.forecast import Forecast
from agentd.core.learned import Learned
from agentd.core.ledger import Ledger, Scaling, Spent
from agentd.core.messages import Stage
from agentd.core.model import (
    AutoscalingMode,
    DirectiveKind,
    FleetConfig,
    HealthCheck,
    Incarnation,
    InstanceId,
    RollingState,
    State,
    Target,
)
from agentd.core.recent import Recent
from agentd.core.rules import CollectorConfig, Offer, Pause, Reading
from agentd.core.scalability import Level
from agentd.core.season import SLOT_S
from agentd.core.shadow import Shadow, Shadows
from agentd.core.state import Fleet, Instance, Pool, Purpose, Rolling, Schedule
from agentd.core.trial import History, Mark, Sample, Trial

IDENT = InstanceId("research-9101")
# Learned anew within seconds, or made from the configuration.
NOT_SAVED = {"usage", "core_name"}
POOL_NOT_SAVED = {"config", "instances", "removed", "last_decision", "quick"}
MOVED = {
    "since",
    "created_at",
    "requested_at",
    "started_at",
    "born_at",
    "heard_at",
    "beat_at",
    "timed_at",
    "wake_at",
    "leaving_at",
    "retry_at",
    "asked_at",
    "turned_at",
    "still_at",
    "counted_at",
    "costs_from",
}


def unlike_default(kind: str, number: int) -> Any:
    """A value of the annotated type that no default has."""
    simple: dict[str, Any] = {
        "str": f"text{number}", "int": 100 + number, "float": 1000.0 + number, "bool": True,
        "InstanceId": InstanceId("research-9102"), "Incarnation": Incarnation("abc"), "PoolName": RESEARCH,
        "State": State.DRAINING, "Purpose": Purpose.REPLACE, "Mapping[str, str]": {"model": "qwen"},
        "DirectiveKind": DirectiveKind.DRAIN, "Stage": Stage.ACCEPTED,
    }  # fmt: skip
    return simple[kind.removesuffix(" | None")]


def filled_instance() -> Instance:
    kinds = enumerate(Instance.__annotations__.items())
    values = {name: unlike_default(kind, number) for number, (name, kind) in kinds if name not in NOT_SAVED}
    values |= {"id": IDENT, "port": 9101, "launched": False}
    return Instance(**values)


def history() -> History:
    sample = Sample(1.0, 2, arrivals=3.5, response_time_p50_s=0.25, io_pressure_percent=6.0)
    comparison = Comparison(Metric.RESPONSE_TIME, Demand.ARRIVALS, True, -0.3, -0.5, -0.1, 20, 18)
    measured = Measured(samples=20, ready=2.0, load=0.5)
    return History(
        samples=[sample],
        marks={IDENT: Mark(Incarnation("abc"), 7.0, 8, None)},
        sampled_at=9.0,
        trial=Trial("1-2", 10.0, True, (IDENT,), (IDENT,), (sample, sample), 11.0, 12.0),
        rounds=3,
        last=Effect("1-1", RESEARCH, 5.0, Verdict.HELPED, "why", measured, measured, comparison, None),
        levels={count: Level(20.0, rate, 0.01, 8.0) for count, rate in ((1, 5.0), (2, 8.0), (4, 9.0), (8, 9.1))},
        saturated=4,
    )


def learned() -> Learned:
    shadows = Shadows.beginning(3, 30.0)
    shadows.leader, shadows.lived_at, shadows.hours_s, shadows.tasks = 2, 32.0, 33.0, 34.0
    shadows.fleets[1] = Shadow(4, 3, 5.5, 6.5, [(60.0, 1)], 7.5, 8.5, 9.5)
    shadows.trial = shadow.Trial(Shadow(2, 1, 1.5, 2.5, [(61.0, 1)], 3.5, 4.5, 5.5), Shadow(3, 3), 31.0, heeded=True)
    flow = Flow(
        1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, True, [(1.0, 2.0)], 8.0, 9.0, 10.0, 1.5, [(2.0, 0.5)], 11.0, waited=True
    )
    return Learned(flow, shadows, [float(place) for place in range(len(EXPERTS))], 35.0, 36.0)


def collecting() -> FleetConfig:
    return fleet(research(collectors=(CollectorConfig("queue", "test"),)))


def forecast() -> Forecast:
    made = Forecast(seen=0)
    for slot in range(300):
        made.note(slot * SLOT_S, 3.0 + slot % 7)
    made.note_labels(300 * SLOT_S, {"workload=chat": 2})
    made.note_labels(301 * SLOT_S, {"workload=chat": 5})
    made.labels_at = 18.75
    made.take_changed()
    return made


def filled_fleet() -> Fleet:
    made = Fleet(collecting(), epoch=1)
    pool = made.pools[RESEARCH]
    pool.last_up_at, pool.last_down_at, pool.start_failures, pool.backoff_until = 11.0, 12.0, 3, 14.0
    pool.last_resume_at, pool.down_in_steps = 13.0, True
    pool.ups, pool.downs = [10.0, 11.0], [12.0]
    pool.start_failure = "spawn_failed: no memory"
    pool.start_times_s, pool.starts_failed = [1.5, 2.25], 4
    pool.history = history()
    pool.law = scalability.fit(pool.history.levels)
    spent = Spent(1.5, 2.5, 3.5, 4.5, 5.0)
    pool.ledger = Ledger({472222: spent}, {19675: spent}, {24286: spent}, 1_699_999_000.0, 18.25, 18.75)
    pool.ledger.scalings = [Scaling("1-2", 1_700_000_000.0, -2, -0.5)]
    pool.target = Target(7, "alice", "demo", 15.0)
    pool.footprint_bytes, pool.footprint_learned, pool.footprint_cores = 16, True, 17.5
    pool.completed_gone, pool.adaptive = 18, learned()
    pool.forecast = forecast()
    pool.conditions = {"ScalingLimited": (True, 1_700_000_019.0)}
    pool.conflicts, pool.restart_queue, pool.restarting = {9103: 18.0}, [IDENT], InstanceId("research-9102")
    pool.rolling = Rolling("alice", 8, 7, 2, "no port", {IDENT: Incarnation("abc")}, [InstanceId("research-9103")])
    pool.rolling.done, pool.rolling.state = 5, RollingState.STOPPED
    pool.rolling.why = pool.rolling.trouble = "research-9103: not ready"
    pool.last_gist, pool.recheck_at, pool.held_from = [1, 2, "up_cooldown"], 19.0, 17.25
    pool.evaluated_at, pool.evaluate_at = 19.5, 20.5
    pool.readings = {"queue": Reading(7.0, 18.5, "no answer")}
    pool.offers = {"oracle": Offer("oracle", 7, "bob", "why", 21.5)}
    pool.recent = {"0 demand": Recent([(3.0, 5), (4.0, 2)], [(4.0, 2)])}
    pool.schedule = Schedule(1_700_000_000.0, 1_700_000_600.0, ("day",), 2, 9)
    made.mode, made.mode_is_persons = AutoscalingMode(False, "bob", "why", 20.0), True
    pool.pauses = {"up": Pause("eve", "costs", 1_700_000_000.0, 22.5)}
    made.pauses = {"down": Pause("eve", "", 1_700_000_001.0, None)}
    made.listed = made.shutting_down = True
    made.recovering_until, made.next_check, made.ticked_at, made.wall_offset = 21.0, 22.0, 23.0, 24.0
    made.scaling_events, made.decisions_made, made.directives_made = 25, 26, 27
    made.insert(filled_instance())
    return made


def loaded(saved: dict[str, str], shift: float = 0.0) -> Fleet:
    made = Fleet(collecting(), epoch=2)
    rows.load(made, saved, shift)
    return made


def test_every_field_of_an_instance_comes_back() -> None:
    before, after = filled_instance(), loaded(rows.snapshot(filled_fleet())).instances[IDENT]
    for name in Instance.__struct_fields__:
        if name not in NOT_SAVED:
            assert getattr(after, name) == getattr(before, name), name
            assert type(getattr(after, name)) is type(getattr(before, name)), name


def test_every_field_of_a_pool_comes_back() -> None:
    before, after = filled_fleet().pools[RESEARCH], loaded(rows.snapshot(filled_fleet())).pools[RESEARCH]
    fresh = Pool(config=research())
    for name in Pool.__struct_fields__:
        if name not in POOL_NOT_SAVED:
            assert getattr(before, name) != getattr(fresh, name), f"this test must fill {name}"
            assert getattr(after, name) == getattr(before, name), name


@pytest.mark.parametrize(
    "name",
    ["mode", "mode_is_persons", "pauses", "listed", "recovering_until", "next_check", "ticked_at", "shutting_down",
     "scaling_events", "decisions_made", "directives_made", "wall_offset"],
)  # fmt: skip
def test_every_field_of_the_fleet_itself_comes_back(name: str) -> None:
    before, after = filled_fleet(), loaded(rows.snapshot(filled_fleet()))
    assert getattr(before, name) != getattr(Fleet(collecting(), epoch=1), name), f"this test must fill {name}"
    assert getattr(after, name) == getattr(before, name)


def test_times_move_with_the_clock_and_nothing_else_does() -> None:
    before, after = filled_fleet(), loaded(rows.snapshot(filled_fleet()), shift=-5.0)
    for name in Instance.__struct_fields__:
        if name not in NOT_SAVED:
            old, new = getattr(before.instances[IDENT], name), getattr(after.instances[IDENT], name)
            assert new == (old - 5.0 if name in MOVED else old), name
    pool = after.pools[RESEARCH]
    assert (pool.last_up_at, pool.last_down_at, pool.backoff_until, pool.recheck_at) == (6.0, 7.0, 9.0, 14.0)
    assert pool.last_resume_at == 8.0
    assert pool.pauses["up"].expires == 17.5
    assert {level.at for level in pool.history.levels.values()} == {3.0}
    assert after.pauses == before.pauses
    assert pool.forecast is not None and pool.forecast.labels_at == 13.75
    trial = pool.adaptive.shadows.trial if pool.adaptive and pool.adaptive.shadows else None
    assert trial is not None and (trial.lived_s, trial.with_it.coming) == (31.0, [(56.0, 1)])
    assert (pool.ups, pool.downs) == ([5.0, 6.0], [7.0])
    assert pool.conflicts == {9103: 13.0}
    assert pool.target == Target(7, "alice", "demo", 10.0)


def test_a_time_that_is_not_set_stays_unset() -> None:
    empty = Fleet(collecting(), epoch=1)
    pool = loaded(rows.snapshot(empty), shift=-5.0).pools[RESEARCH]
    assert (pool.last_up_at, pool.last_down_at, pool.backoff_until, pool.recheck_at) == (None, None, 0.0, 0.0)


def test_only_what_changed_is_written_and_what_is_gone_is_deleted() -> None:
    made = filled_fleet()
    rows.take_changed(made)
    assert rows.take_changed(made) == {}
    instance = made.instances[IDENT]
    made.touch(instance)
    (row,) = rows.take_changed(made).values()
    assert row is not None
    assert json.loads(row)["id"] == IDENT
    made.touch(instance)
    made.remove(instance, 0.0)
    assert rows.take_changed(made) == {f"instance/{IDENT}": None}


def test_an_instance_whose_pool_was_never_saved_is_not_lost() -> None:
    saved = rows.snapshot(filled_fleet())
    del saved[f"pool/{RESEARCH}"]
    other = Fleet(fleet(research(health=HealthCheck.NONE)), epoch=2)
    rows.load(other, saved)
    assert IDENT in other.instances
    del saved["controller"]
    nobody = Fleet(fleet(research()), epoch=2)
    nobody.apply_config(type(nobody.config)(pools={}))
    rows.load(nobody, saved)
    assert nobody.pools[RESEARCH].removed


def test_of_a_pool_that_is_configured_no_more_nothing_stays_but_what_it_has_spent() -> None:
    saved = rows.snapshot(filled_fleet())
    others = {key.replace("research", "gone"): row for key, row in saved.items() if key.count("research") == 1}
    others = {key: row for key, row in others.items() if not key.startswith("instance/")}
    made = Fleet(collecting(), epoch=2)
    rows.load(made, saved | others)
    gone = {key for key, row in rows.take_changed(made).items() if row is None}
    assert gone >= {key for key in others if "gone" in key}
    assert {"pool/gone", "adaptive/gone", "forecast/gone", "history/gone", "season/gone/0"} <= gone
    assert made.past != Ledger(), "what it has spent"
    assert not any("research" in key for key in gone)


def test_experts_are_known_by_their_names_whatever_their_order() -> None:
    saved = json.loads(rows.snapshot(filled_fleet())[f"adaptive/{RESEARCH}"])
    backwards = saved | {"peaks": dict(reversed(saved["peaks"].items()))}
    backwards["shadows"]["fleets"] = dict(reversed(saved["shadows"]["fleets"].items()))
    made = Fleet(collecting(), epoch=2)
    rows.load(made, rows.snapshot(filled_fleet()) | {f"adaptive/{RESEARCH}": json.dumps(backwards)})
    assert made.pools[RESEARCH].adaptive == learned()

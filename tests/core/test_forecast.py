"""Forecasts of a pool: what is told to them, when they are heeded, and that they never lower."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.core import adaptive, experts, forecast, forecasting, rows
from agentd.core.controller import Controller
from agentd.core.experts import EXPERTS, Outlook
from agentd.core.flow import Flow, Lately
from agentd.core.forecast import ALL, IDLE_S, LABELLED_MAX, SEEN_SLOTS, Forecast
from agentd.core.learned import Learned
from agentd.core.messages import Beat
from agentd.core.metrics import Totals
from agentd.core.model import PoolConfig, PoolName, PortRange
from agentd.core.rules import AdaptiveTrigger
from agentd.core.season import DAY_SLOTS, SLOT_S
from agentd.core.shadow import FORECAST_TRIAL_S, Shadows, Step, Trial
from agentd.core.state import Pool
from tests.core.fleets import fleet
from tests.core.world import WALL, World

RESEARCH = PoolName("research")
DAY_S = DAY_SLOTS * SLOT_S
NOTHING = Lately(0.0, 0.0, 0.0, 0.0, 0.0)


def told(count: int, busy: int) -> Totals:
    return Totals(
        count, count, 0, 0, 0, 0, (), 0, busy, demand=float(busy), told=True, at_work=float(busy), completed=0.0
    )


def pool(**more: object) -> Pool:
    made = Pool(PoolConfig(RESEARCH, max=50, ports=PortRange(9101, 9199), **more))  # type: ignore[arg-type]
    made.start_times_s = [30.0]
    return made


def taught(tasks: float, days: float = 2.0, *, at_noon: float | None = None) -> Forecast:
    """A forecast that has seen so many tasks all the time; at noon, for an hour, `at_noon`."""
    made = Forecast()
    for slot in range(int(days * DAY_SLOTS) + 1):
        noon = at_noon is not None and 144 <= slot % DAY_SLOTS < 156
        made.note(slot * SLOT_S, at_noon if noon and at_noon is not None else tasks)
    return made


# -- what is remembered ---------------------------------------------------------------------------


def test_nothing_is_expected_before_a_day_has_been_seen() -> None:
    made = taught(7.0, days=(SEEN_SLOTS - 1) / DAY_SLOTS)
    assert not made.ready and made.floor(made_at(made), 40.0) == 0.0
    made.note(made_at(made) + SLOT_S, 7.0)
    assert made.ready and made.floor(made_at(made), 40.0) == pytest.approx(7.0, abs=0.3)


def made_at(made: Forecast) -> float:
    slot = made.series[ALL].slot
    assert slot is not None
    return slot * SLOT_S


def test_the_floor_looks_as_far_as_a_start_takes() -> None:
    made = taught(4.0, days=3 + 142 / DAY_SLOTS, at_noon=30.0)
    before_noon = 3 * DAY_S + 144 * SLOT_S - 60.0
    assert made.floor(before_noon, 40.0) < 6.0
    assert made.floor(before_noon, 61.0) > 25.0
    assert made.floor(before_noon - 2 * SLOT_S + 60.0, 700.0) > 25.0


def test_labels_have_series_of_their_own_and_who_is_idle_makes_room() -> None:
    made = Forecast()
    names = [f"workload=w{number}" for number in range(LABELLED_MAX)]
    made.note_labels(0.0, dict.fromkeys(names, 2))
    made.note_labels(SLOT_S, {names[0]: 3, "workload=new": 5, "project=idle": 0})
    assert set(made.series) == {ALL, *names}, "all are in use, and who has no task needs no series"
    assert made.series[names[0]].peak == 3.0 and made.series[names[1]].peak == 0.0
    made.note_labels(SLOT_S + IDLE_S, {"workload=new": 5})
    assert "workload=new" in made.series and names[1] not in made.series
    assert len(made.series) == LABELLED_MAX + 1


def test_days_that_are_not_kept_any_more_leave_the_store() -> None:
    made = taught(3.0, days=18)
    changed = made.take_changed()
    assert [day for day in changed if forecast.day_row(made, day) is None] == [0, 1, 2]
    assert made.take_changed() == []


# -- what is told ---------------------------------------------------------------------------------


def test_agents_tasks_and_labels_reach_the_forecast_whatever_the_trigger() -> None:
    world = World(fleet(PoolConfig(RESEARCH, min=2, max=4, ports=PortRange(9101, 9109))))
    world.boot()
    world.run_until(200.0)
    first, second = world.controller._fleet.instances.values()
    for at in (201.0, 210.0):
        world.run_until(at)
        for number, (instance, label) in enumerate(((first, "chat"), (second, "mail"))):
            beat = Beat(instance.id, instance.incarnation, int(at) + 1_000, load=0.5, in_flight=number + 1,
                        queue_length=1, labels={"workload": label, "host": "a"})  # fmt: skip
            world.controller.step(beat, world.now)
        world.controller._fleet.next_check = at + 1.0
        world.run_until(at + 2.0)
    found = world.controller._fleet.pools[RESEARCH].forecast
    assert found is not None
    assert {name: series.peak for name, series in found.series.items()} == {
        ALL: 5.0, "workload=chat": 2.0, "workload=mail": 3.0,
    }  # fmt: skip


def test_a_fleet_from_the_store_knows_what_the_other_knew() -> None:
    world = World(fleet(PoolConfig(RESEARCH, min=1, max=4, ports=PortRange(9101, 9109))))
    world.boot()
    world.run_until(200.0)
    whole = world.controller._fleet
    made = taught(4.0, days=3.2, at_noon=9.0)
    made.note_labels(made_at(made), {"workload=chat": 2})
    made.note_labels(made_at(made) + SLOT_S, {"workload=chat": 2})
    whole.pools[RESEARCH].forecast = made
    saved = rows.snapshot(whole)
    assert [key for key in saved if key.startswith("season/")] == [f"season/research/{day}" for day in range(4)]
    again = Controller.from_snapshot(whole.config, saved, 2)._fleet.pools[RESEARCH].forecast
    assert again is not None
    made.take_changed()
    made.expected.clear()
    assert again == made
    whole.touch_forecast(RESEARCH)
    assert set(rows.take_changed(whole)) >= {"forecast/research"}


def test_a_pool_that_is_gone_leaves_nothing_in_the_store() -> None:
    world = World(fleet(PoolConfig(RESEARCH, min=0, max=4, ports=PortRange(9101, 9109))))
    whole = world.controller._fleet
    whole.pools[RESEARCH].forecast = taught(4.0, days=1.5)
    whole.drop_pool(RESEARCH)
    gone = rows.take_changed(whole)
    assert {key for key, row in gone.items() if row is None} >= {
        "forecast/research", "season/research/0", "season/research/1",
    }  # fmt: skip


# -- what follows ---------------------------------------------------------------------------------


def grown(busy: int) -> Flow:
    flow = Flow()
    for second in range(0, 900, 60):
        flow.observe(float(second), busy, busy, busy * second / 10.0)
    return flow


def adaptive_pool(*, expected: float, heeded: bool, busy: int, count: int, concurrency: int = 1) -> Pool:
    made = pool(concurrency=concurrency)
    flow = grown(busy)
    shadows = Shadows.beginning(count, 0.0)
    shadows.trial = adaptive_trial(shadows, heeded)
    made.adaptive = Learned(flow, shadows, forecast=expected)
    return made


def adaptive_trial(shadows: Shadows, heeded: bool) -> Trial:
    trial = Trial.beginning(shadows.fleets[0])
    trial.heeded = heeded
    return trial


@given(
    st.sampled_from(["auto", "on", "off"]), st.booleans(), st.floats(0.0, 90.0), st.integers(0, 40),
    st.integers(1, 50), st.integers(1, 4),
)  # fmt: skip
def test_a_forecast_never_lowers(
    setting: str, heeded: bool, expected: float, busy: int, count: int, concurrency: int
) -> None:
    made = adaptive_pool(expected=expected, heeded=heeded, busy=busy, count=count, concurrency=concurrency)
    without = adaptive_pool(expected=0.0, heeded=heeded, busy=busy, count=count, concurrency=concurrency)
    trigger = AdaptiveTrigger(forecast=setting)
    found = adaptive.propose(made, trigger, told(count, busy), 900.0)
    plain = adaptive.propose(without, trigger, told(count, busy), 900.0)
    assert found.count is not None and plain.count is not None
    assert found.count >= plain.count
    heeds = setting == "on" or (setting == "auto" and heeded)
    assert found.count == (max(plain.count, experts.instances(expected, concurrency)) if heeds else plain.count)
    assert (found.reason.code == "forecast") == (found.count > plain.count)


def test_what_it_says_is_in_the_reason() -> None:
    made = adaptive_pool(expected=17.4, heeded=True, busy=4, count=6)
    found = adaptive.propose(made, AdaptiveTrigger(), told(6, 4), 900.0)
    assert found.count == 18 and "17.4 are usual at this time" in found.reason.text


def lived(came_at: list[float], expected_at: list[int], days: int) -> Shadows:
    """Shadows that live through the same day again and again, by steps of 10 s; a task takes 60 s, a start 30 s."""
    shadows = Shadows.beginning(1, 0.0)
    flow = Flow()
    demand = completed = at = 0.0
    for _ in range(days):
        for came, expected in zip(came_at, expected_at, strict=True):
            at += 10.0
            left = min(demand, demand * 10.0 / 60.0)
            completed, demand = completed + left, demand + came - left
            flow.observe(at, demand, demand, completed)
            view: Outlook = experts.outlook(flow, 30.0, 5.0)
            shadows.live(Step(view, at, 10.0, flow.take_lately(5.0), 30.0, 1, 1, 50), 10.0, expected)
    return shadows


def day_of_jobs(tasks: int) -> list[float]:
    """Once an hour so many tasks at a time, nothing in between."""
    return [float(tasks) if step % 360 == 100 else 0.05 for step in range(8_640)]


def test_it_is_heeded_from_when_it_has_paid_and_not_before_a_day() -> None:
    came = day_of_jobs(30)
    right = [30 if 90 <= step % 360 < 110 else 1 for step in range(8_640)]
    shadows = lived(came, right, 1)
    assert shadows.trial is not None and shadows.trial.saved_ratio > 0.1
    assert not shadows.trial.heeded, "it runs in shadow for a day"
    shadows = lived(came, right, 2)
    assert shadows.trial is not None and shadows.trial.heeded


def test_a_forecast_that_is_wrong_is_not_heeded() -> None:
    came = day_of_jobs(30)
    wrong = [30 if 200 <= step % 360 < 260 else 1 for step in range(8_640)]
    shadows = lived(came, wrong, 2)
    assert shadows.trial is not None and shadows.trial.saved_ratio < 0.0 and not shadows.trial.heeded


def test_it_is_heeded_no_more_when_it_has_stopped_to_pay() -> None:
    shadows = lived(day_of_jobs(30), [30 if 90 <= step % 360 < 110 else 1 for step in range(8_640)], 2)
    trial = shadows.trial
    assert trial is not None and trial.heeded
    at, days = shadows.lived_at, 0
    view = experts.outlook(Flow(), 30.0, 5.0)
    while trial.heeded and days < 14 * 8_640:  # nothing comes any more, and it goes on to expect it
        at, days = at + 10.0, days + 1
        trial.live(EXPERTS[0], Step(view, at, 10.0, NOTHING, 30.0, 1, 1, 50), 1.0, 30)
    assert not trial.heeded
    assert at - shadows.lived_at < 7 * FORECAST_TRIAL_S


def test_a_day_in_shadow_is_one_that_was_lived_through() -> None:
    shadows = lived([0.05] * 10, [30] * 10, 1)
    trial = shadows.trial
    assert trial is not None
    trial.with_it.paid, trial.without.paid = 1.0, 100.0
    view = experts.outlook(Flow(), 30.0, 5.0)
    later = shadows.lived_at + 40 * FORECAST_TRIAL_S  # agentd was away
    trial.live(EXPERTS[0], Step(view, later, 10.0, NOTHING, 30.0, 1, 1, 50), 1.0, 30)
    assert not trial.heeded and trial.lived_s == pytest.approx(100.0, abs=11.0)


def test_the_trial_goes_by_whom_the_pool_follows() -> None:
    shadows = Shadows.beginning(9, 0.0)
    flow = grown(8)
    view = experts.outlook(flow, 30.0, 5.0)
    careful = experts.NAMES.index("careful")
    for second in range(1, 60):
        step = Step(view, 10.0 * second, 10.0, Lately(8.0, 8.0, 80.0, 8.0, 4.0), 30.0, 1, 1, 50)
        shadows.live(step, 10.0, 1, careful)
    assert shadows.trial is not None
    assert shadows.trial.without.count == shadows.fleets[careful].count


def test_who_is_new_to_a_pool_lets_nobody_go_before_anything_is_known() -> None:
    made = pool()
    made.adaptive = Learned(Flow(), Shadows.beginning(20, 100.0))
    made.adaptive.flow.observe(100.0, 0.0, 0.0, 0.0)
    found = adaptive.propose(made, AdaptiveTrigger(), told(20, 2), 104.0)
    assert (found.count, found.reason.code) == (20, "just_begun")
    found = adaptive.propose(made, AdaptiveTrigger(), told(20, 2), 161.0)
    assert found.count is not None and found.count < 20


def test_the_wall_clock_is_what_it_goes_by() -> None:
    world = World(fleet(PoolConfig(RESEARCH, min=1, max=4, ports=PortRange(9101, 9109))))
    world.boot()
    world.run_until(200.0)
    whole = world.controller._fleet
    made = whole.pools[RESEARCH]
    forecasting.note(whole, made, told(1, 1), world.now)
    assert made.forecast is not None
    assert made.forecast.series[ALL].slot == int((WALL + world.now) // SLOT_S)


# -- what is shown of it -----------------------------------------------------------------------------


def test_what_is_expected_is_in_the_view_of_the_pool_as_far_ahead_as_it_is() -> None:
    world = World(fleet(PoolConfig(RESEARCH, min=1, max=4, ports=PortRange(9101, 9109))))
    world.boot()
    world.run_until(200.0)
    made, first = world.controller._fleet.pools[RESEARCH], int((WALL + world.now) // SLOT_S)
    made.forecast = Forecast()
    for slot in range(first - 100, first + 1):
        made.forecast.note(slot * SLOT_S, 6.0)
    found = world.view().pools[0].forecast
    assert found is not None
    assert (found.heeded, found.code) == (False, "forecast_unused")
    assert [each.ahead_s for each in found.ahead] == [600.0, 3600.0, 6 * 3600.0], "nothing was said a day ago"
    assert all(each.expected.middle == pytest.approx(6.0, abs=0.5) for each in found.ahead)


def test_nothing_is_expected_of_a_pool_that_has_not_told_anything_lately() -> None:
    made = taught(5.0)
    assert made.ahead(made_at(made))
    assert made.ahead(made_at(made) + 2 * SLOT_S) == []
    assert Forecast().ahead(0.0) == []

"""The `adaptive` trigger: what is learned of the stream, what the experts make of it, and who of them is followed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.core import adaptive, demand, experts, learned, shadow
from agentd.core.experts import EXPERTS
from agentd.core.flow import Flow, Lately
from agentd.core.messages import Collected
from agentd.core.metrics import Totals
from agentd.core.model import InstanceId, PoolConfig, PoolName, PortRange
from agentd.core.rules import AdaptiveTrigger, CollectorConfig, DemandTrigger, TargetTrigger
from agentd.core.shadow import Shadow, Shadows, Step
from agentd.core.state import Pool
from tests.core.fleets import fleet
from tests.core.world import World

RESEARCH = PoolName("research")
EVEN = EXPERTS[experts.NAMES.index("even")]


def streamed(rate: float, service_s: float, until: float = 3_600.0, step_s: float = 5.0) -> Flow:
    """A flow that has seen `rate` tasks a second of `service_s` each, as regular as can be."""
    flow = Flow()
    at, completed = 0.0, 0.0
    while at <= until:
        flow.observe(at, rate * service_s, rate * service_s, completed)
        at += step_s
        completed += rate * step_s
    return flow


def told(count: int, busy: int, waiting: int = 0, **more: object) -> Totals:
    values: dict[str, object] = {
        "count": count, "ready": count, "starting": 0, "draining": 0, "unhealthy": 0, "failed": 0, "loads": (),
        "queue_length": waiting, "in_flight": busy, "demand": float(busy + waiting), "told": True,
        "at_work": float(busy),
    }  # fmt: skip
    return Totals(**(values | more))  # type: ignore[arg-type]


def pool(concurrency: int = 1) -> Pool:
    config = PoolConfig(RESEARCH, max=50, ports=PortRange(9101, 9199), concurrency=concurrency)
    made = Pool(config)
    made.start_times_s = [30.0]
    return made


# -- the stream -----------------------------------------------------------------------------------


def test_rate_and_service_time_of_a_regular_stream_are_found() -> None:
    flow = streamed(rate=0.5, service_s=12.0)
    assert flow.rate == pytest.approx(0.5, rel=0.05)
    assert flow.service_s == pytest.approx(12.0, rel=0.02)


def test_without_a_count_of_completed_tasks_growth_is_arrival_and_decline_completion() -> None:
    flow = Flow()
    for at, tasks in ((0.0, 0.0), (10.0, 5.0), (20.0, 3.0), (30.0, 4.0)):
        flow.observe(at, tasks, min(tasks, 2.0), None)
    assert flow.take_lately(5.0).came == 6.0
    assert flow.done == 2.0


def test_reports_that_cross_each_other_do_not_count_twice() -> None:
    """A task leaves the queue in one report and shows up in an agent in the next one."""
    flow = Flow()
    flow.observe(0.0, 3.0, 1.0, 0.0)
    flow.observe(1.0, 2.0, 1.0, 0.0)
    assert flow.take_lately(5.0).came == 0.0
    flow.observe(2.0, 3.0, 2.0, 0.0)
    assert flow.take_lately(5.0).came == 0.0
    flow.observe(3.0, 4.0, 2.0, 0.0)
    assert flow.take_lately(5.0).came == 1.0


def test_a_long_silence_begins_a_new_stream_and_keeps_the_service_time() -> None:
    flow = streamed(rate=0.5, service_s=12.0, until=600.0)
    service_s = flow.service_s
    flow.observe(600.0 + 3_600.0, 40.0, 1.0, 9_999.0)
    assert flow.rate == 0.0
    assert flow.service_s == service_s


def test_what_came_while_agentd_was_away_is_not_taken_for_a_burst() -> None:
    flow = streamed(rate=0.5, service_s=12.0, until=600.0)
    flow.take_lately(5.0)
    rate = flow.rate
    flow.resumed = True
    flow.observe(620.0, 46.0, 6.0, 1_000.0)
    assert flow.take_lately(5.0).came == 0.0
    assert flow.rate <= rate


# -- experts --------------------------------------------------------------------------------------


def test_the_lower_end_is_what_is_expected_when_a_start_has_ended() -> None:
    """Worked by hand: 0.5 tasks/s of 12 s, 6 at work; in 30 s a share of exp(-2.5) = 0.0821 of them is still there."""
    flow = streamed(rate=0.5, service_s=12.0)
    view = experts.outlook(flow, 30.0, 5.0)
    expected = view.expected(6.0)
    assert expected == pytest.approx(6.0, rel=0.05)
    low, high = experts.band(EVEN, expected, 6.0, 6.0, 1)
    assert low == math.ceil(expected + 1.5 * math.sqrt(expected))
    assert high == max(math.ceil(expected + 2.0 * math.sqrt(expected)), math.ceil(1.3 * 6.0))


@given(
    place=st.integers(0, len(EXPERTS) - 1), expected=st.floats(0, 200), floor=st.floats(0, 200),
    peak=st.floats(0, 200), slots=st.integers(1, 8), more=st.floats(0, 50),
)  # fmt: skip
def test_a_band_is_never_below_what_is_there_and_grows_with_it(
    place: int, expected: float, floor: float, peak: float, slots: int, more: float
) -> None:
    expert = EXPERTS[place]
    low, high = experts.band(expert, expected, floor, max(peak, floor), slots)
    assert floor / slots - 1e-6 <= low <= high
    more_low, more_high = experts.band(expert, expected + more, floor + more, max(peak, floor + more), slots)
    assert low <= more_low
    assert high <= more_high


def test_who_relies_on_slots_at_work_starts_less_for_a_backlog_and_nothing_less_for_what_is_at_work() -> None:
    """Worked by hand: 5 slots do 30 / 12 = 2.5 tasks each until a start has ended, of which a fifth is 2.5 tasks."""
    view = experts.outlook(streamed(rate=0.5, service_s=12.0), 30.0, 0.0)
    assert view.floor(5.0, 20.0) == pytest.approx(25.0)
    assert view.floor(5.0, 20.0, 0.2) == pytest.approx(5.0 + 20.0 - 2.5, rel=0.01)
    assert view.floor(5.0, 1.0, 0.2) == 5.0


# -- shadows --------------------------------------------------------------------------------------


def lived(demand_at: list[float], *, service_s: float = 10.0, start_s: float = 30.0) -> Shadows:
    """Shadows that have seen tasks arrive, so many per 2 s."""
    shadows = Shadows.beginning(1, 0.0)
    flow = Flow()
    completed = demand = at = 0.0
    for came in demand_at:
        at += 2.0
        left = min(demand + came, demand * 2.0 / service_s)
        completed += left
        demand += came - left
        flow.observe(at, demand, demand, completed)
        view = experts.outlook(flow, start_s, 5.0)
        shadows.live(Step(view, at, 2.0, flow.take_lately(5.0), start_s, 1, 1, 50), 10.0)
    return shadows


def step(view: experts.Outlook, now: float, lately: Lately, least: int = 1) -> Step:
    return Step(view, now, 2.0, lately, 30.0, 1, least, 50)


def test_a_shadow_waits_for_its_starts_and_lets_go_of_those_first() -> None:
    flow = streamed(rate=0.5, service_s=12.0)
    view = experts.outlook(flow, 30.0, 5.0)
    fleet_ = Shadow(1, 1)
    fleet_.live(EVEN, step(view, 100.0, Lately(6.0, 0.0, 0.0, 0.0, 6.0)))
    assert fleet_.count > 1 and fleet_.ready == 1
    assert [at for at, _ in fleet_.coming] == [130.0]
    wanted = fleet_.count
    fleet_.live(EVEN, step(view, 131.0, Lately(1.0, 1.0, 12.0, 6.0, 1.0)))
    assert fleet_.ready >= wanted
    quiet = experts.outlook(Flow(), 30.0, 5.0)
    fleet_.coming, fleet_.count, fleet_.demand, fleet_.peak = [(200.0, 3)], fleet_.ready + 3, 0.0, 0.0
    ready = fleet_.ready
    fleet_.live(EVEN, step(quiet, 140.0, Lately(0.0, 0.0, 0.0, 0.0, 0.0), least=ready))
    assert (fleet_.coming, fleet_.ready, fleet_.count) == ([], ready, ready)


@given(
    story=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0.0, 2.0)), min_size=1, max_size=50),
)
def test_where_neither_makes_tasks_wait_a_shadow_has_the_tasks_that_the_real_agents_have(
    story: list[tuple[int, int, float]],
) -> None:
    flow, fleet_ = Flow(), Shadow(400, 400)
    demand = completed = at = 0.0
    flow.observe(at, demand, demand, completed)
    flow.take_lately(5.0)
    for came, most_done, passed_s in story:
        at += 1.0 + passed_s
        done = min(float(most_done), demand)
        completed, demand = completed + done, demand - done + came
        flow.observe(at, demand, demand, completed)
        view = experts.outlook(flow, 30.0, 5.0)
        lately = flow.take_lately(5.0)
        assert fleet_.live(EVEN, Step(view, at, 1.0 + passed_s, lately, 30.0, 1, 400, 500)) == 0.0
        assert fleet_.demand == pytest.approx(demand, abs=1e-6)


def test_a_task_that_waits_for_longer_than_it_may_is_late_once() -> None:
    """One agent with one slot, always at work: of three tasks the second begins after 4 s, the third after 8 s."""
    flow, fleet_ = Flow(), Shadow(1, 1)
    late = []
    for second in range(14):
        done = second // 4
        flow.observe(float(second), 3.0 - done if second else 0.0, min(1.0, 3.0 - done), float(done))
        lately = flow.take_lately(5.0)
        view = experts.Outlook(4.0, 0.0, 0.0, 1.0, 1.0, 7.5)
        late.append(fleet_.live(EVEN, Step(view, float(second), 1.0, lately, 1e6, 1, 1, 1)))
    assert sum(late) == 1.0
    assert late.index(1.0) == 6, "it came in the first second"


def test_late_tasks_are_paid_for_and_a_steady_stream_is_not_held_for_peaks() -> None:
    shadows = lived([0.6] * 4_000)
    paid = {expert.name: fleet_.paid for expert, fleet_ in zip(EXPERTS, shadows.fleets, strict=True)}
    assert paid["careful"] > paid["lean"]
    assert EXPERTS[shadows.leader].name in ("lean", "bursty", "holding")


def test_bursts_that_come_again_and_again_are_waited_for() -> None:
    """Ten tasks within ten seconds every two minutes: who lets go in between is late each time."""
    shadows = lived(([2.0] * 5 + [0.0] * 55) * 120)
    leader = EXPERTS[shadows.leader]
    assert leader.hold_s > 60.0, leader


def test_nobody_is_followed_before_something_is_known() -> None:
    shadows = lived([0.6] * 100)
    assert EXPERTS[shadows.leader].name == "standing"


@given(peak=st.floats(0, 500), floor=st.floats(0, 500), passed_s=st.floats(0, 5_000), most=st.floats(1, 200))
def test_a_peak_counts_for_no_more_than_the_pool_can_serve(
    peak: float, floor: float, passed_s: float, most: float
) -> None:
    """A backlog of ten times the pool is not remembered for longer than one that fills it."""
    for expert in EXPERTS:
        left = experts.remembered(expert, min(peak, most), floor, passed_s, 1.0, most)
        assert min(floor, most) <= left <= most
        full = experts.remembered(expert, 0.0, most, 0.0, 1.0, most)
        assert full == experts.remembered(expert, 0.0, most * 10.0, 0.0, 1.0, most)


def test_what_a_backlog_called_for_is_held_no_longer_than_what_fills_the_pool() -> None:
    """Of 200 tasks or of 50 that come at once, to a pool of 50: about the same is held a quarter of an hour later."""
    held = []
    for burst in (50.0, 200.0):
        shadows = lived([0.0, burst] + [0.0] * 450)
        held.append(shadows.fleets[experts.NAMES.index("standing")].count)
    assert 1 < held[0] <= held[1] <= held[0] + 1


# -- the trigger ----------------------------------------------------------------------------------


def noted(made: Pool, sums: Totals, until: float = 900.0) -> None:
    whole = fleet(made.config)
    world = World(whole)
    at = 0.0
    while at <= until:
        adaptive.note(world.controller._fleet, made, AdaptiveTrigger(), sums, at)
        at += 5.0


def test_without_a_word_of_work_it_abstains() -> None:
    silent = told(2, 0, demand=None, told=False, at_work=None)
    proposal = adaptive.propose(pool(), AdaptiveTrigger(), silent, 10.0)
    assert (proposal.count, proposal.reason.code) == (None, "no_sample")


def test_it_never_goes_below_what_is_at_work() -> None:
    made = pool()
    noted(made, told(12, 9))
    proposal = adaptive.propose(made, AdaptiveTrigger(), told(12, 9), 900.0)
    assert proposal.count is not None and proposal.count >= 9


@pytest.mark.parametrize("name", experts.NAMES)
def test_a_pool_can_be_told_whom_to_follow(name: str) -> None:
    made = pool()
    noted(made, told(5, 4))
    proposal = adaptive.propose(made, AdaptiveTrigger(expert=name), told(5, 4), 900.0)
    assert proposal.reason.text.endswith(f"({name})")


def test_standby_is_kept_on_top() -> None:
    made = pool(concurrency=2)
    noted(made, told(1, 0))
    plain = adaptive.propose(made, AdaptiveTrigger(), told(1, 0), 900.0)
    warm = adaptive.propose(made, AdaptiveTrigger(standby=3), told(1, 0), 900.0)
    assert plain.count in (0, 1)
    assert warm.count == 3


def test_late_instances_count_as_busy_on_the_way_down_and_nothing_on_the_way_up() -> None:
    made = pool()
    noted(made, told(9, 1))
    without = adaptive.propose(made, AdaptiveTrigger(), told(9, 1), 2_000.0)
    silent = told(9, 1, ready=6, unhealthy=3)
    with_late = adaptive.propose(made, AdaptiveTrigger(), silent, 2_000.0)
    assert without.count is not None and with_late.count is not None
    assert with_late.count >= 4 >= without.count
    few = adaptive.propose(made, AdaptiveTrigger(), told(1, 1, ready=3, unhealthy=1), 2_000.0)
    assert few.count is not None
    assert few.count <= 4


def test_a_silent_pool_holds() -> None:
    made = pool()
    noted(made, told(4, 1))
    proposal = adaptive.propose(made, AdaptiveTrigger(), told(4, 1, ready=2, unhealthy=2), 2_000.0)
    assert (proposal.count, proposal.reason.code) == (4, "silent")


def test_a_queue_that_nobody_can_read_stops_the_way_down_alone() -> None:
    made = pool()
    noted(made, told(6, 1))
    blind = told(6, 1, demand=None)
    assert adaptive.propose(made, AdaptiveTrigger(), blind, 2_000.0).reason.code == "unsure"
    busy = told(6, 9, demand=None)
    proposal = adaptive.propose(made, AdaptiveTrigger(), busy, 2_000.0)
    assert proposal.count is not None and proposal.count >= 9


def test_what_has_just_grown_is_held_for_a_moment() -> None:
    made = pool()
    noted(made, told(6, 1))
    made.last_up_at = 1_995.0
    held = adaptive.propose(made, AdaptiveTrigger(), told(6, 1), 2_000.0)
    assert (held.count, held.reason.code) == (6, "just_grown")
    later = adaptive.propose(made, AdaptiveTrigger(), told(6, 1), 2_005.0)
    assert later.count is not None and later.count < 6


def test_a_pool_at_its_minimum_holds_nobody_back() -> None:
    """It says the same in its first minute as later: what it needs, and the minimum is the limit."""
    made = pool()
    noted(made, told(1, 0), until=30.0)
    found = adaptive.propose(made, AdaptiveTrigger(), told(1, 0), 35.0)
    assert (found.count, found.reason.code) == (0, "needs_fewer")
    held = adaptive.propose(made, AdaptiveTrigger(), told(4, 0), 35.0)
    assert (held.count, held.reason.code) == (4, "just_begun")
    assert held.reason.text.endswith("fewer only when tasks have been watched for 60 s, so far 35 s")


def test_full_agents_may_have_more_to_do_while_nobody_tells_what_waits() -> None:
    made = pool()
    noted(made, told(10, 10))
    blind = adaptive.propose(made, AdaptiveTrigger(expert="bursty"), told(10, 10), 900.0)
    assert blind.count == 12, "10 / 0.85"
    assert "10 tasks at work (85% is full while no waiting task was ever told of)" in blind.reason.text
    assert "is full" not in adaptive.propose(made, AdaptiveTrigger(), told(10, 8), 900.0).reason.text
    assert "above 8.5 tasks at work, while no waiting task" in adaptive.turning(
        made, AdaptiveTrigger(), told(10, 8), True
    )
    whole = fleet(made.config)
    adaptive.note(World(whole).controller._fleet, made, AdaptiveTrigger(), told(10, 11, 10), 901.0)
    seen = adaptive.propose(made, AdaptiveTrigger(expert="bursty"), told(10, 10), 902.0)
    assert "is full" not in seen.reason.text, "one that waited has been told of"
    assert "no waiting task" not in adaptive.turning(made, AdaptiveTrigger(), told(10, 8), True)


def test_one_is_one_task_and_what_nobody_has_seen_end_is_a_guess() -> None:
    made = pool()
    noted(made, told(1, 1), until=5.0)
    text = adaptive.propose(made, AdaptiveTrigger(), told(1, 1), 5.0).reason.text
    assert text.startswith("1 task at work (85% is full while no waiting task was ever told of), 0 waiting;")
    assert "(each may take 15 s)" in text


@pytest.mark.parametrize("standby", [0, 2])
@pytest.mark.parametrize("name", experts.NAMES)
def test_what_would_change_it_is_where_it_changes(name: str, standby: int) -> None:
    """The number of expected tasks that is told is the one above which the lower end is higher."""
    expert = EXPERTS[experts.NAMES.index(name)]
    for full in (1, 6, 40):
        most = experts.most_expected(expert, full)
        assert experts.band(expert, most - 1e-6, 0.0, 0.0, 1)[0] <= full
        assert experts.band(expert, most + 1e-6, 0.0, 0.0, 1)[0] == full + 1
    made = pool(concurrency=2)
    trigger = AdaptiveTrigger(expert=name, standby=standby)
    noted(made, told(4, 3))
    text = adaptive.turning(made, trigger, told(4, 3), True)
    assert ("above 4 tasks, for a standby of 2" in text) == bool(standby)
    for demand_, grows in ((4, False), (5, True)):
        found = adaptive.propose(made, trigger, told(4, demand_), 900.0)
        assert standby == 0 or (found.count is not None and (found.count > 4) == grows)
    assert "would shrink when 1 is enough" in adaptive.turning(made, trigger, told(2, 0), True) or standby
    assert "would shrink" not in adaptive.turning(made, trigger, told(4, 3), False)
    half = told(4, 3, ready=2, unhealthy=2)
    assert adaptive.turning(made, trigger, half, True) == "decides when more than half of the instances are heard"


def test_what_was_learned_comes_back_from_the_store() -> None:
    made = pool()
    noted(made, told(5, 4))
    assert made.adaptive is not None
    again = learned.load(learned.row(made.adaptive), 0.0)
    assert again == made.adaptive
    later = learned.load(learned.row(made.adaptive), 100.0)
    assert later.flow.at == made.adaptive.flow.at + 100.0
    assert later.shadows is not None and made.adaptive.shadows is not None
    assert later.shadows.lived_at == made.adaptive.shadows.lived_at + 100.0


def test_a_new_expert_begins_with_what_the_leader_has_and_one_that_is_no_more_is_forgotten() -> None:
    """Else another version of agentd began with the first expert, and for a day without the forecast."""
    made = pool()
    noted(made, told(5, 4))
    assert made.adaptive is not None and made.adaptive.shadows is not None
    shadows = made.adaptive.shadows
    lean, even = experts.NAMES.index("lean"), experts.NAMES.index("even")
    shadows.leader, shadows.hours_s = lean, 33.0
    shadows.fleets[lean].paid, shadows.fleets[even].paid = 5.0, 9.0
    shadows.trial = shadow.Trial(shadow.Shadow(2, 2), shadow.Shadow(1, 1), 100_000.0, heeded=True)
    row = learned.row(made.adaptive)
    row["shadows"]["fleets"]["somebody"] = row["shadows"]["fleets"].pop("even")
    again = learned.load(row, 0.0)
    assert again.flow == made.adaptive.flow
    shadows.fleets[even] = shadows.fleets[lean]
    assert again.shadows == shadows
    assert again.shadows.fleets[even] is not again.shadows.fleets[lean]


def test_while_agentd_is_away_the_shadows_see_nothing() -> None:
    """Else whoever was ahead after a minute was followed when agentd came back, as if that had been hours."""
    made = pool()
    noted(made, told(5, 4), until=100.0)
    assert made.adaptive is not None and made.adaptive.shadows is not None
    shadows = made.adaptive.shadows
    seen_s = shadows.lived_at - shadows.since
    adaptive.note(World(fleet(made.config)).controller._fleet, made, AdaptiveTrigger(), told(5, 4), 9000.0)
    assert (shadows.lived_at, shadows.lived_at - shadows.since) == (9000.0, seen_s)


def test_without_their_leader_the_shadows_begin_anew_and_the_stream_does_not() -> None:
    made = pool()
    noted(made, told(5, 4))
    assert made.adaptive is not None
    row = learned.row(made.adaptive)
    row["shadows"]["leader"] = "somebody"
    again = learned.load(row, 0.0)
    assert again.shadows is None
    assert again.flow == made.adaptive.flow


# -- a whole fleet --------------------------------------------------------------------------------


def world() -> World:
    config = PoolConfig(RESEARCH, max=20, ports=PortRange(9101, 9150), triggers=(AdaptiveTrigger(),), policy="adaptive")
    made = World(fleet(config), start_delay_s=5.0)
    made.boot()
    return made


def share(made: World, tasks: int) -> None:
    """`tasks` are at work, one by each agent as far as they go; the rest waits in the first one."""
    agents = sorted(made.agents)
    for place, ident in enumerate(agents):
        waiting = max(0, tasks - len(agents)) if place == 0 else 0
        made.work(ident, in_flight=int(place < tasks), queued=waiting)


def run(made: World, tasks: int, until: float) -> None:
    while made.now < until:
        share(made, tasks)
        made.run_until(made.now + 1.0)


def test_a_full_pool_grows_within_a_heartbeat_and_rests_under_constant_demand() -> None:
    made = world()
    run(made, 6, 120.0)
    assert len(made.agents) >= 6
    directions = []
    made.on_step = lambda _, outcome: directions.extend(d.direction for d in outcome.decisions)
    run(made, 6, 3_600.0)
    directions.clear()
    run(made, 6, 7_200.0)
    assert len(set(directions)) <= 1, "opposite actions under constant demand"
    assert len(made.agents) >= 6
    run(made, 0, 10_800.0)
    assert len(made.agents) == 1


def test_saturation_comes_to_a_start_within_a_second_of_the_report() -> None:
    made = world()
    run(made, 0, 60.0)
    count = len(made.agents)
    ident = sorted(made.agents)[0]
    made.work(ident, in_flight=1, queued=4)
    agent = made.agents[InstanceId(ident)]
    agent.next_beat = made.now
    made.run_until(made.now + 1.0)
    assert len(made.view().instances) > count


def test_agents_that_tell_only_a_load_are_not_let_go_for_an_empty_queue() -> None:
    """A queue outside says what waits, and nothing of who is busy."""
    config = PoolConfig(
        RESEARCH, max=20, ports=PortRange(9101, 9150), triggers=(AdaptiveTrigger(),), policy="adaptive",
        collectors=(CollectorConfig("queue", "test"),),
    )  # fmt: skip
    made = World(fleet(config), start_delay_s=5.0)
    made.usual_load = 1.0
    made.boot()
    while made.now < 600.0:
        made.step(Collected(RESEARCH, "queue", 30.0 if made.now < 120.0 else 0.0))
        made.run_until(made.now + 1.0)
    assert len(made.agents) >= 10


def test_a_queue_grows_the_pool_where_nobody_tells_what_is_at_work() -> None:
    flow = Flow()
    for second in range(2_000):
        flow.observe(float(second), 200.0 + second % 7, 0.0, float(second))
    assert flow.service_s == 10.0
    assert demand.known(pool(), told(3, 0, 12, at_work=None)) == demand.Demand(3.0, 12.0, False)


def test_an_unreadable_queue_is_not_taken_for_tasks_that_left() -> None:
    made = pool()
    noted(made, told(6, 1, 40))
    assert made.adaptive is not None
    rate = made.adaptive.flow.rate
    whole = fleet(made.config)
    controller = World(whole).controller
    adaptive.note(controller._fleet, made, AdaptiveTrigger(), told(6, 1, demand=None), 905.0)
    adaptive.note(controller._fleet, made, AdaptiveTrigger(), told(6, 1, 40), 910.0)
    assert made.adaptive.flow.rate <= rate + 0.01
    assert made.adaptive.flow.take_lately(5.0).came == 0.0


def test_a_purge_is_forgotten_soon() -> None:
    flow = streamed(rate=0.5, service_s=12.0, until=600.0)
    flow.observe(601.0, 5_006.0, 6.0, 300.0)
    flow.take_lately(5.0)
    flow.observe(602.0, 6.0, 6.0, 300.0)
    came = 0.0
    for second in range(603, 700):
        flow.observe(float(second), 6.0 + second - 602, 6.0, 300.0)
        came += flow.take_lately(5.0).came
    assert came >= 60.0


def test_a_beat_without_a_count_of_tasks_does_not_make_the_next_one_count_all_again() -> None:
    made = world()
    run(made, 1, 30.0)
    ident = sorted(made.agents)[0]
    agent = made.agents[InstanceId(ident)]
    for number in (5_000, None, 5_001):
        agent.tasks_completed = number
        agent.next_beat = made.now
        made.run_until(made.now + 1.0)
    assert made.controller._fleet.instances[InstanceId(ident)].completed == 5_001


@pytest.mark.parametrize("trigger", [DemandTrigger(down_window_s=0.0), TargetTrigger("demand", 2.0, down_window_s=0.0)])
def test_an_empty_queue_lets_nobody_go_who_does_not_tell_his_work(trigger: DemandTrigger | TargetTrigger) -> None:
    config = PoolConfig(
        RESEARCH, min=1, max=9, ports=PortRange(9101, 9150), triggers=(trigger,), policy=trigger.kind,
        collectors=(CollectorConfig("queue", "test"),), drain_share_max=1.0,
    )  # fmt: skip
    made = World(fleet(config))
    made.usual_load = 1.0
    made.boot()
    for waiting in (8.0, 8.0, 0.0, 0.0):
        made.step(Collected(RESEARCH, "queue", waiting))
        made.run_until(made.now + 20.0)
    count = len(made.agents)
    assert count >= 4
    assert made.view().pools[0].next.reasons[0].code == "unsure"


def test_a_restart_forgets_nothing() -> None:
    """agentd is killed and comes back: what was learned goes on, and nobody is started or let go for it."""
    made = world()
    run(made, 6, 1_800.0)
    before = made.controller._fleet.pools[RESEARCH].adaptive
    count = len(made.agents)
    assert before is not None and before.shadows is not None
    tasks = before.shadows.tasks
    made.reboot()
    run(made, 6, 1_860.0)
    after = made.controller._fleet.pools[RESEARCH].adaptive
    assert after is not None and after.shadows is not None
    assert after.shadows.since == before.shadows.since
    assert abs(after.shadows.tasks - tasks) <= 0.1 * tasks + 2
    assert len(made.agents) == count


def test_constants_hold_together() -> None:
    assert 0.0 < shadow.BETTER_RATIO < 0.5
    assert all(expert.down >= expert.up for expert in EXPERTS)
    assert len({expert.name for expert in EXPERTS}) == len(EXPERTS)

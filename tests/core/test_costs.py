"""What pools cost: their agents' time, what those use, and the tasks that they do, over restarts of both."""

from __future__ import annotations

from typing import Any

import pytest
from fleets import fleet, pool, research
from msgspec.structs import replace
from world import WALL, World

from agentd.core.controller import Controller
from agentd.core.ledger import Spent
from agentd.core.messages import ConfigChanged, HostSampled, Restored, SetTarget, TargetReply, Tick
from agentd.core.model import FleetConfig, HostSample, Incarnation, InstanceId, Observed, PoolName, PortRange, Usage
from agentd.core.rates import GIB, HOUR_S, Budget, Rates
from agentd.core.views import CostView

EUR = Rates(per_hour=1.0)
# 22:13:20 UTC: 2800 s are left of the hour.
assert WALL % HOUR_S == 800.0


def priced(rates: Rates = EUR, **changes: Any) -> FleetConfig:
    return fleet(pool(min=2, max=5, rates=rates, **changes), currency="EUR")


def booted(config: FleetConfig) -> World:
    world = World(config)
    world.boot()
    world.run_until(0.0)
    return world


def cost(world: World) -> CostView:
    (found,) = world.view().pools
    assert found.cost is not None
    return found.cost


def sample(**used: tuple[int, float]) -> HostSampled:
    """What instances use: GiB, cores."""
    usages = {InstanceId(f"research-{port[1:]}"): Usage(gib * GIB, cores) for port, (gib, cores) in used.items()}
    return HostSampled(HostSample(8, 1.0, 64 * GIB, 60 * GIB, 1000 * GIB, instances=usages))


# -- what is counted ----------------------------------------------------------------------------


def test_an_agent_costs_from_the_request_of_its_start() -> None:
    world = World(priced(), start_delay_s=30.0)
    world.boot()
    world.run_until(20.0)
    assert cost(world).spent_hour.agent_hours == pytest.approx(2 * 20 / HOUR_S)
    assert cost(world).per_hour == 2.0


def test_an_agent_costs_until_it_is_gone() -> None:
    world = World(priced(), stop_delay_s=15.0)
    world.boot()
    world.run_until(100.0)
    world.step(ConfigChanged(fleet(pool(min=1, max=1, rates=EUR), currency="EUR")))
    world.run_until(1000.0)
    assert len(world.view().instances) == 1
    spent = cost(world).spent_hour.agent_hours * HOUR_S
    gone = next(at for at, record in world.records if record.type == "stop")
    assert gone > 110.0
    assert spent == pytest.approx(1000.0 + gone)


def test_hours_are_of_the_calendar() -> None:
    world = booted(priced())
    world.run_until(2800.0 + 360.0)
    assert cost(world).spent_hour.amount == pytest.approx(2 * 360 / HOUR_S)
    assert cost(world).spent_day.amount == pytest.approx(2 * 3160 / HOUR_S)


def test_an_agent_that_failed_for_good_costs_nothing() -> None:
    world = booted(priced())
    world.run_until(100.0)
    world.give_up("research-9101")
    world.run_until(300.0)
    assert cost(world).spent_hour.agent_hours * HOUR_S == pytest.approx(100.0 + 300.0)
    assert cost(world).per_hour == 1.0


def test_a_restart_in_place_goes_on_costing() -> None:
    world = booted(priced())
    world.run_until(100.0)
    world.exit("research-9101", restart_in_s=20.0)
    world.run_until(300.0)
    assert cost(world).spent_hour.agent_hours * HOUR_S == pytest.approx(600.0)


def test_cpu_and_memory_cost_as_they_are_used() -> None:
    world = booted(priced(Rates(per_cpu_hour=2.0, per_gib_hour=0.5)))
    world.step(sample(_9101=(4, 0.5)))
    world.run_until(36.0)
    world.step(sample(_9101=(4, 0.5), _9102=(2, 1.5)))
    spent = cost(world).spent_hour
    assert spent == Spent(pytest.approx(0.01 * (2 * 2.0 + 6 * 0.5)), pytest.approx(0.02), 0.02, pytest.approx(0.06), 0)
    assert cost(world).per_hour == pytest.approx(2 * 2.0 + 6 * 0.5)


def test_a_sample_stands_for_a_minute_at_most() -> None:
    world = booted(priced(Rates(per_gib_hour=1.0)))
    world.step(sample(_9101=(1, 0.0)))
    world.run_until(1800.0)
    world.step(sample(_9101=(1, 0.0)))
    assert cost(world).spent_hour.gib_hours == pytest.approx(60 / HOUR_S)


def test_tasks_cost_once_each_also_over_restarts_of_the_agent() -> None:
    world = booted(priced(Rates(per_task=0.5)))
    world.agents[InstanceId("research-9101")].tasks_completed = 7
    world.run_until(150.0)
    world.agents[InstanceId("research-9101")].tasks_completed = 9
    world.run_until(165.0)
    world.exit("research-9101")
    world.run_until(200.0)
    assert cost(world).spent_hour.tasks == 9
    world.agents[InstanceId("research-9101")].tasks_completed = 3
    world.run_until(400.0)
    assert (cost(world).spent_hour.tasks, cost(world).spent_hour.amount) == (12, 6.0)


def test_where_nothing_costs_nothing_is_counted_or_shown() -> None:
    world = booted(fleet(pool(min=2)))
    world.step(sample(_9101=(1, 1.0)))
    world.run_until(300.0)
    view = world.view()
    assert (view.cost, view.pools[0].cost, view.pools[0].cost_per_hour) == (None, None, 0.0)
    assert not [key for key in world.saved if key.startswith("ledger/")]


# -- restarts of agentd -------------------------------------------------------------------------


def test_agents_cost_while_agentd_is_away() -> None:
    world = booted(priced())
    world.run_until(100.0)
    world.now += 500.0
    world.reboot()
    world.run_until(700.0)
    assert cost(world).spent_hour.agent_hours * HOUR_S == pytest.approx(2 * 700.0)


def test_an_agent_that_ended_meanwhile_costs_until_it_was_last_entered() -> None:
    world = booted(priced())
    world.run_until(130.0)
    world.vanish("research-9101")
    world.now = 1000.0
    world.reboot()
    world.run_until(1000.0)
    spent = cost(world).spent_hour.agent_hours * HOUR_S
    assert spent == pytest.approx(1000.0 + 120.0)


def test_tasks_done_meanwhile_are_counted_once() -> None:
    world = booted(priced(Rates(per_task=1.0)))
    world.agents[InstanceId("research-9101")].tasks_completed = 7
    world.run_until(130.0)
    world.agents[InstanceId("research-9101")].tasks_completed = 20
    world.now = 1000.0
    world.reboot()
    world.run_until(1100.0)
    assert cost(world).spent_hour.tasks == 20


def test_agents_that_nobody_remembers_cost_by_their_age_and_their_tasks_from_now_on() -> None:
    world = World(priced(Rates(per_hour=1.0, per_task=1.0)))
    world.left_running("research-9101")
    world.agents[InstanceId("research-9101")].tasks_completed = 50
    world.boot()
    world.run_until(70.0)
    assert cost(world).spent_hour.tasks == 0
    world.agents[InstanceId("research-9101")].tasks_completed = 53
    world.run_until(140.0)
    assert cost(world).spent_hour.tasks == 3


def test_what_nobody_remembers_costs_no_more_than_since_the_month_began() -> None:
    controller = Controller(priced())
    days_s = 13 * 86_400 + WALL % 86_400  # the 14th of the month
    world = World(priced())
    world.controller, world.now = controller, 100 * 86_400.0
    seen = Observed(InstanceId("research-9101"), Incarnation("old"), 77, started_wall=WALL - 50 * 86_400)
    from agentd.core.messages import InstancesListed, Restored, Tick

    at = world.now
    world.step(Restored({}, at, WALL + at, WALL))
    world.step(InstancesListed((seen,)))
    world.step(Tick(wall=WALL))
    assert cost(world).spent_month.agent_hours * HOUR_S == pytest.approx(days_s, abs=1.0)


@pytest.mark.parametrize("years", [75, -45])
def test_a_clock_that_is_years_wrong_for_a_moment_does_not_wipe_the_books(years: int) -> None:
    world = booted(priced(budget=Budget(per_month=100.0)))
    world.run_until(1000.0)
    for second in range(1000, 1030):  # within the patience with agents that say nothing meanwhile
        wrong = 0.0 if second < 1010 else years * 365.25 * 86_400.0
        world.now = float(second)
        world.step(Tick(wall=WALL + wrong + second))
        assert cost(world).spent_month.agent_hours * HOUR_S == pytest.approx(2.0 * second, rel=1e-6)
    world.run_until(1600.0)
    found = cost(world)
    for spent in (found.spent_hour, found.spent_day, found.spent_month):
        assert spent.agent_hours * HOUR_S == pytest.approx(2 * 1600.0, rel=1e-6)
    assert found.budgets[0].left == pytest.approx(100.0 - 3200.0 / HOUR_S)


@pytest.mark.parametrize("restarts", [False, True])
def test_a_clock_that_is_set_back_for_a_while_frees_no_budget(restarts: bool) -> None:
    world = booted(priced(budget=Budget(per_month=100.0)))
    world.run_until(1000.0)
    for second in range(1000, 1030):
        world.now = float(second)
        world.step(Tick(wall=WALL + second - (20 * 86_400.0 if second < 1020 else 0.0)))
        assert cost(world).spent_month.agent_hours * HOUR_S >= 2.0 * 1000
    if restarts:
        world.reboot()
    world.run_until(1600.0)
    found = cost(world)
    for spent in (found.spent_hour, found.spent_day, found.spent_month):
        assert spent.agent_hours * HOUR_S == pytest.approx(2 * 1600.0, rel=1e-3)


def restarted(world: World, *, passed_s: float, wall_passed_s: float) -> None:
    """agentd is away for `passed_s`, and the wall clock goes on by `wall_passed_s`."""
    saved_at = world.now
    world.now += passed_s
    world.controller = world.new_controller()
    wall = WALL + saved_at + wall_passed_s
    world.step(Restored(dict(world.saved), saved_at, WALL + saved_at, wall))
    world.relist()
    world.step(Tick(wall=wall))


def test_a_restart_under_a_clock_that_is_years_ahead_costs_no_more_than_what_passed() -> None:
    world = booted(priced(budget=Budget(per_month=100.0)))
    world.run_until(1000.0)
    restarted(world, passed_s=5.0, wall_passed_s=10 * 365.25 * 86_400.0)
    world.now += 5.0
    world.step(Tick(wall=WALL + world.now))
    world.run_until(1600.0)
    assert cost(world).spent_month.agent_hours * HOUR_S == pytest.approx(2 * 1600.0, rel=1e-3)


@pytest.mark.parametrize("wall_passed_s", [600.0, 590.0, 100.0, -3600.0, -20 * 86_400.0])
def test_a_restart_under_a_clock_that_was_set_back_costs_what_passed(wall_passed_s: float) -> None:
    world = booted(priced(budget=Budget(per_month=100.0)))
    world.run_until(1000.0)
    restarted(world, passed_s=600.0, wall_passed_s=wall_passed_s)
    assert cost(world).spent_month.agent_hours * HOUR_S == pytest.approx(2 * 1600.0)


def test_a_restart_of_the_host_costs_what_passed_by_the_wall_clock() -> None:
    world = booted(priced())
    world.run_until(1000.0)
    restarted(world, passed_s=-990.0, wall_passed_s=300.0)  # its monotonic clock begins anew
    assert cost(world).spent_hour.agent_hours * HOUR_S == pytest.approx(2 * 1300.0)


def test_the_books_of_a_controller_go_on_exactly() -> None:
    world = booted(priced(Rates(1.0, 1.0, 1.0, 1.0)))
    for step in range(20):
        world.run_until(17.0 * step)
        world.step(sample(_9101=(1, 0.5)))
        world.agents[InstanceId("research-9101")].tasks_completed = step
    before = world.view()
    again = Controller.from_snapshot(world.config, world.controller.snapshot(), epoch=1)
    view = again.view(world.now)
    assert (view.cost and replace(view.cost, per_hour=0, projected_month=0)) == (
        before.cost and replace(before.cost, per_hour=0, projected_month=0)
    )


def test_counting_writes_no_more_than_once_a_minute() -> None:
    world = booted(priced(Rates(1.0, 1.0, 1.0, 1.0)))
    world.run_until(100.0)
    world.outcomes.clear()
    for second in range(100, 400):
        world.run_until(float(second))
        world.step(sample(_9101=(1, 0.5)))
    written = sum("ledger/research" in outcome.rows for outcome in world.outcomes)
    assert 4 <= written <= 6


# -- configurations -----------------------------------------------------------------------------


def test_a_new_rate_counts_from_the_reload_on() -> None:
    world = booted(priced())
    world.run_until(1000.0)
    world.step(ConfigChanged(priced(Rates(per_hour=3.0))))
    world.run_until(1360.0)
    assert cost(world).spent_hour.amount == pytest.approx((1000 * 1.0 + 360 * 3.0) * 2 / HOUR_S)


def test_what_costs_something_from_now_on_has_cost_nothing() -> None:
    world = booted(fleet(pool(min=2, max=5)))
    world.agents[InstanceId("research-9101")].tasks_completed = 40
    world.run_until(1000.0)
    world.step(ConfigChanged(priced(Rates(per_hour=1.0, per_task=1.0))))
    world.run_until(1360.0)
    assert cost(world).spent_hour == Spent(pytest.approx(0.2), pytest.approx(0.2))


def test_what_a_removed_pool_has_spent_stays_with_all() -> None:
    other = pool("execution", min=1, max=1, ports=PortRange(9201, 9203), rates=EUR)
    world = booted(fleet(pool(min=2, max=2, rates=EUR), other))
    world.run_until(1000.0)
    world.step(ConfigChanged(fleet(other)))
    world.run_until(1900.0)
    view = world.view()
    assert view.cost is not None
    assert [each.name for each in view.pools] == ["execution"]
    stops = [at for at, record in world.records if record.type == "stop"]
    assert view.cost.spent_hour.agent_hours * HOUR_S == pytest.approx(1900.0 + sum(stops))
    world.reboot()
    assert (found := world.view().cost) is not None
    assert found.spent_hour.agent_hours == pytest.approx(view.cost.spent_hour.agent_hours)


def test_a_pool_that_went_while_agentd_was_away_is_not_forgotten() -> None:
    other = pool("execution", min=1, max=1, ports=PortRange(9201, 9203), rates=EUR)
    world = booted(fleet(pool(min=2, max=2, rates=EUR), other))
    world.run_until(120.0)
    for ident in ("research-9101", "research-9102"):
        world.vanish(ident)
    for key in [key for key in world.saved if key.startswith("instance/research")]:
        del world.saved[key]
    world.reboot(fleet(other))
    world.run_until(130.0)
    assert (found := world.view().cost) is not None
    assert found.spent_hour.agent_hours * HOUR_S == pytest.approx(2 * 120.0 + 130.0)
    assert "ledger/research" not in world.saved
    assert "ledger/" in world.saved


# -- what comes ---------------------------------------------------------------------------------


def test_the_month_is_projected_by_the_present_cost_in_the_first_hour_and_by_the_mean_later() -> None:
    world = booted(priced())
    world.run_until(1800.0)
    left_h = (16 * 86_400 + 6_400 - 1800) / HOUR_S  # from the 14th to the end of November
    assert cost(world).projected_month == pytest.approx(1.0 + 2.0 * left_h)
    world.step(ConfigChanged(priced(Rates(per_hour=7.0))))
    world.run_until(5400.0)
    mean = (1.0 + 14.0) / 1.5
    assert cost(world).projected_month == pytest.approx(15.0 + mean * (left_h - 1.0))


def test_a_scaling_is_remembered_with_what_it_costs_or_saves() -> None:
    quick = research(scale_up_cooldown_s=0.0, scale_down_cooldown_s=0.0)
    config = fleet(replace(quick, rates=Rates(per_hour=2.0)))
    world = booted(config)
    world.usual_load = 0.9
    world.set_load("research-9002", 0.9)
    world.run_until(70.0)
    world.set_load("research-9002", 0.0)
    world.set_load("research-9101", 0.0)
    world.run_until(130.0)
    assert [(each.change, each.per_hour) for each in cost(world).scalings] == [(-1, -2.0), (1, 2.0)]
    world.reboot()
    assert [each.change for each in cost(world).scalings] == [-1, 1]


# -- budgets ------------------------------------------------------------------------------------


def capped(**changes: Any) -> FleetConfig:
    return priced(budget=Budget(**changes), scale_up_cooldown_s=0.0)


def limits(world: World) -> list[tuple[str, float | None]]:
    (found,) = world.view().pools
    return [(limit.code, limit.until) for limit in found.next.limits]


@pytest.mark.parametrize(
    ("changes", "granted", "code", "until"),
    [
        # However late it is: the next hour has to pay for the same size.
        ({"per_hour": 2.99}, 2, "budget_hour", None),
        ({"per_hour": 3.0}, 3, "", None),
        # A bit later one more until the end costs that bit less.
        ({"per_day": 5.32}, 2, "budget_day", 6400.0 - (5.32 - 2 * 6400 / HOUR_S) * HOUR_S + 1.0),
        # An hour of a third one is not left of it, and of the next days none has enough for two.
        ({"per_day": 4.5}, 2, "budget_day", None),
        ({"per_day": 5.34}, 3, "", None),
        ({"per_month": 1157.3}, 2, "budget_month", 3 * (16 * 86_400 + 6_400.0) - 1157.3 * HOUR_S + 1.0),
        ({"per_month": 1157.4}, 3, "", None),
    ],
)
def test_a_budget_holds_what_would_spend_more_until_its_end(
    changes: dict[str, float], granted: int, code: str, until: float | None
) -> None:
    world = booted(capped(**changes))
    for ident in ("research-9101", "research-9102"):
        world.set_load(ident, 0.9)
    world.run_until(11.0)
    (found,) = world.view().pools
    assert found.next.granted == granted
    assert limits(world) == ([(code, pytest.approx(until))] if code else [])


@pytest.mark.parametrize(
    ("rates", "budget", "until"),
    [
        (Rates(1.0), Budget(per_day=5.0), 1201.0),  # then a third one has 5200 s until midnight: 1.44
        (Rates(1.0), Budget(per_month=1155.0), 8401.0),
        (Rates(1.0, per_task=1.0), Budget(per_day=75.0), 6400.0),  # 73 are spent by then
        (Rates(1.0, per_task=1.0), Budget(per_hour=40.0), 2800.0),  # as well
    ],
)
def test_when_a_budget_is_said_to_pay_for_one_more_it_does(rates: Rates, budget: Budget, until: float) -> None:
    world = booted(priced(rates, budget=budget, scale_up_cooldown_s=0.0))
    if rates.per_task:
        world.agents[InstanceId("research-9101")].tasks_completed = 73
    world.run_until(130.0)
    for ident in ("research-9101", "research-9102"):
        world.set_load(ident, 0.9)
    world.usual_load = 0.9
    world.run_until(190.0)
    ((_, found),) = limits(world)
    assert found == pytest.approx(until, abs=0.01)
    world.run_until(until - 2.0)
    assert world.view().pools[0].count == 2
    world.run_until(until + 61.0)
    assert world.view().pools[0].count == 3


def asked(world: World, count: int, at: float, *, dry_run: bool = False) -> tuple[int, tuple[str, ...]]:
    """What a person is granted who asks for so many at `at`."""
    world.run_until(at)
    reply = world.step(SetTarget("up", count, PoolName("research"), "alice", "", None, dry_run=dry_run))
    assert isinstance(reply, TargetReply)
    return reply.grants[0].granted, reply.grants[0].limits


def test_late_in_the_hour_no_size_is_granted_that_the_next_one_cannot_pay() -> None:
    """A hundred seconds before its end what is left of the hour would pay for dozens."""
    wide = PortRange(9101, 9150)
    world = booted(fleet(pool(min=2, max=40, rates=EUR, budget=Budget(per_hour=4.0), ports=wide), currency="EUR"))
    granted, limits = asked(world, 40, 2700.0)
    assert granted == 4
    assert limits == ("budget_hour: 2.00 of 4.00 EUR per hour spent now; one more costs 1.00",)
    world.run_until(2800.0 + 3599.0)
    assert cost(world).spent_hour.amount == pytest.approx(4.0, abs=0.01)


def test_an_hour_whose_budget_is_spent_holds_what_it_could_pay_for_otherwise() -> None:
    config = priced(Rates(1.0, per_task=1.0), budget=Budget(per_hour=9.0), scale_up_cooldown_s=0.0)
    world = booted(config)
    world.agents[InstanceId("research-9101")].tasks_completed = 8
    for ident in ("research-9101", "research-9102"):
        world.set_load(ident, 0.9)
    world.run_until(1000.0)
    assert limits(world) == [("budget_hour", pytest.approx(2800.0))]
    assert world.view().pools[0].next.limits[0].text.endswith("one more until 23:00 UTC costs 0.50")


def test_a_day_pays_for_peaks_and_near_its_end_for_an_hour_of_them() -> None:
    """Its budget is for 7 hours of one agent. In its last minute what is left would pay for hundreds."""
    world = booted(priced(budget=Budget(per_day=7.0)))
    granted, limits = asked(world, 5, 1000.0, dry_run=True)
    assert (granted, limits[0].rpartition("; ")[2]) == (4, "one more until midnight UTC costs 1.50")
    granted, limits = asked(world, 5, 6370.0)
    assert (granted, limits[0].rpartition("; ")[2]) == (3, "one more for an hour costs 1.00")


def test_a_budget_says_how_much_is_spent_and_what_one_more_costs() -> None:
    world = booted(capped(per_day=4.0))
    for ident in ("research-9101", "research-9102"):
        world.set_load(ident, 0.9)
    world.run_until(1000.0)
    (limit,) = world.view().pools[0].next.limits
    assert limit.text == (
        "0.56 of 4.00 EUR spent today, what runs takes 3.00 more; one more until midnight UTC costs 1.50"
    )


def test_the_minimum_core_agents_and_repair_are_never_held_by_a_budget() -> None:
    config = fleet(research(min=3, max=5, rates=EUR, budget=Budget(per_day=0.0)))
    world = booted(config)
    world.run_until(60.0)
    assert len(world.view().instances) == 3
    world.exit("research-9101", restart_in_s=0.1)
    world.vanish("research-9102")
    world.relist()
    world.run_until(200.0)
    assert [instance.state for instance in world.view().instances] == ["ready"] * 3


def test_a_budget_of_all_counts_what_other_pools_spend() -> None:
    other = pool("execution", min=4, max=4, ports=PortRange(9201, 9210), rates=EUR)
    mine = pool(min=2, max=5, rates=EUR, scale_up_cooldown_s=0.0)
    config = fleet(mine, other, budget=Budget(per_hour=5.0), currency="EUR")
    world = booted(config)
    for ident in ("research-9101", "research-9102"):
        world.set_load(ident, 0.9)
    world.run_until(11.0)
    found = next(each for each in world.view().pools if each.name == "research")
    assert [limit.code for limit in found.next.limits] == ["budget_hour"]
    assert found.next.limits[0].text == "6.00 of 5.00 EUR per hour spent now by all pools; one more costs 1.00"
    free = replace(mine, rates=Rates())
    world.step(ConfigChanged(replace(config, pools={free.name: free, other.name: other})))
    found = next(each for each in world.view().pools if each.name == "research")
    assert found.next.limits == ()  # it costs nothing


def test_the_budget_of_all_is_there_once_however_many_pools_grow_at_a_time() -> None:
    """Both want one more at the same check, and there is money for one: priority goes first."""
    mine = pool(min=1, max=5, rates=EUR, scale_up_cooldown_s=0.0)
    other = pool("execution", min=1, max=5, ports=PortRange(9201, 9210), rates=EUR, scale_up_cooldown_s=0.0)
    for first, second, config in (
        ("execution", "research", fleet(mine, other)),
        ("research", "execution", fleet(replace(mine, priority=1), other)),
    ):
        world = booted(replace(config, budget=Budget(per_hour=3.0), check_interval_s=60.0))
        for ident in ("research-9101", "execution-9201"):
            world.set_load(ident, 0.9)
        world.run_until(61.0)
        counts = {each.name: each.count for each in world.view().pools}
        assert counts == {first: 2, second: 1}
        held = [record for _, record in world.records if record.type == "hold"]
        assert [(record.pool, "per hour spent now by all pools" in record.reason) for record in held] == [
            (second, True)
        ]


def test_where_only_tasks_cost_a_budget_holds_when_it_is_spent() -> None:
    world = booted(priced(Rates(per_task=1.0), budget=Budget(per_day=10.0), scale_up_cooldown_s=0.0))
    for ident in ("research-9101", "research-9102"):
        world.set_load(ident, 0.9)
    world.agents[InstanceId("research-9101")].tasks_completed = 9
    world.run_until(20.0)
    assert limits(world) == []
    world.agents[InstanceId("research-9101")].tasks_completed = 10
    world.run_until(70.0)
    assert [code for code, _ in limits(world)] == ["budget_day"]


def test_tasks_that_may_come_hold_nothing() -> None:
    """A peak of tasks says nothing of the rest of the day, and with fewer agents there would be as many."""
    world = booted(priced(Rates(per_hour=1.0, per_task=1.0), budget=Budget(per_day=50.0), scale_up_cooldown_s=0.0))
    for ident in ("research-9101", "research-9102"):
        world.set_load(ident, 0.9)
    for second in range(1, 22):
        world.agents[InstanceId("research-9101")].tasks_completed = second
        world.run_until(float(second))
    assert cost(world).per_hour > 1000.0
    assert limits(world) == []


def test_a_budget_holds_nothing_on_the_way_down() -> None:
    world = booted(priced(budget=Budget(per_day=0.0)))
    world.step(ConfigChanged(fleet(pool(min=1, max=5, rates=EUR, budget=Budget(per_day=0.0)))))
    for ident in ("research-9101", "research-9102"):
        world.set_load(ident, 0.0)
    world.run_until(11.0)
    assert world.view().pools[0].next.granted == 1


def test_what_is_left_of_each_budget_is_shown() -> None:
    world = booted(capped(per_hour=2.0, per_month=100.0))
    world.run_until(1800.0)
    (hour, month) = cost(world).budgets
    approx = pytest.approx(1.0)
    assert (hour.window, hour.amount, hour.spent, hour.left, hour.ends_in_s) == ("hour", 2.0, approx, approx, 1000.0)
    assert (month.window, month.left) == ("month", pytest.approx(99.0))

"""The comparison policies on small scripted pools, worked out by hand."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from agentd.sim.peers.policies import NAMES, Hpa, HpaInFlight, Kpa, Nomad, Ray, make
from agentd.sim.peers.view import Peer, PeerView


def pool(
    ready: int,
    demand: int = 0,
    starting: int = 0,
    concurrency: int = 1,
    busy: float | Iterable[float] = 0.0,
    least: int = 1,
) -> PeerView:
    """A pool of 1..50 (`least`..50) with `demand` tasks, as many of them in service as there are slots."""
    in_flight = min(demand, ready * concurrency)
    utilisation = (busy,) * ready if isinstance(busy, float) else tuple(busy)
    return PeerView(
        current=ready + starting,
        ready=ready,
        starting=starting,
        in_flight=in_flight,
        queue=demand - in_flight,
        concurrency=concurrency,
        min=least,
        max=50,
        utilisation=utilisation,
    )


def steer(peer: Peer, view: PeerView, start: float, end: float, startup_s: float = 0.0) -> list[tuple[float, int]]:
    """Asks at every interval of start..end; the pool does what it is told, and new agents are ready after a while.
    Gives the changes: when, and to what size. The demand stays as it is in `view`.
    """
    changes = list[tuple[float, int]]()
    size, coming = view.current, list[float]()
    now = start
    while now <= end:
        coming = [ready_at for ready_at in coming if ready_at > now]
        demand = view.demand
        shown = pool(size - len(coming), demand, len(coming), view.concurrency, least=view.min)
        wanted = peer.decide(shown, now)
        if wanted is not None and wanted != size:
            coming += [now + startup_s] * max(0, wanted - size)
            coming = coming[: max(0, len(coming) - max(0, size - wanted))]
            changes.append((now, wanted))
            size = wanted
        now += peer.interval_s
    return changes


# --- all


@pytest.mark.parametrize("name", [*NAMES, "static:7"])
def test_a_policy_keeps_within_the_bounds(name: str) -> None:
    for demand in (0, 10_000):
        peer = make(name)
        for step in range(400):
            wanted = peer.decide(pool(3, demand, busy=float(demand > 0)), step * peer.interval_s)
            assert wanted is None or 1 <= wanted <= 50


@pytest.mark.parametrize("name", NAMES)
def test_what_is_right_stays_as_it_is(name: str) -> None:
    """Thirty tasks on forty agents that take one each: inside every tolerance, or exactly what the policy asks for."""
    wanted = {"hpa": 40, "hpa-inflight": 40, "kpa": 43, "nomad": 43, "ray": 41}[name]
    peer = make(name)
    view = replace(pool(wanted, 30), utilisation=(0.75,) * wanted)
    assert {peer.decide(view, step * peer.interval_s) for step in range(100)} <= {None, wanted}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_views_give_the_same_decisions(name: str) -> None:
    def run() -> list[tuple[float, int]]:
        peer = make(name)
        return steer(peer, pool(2, 20), 0.0, 600.0, 30.0) + steer(peer, pool(20, 5), 610.0, 2400.0, 30.0)

    assert run() == run() != []


@pytest.mark.parametrize(
    ("name", "interval_s"), [("hpa", 15.0), ("hpa-inflight", 15.0), ("kpa", 2.0), ("ray", 10.0), ("nomad", 10.0)]
)
def test_a_policy_looks_as_often_as_it_is_published(name: str, interval_s: float) -> None:
    assert make(name).interval_s == interval_s


@pytest.mark.parametrize("name", ["hpa2", "static", "static:", "static:-1", "static:1.5", ""])
def test_a_name_that_nobody_has_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"hpa-inflight.*static:N"):
        make(name)


def test_static_is_what_it_says_within_the_bounds() -> None:
    assert [make(f"static:{count}").decide(pool(3), 0.0) for count in (0, 4, 99)] == [1, 4, 50]


# --- hpa


def test_hpa_goes_up_by_the_ratio_to_eighty_percent_and_twice_at_most() -> None:
    """100 % of 80 %: ceil(1.25 x 8) = 10. From four agents at 100 % for ever: 5, and so on, never more than double."""
    assert Hpa().decide(pool(8, 20, busy=1.0), 0.0) == 10
    assert Hpa(target_pct=20).decide(pool(8, 20, busy=1.0), 0.0) == 16


@pytest.mark.parametrize(("busy", "wanted"), [(0.88, None), (0.89, 12), (0.72, None), (0.81, None)])
def test_hpa_holds_within_a_tenth_of_its_target(busy: float, wanted: int | None) -> None:
    assert Hpa().decide(pool(10, 9, busy=busy), 0.0) == wanted


def test_hpa_takes_a_starting_agent_for_an_idle_one() -> None:
    """Four at 100 %, one starting: 80 % of five, inside the tolerance; without it ceil(1.25 x 4) = 5."""
    assert Hpa().decide(pool(4, 9, starting=1, busy=1.0), 0.0) is None
    assert Hpa().decide(pool(4, 9, busy=1.0), 0.0) == 5


def test_hpa_goes_down_to_the_largest_recommendation_of_five_minutes() -> None:
    peer = Hpa()
    assert peer.decide(pool(10, 8, busy=0.8), 0.0) is None  # ten is remembered
    quiet = [peer.decide(pool(10, 4, busy=0.4), 15.0 * look) for look in range(1, 22)]
    assert quiet[:20] == [None] * 20  # until 300 s, which still counts
    assert quiet[20] == 5


def test_hpa_on_the_way_down_leaves_starting_agents_out() -> None:
    """Eight at 40 %, two starting: ceil(0.5 x 8) = 4, once the ten of the first look are five minutes old."""
    peer = Hpa()
    view = pool(8, 3, starting=2, busy=0.4)
    assert [peer.decide(view, now) for now in (0.0, 315.0)] == [None, 4]


def test_hpa_without_a_ready_agent_holds() -> None:
    assert Hpa().decide(pool(0, 9, starting=2), 0.0) is None


def test_hpa_in_flight_divides_the_demand_by_its_target() -> None:
    """20 tasks at 0.8 of two slots: ceil(20 / 1.6) = 13, also when agents are starting and none is ready."""
    for view in (pool(7, 20, concurrency=2), pool(0, 20, starting=7, concurrency=2)):
        assert HpaInFlight().decide(view, 0.0) == 13


def test_hpa_in_flight_follows_in_doubles() -> None:
    changes = steer(HpaInFlight(), pool(1, 24), 0.0, 120.0, startup_s=30.0)
    assert changes == [(0.0, 4), (15.0, 8), (30.0, 16), (45.0, 30)]


# --- kpa


def test_kpa_goes_up_at_once_and_stays_up_for_a_stable_window() -> None:
    """One agent idle, then 14 tasks: the panic means are 7, 9.33 and 14, so 10, 14 and 20 agents for the one that is
    ready. With twenty ready and one task left, nothing is over the threshold any more.
    """
    peer = Kpa()
    assert peer.decide(pool(1, 0), 0.0) == 1
    assert [peer.decide(pool(1, 14), 2.0 * tick) for tick in (1, 2, 3)] == [10, 14, 20]
    later = {now: peer.decide(pool(20, 1), float(now)) for now in range(8, 70, 2)}
    assert {later[now] for now in range(8, 68, 2)} == {20}  # at 66 s the window since 6 s is not over yet
    assert later[68] == 10  # half of what is ready, at most


def test_kpa_shares_out_seventy_percent_of_the_slots() -> None:
    peer = Kpa()
    for tick in range(60):
        wanted = peer.decide(pool(10, 28, concurrency=4), 2.0 * tick)
    assert wanted == 10  # 28 / (0.7 x 4)


def test_kpa_begins_with_what_it_finds() -> None:
    """More than one ready agent at its creation is panic: nothing shrinks for a stable window."""
    assert steer(Kpa(), pool(8, 0), 0.0, 60.0) == []
    assert steer(Kpa(), pool(8, 0), 0.0, 120.0) == [(62.0, 4), (64.0, 2), (66.0, 1)]


def test_kpa_keeps_the_last_agent_for_a_window_and_a_grace() -> None:
    assert steer(Kpa(), pool(1, 0, least=0), 0.0, 120.0) == [(90.0, 0)]


# --- ray


def test_ray_waits_half_a_minute_before_it_goes_up() -> None:
    """27 tasks: 27 x 1.35 = 36.45, so 37."""
    assert steer(Ray(), pool(10, 27), 0.0, 60.0) == [(30.0, 37)]


def test_ray_waits_ten_minutes_before_it_goes_down() -> None:
    assert steer(Ray(), pool(10, 2), 0.0, 900.0) == [(600.0, 3)]


def test_ray_begins_to_wait_anew_when_the_direction_changes() -> None:
    """A burst of ten seconds after 590 s of quiet lifts the mean over the target at 600, 610 and 620 s."""
    peer = Ray()
    sizes = [peer.decide(pool(10, 40 if at == 590 else 2), float(at)) for at in range(0, 1240, 10)]
    assert set(sizes[:-1]) == {10}
    assert sizes[-1] == 3  # at 1230 s: the mean is down again from 630 s on


def test_ray_counts_by_the_mean_of_half_a_minute() -> None:
    """Three looks at 0 and one at 20: the last one has not lasted yet."""
    peer = Ray(target_ratio=1.0)
    for look in range(4):
        peer.decide(pool(1, 0), 10.0 * look)
    assert peer.decide(pool(1, 20), 40.0) == 1
    assert peer.decide(pool(1, 20), 50.0) == 1
    assert [peer.decide(pool(1, 20), at) for at in (60.0, 70.0, 80.0)] == [1, 1, 20]


def test_ray_does_not_ask_again_for_what_is_starting() -> None:
    """Nine tasks are 12.15 agents: thirteen, of which nine are still to come."""
    peer = Ray()
    assert {peer.decide(pool(4, 9, starting=9), 10.0 * look) for look in range(100)} == {13}


def test_ray_starts_at_once_from_nothing() -> None:
    assert Ray().decide(pool(0, 3, least=0), 0.0) == 1


# --- nomad


def test_nomad_scales_by_the_factor_and_then_cools_down() -> None:
    """Ten agents with fourteen tasks: 140 % of 70 %, so twenty; five minutes of nothing, whatever comes."""
    peer = Nomad()
    assert peer.decide(pool(10, 14), 0.0) == 20
    assert {peer.decide(pool(20, 40), 10.0 * look) for look in range(1, 31)} == {None}
    assert peer.decide(pool(20, 40), 310.0) == 50  # 58, capped


def test_nomad_leaves_a_percent_alone() -> None:
    assert Nomad().decide(pool(100, 70), 0.0) is None
    assert Nomad().decide(replace(pool(40, 28), in_flight=29), 0.0) == 42


def test_nomad_cools_down_when_somebody_else_has_scaled() -> None:
    peer = Nomad()
    assert peer.decide(pool(10, 7), 0.0) is None
    assert peer.decide(pool(12, 20), 10.0) is None
    assert peer.decide(pool(12, 20), 310.0) is None
    assert peer.decide(pool(12, 20), 320.0) == 29

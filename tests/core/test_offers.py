"""Programs that ask for a count: who may, what becomes of it, and that it ends by itself."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from world import World

from agentd.core.messages import Collected, Done, EventType, Propose, Refusal
from agentd.core.model import FleetConfig, PoolConfig, PoolName, PortRange
from agentd.core.rules import CollectorConfig, ExternalTrigger, ThresholdTrigger, Trigger

RESEARCH = PoolName("research")


def fleet(*triggers: Trigger, **pool: object) -> FleetConfig:
    config = PoolConfig(RESEARCH, min=1, max=10, ports=PortRange(9101, 9150), triggers=triggers)
    config = replace(config, drain_share_max=1.0, **pool)
    return FleetConfig(pools={RESEARCH: config}, enabled=True, autoscaling_enabled=True)


def booted(*triggers: Trigger, **pool: object) -> World:
    world = World(fleet(*triggers, **pool))
    world.boot()
    world.run_until(30.0)
    return world


def propose(world: World, count: int | None, *, source: str = "oracle", for_s: float = 600.0) -> object:
    return world.step(Propose(RESEARCH, source, count, "bob", "", for_s))


def count(world: World) -> int:
    return world.view().pools[0].count


def test_a_pool_follows_the_highest_offer_within_its_bounds_and_says_whose_it_is() -> None:
    world = booted(ExternalTrigger())
    assert propose(world, 4) == Done()
    world.run_until(31.0)
    assert count(world) == 4
    propose(world, 6, source="planner")
    propose(world, 50, source="dreamer", for_s=20.0)
    world.run_until(33.0)
    decision = world.view().pools[0].next
    assert (count(world), decision.trigger, decision.reasons[0].text) == (10, "external", "dreamer asks for 50")
    world.run_until(54.0)
    assert (count(world), "offer_expired research: 50 of dreamer" in world.texts()) == (6, True)
    propose(world, None, source="planner")
    world.run_until(56.0)
    assert count(world) == 4


def test_without_an_offer_the_pool_stays_as_it_is() -> None:
    world = booted(ExternalTrigger())
    propose(world, 4, for_s=10.0)
    world.run_until(300.0)
    assert count(world) == 4
    assert world.view().pools[0].next.reasons[0].code == "no_offer"


def test_offers_need_no_check_and_know_no_cooldown() -> None:
    world = booted(ExternalTrigger())
    for at, wanted in ((31.0, 3), (33.0, 5), (35.0, 2), (37.0, 4)):
        propose(world, wanted)
        world.run_until(at)
        assert count(world) == wanted


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (Propose(PoolName("nowhere"), "oracle", 3, "bob"), "UNKNOWN_POOL"),
        (Propose(RESEARCH, "Oracle", 3, "bob"), "INVALID_SOURCE"),
        (Propose(RESEARCH, "stranger", 3, "bob"), "SOURCE_NOT_ALLOWED"),
        (Propose(RESEARCH, "oracle", -1, "bob"), "COUNT_OUT_OF_RANGE"),
        (Propose(RESEARCH, "oracle", 100_001, "bob"), "COUNT_OUT_OF_RANGE"),
        (Propose(RESEARCH, "oracle", 3, "bob", for_s=0.0), "INVALID_DURATION"),
        (Propose(RESEARCH, "oracle", 3, "bob", for_s=float("nan")), "INVALID_DURATION"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(event: Propose, reason: str) -> None:
    world = booted(ExternalTrigger(("oracle",)))
    reply = world.step(event)
    assert isinstance(reply, Refusal)
    assert reply.reason == reason


def test_a_pool_without_the_trigger_takes_no_offers() -> None:
    reply = propose(booted(ThresholdTrigger()), 3)
    assert isinstance(reply, Refusal)
    assert reply.reason == "NO_EXTERNAL_TRIGGER"


def test_only_so_many_programs_may_ask() -> None:
    world = booted(ExternalTrigger())
    replies = [propose(world, 1, source=f"s{n}") for n in range(33)]
    assert replies[:32] == [Done()] * 32
    assert isinstance(replies[32], Refusal)
    assert propose(world, 2, source="s0") == Done()


def test_an_offer_survives_a_restart_of_agentd_and_ends_when_it_was_to_end() -> None:
    world = booted(ExternalTrigger())
    propose(world, 4, for_s=100.0)
    world.run_until(60.0)
    world.reboot()
    world.run_until(90.0)
    assert (count(world), world.view().pools[0].next.reasons[0].code) == (4, "offer")
    world.run_until(140.0)
    expired = [at for at, record in world.records if record.type is EventType.OFFER_EXPIRED]
    assert expired == [pytest.approx(130.0)]


def test_a_repeated_offer_is_told_once() -> None:
    world = booted(ExternalTrigger())
    for _ in range(5):
        propose(world, 4)
        world.run_until(world.now + 5.0)
    assert [text for text in world.texts() if text.startswith("offer ")] == ["offer research: oracle asks for 4"]


def test_a_reading_of_a_collector_that_is_not_configured_is_refused() -> None:
    world = booted(ExternalTrigger(), collectors=(CollectorConfig("queue", "test"),))
    assert world.step(Collected(RESEARCH, "queue", 3.0)) == Done()
    reply = world.step(Collected(RESEARCH, "other", 3.0))
    assert isinstance(reply, Refusal)
    assert reply.reason == "UNKNOWN_COLLECTOR"


def test_a_hold_is_told_once_however_often_the_wish_comes_and_goes() -> None:
    world = booted(ExternalTrigger())
    propose(world, 10)
    for n in range(20):
        world.run_until(world.now + 1.5)
        propose(world, 10 + n % 3)
    holds = [text for text in world.texts() if text.startswith("hold ")]
    assert holds == ["hold research: oracle asks for 11; wanted 11, stays at 10: its maximum is 10"]
    propose(world, 4)
    world.run_until(world.now + 2.0)
    propose(world, 12)
    world.run_until(world.now + 15.0)
    assert len([text for text in world.texts() if text.startswith("hold ")]) == 2

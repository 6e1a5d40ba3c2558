"""The loop: persist, then perform; results come back as events; time, listings and watchers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from life import CORE, FLEET, POOL, Life, asynchronous, ended, life
from msgspec.structs import replace

from agentd import runtime as module
from agentd.core import scaling
from agentd.core.messages import (
    Beat,
    BeatReply,
    Drain,
    EventType,
    Record,
    Restart,
    SetAutoscaling,
    Shutdown,
)
from agentd.core.model import (
    DirectiveKind,
    HealthCheck,
    StartFailure,
    State,
)
from agentd.core.rules import DemandTrigger
from agentd.drivers.memory import MemoryHost
from agentd.errors import Refused

# -- persist, then perform --------------------------------------------------------------------------


@asynchronous
async def test_nothing_is_performed_before_it_is_stored(tmp_path: Path) -> None:
    async with life(tmp_path, run=False) as agentd:
        agentd.store.gate.shut()
        agentd.running = asyncio.create_task(agentd.runtime.run())
        await agentd.until(lambda: agentd.store.gate.waiting > 0)
        for _ in range(100):
            await asyncio.sleep(0)
        assert agentd.driver.log == []
        assert agentd.state() is State.PENDING
        agentd.store.gate.open()
        await agentd.until(lambda: agentd.state() is State.READY)
        assert agentd.driver.log == [f"start {CORE}"]
        await ended(agentd)


@asynchronous
async def test_a_person_hears_back_when_it_is_stored_and_not_before(tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        agentd.store.gate.shut()
        asked = asyncio.create_task(agentd.runtime.submit(SetAutoscaling(False, "alice", "")))
        await agentd.until(lambda: agentd.store.gate.waiting > 0)
        assert not asked.done()
        agentd.store.gate.open()
        await asked
        assert "autoscaling" in await agentd.told()


@asynchronous
async def test_an_intent_is_open_until_its_result_is_there(tmp_path: Path) -> None:
    host = MemoryHost()
    async with life(tmp_path, host) as agentd:
        agentd.driver.starting.shut()
        await agentd.until(lambda: agentd.driver.starting.waiting > 0)
    async with life(tmp_path, host, run=False) as agentd:
        assert [(intent.kind, intent.instance) for intent in agentd.store.load().intents] == [("start", CORE)]
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
    assert host.starts == [CORE]
    async with life(tmp_path, host, run=False) as agentd:
        assert agentd.store.load().intents == ()


# -- actions and their results ----------------------------------------------------------------------


@asynchronous
async def test_a_start_that_fails_comes_back_as_an_event(tmp_path: Path) -> None:
    host = MemoryHost()
    host.fail_next_start(CORE, StartFailure.COMMAND_NOT_FOUND, "no such file: agent")
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.FAILED)
        await agentd.stored()
        failed = await agentd.runtime.events(limit=1, types=(EventType.START_FAILED,))
        assert failed[0].record.reason == "command_not_found: no such file: agent"


@asynchronous
async def test_actions_on_one_instance_happen_one_after_the_other(tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        agentd.driver.starting.shut()
        await agentd.until(lambda: agentd.driver.starting.waiting > 0)
        await agentd.runtime.submit(Restart((CORE,), "alice"))  # a stop, then a start
        for _ in range(100):
            await asyncio.sleep(0)
        assert agentd.driver.log == []
        agentd.driver.starting.open()
        await agentd.until(lambda: agentd.state() is State.READY)
        assert agentd.driver.log == [f"start {CORE}", f"stop {CORE}", f"start {CORE}"]


@asynchronous
async def test_instances_do_not_wait_for_each_other(tmp_path: Path) -> None:
    config = replace(FLEET, pools={POOL.name: replace(POOL, min=3)})
    async with life(tmp_path, config=config) as agentd:
        agentd.driver.starting.shut()
        await agentd.until(lambda: agentd.driver.starting.waiting == 3)
        agentd.driver.starting.open()


@asynchronous
async def test_an_exit_and_the_restart_in_place_are_heard(tmp_path: Path) -> None:
    host = MemoryHost()
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        host.exit(CORE)
        await agentd.until(lambda: agentd.runtime.view().instances[0].restarts == 1)
        await agentd.stored()
        assert (await agentd.told())[-3:] == ["exit", "restart", "ready"]


@asynchronous
async def test_what_the_driver_never_expected_ends_agentd(tmp_path: Path) -> None:
    host = MemoryHost()
    made = Life(tmp_path, host, FLEET, None)
    made.driver.broken = RuntimeError("out of everything")
    await made.runtime.start()
    with pytest.raises(ExceptionGroup) as raised:
        await made.runtime.run()
    assert raised.group_contains(RuntimeError, match="out of everything")
    await made.driver.close()
    await made.store.close()


@asynchronous
async def test_a_shutdown_ends_when_nothing_is_left_and_can_be_hurried(tmp_path: Path) -> None:
    host = MemoryHost()
    host.slow_stop(CORE, 1000.0)
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        await agentd.runtime.submit(Shutdown(keep_agents=False, owner="alice"))
        gone = asyncio.create_task(agentd.runtime.gone())
        await agentd.until(lambda: agentd.state() is State.STOPPING)
        for _ in range(100):
            await asyncio.sleep(0)
        assert not gone.done()
        await agentd.runtime.hurry()
        await asyncio.wait_for(gone, 10.0)
        assert agentd.runtime.view().instances == ()
        assert host.processes == {}


# -- time -------------------------------------------------------------------------------------------


@asynchronous
async def test_the_loop_wakes_at_the_deadline_the_controller_asked_for(tmp_path: Path) -> None:
    pool = replace(POOL, health=HealthCheck.HEARTBEAT)
    config = replace(FLEET, pools={POOL.name: pool}, check_interval_s=0.02, heartbeat_timeout_s=0.03)
    async with life(tmp_path, config=config) as agentd:
        await agentd.until(lambda: agentd.state() is State.STARTING)
        incarnation = agentd.runtime.view().instances[0].incarnation
        reply = agentd.runtime.beat(Beat(CORE, incarnation, 1, load=0.9))
        assert isinstance(reply, BeatReply)
        # Nothing else happens from here on: only a deadline can end the silence, or make the pool grow.
        await agentd.until(lambda: len(agentd.runtime.view().instances) > 1 or agentd.runtime.view().unhealthy > 0)


@asynchronous
async def test_beats_are_answered_without_the_store(tmp_path: Path) -> None:
    pool = replace(POOL, health=HealthCheck.HEARTBEAT)
    async with life(tmp_path, config=replace(FLEET, pools={POOL.name: pool})) as agentd:
        await agentd.until(lambda: agentd.state() is State.STARTING)
        incarnation = agentd.runtime.view().instances[0].incarnation
        agentd.runtime.beat(Beat(CORE, incarnation, 1, load=0.5))
        await agentd.stored()
        stored = agentd.store.last_id
        agentd.store.gate.shut()
        for seq in range(2, 100):
            assert isinstance(agentd.runtime.beat(Beat(CORE, incarnation, seq, load=0.6)), BeatReply)
        await asyncio.sleep(0)
        assert (agentd.store.gate.waiting, agentd.store.last_id) == (0, stored)
        assert agentd.runtime.view().instances[0].load == 0.6


@asynchronous
async def test_no_agent_hears_a_directive_that_the_next_agentd_would_not_know_of(tmp_path: Path) -> None:
    pool = replace(POOL, health=HealthCheck.HEARTBEAT)
    async with life(tmp_path, config=replace(FLEET, pools={POOL.name: pool})) as agentd:
        await agentd.until(lambda: agentd.state() is State.STARTING)
        incarnation = agentd.runtime.view().instances[0].incarnation

        def told(seq: int) -> DirectiveKind:
            reply = agentd.runtime.beat(Beat(CORE, incarnation, seq, load=0.5))
            assert isinstance(reply, BeatReply)
            unasked = agentd.runtime.next_directive(CORE)
            assert unasked is not None and unasked.directive.kind is reply.directive.kind
            return reply.directive.kind

        assert told(1) is DirectiveKind.CONTINUE
        await agentd.stored()
        agentd.store.gate.shut()
        asked = asyncio.create_task(agentd.runtime.submit(Drain(CORE, "alice", force=True)))
        await agentd.until(lambda: agentd.state() is State.DRAINING and agentd.store.gate.waiting > 0)
        assert told(2) is DirectiveKind.CONTINUE
        agentd.store.gate.open()
        await asked
        assert told(3) is DirectiveKind.DRAIN


# -- listings ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_listing_says_nothing_of_what_moved_while_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELIST_S", 0.0)
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        agentd.driver.listing.shut()
        await agentd.until(lambda: agentd.driver.listing.waiting > 0)  # it has seen the process, and waits
        await agentd.runtime.submit(Restart((CORE,), "alice"))
        await agentd.until(lambda: len(agentd.driver.log) == 3 and agentd.state() is State.READY)
        fresh = agentd.runtime.view().instances[0].incarnation
        agentd.driver.listing.open()
        await agentd.until(lambda: agentd.driver.listing.waiting == 0)
        await agentd.stored()
        assert agentd.runtime.view().instances[0].incarnation == fresh
        assert agentd.runtime.view().instances[0].restarts == 1


@asynchronous
async def test_what_vanished_unnoticed_is_found_by_the_next_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELIST_S", 0.0)
    host = MemoryHost()
    async with life(tmp_path, host) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        entry = agentd.driver._entries[CORE]
        host.processes.clear()
        entry.phase = None
        await agentd.until(lambda: len(host.starts) == 2)
        await agentd.until(lambda: agentd.state() is State.READY)
        await agentd.stored()
        assert "vanished" in await agentd.told()


# -- watching ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_watcher_sees_every_record_once_from_its_token_on(tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        await agentd.until(lambda: agentd.state() is State.READY)
        await agentd.stored()
        before = agentd.store.last_id
        seen: list[int] = []

        async def watch() -> None:
            async for stored in agentd.runtime.watch(0):
                seen.append(stored.id)

        watcher = asyncio.create_task(watch())
        for number in range(20):
            agentd.runtime.tell(Record(EventType.CONFIG, str(number)))
            await asyncio.sleep(0)
        await agentd.until(lambda: len(seen) == before + 20)
        assert seen == list(range(1, before + 21))
        watcher.cancel()


@pytest.mark.parametrize("after", [-5, 10_000])
@asynchronous
async def test_a_token_beyond_what_is_kept_is_expired(after: int, tmp_path: Path) -> None:
    async with life(tmp_path) as agentd:
        with pytest.raises(Refused, match="not kept"):
            await anext(agentd.runtime.watch(after))


@asynchronous
async def test_a_heartbeat_that_says_more_wakes_the_loop(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TURN_S", 1000.0)
        patch.setattr(scaling, "EVALUATE_S_MAX", 1000.0)
        pool = replace(POOL, triggers=(DemandTrigger(),))
        config = replace(FLEET, pools={POOL.name: pool}, heartbeat_timeout_s=0.3, check_interval_s=1000.0)
        async with life(tmp_path, config=config) as agentd:
            await agentd.until(lambda: agentd.state() is State.READY)
            # Nothing is due any more: only the heartbeat can end the silence.
            await agentd.until(lambda: (agentd.controller.deadline or 0.0) > agentd.runtime.clock.now() + 100.0)
            incarnation = agentd.runtime.view().instances[0].incarnation
            agentd.runtime.beat(Beat(CORE, incarnation, 1, in_flight=2, queue_length=1))
            await agentd.until(lambda: len(agentd.runtime.view().instances) == 4)
            await agentd.stored()
            decision = (await agentd.runtime.decisions("research", 1))[0]
            assert (decision.trigger, decision.granted) == ("demand", 4)
            assert decision.proposals[0].count == 4

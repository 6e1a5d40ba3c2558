"""What every driver promises, held against each of them."""

from __future__ import annotations

import asyncio

import pytest
from driver_worlds import ID, World, asynchronous, spec, until, watching

from agentd.core.messages import InstanceExited, InstanceGaveUp, InstanceStarted
from agentd.core.model import ExitCause, ExitKind, InstanceId, Phase, RestartPolicy, StartFailure
from agentd.errors import AgentdError, StartError


@asynchronous
async def test_what_is_started_is_listed_until_it_is_stopped(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        assert await driver.list() == ()
        started = await driver.start(spec())
        assert (started.id, started.phase) == (ID, Phase.RUNNING)
        assert started.pid > 0
        assert started.incarnation
        assert await driver.list() == (started,)
        assert world.running(ID) == 1
        assert await driver.stop(ID, grace_s=10.0) is False
        assert await driver.list() == ()
        assert world.running(ID) == 0
        assert reports == []


@asynchronous
async def test_instances_are_listed_by_id(world: World) -> None:
    driver = world.driver()
    async with watching(driver):
        for port in (9103, 9101, 9102):
            await driver.start(spec(port))
        assert [observed.id for observed in await driver.list()] == ["research-9101", "research-9102", "research-9103"]


@asynchronous
async def test_starting_what_runs_leaves_it_untouched(world: World) -> None:
    driver = world.driver()
    async with watching(driver):
        first = await driver.start(spec())
        assert await driver.start(spec()) == first
        assert world.running(ID) == 1


@asynchronous
async def test_simultaneous_starts_of_one_id_start_one(world: World) -> None:
    driver = world.driver()
    async with watching(driver):
        started = await asyncio.gather(*(driver.start(spec()) for _ in range(5)))
        assert len(set(started)) == 1
        assert world.running(ID) == 1


@asynchronous
async def test_stopping_what_is_gone_or_was_never_there_succeeds(world: World) -> None:
    driver = world.driver()
    async with watching(driver):
        assert await driver.stop(InstanceId("research-9999"), grace_s=10.0) is False
        await driver.start(spec())
        await driver.stop(ID, grace_s=10.0)
        assert await driver.stop(ID, grace_s=10.0) is False


@asynchronous
async def test_simultaneous_stops_are_one(world: World) -> None:
    driver = world.driver()
    async with watching(driver):
        await driver.start(spec())
        assert await asyncio.gather(*(driver.stop(ID, grace_s=10.0) for _ in range(5))) == [False] * 5
        assert world.running(ID) == 0


@asynchronous
async def test_a_start_that_follows_a_stop_wins(world: World) -> None:
    driver = world.driver()
    async with watching(driver):
        first = await driver.start(spec())
        stopping = asyncio.create_task(driver.stop(ID, grace_s=10.0))
        await asyncio.sleep(0)
        second = await driver.start(spec())
        await stopping
        assert second.incarnation != first.incarnation
        assert await driver.list() == (second,)


@asynchronous
async def test_each_start_is_a_new_incarnation(world: World) -> None:
    driver = world.driver()
    async with watching(driver):
        seen = set()
        for _ in range(3):
            seen.add((await driver.start(spec())).incarnation)
            await driver.stop(ID, grace_s=10.0)
        assert len(seen) == 3


@asynchronous
async def test_what_exits_is_reported_and_restarted_as_a_new_incarnation(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        first = await driver.start(world.unhurried(spec()))
        await world.exit(first)
        restarted = await reports.first(InstanceStarted)
        assert isinstance(restarted, InstanceStarted)
        assert reports == [
            InstanceExited(ID, first.incarnation, ExitCause(ExitKind.SIGNAL, 9), world.delays_s[0]),
            InstanceStarted(ID, restarted.incarnation, restarted.pid),
        ]
        assert restarted.incarnation != first.incarnation
        (listed,) = await driver.list()
        assert (listed.incarnation, listed.pid) == (restarted.incarnation, restarted.pid)


@asynchronous
async def test_a_crash_loop_ends_in_surrender_with_the_reason(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        await driver.start(world.unhurried(world.crashing()))
        surrender = await reports.first(InstanceGaveUp)
        assert isinstance(surrender, InstanceGaveUp)
        assert surrender.cause is StartFailure.CRASH_LOOP
        assert surrender.text == "research-9101 ended 3 times in a row, the last time with exit code 3"
        exits = [report for report in reports if isinstance(report, InstanceExited)]
        assert [report.restart_in_s for report in exits] == list(world.delays_s)
        (listed,) = await driver.list()
        assert (listed.phase, listed.pid) == (Phase.FAILED, 0)
        assert await driver.stop(ID, grace_s=10.0) is False
        assert await driver.list() == ()


@asynchronous
async def test_a_healthy_period_forgives_earlier_failures(world: World) -> None:
    driver = world.driver()
    forgiving = RestartPolicy(initial_s=0.01, max_s=10.0, healthy_s=0.0, attempts_max=2)
    async with watching(driver) as reports:
        await driver.start(world.unhurried(spec(restart=forgiving)))
        for count in (1, 2, 3):
            (observed,) = await driver.list()
            await world.exit(observed)
            await reports.first(InstanceStarted, count)
        exits = [report for report in reports if isinstance(report, InstanceExited)]
        assert [report.restart_in_s for report in exits] == [world.delays_s[0]] * 3


@asynchronous
async def test_an_instance_that_waits_for_its_restart_is_listed_so_and_can_be_stopped(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        first = await driver.start(world.slow())
        await world.exit(first)
        await reports.first(InstanceExited)
        (listed,) = await driver.list()
        assert (listed.phase, listed.incarnation, listed.pid) == (Phase.BACKOFF, first.incarnation, 0)
        assert await driver.stop(ID, grace_s=10.0) is False
        assert await driver.list() == ()
        assert world.running(ID) == 0


@asynchronous
async def test_a_start_does_not_wait_for_a_pending_restart(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        first = await driver.start(world.slow())
        await world.exit(first)
        await reports.first(InstanceExited)
        second = await driver.start(spec())
        assert second.phase is Phase.RUNNING
        assert await driver.list() == (second,)
        assert world.running(ID) == 1


@asynchronous
async def test_a_taken_port_is_the_start_s_error_and_leaves_nothing(world: World) -> None:
    driver = world.driver()
    async with watching(driver):
        world.take_port(9101)
        with pytest.raises(StartError, match="port 9101 is held by a test") as caught:
            await driver.start(spec())
        assert caught.value.cause is StartFailure.PORT_TAKEN
        assert await driver.list() == ()


@asynchronous
async def test_a_port_taken_before_a_restart_ends_in_surrender(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        first = await driver.start(world.unhurried(spec()))
        world.take_port(9101)
        await world.exit(first)
        surrender = await reports.first(InstanceGaveUp)
        assert isinstance(surrender, InstanceGaveUp)
        assert surrender.cause is StartFailure.PORT_TAKEN
        assert "port 9101 is held by a test" in surrender.text
        assert world.running(ID) == 0


@asynchronous
async def test_closing_leaves_everything_running_for_the_next_driver(world: World) -> None:
    first = world.driver()
    async with watching(first):
        started = [await first.start(spec(port)) for port in (9101, 9102)]
    second = world.driver()
    async with watching(second):
        adopted = await second.list()
        assert [(o.id, o.incarnation, o.pid) for o in adopted] == [(o.id, o.incarnation, o.pid) for o in started]
        assert await second.stop(ID, grace_s=10.0) is False
        assert [observed.id for observed in await second.list()] == ["research-9102"]
        assert world.running(ID) == 0


@asynchronous
async def test_a_new_driver_starts_no_duplicate(world: World) -> None:
    first = world.driver()
    async with watching(first):
        started = await first.start(spec())
    second = world.driver()
    async with watching(second):
        assert (await second.start(spec())).incarnation == started.incarnation
        assert world.running(ID) == 1


@asynchronous
async def test_an_adopted_instance_whose_specification_was_learned_is_restarted(world: World) -> None:
    first = world.driver()
    async with watching(first):
        started = await first.start(spec())
    second = world.driver()
    async with watching(second) as reports:
        (adopted,) = await second.list()
        second.learn([spec(), spec(9109)])
        await world.exit(adopted)
        restarted = await reports.first(InstanceStarted)
        assert isinstance(restarted, InstanceStarted)
        assert restarted.incarnation != started.incarnation
        assert world.running(ID) == 1


@asynchronous
async def test_an_adopted_instance_without_specification_is_reported_and_not_restarted(world: World) -> None:
    first = world.driver()
    async with watching(first):
        await first.start(world.unhurried(spec()))
    second = world.driver()
    async with watching(second) as reports:
        (adopted,) = await second.list()
        await world.exit(adopted)
        exited = await reports.first(InstanceExited)
        assert isinstance(exited, InstanceExited)
        assert (exited.incarnation, exited.restart_in_s) == (adopted.incarnation, -1.0)
        assert await second.list() == ()


@asynchronous
async def test_learning_replaces_what_was_known(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        first, second = [await driver.start(world.unhurried(spec(port))) for port in (9101, 9102)]
        driver.learn([spec(9102)])
        await world.exit(first)
        exited = await reports.first(InstanceExited)
        assert isinstance(exited, InstanceExited)
        assert (exited.instance, exited.restart_in_s) == (ID, -1.0)
        assert await driver.list() == (second,)


@asynchronous
async def test_a_pending_restart_of_what_is_not_learned_does_not_happen(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        await world.exit(await driver.start(world.slow()))
        await reports.first(InstanceExited)
        driver.learn([])
        assert await driver.list() == ()
        driver.learn([spec()])
        assert await driver.list() == ()
        started = await driver.start(spec())
        assert await driver.list() == (started,)


@asynchronous
async def test_restarts_that_cannot_be_spawned_end_in_surrender_with_that_cause(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        first = await driver.start(spec())
        world.refuse_to_spawn(9101, times=2)
        await world.exit(first)
        surrender = await reports.first(InstanceGaveUp)
        assert isinstance(surrender, InstanceGaveUp)
        assert surrender.cause is StartFailure.SPAWN_FAILED
        assert world.spawn_trouble in surrender.text


@asynchronous
async def test_another_agentd_s_instances_are_invisible(world: World) -> None:
    ours, theirs = world.driver(), world.driver("theirs")
    async with watching(ours), watching(theirs):
        started = await theirs.start(spec())
        if world.one_agentd:
            with pytest.raises(AgentdError, match="another agentd"):
                await ours.list()
            return
        assert await ours.list() == ()
        assert await ours.stop(ID, grace_s=10.0) is False
        assert await theirs.list() == (started,)
        assert world.running(ID, "theirs") == 1


@asynchronous
async def test_capacity_names_its_bound(world: World) -> None:
    driver = world.driver()
    async with watching(driver):
        capacity = await driver.capacity()
        assert capacity.instances_max is None or capacity.instances_max > 0
        assert capacity.bound


@asynchronous
async def test_a_new_start_is_the_way_out_of_surrender(world: World) -> None:
    driver = world.driver()
    async with watching(driver) as reports:
        first = await driver.start(world.brittle())
        await world.exit(first)
        await reports.first(InstanceGaveUp)

        async def failed() -> bool:
            return [observed.phase for observed in await driver.list()] == [Phase.FAILED]

        await until(failed, "the surrender to be listed")
        second = await driver.start(spec())
        assert await driver.list() == (second,)

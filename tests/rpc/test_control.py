"""What people ask over the wire: every method done and refused."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from msgspec.structs import replace
from serving import EPOCH, FLEET, FLEET_OF_LONG_WAITS, Serving, asynchronous, refused, serving

from agentd.agentctl.values import as_value
from agentd.core.forecast import Forecast
from agentd.core.model import ExitCause, ExitKind, PoolName, State
from agentd.core.rules import DemandTrigger, ExternalTrigger
from agentd.core.scalability import ScalingLaw
from agentd.core.season import SLOT_S
from agentd.rpc import convert
from agentd.v1 import agent_pb2, common_pb2
from agentd.v1 import control_pb2 as pb

UP, DOWN = pb.ScaleRequest.DIRECTION_UP, pb.ScaleRequest.DIRECTION_DOWN
INVALID, NOT_FOUND = StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND
PRECONDITION = StatusCode.FAILED_PRECONDITION


def beats(*of: agent_pb2.Heartbeat) -> agent_pb2.HeartbeatRequest:
    return agent_pb2.HeartbeatRequest(heartbeats=of)


# -- looking ----------------------------------------------------------------------------------------


@asynchronous
async def test_status_shows_the_fleet_and_agentd_itself(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        agentd.clock.at += 5.0
        status = (await agentd.control.GetStatus(pb.GetStatusRequest())).status
        assert (status.version, status.driver, status.controller_epoch) == ("9.9", "memory", EPOCH)
        assert (status.uptime_s, status.enabled, status.autoscaling.enabled) == (5.0, True, True)
        assert status.state_dir == str(tmp_path)
        assert list(status.degraded) == []
        (pool,) = status.pools
        assert (pool.name, pool.count, pool.ready, pool.min, pool.max, pool.core) == ("research", 3, 3, 3, 5, 1)
        assert pool.load == 0.5
        assert not pool.HasField("target")
        first = status.instances[0]
        assert (first.id, first.core_name, first.endpoint.port) == ("research-9002", "researcher", 9002)
        assert first.state == common_pb2.INSTANCE_STATE_READY


@asynchronous
async def test_instances_are_listed_by_pool(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for pool in ("", "research"):
            answer = await agentd.control.ListInstances(pb.ListInstancesRequest(pool=pool))
            assert [item.id for item in answer.instances] == ["research-9002", "research-9101", "research-9102"]
        await refused(agentd.control.ListInstances(pb.ListInstancesRequest(pool="x")), NOT_FOUND, "UNKNOWN_POOL")


@asynchronous
async def test_explain_shows_the_pool_and_its_decisions_newest_first(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for count in (4, 5):
            await agentd.control.Scale(pb.ScaleRequest(direction=UP, count=count, pool="research"))
        answer = await agentd.control.Explain(pb.ExplainRequest(pool="research"))
        assert answer.pool.target.count == 5
        assert [decision.granted for decision in answer.decisions][-1] == 4
        assert answer.decisions[-1].reasons[0].text == "somebody asked for 4"
        one = await agentd.control.Explain(pb.ExplainRequest(pool="research", history=1))
        assert list(one.decisions) == [answer.decisions[0]]
        await refused(agentd.control.Explain(pb.ExplainRequest(pool="x")), NOT_FOUND, "UNKNOWN_POOL")


@asynchronous
async def test_explain_shows_the_decision_of_a_moment_and_the_one_that_followed(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for count in (4, 5):
            agentd.clock.at += 100.0
            await agentd.control.Scale(pb.ScaleRequest(direction=UP, count=count, pool="research"))
        newest, first = (await agentd.control.Explain(pb.ExplainRequest(pool="research"))).decisions
        then = await agentd.control.Explain(pb.ExplainRequest(pool="research", at_wall=first.wall + 1.0))
        assert (list(then.decisions), then.following) == ([first], newest)
        before = await agentd.control.Explain(pb.ExplainRequest(pool="research", at_wall=first.wall - 1.0))
        assert (list(before.decisions), before.following) == ([], first)
        now = await agentd.control.Explain(pb.ExplainRequest(pool="research", at_wall=newest.wall))
        assert not now.HasField("following")


@asynchronous
async def test_a_plan_says_what_a_check_would_do_and_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        await agentd.control.Scale(pb.ScaleRequest(direction=UP, count=9, pool="research"))
        before = agentd.controller.snapshot()
        (plan,) = (await agentd.control.Plan(pb.PlanRequest(pool="research"))).plans
        assert agentd.controller.snapshot() == before
        assert plan.decision.wanted == 9 and plan.decision.chain[0].code == "wanted"
        assert plan.decision.limits[0].allows == plan.decision.chain[1].count
        await refused(agentd.control.Plan(pb.PlanRequest(pool="x")), NOT_FOUND, "UNKNOWN_POOL")


@asynchronous
async def test_a_forecast_is_told_of_a_pool_and_of_those_with_a_label(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        pool = agentd.controller._fleet.pools[PoolName("research")]
        wall = agentd.controller._fleet.wall(agentd.runtime.clock.now())
        pool.forecast = Forecast()
        for slot in range(320):
            pool.forecast.note(wall + (slot - 319) * SLOT_S, 7.0)
        pool.forecast.note_labels(wall, {"workload=chat": 3})
        found = await agentd.control.GetForecast(pb.GetForecastRequest(pool="research"))
        assert (found.heeded, found.reason.code, list(found.labels)) == (False, "forecast_unused", ["workload=chat"])
        assert found.seen_s == found.needed_s == 86_400.0
        past, ahead = found.slots[0], found.slots[-1]
        assert past.came == 7.0 and not past.HasField("middle")
        assert not ahead.HasField("came") and ahead.low <= ahead.middle <= ahead.high
        assert ahead.middle == pytest.approx(7.0, abs=0.5)
        assert [skill.ahead_s for skill in found.skills] == [600.0, 3_600.0, 21_600.0, 86_400.0]
        labelled = await agentd.control.GetForecast(pb.GetForecastRequest(pool="research", label="workload=chat"))
        assert [slot.came for slot in labelled.slots if slot.HasField("came")] == [3.0]
        unknown = agentd.control.GetForecast(pb.GetForecastRequest(pool="research", label="workload=x"))
        await refused(unknown, NOT_FOUND, "UNKNOWN_LABEL")
        await refused(agentd.control.GetForecast(pb.GetForecastRequest(pool="x")), NOT_FOUND, "UNKNOWN_POOL")


@asynchronous
async def test_status_says_how_pools_stand_with_scaling(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        (pool,) = (await agentd.control.GetStatus(pb.GetStatusRequest())).status.pools
        assert [condition.type for condition in pool.conditions] == ["AbleToScale", "ScalingActive", "ScalingLimited"]
        assert all(condition.reason and condition.since_wall > 0 for condition in pool.conditions)


@asynchronous
async def test_events_are_listed_newest_first_and_filtered(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:

        async def list_events(**values: Any) -> list[pb.Event]:
            return list((await agentd.control.ListEvents(pb.ListEventsRequest(**values))).events)

        await agentd.control.SetAutoscaling(pb.SetAutoscalingRequest(enabled=False, owner="alice", reason="demo"))
        newest = (await list_events(limit=1))[0]
        assert (newest.type, newest.actor, newest.reason) == ("autoscaling", "alice", "off: demo")
        tokens = [int(event.resume_token) for event in await list_events()]
        assert tokens == sorted(tokens, reverse=True)
        assert {event.type for event in await list_events(types=["start", "ready"])} == {"start", "ready"}
        assert {event.instance for event in await list_events(instance="research-9101")} == {"research-9101"}
        assert {event.pool for event in await list_events(pool="research")} == {"research"}
        assert await list_events(pool="nowhere") == []


@asynchronous
async def test_reflection_names_the_service(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        stub = reflection_pb2_grpc.ServerReflectionStub(agentd.channels[1])
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        async for answer in call:
            names = {service.name for service in answer.list_services_response.service}
            assert "agentd.v1.ControlService" in names
            break
        call.cancel()


# -- changing ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_target_is_granted_with_its_limits_and_lasts_an_hour(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        request = pb.ScaleRequest(direction=UP, count=9, pool="research", owner="alice", reason="demo")
        (grant,) = (await agentd.control.Scale(request)).grants
        assert (grant.pool, grant.current, grant.wanted, grant.granted) == ("research", 3, 9, 5)
        assert list(grant.limits) == ["max_agents: its maximum is 5"]
        status = (await agentd.control.GetStatus(pb.GetStatusRequest())).status
        target = status.pools[0].target
        assert (target.count, target.owner, target.reason, target.expires_in_s) == (9, "alice", "demo", 3600.0)


@asynchronous
async def test_a_dry_run_of_a_total_shows_the_split_and_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        before = agentd.controller.snapshot()
        answer = await agentd.control.Scale(pb.ScaleRequest(direction=UP, count=4, dry_run=True))
        assert [(grant.pool, grant.granted) for grant in answer.grants] == [("research", 4)]
        assert agentd.controller.snapshot() == before


@asynchronous
async def test_scaling_is_switched_and_said_by_whom(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        request = pb.SetAutoscalingRequest(enabled=False, owner="alice", reason="maintenance")
        mode = (await agentd.control.SetAutoscaling(request)).autoscaling
        assert (mode.enabled, mode.owner, mode.reason) == (False, "alice", "maintenance")
        mode = (await agentd.control.SetAutoscaling(pb.SetAutoscalingRequest(enabled=True))).autoscaling
        assert (mode.enabled, mode.owner) == (True, "somebody")


@asynchronous
async def test_a_direction_of_a_pool_is_paused_and_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        request = pb.SetAutoscalingRequest(owner="alice", reason="costs", pool="research", direction="up", for_s=60.0)
        answer = await agentd.control.SetAutoscaling(request)
        assert answer.autoscaling.enabled
        assert [held.pool for held in answer.pools] == ["research"]
        await agentd.control.SetAutoscaling(pb.SetAutoscalingRequest(owner="bob", direction="down"))
        status = (await agentd.control.GetStatus(pb.GetStatusRequest())).status
        assert [(pause.direction, pause.owner) for pause in status.autoscaling.pauses] == [("down", "bob")]
        own, all_pools = next(pool for pool in status.pools if pool.name == "research").pauses
        assert (own.direction, own.owner, own.reason, own.everywhere) == ("up", "alice", "costs", False)
        assert 0.0 < own.expires_in_s <= 60.0
        assert all_pools.everywhere
        assert not all_pools.HasField("expires_in_s")
        request = pb.SetAutoscalingRequest(enabled=True, pool="research", direction="both")
        (held,) = (await agentd.control.SetAutoscaling(request)).pools
        assert [pause.direction for pause in held.pauses] == ["down"]  # all pools' holds it too


@asynchronous
async def test_from_how_many_on_more_add_little_is_told(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        view = agentd.controller.view(0.0).pools[0]
        assert not convert.pool(view, 0.0).HasField("useful_max")
        told = convert.pool(replace(view, law=ScalingLaw(9, 5.0, 0.12, 0.004, 0.87, 4)), 0.0)
        assert (told.useful_max, told.scaling_law.counts, told.scaling_law.confidence) == (9, 4, 0.87)
        assert told.scaling_law.text.startswith("more than 9 add little")


@asynchronous
async def test_a_program_proposes_a_count_and_takes_it_back(tmp_path: Path) -> None:
    (pool,) = FLEET.pools.values()
    config = replace(FLEET, pools={pool.name: replace(pool, triggers=(ExternalTrigger(), DemandTrigger()))})
    async with serving(tmp_path, config) as agentd:
        request = pb.ProposeRequest(pool="research", source="optimizer", count=5, owner="alice", reason="batch")
        (offer,) = (await agentd.control.Propose(request)).offers
        assert (offer.source, offer.count, offer.reason, offer.expires_in_s) == ("optimizer", 5, "batch", 600.0)
        shown = (await agentd.control.Explain(pb.ExplainRequest(pool="research"))).pool
        assert [offer.source for offer in shown.offers] == ["optimizer"]
        assert shown.next.trigger == "external"
        external, demand = shown.next.proposals
        assert (external.trigger, external.count, external.reason.code) == ("external", 5, "offer")
        assert (demand.trigger, demand.HasField("count"), demand.reason.code) == ("demand", False, "no_sample")
        withdrawn = pb.ProposeRequest(pool="research", source="optimizer", withdraw=True)
        assert list((await agentd.control.Propose(withdrawn)).offers) == []


@asynchronous
async def test_a_proposal_that_cannot_be_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for request, code, reason in (
            (pb.ProposeRequest(pool="research", source="optimizer"), INVALID, "COUNT_MISSING"),
            (pb.ProposeRequest(pool="research", source="optimizer", count=1, withdraw=True), INVALID, "COUNT_MISSING"),
            (pb.ProposeRequest(pool="x", source="optimizer", count=1), NOT_FOUND, "UNKNOWN_POOL"),
            (pb.ProposeRequest(pool="research", source="optimizer", count=1), PRECONDITION, "NO_EXTERNAL_TRIGGER"),
        ):
            await refused(agentd.control.Propose(request), code, reason)


@asynchronous
async def test_a_check_answers_with_its_decisions(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for pool in ("", "research"):
            answer = await agentd.control.Check(pb.CheckRequest(pool=pool))
            assert [decision.pool for decision in answer.decisions] == ["research"]
        await refused(agentd.control.Check(pb.CheckRequest(pool="x")), NOT_FOUND, "UNKNOWN_POOL")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("research-9101", ["research-9101"]),
        ("researcher", ["research-9002"]),
    ],
)
@asynchronous
async def test_a_restart_takes_an_id_or_a_core_agents_name(name: str, meant: list[str], tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        answer = await agentd.control.Restart(pb.RestartRequest(name=name, owner="alice"))
        assert list(answer.instances) == meant
        assert not answer.HasField("restart")
        assert agentd.instance(meant[0]).state is State.DRAINING


@asynchronous
async def test_a_restart_of_a_pool_says_how_it_goes_about_it_and_shows_in_the_status(tmp_path: Path) -> None:
    members = ["research-9002", "research-9101", "research-9102"]
    async with serving(tmp_path) as agentd:
        answer = await agentd.control.Restart(pb.RestartRequest(name="research", owner="alice"))
        assert list(answer.instances) == members
        assert (answer.restart.state, answer.restart.owner) == ("rolling", "alice")
        assert (answer.restart.total, answer.restart.done, answer.restart.max_unavailable) == (3, 0, 0)
        assert answer.restart.stand_in == "research-9103"
        status = (await agentd.control.GetStatus(pb.GetStatusRequest())).status
        assert status.pools[0].rolling.total == 3
        again = agentd.control.Restart(pb.RestartRequest(name="research", rolling=True, max_unavailable=1))
        error = await refused(again, PRECONDITION, "RESTART_UNDER_WAY")
        assert "restarting 0 of 3" in error.text
        answer = await agentd.control.Restart(pb.RestartRequest(name="research", rolling=True, cancel=True))
        assert answer.restart.state in ("", "cancelled"), "nobody had gone yet"


@asynchronous
async def test_a_restart_takes_no_options_of_a_pool_for_an_instance(tmp_path: Path) -> None:
    def asked(name: str, **options: Any) -> Any:
        return agentd.control.Restart(pb.RestartRequest(name=name, **options))

    async with serving(tmp_path) as agentd:
        await refused(asked("researcher", max_unavailable=1), INVALID, "NOT_A_POOL")
        await refused(asked("research-9101", cancel=True), INVALID, "NOT_A_POOL")
        await refused(asked("researcher", rolling=True), NOT_FOUND, "UNKNOWN_POOL")
        await refused(asked("research", cancel=True), PRECONDITION, "NO_RESTART")
        await refused(asked("research", max_unavailable=100_001), INVALID, "OUT_OF_BOUNDS")
        assert {view.state for view in agentd.runtime.view().instances} == {State.READY}


@asynchronous
async def test_a_drain_takes_an_id_or_a_core_agents_name(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        answer = await agentd.control.Drain(pb.DrainRequest(name="research-9101", owner="alice"))
        assert (answer.instance.id, answer.instance.state) == ("research-9101", common_pb2.INSTANCE_STATE_DRAINING)
        assert answer.instance.cause == "alice asked for it"
        error = await refused(agentd.control.Drain(pb.DrainRequest(name="researcher")), PRECONDITION, "CORE_AGENT")
        assert "research-9002 is the core agent researcher" in error.text
        answer = await agentd.control.Drain(pb.DrainRequest(name="researcher", force=True))
        assert answer.instance.id == "research-9002"
        await refused(agentd.control.Drain(pb.DrainRequest(name="research")), NOT_FOUND, "UNKNOWN_INSTANCE")


@asynchronous
async def test_settings_are_changed_of_an_instance_or_of_all_of_a_pool_that_run(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        configure = agentd.control.Configure
        answer = await configure(pb.ConfigureRequest(name="research-9101", owner="alice", concurrency=4))
        (asked,) = answer.instances
        assert (asked.id, asked.concurrency) == ("research-9101", 1)  # until it has agreed
        reply = (await agentd.agents.Heartbeat(beats(agentd.beat("research-9101", seq=2)))).replies[0]
        told = reply.directive
        assert (told.kind, told.concurrency) == (agent_pb2.Directive.KIND_CONFIGURE, 4)
        acked = agentd.beat("research-9101", seq=3)
        acked.acks.add(id=told.id, stage=agent_pb2.Acknowledgement.STAGE_ACCEPTED)
        await agentd.agents.Heartbeat(beats(acked))
        assert agentd.instance("research-9101").concurrency == 4
        answer = await configure(pb.ConfigureRequest(name="research", interval_s=0.5))
        assert [one.id for one in answer.instances] == ["research-9002", "research-9101", "research-9102"]
        reply = (await agentd.agents.Heartbeat(beats(agentd.beat("research-9002", seq=2)))).replies[0]
        assert (reply.interval_s, reply.directive.interval_s) == (0.5, 0.5)
        await refused(configure(pb.ConfigureRequest(name="nobody", concurrency=4)), NOT_FOUND, "UNKNOWN_INSTANCE")
        await refused(configure(pb.ConfigureRequest(name="research")), INVALID, "NO_SETTING")
        await refused(configure(pb.ConfigureRequest(name="research", concurrency=0)), INVALID, "OUT_OF_BOUNDS")


@asynchronous
async def test_reload_and_shutdown_are_the_daemons(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        reloaded = await agentd.control.Reload(pb.ReloadRequest(owner="alice"))
        assert (reloaded.config_file, list(reloaded.warnings), list(reloaded.changes)) == (
            "/etc/agentd.yaml", ["a warning"], ["max: 5 -> 6"],
        )  # fmt: skip
        assert (await agentd.control.Shutdown(pb.ShutdownRequest())).stopping == 3
        assert (await agentd.control.Shutdown(pb.ShutdownRequest(keep_agents=True, owner="bob"))).stopping == 0
        assert agentd.operations.reloads == ["alice"]
        assert agentd.operations.shutdowns == [(False, "somebody"), (True, "bob")]


@asynchronous
async def test_a_rejected_reload_says_what_is_wrong_however_much_that_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        agentd.operations.reload_fails = "".join(f"agentd.yaml:{line}:1: unknown key 'größe'\n" for line in range(999))
        error = await refused(agentd.control.Reload(pb.ReloadRequest()), INVALID, "CONFIG_INVALID")
        assert "agentd.yaml:9:1: unknown key" in error.text


# -- refused ----------------------------------------------------------------------------------------

Call = Callable[[Serving], Awaitable[Any]]


def _scale(**values: Any) -> Call:
    return lambda agentd: agentd.control.Scale(pb.ScaleRequest(**{"direction": UP, "count": 4, **values}))


def _auto(**values: Any) -> Call:
    return lambda agentd: agentd.control.SetAutoscaling(pb.SetAutoscalingRequest(**values))


REFUSED: dict[str, tuple[Call, StatusCode, str]] = {
    "a pause of no direction": (_auto(direction="left"), INVALID, "INVALID_DIRECTION"),
    "a pause of an unknown pool": (_auto(pool="x"), NOT_FOUND, "UNKNOWN_POOL"),
    "a pause of no time": (_auto(for_s=0.0), INVALID, "INVALID_DURATION"),
    "a pause that ends at no time": (_auto(for_s=math.nan), INVALID, "INVALID_DURATION"),
    "on for a while": (_auto(enabled=True, for_s=60.0), INVALID, "INVALID_DURATION"),
    "no direction": (_scale(direction=0), INVALID, "DIRECTION_MISSING"),
    "unheard direction": (_scale(direction=7), INVALID, "DIRECTION_MISSING"),
    "up below the present": (_scale(count=2), INVALID, "TARGET_BELOW_CURRENT"),
    "down above the present": (_scale(direction=DOWN, count=4), INVALID, "TARGET_ABOVE_CURRENT"),
    "far too many": (_scale(count=100_001), INVALID, "OUT_OF_BOUNDS"),
    "unknown pool": (_scale(pool="x"), NOT_FOUND, "UNKNOWN_POOL"),
    "endless pool name": (_scale(pool="x" * 100_000), NOT_FOUND, "UNKNOWN_POOL"),
    **{
        f"for {for_s} s": (_scale(for_s=for_s), INVALID, "INVALID_DURATION")
        for for_s in (0.0, -1.0, math.nan, math.inf, 1e12)
    },
    "long owner": (_scale(owner="x" * 201), INVALID, "INVALID_TEXT"),
    "reason of two lines": (_scale(reason="a\nb"), INVALID, "INVALID_TEXT"),
    "escape in the owner": (_scale(owner="\x1b[2J"), INVALID, "INVALID_TEXT"),
    "too many events": (lambda a: a.control.ListEvents(pb.ListEventsRequest(limit=10_001)), INVALID, "OUT_OF_BOUNDS"),
    "unheard event": (lambda a: a.control.ListEvents(pb.ListEventsRequest(types=["x"])), INVALID, "UNKNOWN_EVENT_TYPE"),
    "restart of nobody": (lambda a: a.control.Restart(pb.RestartRequest()), NOT_FOUND, "UNKNOWN_INSTANCE"),
    "restart of somebody else": (
        lambda a: a.control.Restart(pb.RestartRequest(name="../../etc")), NOT_FOUND, "UNKNOWN_INSTANCE",
    ),
    "owner of a restart": (
        lambda a: a.control.Restart(pb.RestartRequest(name="research", owner="a\nb")), INVALID, "INVALID_TEXT",
    ),
    "owner of a shutdown": (lambda a: a.control.Shutdown(pb.ShutdownRequest(owner="a\nb")), INVALID, "INVALID_TEXT"),
    "owner of a reload": (lambda a: a.control.Reload(pb.ReloadRequest(owner="a\nb")), INVALID, "INVALID_TEXT"),
    "owner of a check": (lambda a: a.control.Check(pb.CheckRequest(owner="a\nb")), INVALID, "INVALID_TEXT"),
    "owner of a switch": (
        lambda a: a.control.SetAutoscaling(pb.SetAutoscalingRequest(owner="a\nb")), INVALID, "INVALID_TEXT",
    ),
}  # fmt: skip


@asynchronous
async def test_what_cannot_be_done_is_refused_by_name_and_changes_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        for name, (call, status, reason) in REFUSED.items():
            before = agentd.controller.snapshot(), agentd.runtime.view()
            await refused(call(agentd), status, reason)
            assert (agentd.controller.snapshot(), agentd.runtime.view()) == before, name
        assert (agentd.operations.reloads, agentd.operations.shutdowns) == ([], [])


@asynchronous
async def test_while_disabled_everything_that_would_act_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, replace(FLEET, enabled=False)) as agentd:
        precondition = StatusCode.FAILED_PRECONDITION
        await refused(agentd.control.Check(pb.CheckRequest()), precondition, "DISABLED")
        await refused(agentd.control.Scale(pb.ScaleRequest(direction=UP, count=9)), precondition, "DISABLED")
        await refused(agentd.control.Restart(pb.RestartRequest(name="x")), NOT_FOUND, "UNKNOWN_INSTANCE")
        assert not (await agentd.control.GetStatus(pb.GetStatusRequest())).status.enabled


# -- logs -------------------------------------------------------------------------------------------


async def read(agentd: Serving, **values: Any) -> bytes:
    return b"".join([part.data async for part in agentd.control.ReadLogs(pb.ReadLogsRequest(**values))])


@asynchronous
async def test_what_an_instance_wrote_can_be_read_also_when_it_is_gone(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        agentd.logs.directory.mkdir(exist_ok=True)
        agentd.logs.path("research-9101").write_bytes(b"one\ntwo\nthree\n")
        agentd.logs.path("research-9140").write_bytes(b"last words\n")
        agentd.logs.path("research-9002").write_bytes(b"x" * 200_000 + b"\n")
        assert await read(agentd, instance="research-9101", lines=2) == b"two\nthree\n"
        assert await read(agentd, instance="research-9101") == b""
        assert await read(agentd, instance="research-9140", lines=9) == b"last words\n"
        assert len(await read(agentd, instance="researcher", lines=1)) == 200_001


@asynchronous
async def test_a_log_is_followed(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        agentd.logs.directory.mkdir(exist_ok=True)
        path = agentd.logs.path("research-9101")
        path.write_bytes(b"one\ntwo\n")
        call = agentd.control.ReadLogs(pb.ReadLogsRequest(instance="research-9101", lines=1, follow=True))

        async def part() -> pb.ReadLogsResponse:
            answer = await call.read()
            assert isinstance(answer, pb.ReadLogsResponse)
            return answer

        assert (await part()).data == b"two\n"
        with path.open("ab") as file:
            file.write(b"three\n")
        assert (await part()).data == b"three\n"
        call.cancel()


@pytest.mark.parametrize(
    ("instance", "lines", "status", "reason"),
    [
        ("research-9101", 10, NOT_FOUND, "NO_LOG"),
        ("research-9149", 10, NOT_FOUND, "UNKNOWN_INSTANCE"),
        ("research", 10, NOT_FOUND, "UNKNOWN_INSTANCE"),
        ("", 10, NOT_FOUND, "UNKNOWN_INSTANCE"),
        ("../agentd", 10, NOT_FOUND, "UNKNOWN_INSTANCE"),
        ("research-9101", 100_001, INVALID, "OUT_OF_BOUNDS"),
    ],
)
@asynchronous
async def test_a_log_that_cannot_be_read_is_refused(
    instance: str, lines: int, status: StatusCode, reason: str, tmp_path: Path
) -> None:
    async with serving(tmp_path) as agentd:
        await refused(read(agentd, instance=instance, lines=lines), status, reason)


@asynchronous
async def test_what_happens_to_instances_is_seen_in_the_listing(tmp_path: Path) -> None:
    async with serving(tmp_path, FLEET_OF_LONG_WAITS) as agentd:
        agentd.host.exit(agentd.instance("research-9101").id, ExitCause(ExitKind.OOM, 9))
        await agentd.until(lambda: agentd.instance("research-9101").state is State.BACKOFF)
        (seen,) = [
            item
            for item in (await agentd.control.ListInstances(pb.ListInstancesRequest())).instances
            if item.id == "research-9101"
        ]
        assert (seen.state, seen.cause) == (common_pb2.INSTANCE_STATE_BACKOFF, "out of memory")


@asynchronous
async def test_the_counts_of_a_pool_are_numbers_in_json(tmp_path: Path) -> None:
    async with serving(tmp_path) as agentd:
        await agentd.heartbeat(agentd.beat(seq=50, queue_length=7, in_flight=3))
        status = (await agentd.control.GetStatus(pb.GetStatusRequest())).status
        shown = as_value(status.pools[0])
        assert (shown["queue_length"], shown["in_flight"]) == (7, 3)

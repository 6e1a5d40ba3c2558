"""Promises that hold whatever happens, and in whatever order; `chaos.Chaos` checks them after every step.

`AGENTD_HYPOTHESIS=deep` looks much longer, and elsewhere every time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chaos import MIB, Chaos
from fleets import CONFIGS, EXECUTION, FLEET, RESEARCH, STORIES, told
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agentd.core.messages import (
    Acknowledgement,
    Beat,
    CancelRestart,
    Check,
    CheckReply,
    Drain,
    InstanceExited,
    InstanceHeld,
    Refusal,
    Restart,
    RollingRestart,
    SetAutoscaling,
    SetTarget,
    Shutdown,
    Stage,
)
from agentd.core.model import (
    ExitCause,
    ExitKind,
    Incarnation,
    InstanceId,
    PoolName,
    StartFailure,
    State,
)

# -- what may happen: each is a function on the world, made from drawn values ---------------------

Happening = tuple[str, tuple[Any, ...]]


def _some(world: Chaos, number: int) -> str | None:
    """One of the agents that run."""
    return sorted(world.agents)[number % len(world.agents)] if world.agents else None


def _on_agent(act: Callable[..., None]) -> Callable[..., None]:
    def happen(world: Chaos, number: int, *values: Any) -> None:
        ident = _some(world, number)
        if ident is not None:
            act(world, ident, *values)

    return happen


def _silence(world: Chaos, ident: str, silent: bool) -> None:
    agent = world.agents[InstanceId(ident)]
    agent.silent = silent
    agent.next_beat = world.now


ACKS = tuple(Acknowledgement(number, Stage.DONE) for number in (1, 2, 3))


def _stale_beat(world: Chaos, ident: str) -> None:
    before = world.controller.snapshot()
    reply = world.step(Beat(InstanceId(ident), Incarnation("of yesterday"), 99, load=1.0, acks=ACKS))
    assert isinstance(reply, Refusal)
    assert world.controller.snapshot() == before


def _nature(world: Chaos, ident: str, ignorant: bool, follows: bool, resumes: Stage | None) -> None:
    """What the agent makes of directives."""
    agent = world.agents[InstanceId(ident)]
    agent.ignorant, agent.done_follows, agent.resumes = ignorant, follows, resumes


def _say(world: Chaos, ident: str, stage: Stage) -> None:
    if world.agents[InstanceId(ident)].heard:
        world.say(ident, stage, "so it says")


def _load(world: Chaos, load: float) -> None:
    """Everybody's load from now on."""
    world.usual_load = load
    world.loads.clear()
    for agent in world.agents.values():
        agent.load = load


def _port(world: Chaos, port: int, taken: bool) -> None:
    if taken:
        world.taken_ports[port] = "nginx"
    else:
        world.taken_ports.pop(port, None)


def _failing(world: Chaos, ident: str, failing: bool) -> None:
    if failing:
        world.failing[ident] = "no such file"
    else:
        world.failing.pop(ident, None)


def _slow(world: Chaos, ident: str, slow: bool) -> None:
    (world.slow.add if slow else world.slow.discard)(ident)


def _target(world: Chaos, direction: str, count: int, pool: PoolName | None, for_s: float | None, dry: bool) -> None:
    world.step(SetTarget(direction, count, pool, "alice", "", for_s, dry))


def _gap(world: Chaos, gap_s: float) -> None:
    world.now += gap_s


def _stopped_by_an_operator(world: Chaos, ident: str) -> None:
    world.vanish(ident)
    world.step(InstanceHeld(InstanceId(ident), "stopped by an operator"))


def _started_by_an_operator(world: Chaos, number: int) -> None:
    held = [view.id for view in world.view().instances if view.state is State.HELD and view.id not in world.agents]
    if held:
        world.left_running(held[number % len(held)])
        world.relist()


def _killed_for_memory(world: Chaos, ident: str) -> None:
    agent = world.agents.pop(InstanceId(ident))
    world.step(InstanceExited(agent.id, agent.incarnation, ExitCause(ExitKind.OOM, 9), -1.0))


def _restart_pool(world: Chaos, pool: str) -> None:
    world.step(Restart(tuple(i.id for i in world.view().instances if i.pool == pool), "alice"))


def _reboot(world: Chaos, later_s: float) -> None:
    world.now += later_s
    world.reboot()


def _plan_and_check(world: Chaos, pool: PoolName | None) -> None:
    """What a check would do is what it then does; and to ask changes nothing."""
    before = world.controller.snapshot()
    plans = world.controller.plan(world.now, pool)
    assert world.controller.snapshot() == before
    reply = world.step(Check("alice", pool))
    if isinstance(plans, Refusal):
        assert reply == plans
    else:
        assert isinstance(reply, CheckReply)
        assert tuple(plan.decision for plan in plans) == tuple(map(told, reply.decisions))


HAPPENINGS: dict[str, Callable[..., None]] = {
    "run": lambda world, seconds: world.run_until(world.now + seconds),
    "load": _load,
    "agent load": _on_agent(lambda world, ident, load: world.set_load(ident, load)),
    "silence": _on_agent(_silence),
    "exit": _on_agent(lambda world, ident, delay_s: world.exit(ident, restart_in_s=delay_s)),
    "give up": _on_agent(lambda world, ident, cause: world.give_up(ident, cause)),
    "vanish": _on_agent(lambda world, ident: world.vanish(ident)),
    "stopped by an operator": _on_agent(_stopped_by_an_operator),
    "started by an operator": _started_by_an_operator,
    "killed for memory": _on_agent(_killed_for_memory),
    "stale beat": _on_agent(_stale_beat),
    "work": _on_agent(lambda world, ident, tasks: world.work(ident, tasks)),
    "nature": _on_agent(_nature),
    "say": _on_agent(_say),
    "relist": lambda world: world.relist(),
    "port": _port,
    "failing": _failing,
    "slow": _slow,
    "target": _target,
    "auto": lambda world, on: world.step(SetAutoscaling(on, "alice", "")),
    "check": _plan_and_check,
    "restart": _on_agent(lambda world, ident: world.step(Restart((InstanceId(ident),), "alice"))),
    "restart pool": _restart_pool,
    "roll": lambda world, pool, most: world.step(RollingRestart(pool, "alice", most)),
    "cancel": lambda world, pool: world.step(CancelRestart(pool, "bob")),
    "drain": _on_agent(lambda world, ident, force: world.step(Drain(InstanceId(ident), "alice", force))),
    "config": lambda world, number: world.configure(CONFIGS[number]),
    "gap": _gap,
    "host": lambda world, mib: world.measure(mib * MIB),
    "reboot": _reboot,
    "clone": lambda world: world.clone(),
    "shutdown": lambda world, keep: world.step(Shutdown(keep, "alice")),
}

_number = st.integers(0, 5)
_loads = st.sampled_from([0.0, 0.1, 0.5, 0.76, 1.0])
_stages = st.sampled_from([None, Stage.ACCEPTED, Stage.FAILED])
_pools = st.sampled_from([RESEARCH, EXECUTION, None])
_idents = st.sampled_from(["research-9002", "research-9101", "research-9102", "execution-9201", "execution-9202"])


def _happening(name: str, *values: st.SearchStrategy[Any]) -> st.SearchStrategy[Happening]:
    return st.tuples(st.just(name), st.tuples(*values))


_run = _happening("run", st.sampled_from([0.5, 3.0, 11.0, 31.0, 50.0, 130.0]))
_happenings = st.one_of(
    _run,
    _run,
    _run,
    _happening("load", _loads),
    _happening("load", _loads),
    _happening("agent load", _number, _loads),
    _happening("silence", _number, st.booleans()),
    _happening("silence", _number, st.just(True)),
    _happening("exit", _number, st.sampled_from([-1.0, 0.1, 30.0])),
    _happening("give up", _number, st.sampled_from([StartFailure.CRASH_LOOP, StartFailure.PORT_TAKEN])),
    _happening("vanish", _number),
    _happening("stopped by an operator", _number),
    _happening("started by an operator", _number),
    _happening("killed for memory", _number),
    _happening("stale beat", _number),
    _happening("work", _number, st.sampled_from([0, 1, 3])),
    _happening("work", _number, st.just(2)),
    _happening("nature", _number, st.booleans(), st.booleans(), _stages),
    _happening("say", _number, st.sampled_from(list(Stage))),
    _happening("relist"),
    _happening("port", st.sampled_from([9002, 9101, 9102, 9201]), st.booleans()),
    _happening("failing", _idents, st.booleans()),
    _happening("slow", _idents, st.booleans()),
    _happening(
        "target", st.sampled_from(["up", "down"]), st.integers(0, 9), _pools,
        st.sampled_from([None, 20.0, 3600.0]), st.booleans(),
    ),
    _happening("auto", st.booleans()),
    _happening("check", _pools),
    _happening("restart", _number),
    _happening("drain", _number, st.booleans()),
    _happening("restart pool", st.sampled_from([RESEARCH, EXECUTION])),
    _happening("roll", st.sampled_from([RESEARCH, EXECUTION]), st.sampled_from([None, None, 0, 1, 3])),
    _happening("roll", st.just(RESEARCH), st.none()),
    _happening("cancel", st.sampled_from([RESEARCH, EXECUTION])),
    _happening("config", st.integers(0, len(CONFIGS) - 1)),
    _happening("gap", st.sampled_from([0.5, 5.0, 100.0])),
    _happening("host", st.sampled_from([4000, 750, 300])),
    _happening("reboot", st.sampled_from([0.0, 1.0, 200.0])),
    _happening("clone"),
)  # fmt: skip
_stories = st.lists(_happenings, min_size=3, max_size=16)
# Where nothing breaks, the fleet grows and shrinks as fast as it may: this is where counts and cooldowns show.
_smooth = st.lists(
    st.one_of(
        _happening("load", st.sampled_from([0.0, 1.0])),
        _happening("load", st.sampled_from([0.0, 1.0])),
        _happening("run", st.sampled_from([3.0, 15.0, 31.0, 90.0, 130.0])),
        _happening("run", st.sampled_from([3.0, 15.0, 31.0, 90.0, 130.0])),
        _happening("work", _number, st.sampled_from([0, 2])),
        _happening("nature", _number, st.just(False), st.booleans(), _stages),
        _happening("check", _pools),
        _happening("target", st.sampled_from(["up", "down"]), st.integers(0, 9), _pools, st.just(60.0), st.just(False)),
        _happening("config", st.sampled_from([0, 1, 2, 3, len(CONFIGS) - 1])),
        _happening("reboot", st.sampled_from([0.0, 15.0])),
        _happening("clone"),
    ),
    min_size=6,
    max_size=16,
)


# Busy agents that come and go by the minute: this is where drains are called off, refused, cut and crossed.
_target = st.tuples(st.sampled_from(["up", "down"]), st.integers(1, 4), st.just(RESEARCH), st.none(), st.just(False))
_coming_and_going = st.lists(
    st.one_of(
        st.tuples(st.just("target"), _target),
        st.tuples(st.just("target"), _target),
        _happening("run", st.sampled_from([0.02, 3.0, 6.0, 15.0])),
        _happening("run", st.sampled_from([0.02, 3.0, 6.0, 15.0])),
        _happening("work", _number, st.sampled_from([0, 2])),
        _happening("nature", _number, st.booleans(), st.booleans(), _stages),
        _happening("say", _number, st.sampled_from(list(Stage))),
        _happening("silence", _number, st.booleans()),
        _happening("exit", _number, st.sampled_from([-1.0, 0.1])),
        _happening("restart", _number),
        _happening("drain", _number, st.booleans()),
        _happening("config", st.sampled_from([0, 1, 2, 4])),
        _happening("host", st.sampled_from([4000, 300])),
        _happening("reboot", st.sampled_from([0.0, 5.0])),
        _happening("clone"),
    ),
    min_size=6,
    max_size=24,
)


@STORIES
@given(_coming_and_going, st.sampled_from([0.0, 2.0]), st.sampled_from([0.0, 3.0]))
def test_drains_end_or_are_called_off_however_agents_answer(
    story: list[Happening], start_delay_s: float, stop_delay_s: float
) -> None:
    pools = {
        name: replace(pool, scale_up_cooldown_s=1.0, scale_down_cooldown_s=2.0) for name, pool in FLEET.pools.items()
    }
    world = Chaos(replace(FLEET, pools=pools), start_delay_s=start_delay_s, stop_delay_s=stop_delay_s)
    world.boot()
    HAPPENINGS["target"](world, "up", 4, RESEARCH, None, False)
    world.run_until(5.0)
    for ident in world.agents:
        world.work(ident, 2)
    for name, values in story:
        HAPPENINGS[name](world, *values)
        world.check_stored()
    draining = {view.id for view in world.view().instances if view.state is State.DRAINING}
    world.run_until(world.now + 60.0)
    left = {view.id: view for view in world.view().instances if view.id in draining}
    assert all(view.state is not State.DRAINING or view.state_age_s < 60.0 for view in left.values())


@STORIES
@given(_smooth, st.sampled_from([0.0, 2.0, 15.0]), st.sampled_from([0.0, 15.0]))
def test_counts_and_cooldowns_hold_however_load_and_people_push(
    story: list[Happening], start_delay_s: float, stop_delay_s: float
) -> None:
    world = Chaos(FLEET, start_delay_s=start_delay_s, stop_delay_s=stop_delay_s)
    world.boot()
    for name, values in story:
        HAPPENINGS[name](world, *values)
        world.check_stored()


@STORIES
@given(_stories, st.sampled_from([0.0, 2.0]), st.sampled_from([0.0, 3.0]), st.none() | st.booleans())
def test_the_promises_hold_whatever_happens(
    story: list[Happening], start_delay_s: float, stop_delay_s: float, keep_agents: bool | None
) -> None:
    world = Chaos(FLEET, start_delay_s=start_delay_s, stop_delay_s=stop_delay_s)
    world.boot()
    for name, values in story:
        HAPPENINGS[name](world, *values)
        world.check_stored()
    if keep_agents is not None:
        HAPPENINGS["shutdown"](world, keep_agents)
    world.run_until(world.now + 60.0)
    if keep_agents is False and world.config.enabled:
        # What an operator stopped stays so over the end of agentd, too.
        assert all(view.state is State.HELD and not view.pid for view in world.view().instances)

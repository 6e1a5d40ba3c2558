"""The controller: one step per event, nothing else.

Pure and synchronous: no I/O, no clock, no randomness of its own. `step` dispatches to the module that knows
what the event means and gathers what came of it. The same controller runs in production, in the simulator
and in the tests; the same events give the same outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentd.core import (
    arrival,
    configuring,
    costs,
    departure,
    directives,
    drain,
    dry_run,
    forecasting,
    metrics,
    pauses,
    relief,
    repair,
    restoring,
    rolling,
    rows,
    scaling,
    schedule,
    showing,
    signals,
    standstill,
    validation,
)
from agentd.core.balancer import Endpoint
from agentd.core.health import GAP_S, push_out, set_alarm, wake_at
from agentd.core.lifecycle import LEAVING, RUNNING
from agentd.core.messages import (
    DONE,
    NOTHING_DONE,
    Beat,
    BeatReply,
    CancelRestart,
    Check,
    Collected,
    ConfigChanged,
    Configure,
    Drain,
    Event,
    EventType,
    HostSampled,
    HostStopping,
    InstanceExited,
    InstanceGaveUp,
    InstanceHeld,
    InstancesListed,
    InstanceStarted,
    InstanceStopped,
    InstanceWarned,
    NextDirective,
    Outcome,
    Probed,
    Propose,
    Refusal,
    Reply,
    Restart,
    Restored,
    RollingRestart,
    SetAutoscaling,
    SetTarget,
    Shutdown,
    StartFailed,
    Tick,
)
from agentd.core.model import (
    Directive,
    DirectiveKind,
    FleetConfig,
    HealthCheck,
    InstanceId,
    InstanceSpec,
    PoolName,
    Running,
    State,
)
from agentd.core.state import Fleet, Instance, Pool
from agentd.core.views import FleetView, ForecastView, PoolPlan

# What a driver reports of one instance.
_OfOne = (
    InstanceStarted | StartFailed | InstanceExited | InstanceGaveUp | InstanceHeld | InstanceWarned | InstanceStopped
)
_OfSize = SetTarget | SetAutoscaling | Check | Collected | Propose
_ByName = Restart | RollingRestart | CancelRestart | Drain | Configure
# Every heartbeat asks for it, and in Python 3.11 to name a member of an enum is a call.
_STARTING = State.STARTING


def _go_on(config: FleetConfig) -> Outcome:
    return Outcome(reply=BeatReply(Directive(DirectiveKind.CONTINUE), config.heartbeat_interval_s))


class Controller:
    """Owns the state of the fleet. `epoch` counts up with every start of agentd."""

    def __init__(self, config: FleetConfig, epoch: int = 1, *, saved: bool = True) -> None:
        """`saved` False: nobody keeps the rows of its outcomes, so they are empty."""
        self._fleet = Fleet(config, epoch)
        self._saved = self._fleet.keeps_basis = saved
        # When agentd was last told to wake: a tick long after it means that the loop stood still.
        self._due: float | None = None
        # What nearly every heartbeat comes to, made once: nothing has changed, go on.
        self._go_on = _go_on(config)

    def step(self, event: Event, now: float) -> Outcome:
        """Take notice of `event` at the monotonic time `now`; return what is to be done about it."""
        reply: Reply
        if isinstance(event, Beat):
            reply, changed = self._beat(event, now)
            if not changed:
                return self._go_on if reply is self._go_on.reply else Outcome(reply=reply)
        elif isinstance(event, NextDirective):
            reply = self._next_directive(event.instance, now)
        else:
            reply = self._dispatch(event, now)
        repair.launch_waiting(self._fleet, now)
        self._due = self._next_deadline()
        return self._outcome(reply)

    @property
    def deadline(self) -> float | None:
        """When the next Tick is wanted; None: not before something else happens."""
        return self._due

    @property
    def config(self) -> FleetConfig:
        return self._fleet.config

    def view(self, now: float) -> FleetView:
        """The fleet as people see it. Changes nothing."""
        return showing.fleet_view(self._fleet, now)

    def plan(self, now: float, pool: PoolName | None = None) -> tuple[PoolPlan, ...] | Refusal:
        """What a check of `pool`, or of all pools, would do at `now`. Changes nothing."""
        return dry_run.plan(self._fleet, now, pool)

    def forecast(self, now: float, pool: PoolName, label: str) -> ForecastView | Refusal:
        """What `pool`, or its agents with `label`, will have to do. Changes nothing."""
        return forecasting.show(self._fleet, pool, label, now)

    def endpoints(self) -> dict[PoolName, tuple[Endpoint, ...]]:
        """Where every pool takes work now. Changes nothing."""
        return showing.endpoints(self._fleet)

    def snapshot(self) -> dict[str, str]:
        """All that must be saved to go on from here."""
        return rows.snapshot(self._fleet)

    @classmethod
    def from_snapshot(cls, config: FleetConfig, saved: Mapping[str, str], epoch: int) -> Controller:
        """A controller that goes on exactly as the one that gave `saved`; the host sample has to be sent anew."""
        controller = cls(config, epoch)
        rows.load(controller._fleet, saved)
        rows.take_changed(controller._fleet)
        controller._due = controller._next_deadline()
        return controller

    @property
    def evaluations(self) -> int:
        """How often a pool has been evaluated since this controller was made."""
        return self._fleet.evaluations

    @property
    def instances_left(self) -> int:
        """How many instances there are, in whatever state; those agentd leaves alone aside."""
        if not self._fleet.config.enabled:
            return 0
        return sum(1 for i in self._fleet.instances.values() if i.state is not State.HELD)

    @property
    def unmeasured(self) -> bool:
        """Whether a pool has instances at work and its footprint is still a guess."""
        return any(
            not pool.footprint_learned and any(i.state is State.READY for i in pool.instances.values())
            for pool in self._fleet.pools.values()
        )

    def pids(self) -> dict[InstanceId, int]:
        """The first process of every instance that ought to run."""
        return {i.id: i.pid for i in self._fleet.instances.values() if i.state in RUNNING and i.pid}

    def probed(self) -> tuple[Running, ...]:
        """The instances that ought to run and that are asked for their health from outside."""
        asked = (HealthCheck.HTTP, HealthCheck.GRPC)
        return tuple(
            Running(i.id, i.port, i.incarnation, pool.config.health, pool.config.health_path, i.state is State.STARTING)
            for pool in self._fleet.pools.values()
            if pool.config.health in asked
            for i in pool.instances.values()
            if i.state in RUNNING and i.pid
        )

    def specs(self) -> tuple[InstanceSpec, ...]:
        """What every instance that agentd may restart would be started with now."""
        fleet = self._fleet
        if not fleet.config.enabled:
            return ()
        return tuple(fleet.spec(i) for i in fleet.instances.values() if not fleet.pools[i.pool].removed)

    def set_capacity(self, instances_max: int | None) -> None:
        """How many instances the driver can run; None: no bound known."""
        self._fleet.capacity_max = instances_max

    # -- events ---------------------------------------------------------------------------------

    def _dispatch(self, event: Event, now: float) -> Reply:
        fleet = self._fleet
        match event:
            case Tick(wall=wall, gap_s=gap_s):
                self._tick(now, wall, gap_s)
            case Probed(instance=ident, incarnation=incarnation):
                instance = fleet.instances.get(ident)
                if instance is not None and instance.incarnation == incarnation:
                    self._heard(instance, now)
            case HostSampled(sample=sample):
                fleet.host, fleet.host_at = sample, now
                metrics.learn_usage(fleet, sample, now)
                costs.meter(fleet, now)
                validation.observe(fleet, now)
                repair.reconcile_all(fleet, now)
                relief.relieve(fleet, now)
            case Restored():
                restoring.restore(fleet, event, now)
            case InstancesListed():
                arrival.listed(fleet, event, now)
                for pool in fleet.pools.values():
                    pool.stir(now)
                repair.reconcile_all(fleet, now)
            case _ if isinstance(event, _OfOne):
                self._driver_event(event, now)
            case HostStopping(text=text) if not fleet.shutting_down:
                fleet.shutting_down = True
                fleet.touch_self()
                fleet.tell(EventType.HOST_STOPPING, text)
            case ConfigChanged(config=config):
                self._reconfigure(config, now)
                repair.reconcile_all(fleet, now)
            case _ if isinstance(event, _OfSize):
                return self._of_size(event, now)
            case _ if isinstance(event, _ByName):
                return self._by_name(event, now)
            case Shutdown():
                departure.shut_down(fleet, event, now)
            case Beat() | NextDirective():
                raise AssertionError("broken invariant: what agents say and hear does not come this way")
        return DONE

    def _of_size(self, event: _OfSize, now: float) -> Reply:
        """What people and programs say of the size of pools."""
        match event:
            case SetTarget():
                return scaling.set_target(self._fleet, event, now)
            case SetAutoscaling():
                return pauses.set_autoscaling(self._fleet, event, now)
            case Check():
                return scaling.asked_for(self._fleet, event, now)
        return signals.take(self._fleet, event, now)

    def _tick(self, now: float, wall: float, gap_s: float) -> None:
        fleet = self._fleet
        costs.clock_set(fleet, wall, now)
        if self._due is not None:
            gap_s = max(gap_s, now - self._due)
        if gap_s > GAP_S:
            push_out(fleet, gap_s, now)
        for pool in schedule.move(fleet, now):
            repair.reconcile(fleet, pool, now)
        # With hundreds of agents alarms ring many times a second, and nearly all find that the agent has spoken.
        due = fleet.next_check is None or now >= fleet.next_check
        if repair.pass_alarms(fleet, now) or repair.lapsed(fleet, now) or due:
            repair.reconcile_all(fleet, now)
        costs.settle(fleet, now)
        scaling.expire_targets(fleet, now)
        pauses.expire(fleet, now)
        signals.expire(fleet, now)
        if fleet.next_check is None:
            fleet.next_check = now + fleet.config.check_interval_s
            fleet.touch_self()
        elif now >= fleet.next_check:
            # A fixed rhythm; checks missed while the loop stood still are not made up for.
            while fleet.next_check <= now:
                fleet.next_check += fleet.config.check_interval_s
            scaling.check(fleet, now)
        scaling.recheck(fleet, now)
        scaling.evaluate_quick(fleet, now)
        fleet.ticked_at = now

    def _beat(self, beat: Beat, now: float) -> tuple[BeatReply | Refusal, bool]:
        """The answer to a heartbeat, and whether anything beyond the numbers has changed."""
        fleet = self._fleet
        instance = fleet.instances.get(beat.instance)
        if instance is None:
            text = f"no instance {beat.instance!r} of this agentd"
            return Refusal("UNKNOWN_INSTANCE", text, "NOT_FOUND"), False
        if instance.incarnation != beat.incarnation:
            if instance.state in (State.PENDING, State.BACKOFF):
                text = f"{beat.instance} is being started; try again"
                return Refusal("NOT_STARTED", text, "UNAVAILABLE"), False
            return Refusal("SUPERSEDED", f"{beat.instance} was started anew; finish your task and exit"), False
        changed = False
        if beat.seq > instance.seq:  # an old beat that was delayed says nothing new
            if metrics.take_report(instance, beat, now) and (pool := fleet.pools[instance.pool]).quick:
                self._stir(pool, now)
            if beat.loop_blocked_s is not None or instance.still_at:
                changed = standstill.note(fleet, instance, beat, now)
        changed |= self._heard(instance, now)
        if instance.state in LEAVING:
            changed |= drain.heard(fleet, instance, beat.acks, now)
        elif instance.directive:
            changed |= configuring.heard(fleet, instance, beat.acks, now)
        elif not instance.own_interval_s:
            assert isinstance(self._go_on.reply, BeatReply)
            return self._go_on.reply, changed
        reply, first = directives.answer(fleet, instance, now)
        return reply, first or changed

    def _stir(self, pool: Pool, now: float) -> None:
        """Evaluate `pool` soon; agentd may have to wake earlier for it."""
        pool.stir(now)
        if self._fleet.mode.enabled and self._fleet.acts and (self._due is None or pool.evaluate_at < self._due):
            self._due = pool.evaluate_at

    def _heard(self, instance: Instance, now: float) -> bool:
        """The instance is alive at `now`; whether that is news."""
        fleet = self._fleet
        instance.heard_at = now
        if instance.missed:
            instance.missed = 0
            fleet.touch(instance)
            if instance.state is State.READY:
                fleet.tell(EventType.RECOVERED, "heard again", instance)
                rolling.go_on(fleet, fleet.pools[instance.pool], now)
                return True
        if instance.state is _STARTING:
            arrival.ready(fleet, instance, now)
            rolling.go_on(fleet, fleet.pools[instance.pool], now)
            return True
        return False

    def _next_directive(self, ident: InstanceId, now: float) -> Reply:
        fleet = self._fleet
        instance = fleet.instances.get(ident)
        if instance is None:
            return Refusal("UNKNOWN_INSTANCE", f"no instance {ident!r} of this agentd", "NOT_FOUND")
        return directives.answer(fleet, instance, now)[0]

    def _driver_event(self, event: _OfOne, now: float) -> None:
        fleet = self._fleet
        instance = fleet.instances.get(event.instance)
        pool = fleet.pools[instance.pool] if instance else None
        match event:
            case InstanceStarted():
                arrival.started(fleet, event, now)
                if pool is not None:
                    rolling.go_on(fleet, pool, now)
                return  # a start leaves nothing else to repair, and 500 of them must not look at 500 instances each
            case StartFailed():
                arrival.start_failed(fleet, event, now)
            case InstanceExited():
                arrival.exited(fleet, event, now)
            case InstanceGaveUp():
                arrival.gave_up(fleet, event, now)
            case InstanceHeld():
                arrival.held(fleet, event, now)
            case InstanceWarned(text=text):
                if instance is not None:
                    fleet.tell(EventType.WARNING, text, instance)
                return
            case InstanceStopped(forced=forced):
                if instance is not None and instance.state is State.STOPPING:
                    departure.gone(fleet, instance, now, forced=forced)
        if pool is not None:
            repair.reconcile(fleet, pool, now)

    def _reconfigure(self, config: FleetConfig, now: float) -> None:
        """Take over `config`: deadlines may come sooner now, and a pool may be asked for its health in another way."""
        fleet = self._fleet
        before = {pool.name: pool.config for pool in fleet.pools.values()}
        timeout_s = fleet.config.heartbeat_timeout_s
        costs.settle(fleet, now, all_of_it=True)
        fleet.apply_config(config)
        costs.reconfigured(fleet, before, now)
        validation.reconfigured(fleet, before)
        self._go_on = _go_on(config)
        if fleet.next_check is not None:
            fleet.next_check = min(fleet.next_check, now + config.check_interval_s)
        for instance in list(fleet.instances.values()):
            kind = fleet.pools[instance.pool].config.health
            if kind is not before[instance.pool].health:
                instance.heard_at, instance.missed = now, 0  # silence counts anew
                fleet.touch(instance)
                if kind is HealthCheck.NONE and instance.state is State.STARTING:
                    arrival.ready(fleet, instance, now)
            set_alarm(fleet, instance)
        configuring.reconfigured(fleet, before, timeout_s, now)
        schedule.move(fleet, now, anew=True)
        for pool in fleet.pools.values():
            pool.stir(now)

    def _by_name(self, event: _ByName, now: float) -> Reply:
        """What a person wants of what they name; a pool that lacks an instance then gets it at once."""
        fleet = self._fleet
        match event:
            case Restart():
                reply = rolling.of_instances(fleet, event)
            case RollingRestart():
                reply = rolling.of_pool(fleet, event, now)
            case CancelRestart():
                reply = rolling.cancelled(fleet, event, now)
            case Drain():
                reply = drain.asked_for(fleet, event, now)
            case Configure():
                return configuring.asked_for(fleet, event, now)
        repair.reconcile_all(fleet, now)
        return reply

    # -- outcome --------------------------------------------------------------------------------

    def _next_deadline(self) -> float | None:
        fleet = self._fleet
        times = (
            fleet.next_check, scaling.deadline(fleet), fleet.alarms.next(wake_at(fleet)), repair.deadline(fleet),
            signals.deadline(fleet), schedule.deadline(fleet), pauses.deadline(fleet),
        )  # fmt: skip
        return min([at for at in times if at is not None], default=None)

    def _outcome(self, reply: Reply) -> Outcome:
        fleet = self._fleet
        if not self._saved:
            fleet.changed.clear()
        nothing = not (fleet.actions or fleet.records or fleet.decisions or fleet.directed or fleet.changed)
        if nothing and not fleet.effects and reply is DONE:
            return NOTHING_DONE  # most ticks find that all is well
        outcome = Outcome(
            actions=tuple(fleet.actions),
            records=tuple(fleet.records),
            decisions=tuple(fleet.decisions),
            effects=tuple(fleet.effects),
            directed=tuple(fleet.directed),
            rows=rows.take_changed(fleet),
            reply=reply,
        )
        fleet.actions.clear()
        fleet.records.clear()
        fleet.decisions.clear()
        fleet.effects.clear()
        fleet.directed.clear()
        return outcome

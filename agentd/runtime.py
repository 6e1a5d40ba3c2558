"""The loop around the controller: event, step, persist, perform, and the results as events again.

Owns the order of things. A step is synchronous and touches no disk; what it asks for is stored first and
performed after that. Actions on one instance happen one after the other. It decides nothing.

    submit, beat, timers, driver, collectors  ->  Controller.step  ->  _unsaved  ->  Store.write  ->  driver
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from agentd import log
from agentd.clock import Clock
from agentd.collecting.attempts import OpenReader, opened
from agentd.core.controller import Controller
from agentd.core.health import GAP_S
from agentd.core.messages import (
    NOTHING,
    Action,
    Beat,
    BeatReply,
    ConfigChanged,
    Event,
    EventType,
    HostStopping,
    InstancesListed,
    InstanceStarted,
    InstanceStopped,
    NextDirective,
    Outcome,
    Probed,
    Record,
    Reply,
    Restored,
    Start,
    StartFailed,
    Stop,
    StoredRecord,
    Tick,
)
from agentd.core.model import (
    Decision,
    Directive,
    DirectiveKind,
    FleetConfig,
    InstanceId,
    PoolName,
    Running,
    StartFailure,
)
from agentd.core.views import FleetView, ForecastView, PoolPlan
from agentd.drivers import Driver
from agentd.errors import StartError
from agentd.publisher import Publisher
from agentd.runtime_collecting import Collecting
from agentd.runtime_measuring import Collector, Measuring
from agentd.runtime_parts import Prober, UnderWay, Unsaved, granted
from agentd.runtime_troubles import Troubles
from agentd.store import Batch, Intent, Metric, Store

RELIST_S = 30.0
# The loop wakes at least this often, so that it knows when it stood still.
TURN_S = 1.0
METRICS_S = 60.0
HOUSEKEEPING_S = 5.0
STORE_RETRY_S = 5.0
STOP_RETRY_S = 1.0


class Runtime:
    """Runs one fleet. Everything happens in one event loop; only `Collector.sample` is called in a thread."""

    def __init__(
        self,
        controller: Controller,
        driver: Driver,
        store: Store,
        clock: Clock,
        *,
        epoch: int,
        collector: Collector | None = None,
        open_reader: OpenReader = opened,
        prober: Callable[[Callable[[], tuple[Running, ...]], Callable[[Probed], None]], Prober] | None = None,
        housekeeping: Callable[[], Coroutine[Any, Any, None]] | None = None,
        on_change: Callable[[], None] = lambda: None,
        troubles: Troubles | None = None,
    ) -> None:
        """`on_change` is called when more may have changed than numbers in heartbeats; it must return at once."""
        self.clock = clock
        self.store = store
        self._controller = controller
        self._driver = driver
        self._epoch = epoch
        self._housekeeping = housekeeping
        self._on_change = on_change
        self._prober = prober(controller.probed, self._take) if prober else None
        self._unsaved: list[Unsaved] = []
        self._unstored: set[InstanceId] = set()  # whose newest directive is not stored yet
        self._something_unsaved = asyncio.Event()
        self._stepped = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._deadline_moved = asyncio.Event()
        self._under_way: dict[InstanceId, UnderWay] = {}
        self._moved_while_listing: set[InstanceId] = set()
        self._publisher = Publisher(store)
        self._troubles = troubles or Troubles()
        self._measuring = Measuring(collector, self._troubles, self._take) if collector else None
        self._collecting = Collecting(lambda: self.config, self._troubles, self._take, open_reader)
        self._intents = 0
        self._decisions: deque[Decision] = deque(maxlen=100)  # the last; what they bring about is told when it happens
        self._hurrying = False
        self._directed: Callable[[InstanceId], None] = lambda _: None
        self._broken: Exception | None = None
        self._broke = asyncio.Event()

    # -- what others use ------------------------------------------------------------------------

    @property
    def config(self) -> FleetConfig:
        return self._controller.config

    def view(self) -> FleetView:
        """The fleet as people see it now."""
        return self._controller.view(self.clock.now())

    def beat(self, beat: Beat) -> Reply:
        """Take a heartbeat and answer it at once: no disk, no lock, no await."""
        before = self._controller.deadline
        outcome = self._step(beat)
        if self._controller.deadline != before:
            self._deadline_moved.set()
        if outcome.rows or outcome.records or outcome.actions:
            self._keep(outcome)
        reply = outcome.reply
        assert reply is not None
        return self._sayable(beat.instance, reply) if self._unstored and isinstance(reply, BeatReply) else reply

    def next_directive(self, instance: InstanceId) -> BeatReply | None:
        """What `instance` is to be told now; None: there is no such instance."""
        outcome = self._step(NextDirective(instance))
        self._keep(outcome)
        return self._sayable(instance, outcome.reply) if isinstance(outcome.reply, BeatReply) else None

    def on_directive(self, told: Callable[[InstanceId], None]) -> None:
        """Have `told` called with each instance that has a new directive, as soon as that is stored."""
        self._directed = told

    async def submit(self, event: Event) -> Reply:
        """Take a person's event; return its reply when its effects are stored.

        Raises:
            Refused: the controller did not take it.
        """
        outcome = self._step(event)
        await self._kept(outcome)
        assert outcome.reply is not None
        granted(outcome.reply)
        return outcome.reply

    async def reconfigure(self, config: FleetConfig) -> None:
        """Take over a new configuration."""
        await self.submit(ConfigChanged(config))
        self._collecting.adopt()
        self._driver.learn(self._controller.specs())

    def tell(self, record: Record) -> None:
        """Record something that happened around the controller."""
        self._keep(Outcome(records=(record,)))

    async def events(
        self, *, limit: int, pool: str = "", instance: str = "", types: tuple[EventType, ...] = ()
    ) -> list[StoredRecord]:
        """Records, newest first."""
        return await self.store.events(limit=limit, pool=pool, instance=instance, types=types)

    async def decisions(self, pool: str, limit: int, until: float | None = None) -> list[Decision]:
        """Decisions on `pool`, newest first; `until`: a wall time."""
        return await self.store.decisions(pool, limit, until)

    def plan(self, pool: PoolName | None = None) -> tuple[PoolPlan, ...]:
        """What a check of `pool`, or of all pools, would do now. Nothing of it comes about.

        Raises:
            Refused: there is no such pool, or nothing is ever checked.
        """
        return granted(self._controller.plan(self.clock.now(), pool))

    def forecast(self, pool: PoolName, label: str) -> ForecastView:
        """What `pool`, or its agents with `label`, will have to do; raises Refused where there is no such one."""
        return granted(self._controller.forecast(self.clock.now(), pool, label))

    def watch(self, after: int | None) -> AsyncIterator[StoredRecord]:
        """See `Publisher.watch`."""
        return self._publisher.watch(after)

    def degraded(self) -> tuple[str, ...]:
        """What is wrong with agentd itself, a sentence each."""
        store = (f"state is kept in memory only: {self.store.degraded}",) if self.store.degraded else ()
        return (*store, *self._troubles.shown())

    # -- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what was saved and what runs. Nothing is started before `run`."""
        saved = self.store.load()
        wall = self.clock.wall()
        saved_at, saved_wall = saved.saved_at or (self.clock.now(), wall)
        self._take(Restored(saved.rows, saved_at, saved_wall, wall))
        if self._measuring is not None:
            await self._measuring.once({})
        self._controller.set_capacity((await self._driver.capacity()).instances_max)
        self._take(InstancesListed(await self._driver.list()))
        self._driver.learn(self._controller.specs())
        self._keep(NOTHING, finished=tuple(intent.id for intent in saved.intents))
        self._take(Tick(wall))

    async def run(self) -> None:
        """Keep the fleet until cancelled. An error in any part ends it: the service manager restarts agentd."""
        parts: list[Coroutine[Any, Any, None]] = [
            self._end_when_broken(),
            self._keep_time(),
            self._carry_out(),
            self._hear_driver(),
            self._collecting.run(),
            self._every(RELIST_S, self.relist),
            self._every(METRICS_S, self._add_metrics),
            self._every(STORE_RETRY_S, self.store.retry),
        ]
        if self._measuring is not None:
            parts.append(self._measuring.run(self._controller.pids))
        if self._housekeeping is not None:
            parts.append(self._every(HOUSEKEEPING_S, functools.partial(self._keep_house, self._housekeeping)))
        if self._prober is not None:
            parts.append(self._prober.run())
        async with asyncio.TaskGroup() as group:
            self._group = group
            for part in parts:
                group.create_task(part)

    async def gone(self) -> None:
        """Return when no instance is left that agentd answers for."""
        while self._controller.instances_left:
            self._stepped.clear()
            await self._stepped.wait()

    async def hurry(self) -> None:
        """End the grace of every stop that is under way, and give none to those that follow."""
        self._hurrying = True
        stopping = [ident for ident, under_way in self._under_way.items() if isinstance(under_way.action, Stop)]
        await asyncio.gather(*(self._shorten_grace(ident) for ident in stopping))

    async def settled(self) -> None:
        """Return when everything that has happened until now is stored and told. Needs `run`."""
        await self._kept(NOTHING)

    async def performed(self) -> None:
        """Return when the starts and stops that were asked for until now have come to their ends. Needs `run`."""
        await self.settled()
        if under_way := [one.task for one in self._under_way.values()]:
            await asyncio.wait(under_way)

    async def flush(self) -> None:
        """Store everything that is not stored yet. For the end, when `run` has been cancelled."""
        await self._store_unsaved()

    # -- steps ----------------------------------------------------------------------------------

    def _step(self, event: Event) -> Outcome:
        """One step. A broken invariant ends `run`, whoever brought the event: a server would answer and go on."""
        try:
            return self._controller.step(event, self.clock.now())
        except Exception as error:
            self._broken = error
            self._broke.set()
            raise

    async def _end_when_broken(self) -> None:
        await self._broke.wait()
        assert self._broken is not None
        raise self._broken

    def _take(self, event: Event, finished: tuple[str, ...] = ()) -> None:
        """Take an event that nobody waits for."""
        self._keep(self._controller.step(event, self.clock.now()), finished)

    def _sayable(self, instance: InstanceId, reply: BeatReply) -> BeatReply:
        """`reply`, without a directive that is not stored yet.

        Were agentd killed now, the agent would drain, and the next agentd count on it.
        """
        if instance not in self._unstored:
            return reply
        return BeatReply(Directive(DirectiveKind.CONTINUE), reply.interval_s)

    def _keep(self, outcome: Outcome, finished: tuple[str, ...] = (), done: asyncio.Future[None] | None = None) -> None:
        self._deadline_moved.set()
        self._stepped.set()
        if self._measuring is not None and self._controller.unmeasured:
            self._measuring.soon()
        if outcome.rows:  # whatever becomes of an instance changes its row
            self._on_change()
        if outcome.rows or outcome.records or outcome.actions or finished or done:
            self._unsaved.append(Unsaved(outcome, self.clock.wall(), finished, done))
            self._unstored.update(outcome.directed)
            self._something_unsaved.set()

    async def _kept(self, outcome: Outcome) -> None:
        done = asyncio.get_running_loop().create_future()
        self._keep(outcome, done=done)
        await done

    async def _keep_time(self) -> None:
        """Wake the controller at the deadlines it asks for, and tell it when this loop stood still."""
        while True:
            self._deadline_moved.clear()
            deadline = self._controller.deadline
            began = self.clock.now()
            wait_s = TURN_S if deadline is None else min(TURN_S, max(0.0, deadline - began))
            # Not wait_for: until Python 3.12 that loses a cancellation which comes with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._deadline_moved.wait()
            now, deadline = self.clock.now(), self._controller.deadline
            gap_s = now - began - wait_s
            if gap_s > GAP_S or (deadline is not None and deadline <= now):
                self._take(Tick(self.clock.wall(), max(0.0, gap_s)))

    # -- persist, then perform ------------------------------------------------------------------

    async def _carry_out(self) -> None:
        while True:
            await self._something_unsaved.wait()
            for action, intent in await self._store_unsaved():
                self._perform(action, intent)

    async def _store_unsaved(self) -> list[tuple[Action, str]]:
        """Store what has come together, tell it, and return the actions that may now be performed."""
        self._something_unsaved.clear()
        work, self._unsaved = self._unsaved, []
        actions = [(action, item.wall) for item in work for action in item.outcome.actions]
        intents = tuple(self._intent(action, wall) for action, wall in actions)
        rows = {key: row for item in work for key, row in item.outcome.rows.items()}
        degraded = self.store.degraded
        stored = await self.store.write(
            Batch(
                records=tuple((item.wall, record) for item in work for record in item.outcome.records),
                decisions=tuple(decision for item in work for decision in item.outcome.decisions),
                effects=tuple(effect for item in work for effect in item.outcome.effects),
                rows=rows,
                intents=intents,
                done=tuple(intent for item in work for intent in item.finished),
            )
        )
        self._unstored = {instance for item in self._unsaved for instance in item.outcome.directed}
        self._decisions.extend(replace(decision, basis="") for item in work for decision in item.outcome.decisions)
        decisions = {decision.id: decision for decision in self._decisions}
        for record in stored:
            log.record(record.record, decisions.get(record.record.decision))
            self._publisher.publish(record)
        for item in work:
            if item.done is not None and not item.done.done():
                item.done.set_result(None)
            for instance in item.outcome.directed:
                self._directed(instance)
        if self.store.degraded != degraded:
            text = f"degraded: {self.store.degraded}" if self.store.degraded else "all is stored again"
            self.tell(Record(EventType.STORE, text))
        return [(action, intent.id) for (action, _), intent in zip(actions, intents, strict=True)]

    def _intent(self, action: Action, wall: float) -> Intent:
        self._intents += 1
        ident = f"{self._epoch}-{self._intents}"
        if isinstance(action, Start):
            return Intent(ident, "start", action.spec.id, action.decision, wall)
        return Intent(ident, "stop", action.instance, action.decision, wall)

    def _perform(self, action: Action, intent: str) -> None:
        ident = action.spec.id if isinstance(action, Start) else action.instance
        before = self._under_way.get(ident)
        # A stop may overtake a stop, to shorten its grace; everything else waits for its turn.
        both_stop = before is not None and isinstance(action, Stop) and isinstance(before.action, Stop)
        waits_for = None if before is None or both_stop else before.task
        assert self._group is not None
        task = self._group.create_task(self._act(ident, action, intent, waits_for))
        self._under_way[ident] = UnderWay(task, action)
        self._moved_while_listing.add(ident)

    async def _act(self, ident: InstanceId, action: Action, intent: str, waits_for: asyncio.Task[None] | None) -> None:
        if waits_for is not None:
            await asyncio.wait((waits_for,))
        result: Event
        if isinstance(action, Start):
            try:
                observed = await self._driver.start(action.spec)
                result = InstanceStarted(observed.id, observed.incarnation, observed.pid, observed.ready)
            except StartError as error:
                result = StartFailed(ident, error.cause, str(error))
            except OSError as error:
                result = StartFailed(ident, StartFailure.SPAWN_FAILED, f"cannot start {ident}: {error}")
        else:
            result = InstanceStopped(ident, await self._stop(ident, action.grace_s))
        self._moved_while_listing.add(ident)
        under_way = self._under_way.get(ident)
        if under_way is not None and under_way.task is asyncio.current_task():
            del self._under_way[ident]
        self._take(result, (intent,))

    async def _stop(self, ident: InstanceId, grace_s: float) -> bool:
        """Stop `ident`, however often that takes: what cannot be stopped is not gone, and nobody else tries again."""
        while True:
            with self._troubles.watching(f"stop of {ident}", f"cannot stop {ident}, trying again"):
                return await self._driver.stop(ident, 0.0 if self._hurrying else grace_s)
            await asyncio.sleep(STOP_RETRY_S)

    async def _shorten_grace(self, ident: InstanceId) -> None:
        with contextlib.suppress(OSError):  # the stop that is under way tries again, without grace
            await self._driver.stop(ident, 0.0)

    # -- what comes from outside ----------------------------------------------------------------

    async def _hear_driver(self) -> None:
        async for event in self._driver.watch():
            if not isinstance(event, HostStopping):
                self._moved_while_listing.add(event.instance)
            self._take(event)

    async def relist(self) -> None:
        """Signals only hint; the list decides. What moved while the list was made is left to the next one."""
        self._moved_while_listing = set(self._under_way)
        with self._troubles.watching("driver", "the host's processes cannot be listed"):
            observed = await self._driver.list()
            self._take(InstancesListed(observed, frozenset(self._moved_while_listing)))

    async def _add_metrics(self) -> None:
        wall = self.clock.wall()
        await self.store.add_metrics(
            [
                Metric(wall, one.name, one.count, one.ready, one.load, one.queue_length, one.in_flight, one.completed)
                for one in self.view().pools
            ]
        )

    async def _keep_house(self, housekeeping: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with self._troubles.watching("logs", "the agents' logs cannot be kept in bounds"):
            await housekeeping()

    async def _every(self, interval_s: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(interval_s)
            await work()

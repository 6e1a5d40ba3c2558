"""Relief: under memory pressure an idle instance goes before the kernel chooses one that is at work.

Looked at with each reading of the host. One instance at a time: the next reading shows what it has given back.
"""

from __future__ import annotations

from msgspec.structs import replace

from agentd.core import basis, costs, departure, pauses, planner, validation
from agentd.core.lifecycle import LEAVING
from agentd.core.messages import EventType
from agentd.core.metrics import totals
from agentd.core.model import MIB, Decision, HostReserve, HostSample, Reason, State
from agentd.core.state import Fleet, Instance, Pool, Purpose


def relieve(fleet: Fleet, now: float) -> None:
    """Let the cheapest idle instance go where memory is short; core agents and minimums stay."""
    decision = decide(fleet, now)
    if decision is None:
        return
    kept = basis.take_relief(fleet, now) if fleet.keeps_basis else ""
    decision = replace(decision, id=fleet.new_decision_id(), basis=kept, configuration=fleet.config.fingerprint)
    pool, victim = fleet.pools[decision.pool], fleet.instances[decision.victims[0]]
    reason = decision.reasons[0].text
    fleet.decisions.append(decision)
    costs.note(fleet, pool, decision)
    pool.last_decision = decision
    validation.begin(fleet, pool, decision, now)
    fleet.tell(EventType.SCALE_DOWN, reason, victim, decision=decision.id)
    departure.begin(fleet, victim, Purpose.RELIEF, now, reason=reason, decision=decision.id)


def decide(fleet: Fleet, now: float) -> Decision | None:
    """Who is to go, if anybody. Changes nothing; the decision has no id yet."""
    if not fleet.acts or not fleet.mode.enabled or fleet.host is None or now < fleet.recovering_until:
        return None
    why = _shortage(fleet.host, fleet.config.reserve)
    if not why or any(i.state in LEAVING and not i.again for i in fleet.instances.values()):
        return None
    found = min(_idle(fleet), key=lambda pair: _cost(*pair), default=None)
    if found is None:
        return None
    pool, victim = found
    count = totals(fleet, pool, now).count
    reason = f"{why}; {victim.id} is idle"
    return Decision(
        id="", pool=pool.name, at=now, wall=fleet.wall(now), current=count, wanted=count - 1,
        granted=count - 1, reasons=(Reason("memory_pressure", reason),), victims=(victim.id,),
    )  # fmt: skip


def _shortage(sample: HostSample, reserve: HostReserve) -> str:
    """What is wrong with the host's memory; empty where nothing is. Without a pressure reading the reserve decides."""
    keep = reserve.memory_reserve_bytes(sample.memory_total_bytes)
    bound = reserve.memory_pressure_percent_max
    pressure = sample.memory_pressure_percent
    if sample.memory_available_bytes >= keep or bound is None or (pressure is not None and pressure <= bound):
        return ""
    text = f"memory: {sample.memory_available_bytes // MIB} MiB available, {keep // MIB} MiB reserved"
    return text if pressure is None else f"{text}, pressure {pressure:.1f} % > {bound:.1f} %"


def _idle(fleet: Fleet) -> list[tuple[Pool, Instance]]:
    """Who could go without anybody noticing: ready, by its own word without work, and above its pool's minimum."""
    return [
        (pool, instance)
        for pool in fleet.pools.values()
        if not pool.removed and len(pool.committed()) > pool.min and not pauses.holding(fleet, pool, "down")
        for instance in planner.victims(pool)
        if instance.state is State.READY and instance.seq > 0 and not instance.missed
        if not (instance.in_flight or instance.queue_length or instance.load)
    ]


def _cost(pool: Pool, instance: Instance) -> tuple[int, int, float, int]:
    """The lowest priority first; then who gives most memory back, then the youngest."""
    memory_bytes = instance.usage.memory_bytes if instance.usage else 0
    return pool.config.priority, -memory_bytes, -instance.created_at, -instance.port

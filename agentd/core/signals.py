"""What agents do not say: the numbers that collectors read, and the counts that programs ask for. Kept by pool."""

from __future__ import annotations

from msgspec.structs import replace

from agentd.core.messages import DONE, Collected, Done, EventType, Propose, Refusal
from agentd.core.model import PoolName
from agentd.core.rules import SOURCE_NAME, ExternalTrigger, Offer, Reading
from agentd.core.state import Fleet, Pool

COUNT_MAX = 100_000
OFFER_S_MAX = 30 * 86_400.0
# So many programs may ask for one pool at a time.
OFFERS_MAX = 32


def take(fleet: Fleet, event: Collected | Propose, now: float) -> Done | Refusal:
    """Take note of a reading or an offer; the pool is evaluated when it may."""
    pool = fleet.pools.get(event.pool)
    if pool is None or pool.removed:
        return _unknown_pool(fleet, event.pool)
    return _collected(pool, event, now) if isinstance(event, Collected) else _proposed(fleet, pool, event, now)


def expire(fleet: Fleet, now: float) -> None:
    """Let go of offers whose time has passed."""
    for pool in fleet.pools.values():
        for offer in [offer for offer in pool.offers.values() if offer.expires <= now]:
            del pool.offers[offer.source]
            fleet.touch_pool(pool.name)
            fleet.tell(EventType.OFFER_EXPIRED, f"{offer.count} of {offer.source}", pool=pool.name)
            pool.stir(now)


def deadline(fleet: Fleet) -> float | None:
    """When the next offer expires."""
    expiries = [offer.expires for pool in fleet.pools.values() if pool.offers for offer in pool.offers.values()]
    return min(expiries) if expiries else None


def reading(pool: Pool, name: str, now: float) -> tuple[float | None, str]:
    """What the collector `name` says at `now`, or None and why it says nothing."""
    config, found = pool.config.collector(name), pool.readings.get(name)
    if config is None:
        return None, f"the pool has no collector {name}"
    if found is None or found.value is None:
        return None, found.trouble if found and found.trouble else f"{name} has not been read yet"
    age_s = now - found.at
    if age_s >= config.stale_s:
        why = f": {found.trouble}" if found.trouble else ""
        return None, f"{name} was last read {age_s:.0f} s ago{why}"
    return found.value, ""


def _collected(pool: Pool, event: Collected, now: float) -> Done | Refusal:
    if pool.config.collector(event.name) is None:
        return Refusal("UNKNOWN_COLLECTOR", f"pool {pool.name} has no collector {event.name!r}", "NOT_FOUND")
    before = pool.readings.get(event.name)
    if event.value is None:
        pool.readings[event.name] = replace(before or Reading(None, now), trouble=event.trouble or "cannot be read")
        return DONE
    pool.readings[event.name] = Reading(event.value, now)
    if before is None or before.value != event.value:
        pool.stir(now)
    return DONE


def _proposed(fleet: Fleet, pool: Pool, event: Propose, now: float) -> Done | Refusal:
    refusal = _refuse(fleet, pool, event)
    if refusal:
        return refusal
    before = pool.offers.get(event.source)
    if event.count is None:
        if before is not None:
            del pool.offers[event.source]
            _told(fleet, pool, event, f"{event.source} asks for no count any more", now)
        return DONE
    pool.offers[event.source] = Offer(event.source, event.count, event.owner, event.reason, now + event.for_s)
    if before is None or (before.count, before.reason) != (event.count, event.reason):
        why = f" ({event.reason})" if event.reason else ""
        _told(fleet, pool, event, f"{event.source} asks for {event.count}{why}", now)
    fleet.touch_pool(pool.name)
    return DONE


def _told(fleet: Fleet, pool: Pool, event: Propose, text: str, now: float) -> None:
    fleet.tell(EventType.OFFER, text, pool=pool.name, actor=event.owner)
    fleet.touch_pool(pool.name)
    pool.stir(now)


def _refuse(fleet: Fleet, pool: Pool, event: Propose) -> Refusal | None:
    if not fleet.config.enabled:
        return Refusal("DISABLED", "multi_agent.enabled is false: nothing is started or stopped")
    rules = [trigger for trigger in pool.config.triggers if isinstance(trigger, ExternalTrigger)]
    if not rules:
        text = f"pool {pool.name} has no trigger of type external: programs have no say in its size"
        return Refusal("NO_EXTERNAL_TRIGGER", text)
    if not SOURCE_NAME.match(event.source):
        text = f"source {event.source!r} must be 1 to 32 lower-case letters, digits and -, beginning with a letter"
        return Refusal("INVALID_SOURCE", text, "INVALID_ARGUMENT")
    if not any(event.source in rule.sources or not rule.sources for rule in rules):
        allowed = ", ".join(sorted({source for rule in rules for source in rule.sources}))
        text = f"source {event.source} has no say in pool {pool.name} (only {allowed})"
        return Refusal("SOURCE_NOT_ALLOWED", text, "PERMISSION_DENIED")
    if event.count is None:
        return None
    if not 0 <= event.count <= COUNT_MAX:
        text = f"count {event.count} is not from 0 to {COUNT_MAX}"
        return Refusal("COUNT_OUT_OF_RANGE", text, "INVALID_ARGUMENT")
    if not 0.0 < event.for_s <= OFFER_S_MAX:
        text = f"for_s: {event.for_s} is not a duration of more than 0 and at most {OFFER_S_MAX:.0f} seconds"
        return Refusal("INVALID_DURATION", text, "INVALID_ARGUMENT")
    if event.source not in pool.offers and len(pool.offers) >= OFFERS_MAX:
        return Refusal("TOO_MANY_OFFERS", f"{OFFERS_MAX} programs ask already", "RESOURCE_EXHAUSTED")
    return None


def _unknown_pool(fleet: Fleet, name: PoolName) -> Refusal:
    return Refusal("UNKNOWN_POOL", f"no pool {name!r} (there are {', '.join(fleet.config.pools)})", "NOT_FOUND")

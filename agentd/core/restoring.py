"""How agentd goes on where an earlier one ended: what was saved, and what nobody may take for the present."""

from __future__ import annotations

from agentd.core import configuring, costs, rows, schedule
from agentd.core.health import set_alarm
from agentd.core.lifecycle import LEAVING
from agentd.core.messages import Restored
from agentd.core.model import State
from agentd.core.state import Fleet


def restore(fleet: Fleet, event: Restored, now: float) -> None:
    """Begin a run of agentd: nothing is replaced for one heartbeat interval, silence counts anew."""
    passed_s = max(0.0, event.wall - event.saved_wall)
    shift = now - event.saved_at - passed_s
    rows.load(fleet, event.rows, shift=shift)
    fleet.wall_offset = event.wall - now
    # A monotonic clock that is behind the saved one has begun anew with the host: it does not know what passed.
    costs.restored(fleet, now, moved_s=shift if now >= event.saved_at else 0.0)
    schedule.move(fleet, now, anew=True)
    fleet.touch_self()
    fleet.listed = False
    fleet.shutting_down = False
    fleet.recovering_until = now + fleet.config.heartbeat_interval_s
    fleet.ticked_at = now
    fleet.next_check = now + fleet.config.check_interval_s
    for pool in fleet.pools.values():
        if pool.adaptive is not None:
            pool.adaptive.flow.resumed = True
    for instance in fleet.instances.values():
        instance.heard_at = instance.started_at = now
        instance.missed = 0
        instance.requested_at = None  # who is starting may have been ready for long
        instance.load = None  # nothing is known of now
        instance.response_time_p50_s = instance.response_time_p95_s = None
        instance.asked_at, instance.told = now, False
        instance.wake_at = 0.0
        set_alarm(fleet, instance)
        if fleet.pools[instance.pool].removed and instance.state not in LEAVING:
            instance.state, instance.cause = State.HELD, "its pool is not configured"
        configuring.settle(fleet, instance, now, "the configuration")

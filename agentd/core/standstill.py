"""Agents whose event loop stands still: alive by the heartbeats of a thread beside it, and of no use to anybody.

Told when it begins and when it ends. It is not death: what blocks a loop mostly ends by itself, and a restart would
cost the tasks in flight. New work goes elsewhere meanwhile (`core.balancer`).
"""

from __future__ import annotations

from agentd.core.messages import Beat, EventType
from agentd.core.state import Fleet, Instance


def note(fleet: Fleet, instance: Instance, beat: Beat, now: float) -> bool:
    """Take what a heartbeat says of the agent's event loop; whether that is news."""
    if beat.loop_blocked_s is None:
        if not instance.still_at:
            return False
        stood_s, instance.still_at = now - instance.still_at, 0.0
        fleet.tell(EventType.RECOVERED, f"its event loop runs again, after {stood_s:.0f} s", instance)
        fleet.touch(instance)
        return True
    if instance.still_at:
        return False
    instance.still_at = now - beat.loop_blocked_s or now
    text = f"its event loop has stood still for {beat.loop_blocked_s:.0f} s"
    fleet.tell(EventType.WARNING, f"{text}; heartbeats come from a thread beside it", instance)
    fleet.touch(instance)
    return True

"""A forecast on work that comes on time: heeded once it has paid, and fewer tasks are late."""

from __future__ import annotations

import random

from agentd.sim.options import Options
from agentd.sim.run import simulate
from agentd.traces import Arrival

DAYS = 3


def timetable() -> list[Arrival]:
    """Thirty tasks of a minute at four times of each day, and one every ten minutes besides."""
    rng = random.Random(1)
    found = [(at * 600.0, 30.0) for at in range(DAYS * 144)]
    for day in range(DAYS):
        for hour in (1.0, 7.5, 12.0, 18.25):
            begin_s = day * 86_400.0 + hour * 3_600.0
            found += [(begin_s + rng.uniform(0.0, 20.0), rng.uniform(30.0, 90.0)) for _ in range(30)]
    return [Arrival(offset_s, service_s) for offset_s, service_s in sorted(found)]


def test_what_comes_every_day_is_waited_for_when_that_has_paid() -> None:
    arrivals = timetable()
    late = {
        forecast: simulate("adaptive", arrivals, Options(settings=(("forecast", forecast),))).late_share
        for forecast in ("off", "auto")
    }
    # Without one each job is late. Two of the days are over before it is heeded: one to see, and one in shadow.
    assert late["off"] > 0.3
    assert late["auto"] < 0.75 * late["off"]

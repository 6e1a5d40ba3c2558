"""The main job: load arrives and the pool grows, load goes and it shrinks, and no accepted task is lost."""

from __future__ import annotations

import re
import threading
from collections import Counter

import pytest
from e2e_fleet import PATIENT, SAMPLE, Fleet, call

pytestmark = pytest.mark.host


class Clients:
    """Threads that offer one task after the other to whatever instance is ready.

    Their tasks end in turn: where this process stands still, some are under way for almost `service_s` longer, and the
    load does not go before it shall.
    """

    def __init__(self, fleet: Fleet, count: int, service_s: float) -> None:
        self._fleet = fleet
        self._service_s = service_s
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._offer, args=(number, service_s * (number + 1) / count))
            for number in range(count)
        ]
        self._lock = threading.Lock()
        self.answered: Counter[str] = Counter()
        self.odd: list[object] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Offer nothing more; return when all that was accepted is answered."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _offer(self, number: int, service_s: float) -> None:
        """The first task is a shorter one: `service_s`."""
        while not self._over.is_set():
            ready = [one for one in self._fleet.ps("research").values() if one["state"] == "ready"]
            if not ready:
                continue
            chosen = ready[number % len(ready)]
            try:
                status, answer = call(chosen["port"], "POST", "/task", {"service_s": service_s})
            except OSError:  # it stopped listening in between; what it accepted is checked by its own count
                continue
            service_s = self._service_s
            with self._lock:
                if status == 200:
                    self.answered[answer["instance"]] += 1
                elif status != 503:
                    self.odd.append((status, answer))


def test_load_makes_the_pool_grow_and_shrink_and_no_task_is_lost(fleet: Fleet) -> None:
    fleet.configure(
        {"research": {"core": {"researcher": fleet.ports[1]}, "ports": [fleet.ports[2], fleet.ports[5]], "max": 3}},
        autoscaling=True,
        rules={**PATIENT, "heartbeat_timeout_sec": 1.5, "unhealthy_threshold": 8},
    )
    fleet.start()
    core, second, third = (f"research-{fleet.ports[number]}" for number in (1, 2, 3))
    fleet.ready(core)
    clients = Clients(fleet, 6, service_s=4.0)
    clients.start()
    try:
        fleet.ready(core, second, third)
        # One goes while everybody is at work.
        assert fleet.ctl("down", "2")["granted_in_full"] is True
        gone = fleet.event("scale_down")["instance"]
        fleet.ready(*({core, second, third} - {gone}))
        fleet.ctl("auto", "on")  # ends the target; the load brings the third one back
        fleet.ready(core, second, third)
    finally:
        clients.stop()
    fleet.ready(core)
    assert clients.odd == []
    ups, downs = fleet.events("scale_up"), fleet.events("scale_down")
    assert (len(ups), len(downs)) == (3, 3)
    assert re.fullmatch(r"High load: [01]\.\d\d > 0\.75", ups[0]["reason"])
    assert downs[-1]["reason"].startswith("Low load: 0.")
    assert fleet.events("stop_forced", "exit", "replace") == []
    assert core not in {event["instance"] for event in downs}

    fleet.ctl("shutdown")
    assert fleet.ended() == 0
    accepted: Counter[str] = Counter()
    for path in sorted((fleet.state_dir / "logs").glob("*.log")):
        for done in re.findall(r"finished, (\d+) tasks", path.read_text()):
            accepted[path.stem] += int(done)
    assert accepted == clients.answered


def test_the_bundled_agent_scales_with_its_queue(fleet: Fleet) -> None:
    pool = {"command": SAMPLE, "core": {"researcher": fleet.ports[1]}, "ports": [fleet.ports[2], fleet.ports[5]]}
    fleet.configure({"research": {**pool, "max": 2}}, autoscaling=True, rules=PATIENT)
    fleet.start()
    core, second = (f"research-{fleet.ports[number]}" for number in (1, 2))
    fleet.ready(core)
    answers: list[int] = []
    grown = threading.Event()

    def offer() -> None:
        while not grown.is_set():  # the second one takes as long as it takes
            answers.append(call(fleet.ports[1], "POST", "/task", {"service_s": 1.0})[0])

    senders = [threading.Thread(target=offer) for _ in range(4)]
    for sender in senders:
        sender.start()
    try:
        fleet.ready(core, second)
    finally:
        grown.set()
        for sender in senders:
            sender.join()
    assert len(answers) >= 4 and set(answers) == {200}
    fleet.ready(core)
    assert fleet.events("stop_forced", "exit", "replace") == []

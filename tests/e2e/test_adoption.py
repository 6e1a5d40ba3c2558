"""agentd dies or is replaced: the agents run on, and the next agentd takes over exactly those."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_fleet import PATIENT, Fleet, Task, call, pids, set_load
from e2e_hosts import is_alive

pytestmark = pytest.mark.host


def delete(file: Path) -> None:
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()


def corrupt(file: Path) -> None:
    file.write_bytes(os.urandom(64 * 1024))
    for path in file.parent.glob(f"{file.name}-*"):
        path.write_bytes(os.urandom(4096))


def keep(file: Path) -> None:
    assert file.exists()


def core_and_two(fleet: Fleet, *, drain_timeout_sec: float = 10.0, **more: Any) -> dict[str, dict[str, Any]]:
    research = fleet.elastic(2, 6, min=2, max=4, drain_timeout_sec=drain_timeout_sec)
    fleet.configure({"primary": fleet.core("primary", 1), "research": research}, **more)
    fleet.start()
    return fleet.ready(f"primary-{fleet.ports[1]}", *(f"research-{fleet.ports[number]}" for number in (2, 3)))


def adopted(fleet: Fleet, before: dict[str, dict[str, Any]]) -> None:
    """Exactly those who ran before run now, are managed and known to the host no more than once."""
    after = fleet.ready(*before)
    assert pids(after) == pids(before)
    running = {process.instance: (process.pid, process.incarnation) for process in fleet.running()}
    assert running == pids(before)
    assert len(fleet.running()) == len(before)


@pytest.mark.parametrize("harm", [keep, delete, corrupt], ids=lambda harm: f"database_{harm.__name__}")
def test_the_next_agentd_adopts_exactly_what_runs(fleet: Fleet, harm: Callable[[Path], None]) -> None:
    before = core_and_two(fleet)
    newest = int(fleet.events()[-1]["resume_token"])
    fleet.kill()
    harm(fleet.state_dir / "agentd.db")
    # Nobody manages them, and they work.
    assert [call(one["port"], "POST", "/task", {"service_s": 0})[0] for one in before.values()] == [200] * 3
    fleet.start()
    adopted(fleet, before)
    events = fleet.events()
    assert {event["instance"] for event in fleet.events("adopt")} == set(before)
    assert fleet.events("restart", "replace", "vanished") == []
    assert [int(event["resume_token"]) for event in events] == sorted({int(event["resume_token"]) for event in events})
    if harm is not delete:  # of a file that is gone nobody knows how far it had come
        assert int(events[-1]["resume_token"]) > newest
    assert (int(events[0]["resume_token"]) == 1) == (harm is not corrupt)
    assert (fleet.events("store") != []) == (harm is corrupt)
    # They are managed: one that dies is restarted in place.
    victim = f"research-{fleet.ports[2]}"
    os.kill(before[victim]["pid"], signal.SIGKILL)
    fleet.event("restart", instance=victim)
    fleet.ready(*before)


def test_a_planned_restart_of_agentd_changes_nothing(fleet: Fleet) -> None:
    before = core_and_two(fleet)
    for _ in range(2):
        fleet.signal(signal.SIGTERM)
        assert fleet.ended() == 0
        fleet.start()
        adopted(fleet, before)
    assert [event["type"] for event in fleet.events("agentd_start", "agentd_stop")] == [
        "agentd_start",
        "agentd_stop",
        "agentd_start",
        "agentd_stop",
        "agentd_start",
    ]


@pytest.mark.parametrize("moment", ["first_process", "first_event", "all_started"])
def test_agentd_that_dies_while_it_starts_agents_leaves_no_duplicates(fleet: Fleet, moment: str) -> None:
    fleet.configure({"primary": fleet.core("primary", 1), "research": fleet.elastic(2, 6, min=4, max=4)})
    five = (f"primary-{fleet.ports[1]}", *(f"research-{fleet.ports[number]}" for number in (2, 3, 4, 5)))
    fleet.start(wait=False)
    identity = fleet.state_dir / "identity"
    match moment:
        case "first_process":
            fleet.until("a process", lambda: identity.exists() and fleet.running())
        case "first_event":
            fleet.until("an event", lambda: " start pool=" in fleet.log)
        case "all_started":
            fleet.until("events", lambda: fleet.log.count(" start pool=") == 5)
    fleet.kill()
    run_on = {process.instance: process.pid for process in fleet.running()}
    fleet.start()
    after = fleet.ready(*five)
    assert {ident: after[ident]["pid"] for ident in run_on} == run_on
    assert sorted(process.instance for process in fleet.running()) == sorted(five)


def test_an_agent_that_died_while_agentd_was_away_is_started_again(fleet: Fleet) -> None:
    before = core_and_two(fleet)
    core, elastic = f"primary-{fleet.ports[1]}", f"research-{fleet.ports[2]}"
    fleet.kill()
    for ident in (core, elastic):
        os.kill(before[ident]["pid"], signal.SIGKILL)
    fleet.until("they are dead", lambda: not any(is_alive(before[ident]["pid"]) for ident in (core, elastic)))
    fleet.start()
    after = fleet.ready(*before)
    assert {event["instance"] for event in fleet.events("vanished")} == {core, elastic}
    assert {i for i in before if before[i]["incarnation"] != after[i]["incarnation"]} == {core, elastic}
    assert len(fleet.running()) == 3


def test_cooldowns_targets_and_the_mode_survive(fleet: Fleet) -> None:
    rules = {**PATIENT, "scale_up_cooldown_sec": 600, "scale_down_cooldown_sec": 900}
    core_and_two(fleet, autoscaling=True, rules=rules)
    for number in (2, 3):
        set_load(fleet.ports[number], 0.9)
    fleet.event("scale_up", pool="research")
    all_four = (*(f"research-{fleet.ports[number]}" for number in (2, 3, 4)), f"primary-{fleet.ports[1]}")
    fleet.ready(*all_four)
    fleet.ctl("auto", "off", "--reason", "a test")
    before = fleet.pool("research")
    fleet.kill()
    fleet.start()
    fleet.ready(*all_four)
    after = fleet.pool("research")
    assert 500 < after["up_cooldown_s"] < before["up_cooldown_s"] <= 600
    assert 800 < after["down_cooldown_s"] < before["down_cooldown_s"] <= 900
    mode = fleet.status()["autoscaling"]
    assert (mode["enabled"], mode["reason"]) == (False, "a test")
    assert fleet.status()["scaling_events"] == 1

    fleet.ctl("auto", "on")
    assert fleet.ctl("up", "4", "--pool", "research", code=4)["grants"][0]["limits"][0].startswith("up_cooldown")
    fleet.kill()
    fleet.start()
    assert fleet.pool("research")["target"]["count"] == 4
    assert fleet.status()["autoscaling"]["enabled"] is True


@pytest.mark.parametrize("moment", ["draining", "stopping"])
def test_an_agent_that_is_leaving_still_leaves_and_finishes_its_task(fleet: Fleet, moment: str) -> None:
    # Past its deadline it is stopping, and finishes its task in the grace.
    before = core_and_two(fleet, drain_timeout_sec=10 if moment == "draining" else 0.1)
    fleet.ctl("up", "3", "--pool", "research")
    victim = f"research-{fleet.ports[4]}"
    before = fleet.ready(*before, victim)
    # The others carry more, so that the one with the task is the one to go.
    for number in (2, 3):
        set_load(fleet.ports[number], 1.0)
    set_load(fleet.ports[4], 0.1)
    fleet.until("load is known", lambda: fleet.ps()[victim]["load"] == 0.1)
    fleet.until("load is known", lambda: min(fleet.ps()[f"research-{fleet.ports[n]}"]["load"] for n in (2, 3)) == 1.0)
    task = Task(fleet.ports[4])
    fleet.until("it works", lambda: (fleet.ps()[victim]["in_flight"] or 0) > 0)
    fleet.ctl("down", "2", "--pool", "research")
    assert fleet.events("scale_down")[0]["instance"] == victim
    fleet.until(moment, lambda: fleet.ps()[victim]["state"] == moment)
    fleet.kill()
    assert is_alive(before[victim]["pid"])
    fleet.start()
    task.end()
    stay = {ident: one for ident, one in before.items() if ident != victim}
    fleet.until("the victim is gone", lambda: victim not in fleet.ps())
    assert task.answer() == (200, {"instance": victim, "incarnation": before[victim]["incarnation"]})
    adopted(fleet, stay)
    assert fleet.events("stop_forced", "exit", "vanished") == []


def test_agents_of_another_agentd_are_left_alone(make_fleet: Callable[..., Fleet]) -> None:
    ours, theirs = make_fleet(), make_fleet()
    ours.configure({"research": ours.core("researcher", 1)})
    theirs.configure({"research": theirs.core("researcher", 2)})
    ours.start()
    theirs.start()
    our_id, their_id = f"research-{ours.ports[1]}", f"research-{ours.ports[2]}"
    ours.ready(our_id)
    before = theirs.ready(their_id)
    ours.kill()
    (ours.state_dir / "agentd.db").unlink()
    ours.start()
    ours.ready(our_id)
    assert set(ours.ps()) == {our_id}
    ours.signal(signal.SIGINT)
    assert ours.ended() == 0
    assert ours.running() == []
    assert pids(theirs.ready(their_id)) == pids(before)


def test_a_second_agentd_on_the_same_directory_is_turned_away(fleet: Fleet) -> None:
    before = core_and_two(fleet)
    assert fleet.daemon is not None
    second = fleet.spawn()
    assert second.wait(30) == 78
    (line,) = (line for line in fleet.log.splitlines() if line.startswith("agentd: "))
    assert line.startswith(f"agentd: another agentd (pid {fleet.daemon.pid}) uses {fleet.state_dir}; stop it with")
    assert "Traceback" not in fleet.log
    adopted(fleet, before)
    assert call(before[f"primary-{fleet.ports[1]}"]["port"], "POST", "/task", {"service_s": 0})[0] == 200

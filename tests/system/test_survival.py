"""agentd, the bus and systemd are killed, stuck and started anew: agents do not notice, and agentd misses nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from system_agentd import Agentd, Run, idle
from testhost import PATIENCE, Host, wait_until

from agentd import units
from agentd.core.model import InstanceId

FLEET = 50
KILL_AGENTD = "systemctl kill --kill-whom=main --signal=KILL agentd.service"
# What agentd tells when an agent's run has ended or begun.
CHANGES = ("start", "restart", "exit", "vanished", "start_failed", "crash_loop", "replace", "stop", "held", "scale_up")


@pytest.fixture
def agentd(shared_host: Host) -> Iterator[Agentd]:
    made = Agentd(shared_host)
    yield made
    made.clean_up()


@pytest.fixture(scope="module")
def fleet(shared_host: Host) -> Iterator[Agentd]:
    """Fifty agents, each of which is no more than a process."""
    made = Agentd(shared_host)
    made.configure({"research": idle(FLEET)})
    made.start()
    made.wait_ready(FLEET)
    yield made
    made.clean_up()


def unit(instance: str) -> str:
    return units.unit_name(InstanceId(instance))


def kill(agentd: Agentd, instance: str) -> None:
    agentd.systemctl("kill", "--signal=KILL", unit(instance))


def wait_restarted(agentd: Agentd, instance: str, before: dict[str, Run]) -> dict[str, Run]:
    """Wait until a new incarnation of `instance` is ready; all the others are those of `before`."""

    def is_back() -> bool:
        after = agentd.running()
        listed = agentd.instances()[instance]
        return (
            instance in after
            and after[instance] != before[instance]
            and (listed["state"], listed["incarnation"]) == ("ready", after[instance].invocation)
        )

    wait_until(is_back, f"{instance} is ready again")
    after = agentd.wait_ready(len(before))
    assert {name for name in after if after[name] != before[name]} == {instance}
    return after


# -- agentd itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["systemctl restart agentd.service", KILL_AGENTD])
def test_agents_do_not_notice_that_agentd_is_replaced(agentd: Agentd, how: str) -> None:
    agentd.configure({"research": idle(4, max=5, resources={"tasks_max": 32})})
    agentd.start()
    before = agentd.wait_ready(4)
    old = agentd.pid()
    agentd.host.exec("sh", "-c", how)
    wait_until(lambda: agentd.pid() not in ("0", old), "another agentd")
    adopted = agentd.wait_event("adopt", 4)
    assert {event["instance"] for event in adopted} == set(before)
    assert agentd.wait_ready(4) == before
    assert {name: (str(one["pid"]), one["incarnation"]) for name, one in agentd.instances().items()} == before
    assert len(agentd.events("start")) == 4
    assert agentd.events("exit", "restart", "vanished") == []
    agentd.ctl("up", "5", "--pool", "research")
    assert before.items() < agentd.wait_ready(5).items()


def test_an_agent_that_dies_with_agentd_is_replaced_once(agentd: Agentd) -> None:
    agentd.configure({"research": idle(4)})
    agentd.start()
    before, told = agentd.wait_ready(4), len(agentd.events(*CHANGES))
    agentd.host.exec("sh", "-c", f"{KILL_AGENTD}; systemctl kill --signal=KILL {unit('research-9102')}")
    after = wait_restarted(agentd, "research-9102", before)
    assert set(after) == set(before)
    assert {event["instance"] for event in agentd.events(*CHANGES)[told:]} == {"research-9102"}


def test_without_agentd_systemd_restarts_agents_and_the_next_agentd_does_the_rest(agentd: Agentd) -> None:
    agentd.configure({"research": idle(4)})
    agentd.start()
    before = agentd.wait_ready(4)
    agentd.systemctl("stop", "agentd.service")
    assert agentd.running() == before
    kill(agentd, "research-9102")
    restarted = wait_until(
        lambda: (
            (now := agentd.running()).get("research-9102", before["research-9102"]) != before["research-9102"] and now
        ),
        "systemd restarts it",
    )
    assert restarted
    agentd.systemctl("stop", unit("research-9103"))  # nobody is there who could see that it is meant
    agentd.start()
    after = agentd.wait_ready(4)
    assert {name for name in after if after[name] != before[name]} == {"research-9102", "research-9103"}
    assert after["research-9102"] == restarted["research-9102"]


def test_an_agentd_that_stands_still_is_killed_and_replaced(agentd: Agentd) -> None:
    agentd.drop_in("agentd.service", "[Service]\nWatchdogSec=3")
    agentd.configure({"research": idle(4)})
    agentd.start()
    before = agentd.wait_ready(4)
    old = agentd.pid()
    agentd.systemctl("kill", "--kill-whom=main", "--signal=STOP", "agentd.service")
    wait_until(lambda: agentd.pid() not in ("0", old), "another agentd")
    agentd.wait_event("adopt", 4)
    assert agentd.wait_ready(4) == before
    said = [str(entry["MESSAGE"]) for entry in agentd.host.journal("--unit=agentd.service")]
    assert "agentd.service: Failed with result 'watchdog'." in said


# -- an agent that stands still ---------------------------------------------------------------------


def test_an_agent_that_stands_still_is_replaced_for_its_silence(agentd: Agentd) -> None:
    scaling = {"enabled": False, "heartbeat_timeout_sec": 2, "unhealthy_threshold": 2}
    pool = {"core": {}, "ports": [9101, 9110], "min": 2, "max": 2, "drain_timeout_sec": 5}
    agentd.configure({"research": pool}, multi_agent={"enabled": True, "autoscaling": scaling})
    agentd.start()
    before = agentd.wait_ready(2)
    agentd.systemctl("kill", "--kill-whom=main", "--signal=STOP", unit("research-9101"))
    wait_until(lambda: "research-9101" not in agentd.running(), "it is gone")
    after = agentd.wait_ready(2)
    assert after["research-9102"] == before["research-9102"]
    (replaced,) = agentd.events("replace")
    assert replaced["instance"] == "research-9101"
    assert "Missed heartbeats" in replaced["reason"]


def test_an_agent_that_stands_still_is_restarted_by_its_watchdog_and_agentd_says_so(agentd: Agentd) -> None:
    agentd.drop_in(units.TEMPLATE, f"[Service]\nWatchdogSec={5 * PATIENCE:g}")  # the agent's own start is within it
    pool = {"core": {}, "ports": [9101, 9110], "min": 2, "max": 2}
    agentd.configure({"research": pool})
    agentd.start()
    before = agentd.wait_ready(2)
    agentd.systemctl("kill", "--kill-whom=main", "--signal=STOP", unit("research-9101"))
    wait_restarted(agentd, "research-9101", before)
    (exited,) = agentd.events("exit")
    assert exited["instance"] == "research-9101"
    assert "watchdog" in exited["reason"]


# -- what agentd stands on --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["restart dbus.service", "daemon-reload", "daemon-reexec"])
def test_fifty_agents_run_on_and_agentd_works_on(fleet: Agentd, how: str) -> None:
    before, told = fleet.wait_ready(FLEET), len(fleet.events(*CHANGES))
    old = fleet.pid()
    fleet.systemctl(*how.split())
    kill(fleet, "research-9117")
    after = wait_restarted(fleet, "research-9117", before)
    assert set(after) == set(before)
    assert {event["instance"] for event in fleet.events(*CHANGES)[told:]} == {"research-9117"}
    assert fleet.pid() == old

"""Who may report whom: an instance out of its own unit, and root; by the kernel's word, on booted hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from system_agentd import Agentd, idle
from testhost import Host, wait_until

from agentd.core.model import InstanceId
from agentd.units import instance_cgroup

PYTHON = "/usr/lib/agentd/venv/bin/python"
# Reports the instances named in its arguments as very busy. What it needs for that, everybody on the host can read.
REPORT = """
import json, os, sys
import grpc
from agentd.v1 import agent_pb2, agent_pb2_grpc

def report(ident, seq, load):
    incarnation = os.readlink(f"/run/systemd/units/invocation:agent@{ident}.service")
    beat = agent_pb2.Heartbeat(instance={"id": ident, "incarnation": incarnation}, seq=seq, load=load)
    with grpc.insecure_channel("unix:/run/agentd/agents.sock") as channel:
        try:
            stub = agent_pb2_grpc.AgentServiceStub(channel)
            stub.Heartbeat(agent_pb2.HeartbeatRequest(heartbeats=[beat]), wait_for_ready=True, timeout=30)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
    return "taken"
"""
# An agent: reports itself over and over and, once the test says so by a file, the other one too.
AGENT = f"""{REPORT}
import time

own, number = os.environ["AGENTD_INSTANCE"], 0
while True:
    number += 1
    answers = {{own: report(own, number, 0.25)}}
    try:
        with open("/opt/victim") as file:
            victim = file.read()
    except FileNotFoundError:
        pass
    else:
        if victim != own:
            answers[victim] = report(victim, 1_000_000, 0.99)
    print(json.dumps({{"pid": os.getpid(), "answers": answers}}), flush=True)
    time.sleep(0.5)
"""
CLAIM = f"{REPORT}\nprint(report(sys.argv[1], 1_000_000, 0.99))"
VICTIM, OTHER = "research-9101", "research-9102"
# A unit of a user's own manager, called like the victim's and in slices that are called like the victim's.
MIMIC = f"""[Service]
Type=oneshot
Slice=agentd-agents-%i.slice
ExecStart=cat /proc/self/cgroup
ExecStart={PYTHON} -I /opt/claim.py %i
StandardOutput=append:%t/said
"""


@pytest.fixture(scope="module")
def host(shared_host: Host) -> Host:
    """A host with a person who may connect, and with the programs."""
    shared_host.exec("useradd", "--create-home", "--groups", "agentd-agents", "ada")
    shared_host.write("/opt/agent.py", AGENT)
    shared_host.write("/opt/claim.py", CLAIM)
    return shared_host


@pytest.fixture
def agentd(host: Host) -> Iterator[Agentd]:
    made = Agentd(host)
    made.configure({"research": idle(2, command=[PYTHON, "-I", "/opt/agent.py"], health="heartbeat")})
    made.start()
    made.wait_ready(2)
    yield made
    made.clean_up()
    host.exec("rm", "-f", "/opt/victim")


def answers(agentd: Agentd, instance: str) -> list[dict[str, Any]]:
    """What an agent was answered, from its part of the journal."""
    lines = [entry["MESSAGE"] for entry in agentd.host.journal(f"AGENTD_INSTANCE={instance}")]
    return [json.loads(line) for line in lines if str(line).startswith('{"pid"')]


def refusals(agentd: Agentd, instance: str) -> set[str]:
    """With what an agent's reports of itself were refused. That nobody is there to answer, or knows of its start yet,
    is no refusal: it is to try again."""
    said = {one["answers"][instance] for one in answers(agentd, instance)}
    return {answer for answer in said if answer != "taken" and not answer.startswith("UNAVAILABLE")}


def claim(agentd: Agentd, instance: str, user: str = "") -> str:
    """What somebody is answered who reports `instance` from outside of all units."""
    return agentd.host.exec(PYTHON, "-I", "/opt/claim.py", instance, user=user).stdout.strip()


def load(agentd: Agentd, instance: str) -> float:
    return float(agentd.instances()[instance]["load"])


def warnings(agentd: Agentd) -> list[str]:
    said = [str(entry["MESSAGE"]) for entry in agentd.host.journal("--unit=agentd.service")]
    return [line for line in said if "heartbeat refused" in line]


def test_an_agent_reports_itself_and_nobody_else(agentd: Agentd) -> None:
    agentd.host.write("/opt/victim", VICTIM)
    told = wait_until(
        lambda: [one for one in answers(agentd, OTHER) if VICTIM in one["answers"]][2:], f"{OTHER} has lied thrice"
    )
    for one in told:
        text = f"{VICTIM} is reported only from its own unit; pid {one['pid']} is of agent@{OTHER}.service"
        assert one["answers"] == {OTHER: "taken", VICTIM: f"PERMISSION_DENIED: {text}"}
    assert load(agentd, VICTIM) == load(agentd, OTHER) == 0.25
    assert refusals(agentd, VICTIM) == set()
    assert len(warnings(agentd)) == 1
    assert f"agent@{OTHER}.service" in warnings(agentd)[0]


def test_root_reports_whom_it_likes(agentd: Agentd) -> None:
    assert claim(agentd, VICTIM) == "taken"
    assert load(agentd, VICTIM) == 0.99
    assert load(agentd, OTHER) == 0.25


def test_a_person_who_may_connect_reports_nobody(agentd: Agentd) -> None:
    assert claim(agentd, VICTIM, user="ada").endswith("is of no agent's unit")
    assert load(agentd, VICTIM) == 0.25


def test_a_unit_of_the_same_name_in_a_users_own_manager_is_another(agentd: Agentd) -> None:
    host = agentd.host
    host.write("/home/ada/.config/systemd/user/agent@.service", MIMIC)
    uid = host.out("id", "--user", "ada")
    runtime = f"/run/user/{uid}"
    host.exec("systemctl", "start", f"user@{uid}.service")
    host.exec("systemctl", "--user", "start", f"agent@{VICTIM}.service", user="ada", env={"XDG_RUNTIME_DIR": runtime})
    *groups, said = host.out("cat", f"{runtime}/said").splitlines()
    assert any(group.endswith(f"/{instance_cgroup(InstanceId(VICTIM))}") for group in groups), "it mimics nothing"
    assert said.startswith(f"PERMISSION_DENIED: {VICTIM} is reported only from its own unit; ")
    assert said.endswith("is of no agent's unit")
    assert load(agentd, VICTIM) == 0.25


def test_nothing_is_told_of_agents_that_report_themselves(agentd: Agentd) -> None:
    agentd.systemctl("restart", "agentd.service")
    before = len(answers(agentd, VICTIM))
    wait_until(lambda: len(answers(agentd, VICTIM)) > before + 2, f"{VICTIM} has reported to the next agentd")
    assert refusals(agentd, VICTIM) == set()
    said = [str(entry["MESSAGE"]) for entry in agentd.host.journal("--unit=agentd.service")]
    assert not [line for line in said if "in each other's name" in line]

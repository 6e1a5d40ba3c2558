"""Who may do what on which socket, method by method; and that nobody is turned away while agentd restarts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from testhost import Done, Host, wait_until

PYTHON = "/usr/lib/agentd/venv/bin/python"
SOCKETS = ("agents", "control")
# Each user, and the group that it is in besides its own.
USERS = {"ada": "agentd-agents", "oscar": "agentd-operators", "eve": "", "root": ""}
MAY_CONNECT = {"agents": {"ada", "root"}, "control": {"oscar", "root"}}
SERVED_TO_AGENTS = {"agentd.v1.AgentService", "agentd.v1.DiscoveryService"}
SERVED_TO_PEOPLE_TOO = {"agentd.v1.DiscoveryService"}
PRIVATE = "/run/agentd/private"

# Calls every method of every service with bytes that are no message: whoever serves the method answers something else
# than UNIMPLEMENTED, and does nothing.
CALL_ALL = """
import importlib, json, pkgutil, sys
import grpc
import agentd.v1
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

names = sorted(one.name for one in pkgutil.iter_modules(agentd.v1.__path__) if one.name.endswith("_pb2"))
modules = [importlib.import_module(f"agentd.v1.{name}") for name in names] + [health_pb2, reflection_pb2]
channel = grpc.insecure_channel(sys.argv[1])
answers = {}
for module in modules:
    for service in module.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            call = channel.stream_stream(f"/{service.full_name}/{method.name}")
            try:
                for _ in call(iter([b"\\xff"]), timeout=30):
                    break
                code, details = "OK", ""
            except grpc.RpcError as error:
                code, details = error.code().name, error.details()
            answers.setdefault(service.full_name, {})[method.name] = [code, details]
print(json.dumps(answers))
"""
# Connects over and over, one call in each connection, until its standard input ends.
CONNECT_ON = """
import json, select, socket, sys
connects, refused = 0, []
print("going", flush=True)
while not select.select([sys.stdin], [], [], 0.01)[0]:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(60)
        try:
            one.connect(sys.argv[1])
            one.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            answered = bool(one.recv(1))
        except ConnectionRefusedError as error:
            refused.append(str(error))
        except ConnectionError:
            pass  # it was taken, and its agentd ended
    connects += 1
print(json.dumps([connects, refused]))
"""


@pytest.fixture(scope="module")
def agentd(shared_host: Host) -> Iterator[Host]:
    for name, group in USERS.items():
        if name != "root":
            shared_host.exec("useradd", *(("--groups", group) if group else ()), name)
    shared_host.exec("systemctl", "start", "agentd.service")
    yield shared_host
    shared_host.exec("systemctl", "stop", "agentd.service")
    for name in USERS:
        if name != "root":
            shared_host.exec("userdel", name)


def python(host: Host, code: str, *words: str, user: str = "", check: bool = True) -> Done:
    return host.exec(PYTHON, "-I", "-c", code, *words, user=user, check=check)


def agentctl(host: Host, *words: str, user: str = "", check: bool = True) -> Done:
    return host.exec("agentctl", *words, user=user, check=check)


def main_pid(host: Host) -> str:
    return host.show("agentd.service", "MainPID")["MainPID"]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("socket", SOCKETS)
def test_every_method_is_served_where_it_belongs_to_whom_it_belongs(agentd: Host, socket: str, user: str) -> None:
    said = python(agentd, CALL_ALL, f"unix:/run/agentd/{socket}.sock", user="" if user == "root" else user)
    answers: dict[str, dict[str, Any]] = json.loads(said.stdout)
    assert {"agentd.v1.ControlService", "grpc.health.v1.Health"} | SERVED_TO_AGENTS <= set(answers)
    for service, methods in answers.items():
        served = (service in SERVED_TO_AGENTS) is (socket == "agents") or service in SERVED_TO_PEOPLE_TOO
        for method, (code, details) in methods.items():
            place = f"{service}/{method} on {socket}.sock for {user}: {code} {details}"
            if user not in MAY_CONNECT[socket]:
                assert code == "UNAVAILABLE", place
                assert "Permission denied" in details, place
            elif served:
                assert code not in ("UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"), place
            else:
                assert code == "UNIMPLEMENTED", place


@pytest.mark.parametrize("user", ["ada", "oscar", "eve"])
def test_nobody_reaches_past_the_relay(agentd: Host, user: str) -> None:
    listed = agentd.exec("ls", PRIVATE, user=user, check=False)
    assert listed.returncode != 0
    code = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    for socket in SOCKETS:
        done = python(agentd, code, f"{PRIVATE}/{socket}.sock", user=user, check=False)
        assert "PermissionError" in done.stderr


def test_a_stranger_is_told_why_agentctl_does_not_work(agentd: Host) -> None:
    done = agentctl(agentd, "status", user="eve", check=False)
    assert done.returncode == 1
    assert "permission denied for unix:/run/agentd/control.sock: members of group agentd-operators" in done.stderr
    assert "(sudo usermod -aG agentd-operators eve, and log in again)" in done.stderr


def test_who_asked_is_known_by_the_kernel(agentd: Host) -> None:
    claim = """
import sys
from agentd.sdk.control import ControlClient
with ControlClient("unix:/run/agentd/control.sock", owner="root") as client:
    print(client.set_autoscaling(False, "a test").owner)
    client.set_autoscaling(True, "a test")
"""
    assert python(agentd, claim, user="oscar").stdout == "oscar\n"
    assert python(agentd, claim.replace('"root"', '"alice, by sudo"')).stdout == "alice, by sudo\n"


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_nobody_is_turned_away_while_agentd_is_replaced(agentd: Host, how: str) -> None:
    before = main_pid(agentd)
    command = agentd.argv(PYTHON, "-I", "-c", CONNECT_ON, "/run/agentd/agents.sock", user="ada")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        try:
            assert client.stdout is not None
            assert client.stdout.readline() == "going\n"
            if how == "restart":
                agentd.exec("systemctl", "restart", "agentd.service")
            else:
                agentd.exec("systemctl", "kill", "--signal=KILL", "agentd.service")
            wait_until(lambda: main_pid(agentd) not in ("0", before), "another agentd runs")
            agentctl(agentd, "status")
            said, _ = client.communicate(timeout=90)
        finally:
            client.kill()
    connects, refused = json.loads(said)
    assert connects > 0
    assert refused == []


def test_a_call_starts_an_agentd_that_does_not_run(agentd: Host) -> None:
    agentd.exec("systemctl", "stop", "agentd.service")
    assert agentd.show("agentd.service", "ActiveState") == {"ActiveState": "inactive"}
    # From here on whoever connects first starts it, an agent that another test has left, too.
    agentd.exec("systemctl", "start", "agentd.socket", "agentd-agents.socket")
    assert "agentd" in agentctl(agentd, "status", user="oscar").stdout
    # It answers a moment before it says that it is ready.
    wait_until(
        lambda: agentd.show("agentd.service", "ActiveState") == {"ActiveState": "active"}, "agentd.service ready"
    )


def test_a_stop_is_for_good_and_so_is_a_configuration_of_no_use(agentd: Host) -> None:
    agentd.exec("systemctl", "stop", "agentd.service")
    for unit in ("agentd.socket", "agentd-agents.socket", "agentd.service"):
        wait_until(lambda unit=unit: agentd.show(unit, "ActiveState") == {"ActiveState": "inactive"}, f"{unit} stopped")
    assert agentd.out("ls", "/run/agentd") == "instances"
    good = agentd.out("cat", "/etc/agentd/agentd.yaml")
    agentd.write("/etc/agentd/agentd.yaml", "pools: {research: {min: -1}}\n")
    assert agentd.exec("systemctl", "start", "agentd.service", check=False).returncode != 0
    for unit in ("agentd.socket", "agentd-agents.socket"):
        wait_until(lambda unit=unit: agentd.show(unit, "ActiveState") == {"ActiveState": "inactive"}, f"{unit} stopped")
    agentd.write("/etc/agentd/agentd.yaml", good)
    agentd.exec("systemctl", "start", "agentd.service")
    assert agentctl(agentd, "status").returncode == 0


def test_an_agentd_that_was_told_to_end_is_not_started_by_its_agents(agentd: Host) -> None:
    assert agentctl(agentd, "shutdown", "--keep-agents").returncode == 0
    for unit in ("agentd.socket", "agentd-agents.socket", "agentd.service"):
        wait_until(lambda unit=unit: agentd.show(unit, "ActiveState") == {"ActiveState": "inactive"}, f"{unit} stopped")
    agentd.exec("systemctl", "start", "agentd.service")
    assert agentctl(agentd, "status").returncode == 0

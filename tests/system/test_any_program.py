"""The programs of docs/any-program.md, word for word as they are shown there, as units of a booted systemd."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from any_program import EXAMPLES, FILES, documented_pools
from testhost import Host, wait_until

CORE = {
    "writing": "writing-9601",
    "pages": "pages-9611",
    "embedding": "embedding-9621",
    "archiving": "archiving-9631",
    "ranking": "ranking-9641",
}
ASK = """
import socket
with socket.create_connection(("127.0.0.1", 9601), timeout=30) as client:
    client.sendall(b'{"question": "Why?"}\\n')
    print(client.makefile().readline())
"""


@pytest.fixture(scope="module")
def agentd(shared_host: Host) -> Iterator[Host]:
    """The pools of the page, all with a core agent of one, all of them ready."""
    host = shared_host
    for name in FILES:
        host.write(f"/opt/agents/{name}", (EXAMPLES / name).read_text())
    host.exec("mkdir", "-p", "/srv/inbox")
    host.exec("ln", "-s", "/usr/lib/agentd/venv", "/opt/agents/venv")
    settings = {
        "multi_agent": {"enabled": True, "autoscaling": {"enabled": False, "heartbeat_timeout_sec": 3}},
        "pools": documented_pools({}),
        "host": {"reserve": {"memory": "1M", "memory_ratio": 0, "disk": 0, "cpu_ratio": False}},
    }
    host.write("/etc/agentd/agentd.yaml", yaml.safe_dump(settings))
    host.exec("systemctl", "start", "agentd.service")
    yield host
    host.exec("systemctl", "stop", "agentd.target", "agentd.service")


def instances(host: Host) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in json.loads(host.out("agentctl", "ps", "--output", "json"))}


def until(host: Host, ident: str, state: str) -> dict[str, Any]:
    """Wait until the instance is in this state."""
    return wait_until(
        lambda: (found := instances(host).get(ident, {})).get("state") == state and found, f"{ident} is {state}"
    )


@pytest.mark.parametrize("pool", ["writing", "pages", "embedding", "archiving"])
def test_a_program_is_a_unit_that_gets_ready_and_has_a_load(agentd: Host, pool: str) -> None:
    one = until(agentd, CORE[pool], "ready")
    unit = agentd.show(f"agent@{CORE[pool]}.service", "ActiveState", "MainPID", "InvocationID")
    assert unit == {"ActiveState": "active", "MainPID": str(one["pid"]), "InvocationID": one["incarnation"]}
    wait_until(lambda: instances(agentd)[CORE[pool]]["load"] is not None, "it has a load")


def test_what_the_programs_are_for_works_in_the_sandbox(agentd: Host) -> None:
    until(agentd, CORE["writing"], "ready")
    assert "Why? Because." in agentd.out("python3", "-c", ASK)
    agentd.write("/srv/a", "what came in")
    agentd.exec("mv", "/srv/a", "/srv/inbox")  # the worker takes what is there, whole or not
    results = f"/var/lib/agentd-agents/{CORE['archiving']}/checksums.txt"
    written = f"{hashlib.sha256(b'what came in').hexdigest()} a"
    wait_until(lambda: agentd.out("cat", results, check=False) == written, "the worker has written it down")


def test_a_program_that_notifies_starts_until_it_has_spoken(agentd: Host) -> None:
    unit = f"agent@{CORE['ranking']}.service"
    wait_until(lambda: agentd.show(unit, "ActiveState") == {"ActiveState": "activating"}, "its unit starts")
    assert instances(agentd)[CORE["ranking"]]["state"] in ("pending", "starting")
    agentd.write("/srv/model", "")
    until(agentd, CORE["ranking"], "ready")
    assert agentd.show(unit, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}


def test_the_sdk_alone_has_a_watchdog(agentd: Host) -> None:
    until(agentd, CORE["writing"], "ready")
    watched = {pool: agentd.show(f"agent@{CORE[pool]}.service", "WatchdogUSec")["WatchdogUSec"] for pool in CORE}
    assert watched == {**dict.fromkeys(CORE, "0"), "writing": "30s"}


def test_every_kind_of_program_finishes_on_term(agentd: Host) -> None:
    agentd.write("/srv/model", "")
    for ident in CORE.values():
        until(agentd, ident, "ready")
    agentd.exec("systemctl", "stop", "agentd.target")
    for ident in CORE.values():
        unit = f"agent@{ident}.service"
        wait_until(lambda unit=unit: agentd.show(unit, "ActiveState")["ActiveState"] == "inactive", f"{unit} has ended")
        assert agentd.show(unit, "Result") == {"Result": "success"}

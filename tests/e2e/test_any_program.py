"""The programs of docs/any-program.md as child processes: each kind gets ready, has a load, and ends when told."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import sys
from typing import Any

import pytest
from any_program import EXAMPLES, FILES, documented_pools
from e2e_fleet import Fleet

pytestmark = pytest.mark.host


def started(fleet: Fleet) -> dict[str, dict[str, Any]]:
    """All documented pools on ports of this test, one core agent each, ready; the instances by pool."""
    (fleet.root / "inbox").mkdir()
    (fleet.root / "model").touch()
    places = {
        "/opt/agents/venv/bin/python": sys.executable,
        "/opt/agents": str(EXAMPLES),
        "/srv": str(fleet.root),
    }
    pools = documented_pools(places)
    for number, pool in enumerate(pools.values(), start=1):
        pool["core"] = dict.fromkeys(pool["core"], fleet.ports[number])
        pool.pop("ports", None)
    fleet.configure(pools)
    fleet.start()
    ready = fleet.ready(*(f"{name}-{port}" for name, pool in pools.items() for port in pool["core"].values()))
    return {one["pool"]: one for one in ready.values()}


def test_the_page_shows_every_example() -> None:
    words = [word for pool in documented_pools({}).values() for word in pool["command"]]
    assert {word.removeprefix("/opt/agents/") for word in words if word.endswith(".py")} == set(FILES)


def test_every_kind_of_program_is_an_agent(fleet: Fleet) -> None:
    agents = started(fleet)
    assert set(agents) == {"writing", "pages", "embedding", "archiving", "ranking"}

    with socket.create_connection(("127.0.0.1", agents["writing"]["port"]), timeout=30) as client:
        client.sendall(b'{"question": "Why?"}\n')
        assert client.makefile().readline() == '{"answer": "Why? Because."}\n'
    pages = http.client.HTTPConnection("127.0.0.1", agents["pages"]["port"], timeout=30)
    pages.request("GET", "/")
    assert pages.getresponse().status == 200
    pages.close()
    (fleet.root / "a").write_bytes(b"what came in")
    (fleet.root / "a").rename(fleet.root / "inbox" / "a")  # whole: the worker takes what it sees
    results = fleet.root / "checksums.txt"
    written = f"{hashlib.sha256(b'what came in').hexdigest()} a\n"
    fleet.until("the worker has written it down", lambda: results.exists() and results.read_text() == written)

    fleet.until("all have a load", lambda: all(one["load"] is not None for one in fleet.ps().values()))
    assert {one["pool"]: one["incarnation"] for one in fleet.ps().values()} == {
        pool: one["incarnation"] for pool, one in agents.items()
    }, "none was restarted"


def test_every_kind_of_program_finishes_on_term(fleet: Fleet) -> None:
    started(fleet)
    fleet.ctl("shutdown")
    assert fleet.ended() == 0
    assert fleet.running() == []
    assert re.findall(r"fleet: drain pool=(\w+)", fleet.log) == ["writing"]

"""The port probe, against real sockets of this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import psutil
import pytest

from agentd import ports

pytestmark = pytest.mark.host


@pytest.fixture
def port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as free:
        free.bind(("", 0))
        number: int = free.getsockname()[1]
        return number


@pytest.fixture(params=["0.0.0.0", "127.0.0.1", "::", "::1"])
def listener(request: pytest.FixtureRequest, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as taken:
        if family is socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            taken.bind((request.param, port))
        except OSError:
            pytest.skip(f"no address {request.param} on this host")
        taken.listen()
        yield taken


@pytest.mark.usefixtures("listener")
def test_a_listener_on_any_address_takes_the_port_and_is_named(port: int) -> None:
    name = psutil.Process().name()
    assert ports.probe(port) == ports.PortHolder(port, os.getpid(), name)
    assert str(ports.probe(port)) == f"{name} (pid {os.getpid()})"


def test_a_free_port_is_free_and_stays_so(port: int) -> None:
    assert ports.probe(port) is None
    assert ports.probe(port) is None
    with socket.create_server(("", port)):
        assert ports.probe(port) is not None
    assert ports.probe(port) is None


def test_connections_that_linger_after_their_server_do_not_take_the_port(port: int) -> None:
    with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first waits
        assert client.recv(1) == b""
    lingering = (c.laddr for c in psutil.net_connections("tcp4") if c.status == psutil.CONN_TIME_WAIT)
    assert any(address and address.port == port for address in lingering)
    assert ports.probe(port) is None


def test_probing_does_not_listen(port: int) -> None:
    ports.probe(port)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_holder_that_cannot_be_seen_is_said_to_be_unknown() -> None:
    assert str(ports.PortHolder(9101)) == "an unknown process"
    assert str(ports.PortHolder(9101, 12)) == "a process (pid 12)"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("caf\udce9", r"caf\udce9"), ("a\x1b[2Jb\n", r"a\x1b[2Jb\n"), ("caf\u00e9", "caf\u00e9")],
    ids=["not UTF-8", "not printable", "another language"],
)
def test_whatever_a_holder_is_called_can_be_sent_and_shown(name: str, shown: str) -> None:
    told = str(ports.PortHolder(9101, 12, name))
    assert told == f"{shown} (pid 12)"
    assert told.encode()

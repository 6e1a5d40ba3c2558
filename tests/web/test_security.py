"""Who is let in: Host, browsers' marks, and the user at the other end of the connection."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from agentd.core.messages import SetAutoscaling
from agentd.web.app import create_app
from agentd.web.security import HEADERS, configured_name, is_our_host, socket_owner
from tests.web.fake import ConnectAs, FakeAbout, FakeRuntime

CHANGES = ("/autoscaler/check", "/autoscaler/enable", "/autoscaler/disable")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
EVERY_PAGE = ("/", "/status", "/events", "/metrics", "/healthz", "/readyz", "/autoscaler/stats", "/assets/app.js")


def reason(response: object) -> str:
    return str(response.json()["error"]["reason"])  # type: ignore[attr-defined]


# -- Host ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:8766", "LOCALHOST:8766", "127.0.0.1:8766", "[::1]:8766"])
def test_our_names_with_our_port_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8766",
        "localhost",
        "localhost:80",
        "localhost:8767",
        "localhost.:8766",
        "localhost:8766@evil.example",
        "127.0.0.1.evil.example:8766",
        "0.0.0.0:8766",
        "127.0.0.2:8766",
        "localhost:",
        "localhost:0x223e",
        "localhost:8766\n",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/", "/status", "/no/such/page"])
def test_any_other_host_is_misdirected(client: TestClient, host: str, path: str) -> None:
    response = client.get(path, headers={"Host": host})
    assert (response.status_code, reason(response)) == (421, "MISDIRECTED")


def test_a_rebound_page_cannot_change_anything(client: TestClient, runtime: FakeRuntime) -> None:
    headers = {"Host": "evil.example:8766", "Origin": "http://evil.example:8766", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/autoscaler/disable", headers=headers).status_code == 421
    assert runtime.submitted == []


def test_two_host_headers_are_refused(client: TestClient) -> None:
    request = client.build_request("GET", "/status", headers=[("Host", "localhost:8766"), ("Host", "evil.example")])
    assert client.send(request).status_code == 421


def test_a_host_without_a_port_means_port_80() -> None:
    assert is_our_host("localhost", names=frozenset({"localhost"}), port=80)
    assert not is_our_host("localhost", names=frozenset({"localhost"}), port=8766)


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("127.0.0.2:8766", {"127.0.0.2"}),
        ("[::1]:8766", {"[::1]"}),
        ("0.0.0.0:8766", set()),
        ("192.168.1.2:8766", set()),
        ("agents.example:8766", set()),
    ],
)
def test_a_configured_address_is_a_name_only_on_loopback(address: str, names: set[str]) -> None:
    assert configured_name(address) == names


# -- other sites' pages -------------------------------------------------------------------------


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "nonsense"])
def test_every_unsafe_method_from_elsewhere_is_refused(
    client: TestClient, runtime: FakeRuntime, method: str, site: str
) -> None:
    response = client.request(method, "/autoscaler/disable", headers={"Sec-Fetch-Site": site})
    assert (response.status_code, reason(response)) == (403, "CROSS_SITE")
    assert runtime.submitted == []


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:3000", "https://127.0.0.1:8766", ""],
)
def test_a_foreign_origin_is_refused_with_every_unsafe_method(
    client: TestClient, runtime: FakeRuntime, method: str, origin: str
) -> None:
    for extra in ({}, {"Sec-Fetch-Site": "same-origin"}):
        response = client.request(method, "/autoscaler/disable", headers={"Origin": origin, **extra})
        assert (response.status_code, reason(response)) == (403, "CROSS_SITE")
    assert runtime.submitted == []


def test_the_dashboard_itself_may_post(client: TestClient) -> None:
    headers = {"Origin": "http://127.0.0.1:8766", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/autoscaler/disable", headers=headers).json() == {"enabled": False}


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_may_link_here_and_nothing_else(client: TestClient, site: str) -> None:
    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"}
    assert client.get("/", headers=link).status_code == 200
    fetched = client.get("/events/stream", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"})
    assert (fetched.status_code, reason(fetched)) == (403, "CROSS_SITE")


def test_a_person_may_type_the_address(client: TestClient) -> None:
    assert client.get("/", headers={"Sec-Fetch-Site": "none"}).status_code == 200


# -- the caller's user --------------------------------------------------------------------------


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("uid", [0, os.getuid(), 4242])
def test_root_our_own_user_and_operators_may_change(connect_as: ConnectAs, path: str, uid: int) -> None:
    assert connect_as(uid).post(path).status_code == 200


@pytest.mark.parametrize("path", CHANGES)
def test_another_user_may_not_change(connect_as: ConnectAs, runtime: FakeRuntime, path: str) -> None:
    response = connect_as(54321).post(path)
    assert (response.status_code, reason(response)) == (403, "PERMISSION_DENIED")
    assert "user 54321 may not change this fleet" in response.json()["error"]["message"]
    assert runtime.submitted == []


@pytest.mark.parametrize("path", CHANGES)
def test_a_caller_without_a_user_may_not_change(connect_as: ConnectAs, runtime: FakeRuntime, path: str) -> None:
    response = connect_as(None).post(path)
    assert (response.status_code, reason(response)) == (403, "CALLER_UNKNOWN")
    assert runtime.submitted == []


def test_another_user_may_read(connect_as: ConnectAs) -> None:
    client = connect_as(54321)
    assert [client.get(path).status_code for path in EVERY_PAGE] == [200] * len(EVERY_PAGE)


def test_the_caller_is_named_as_owner(connect_as: ConnectAs, runtime: FakeRuntime) -> None:
    connect_as(0).post("/autoscaler/disable")
    connect_as(4242).post("/autoscaler/enable")
    owners = [event.owner for event in runtime.submitted if isinstance(event, SetAutoscaling)]
    assert owners == ["root", "uid 4242"]


@pytest.mark.parametrize("path", [*CHANGES, "/status", "/no/such/page"])
def test_get_and_head_never_change_anything(client: TestClient, runtime: FakeRuntime, path: str) -> None:
    client.get(path)
    client.head(path)
    assert runtime.submitted == []


# -- headers ------------------------------------------------------------------------------------


def test_every_answer_carries_the_security_headers(client: TestClient, runtime: FakeRuntime) -> None:
    answers = [client.get(path) for path in (*EVERY_PAGE, "/no/such/page", "/events?limit=0")]
    answers += [client.get("/", headers={"Host": "evil.example"}), client.delete("/status"), client.post(CHANGES[0])]
    runtime.shown = None  # type: ignore[assignment]
    answers.append(client.get("/status"))
    assert answers[-1].status_code == 500
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, answer.request.url
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in HEADERS["Content-Security-Policy"]


# -- the kernel's table -------------------------------------------------------------------------

HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
CLIENT, SERVER = ("127.0.0.1", 51000), ("127.0.0.1", 8766)
V4_CLIENT, V4_SERVER = "0100007F:C738", "0100007F:223E"
MAPPED = "0000000000000000FFFF0000"


def row(local: str, remote: str, *, uid: int, state: str = "01", inode: int = 777) -> str:
    return (
        f"   1: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {uid:5} 0 {inode} 1 0 20 4 30 10 -1\n"
    )


def table(folder: Path, tcp: str = "", tcp6: str | None = "") -> Path:
    (folder / "tcp").write_text(HEADING + tcp)
    if tcp6 is not None:
        (folder / "tcp6").write_text(HEADING + tcp6)
    return folder


def test_the_owner_of_the_client_end_is_found(tmp_path: Path) -> None:
    others = row(V4_SERVER, V4_CLIENT, uid=7) + row("0100007F:C739", V4_SERVER, uid=8)
    rows = others + row(V4_CLIENT, V4_SERVER, uid=1000)
    assert socket_owner(CLIENT, SERVER, table(tmp_path, rows)) == 1000


def test_the_other_end_of_the_connection_must_match_too(tmp_path: Path) -> None:
    rows = row(V4_CLIENT, "0100007F:0050", uid=0)
    assert socket_owner(CLIENT, SERVER, table(tmp_path, rows)) is None


@pytest.mark.parametrize(("state", "inode"), [("04", 0), ("05", 0), ("06", 0), ("08", 777), ("01", 0)])
def test_a_closed_socket_that_shows_as_root_is_nobody(tmp_path: Path, state: str, inode: int) -> None:
    rows = row(V4_CLIENT, V4_SERVER, uid=0, state=state, inode=inode)
    assert socket_owner(CLIENT, SERVER, table(tmp_path, rows)) is None


def test_an_ipv6_socket_that_speaks_ipv4_is_found(tmp_path: Path) -> None:
    rows = row(MAPPED + V4_CLIENT, MAPPED + V4_SERVER, uid=1001)
    assert socket_owner(CLIENT, SERVER, table(tmp_path, tcp6=rows)) == 1001
    assert socket_owner(("::ffff:127.0.0.1", 51000), SERVER, tmp_path) == 1001


def test_an_ipv6_connection_is_found(tmp_path: Path) -> None:
    loopback = "00000000000000000000000001000000"
    rows = row(f"{loopback}:C738", f"{loopback}:223E", uid=1002)
    assert socket_owner(("::1", 51000), ("::1", 8766), table(tmp_path, tcp6=rows)) == 1002


def test_a_kernel_without_ipv6_has_one_table(tmp_path: Path) -> None:
    rows = row(V4_CLIENT, V4_SERVER, uid=1000)
    assert socket_owner(CLIENT, SERVER, table(tmp_path, rows, tcp6=None)) == 1000
    assert socket_owner(("127.0.0.1", 1), SERVER, tmp_path) is None


@pytest.mark.host
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_real_table_names_us_while_the_connection_stands(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as listener:
        try:
            listener.bind((address, 0))
        except OSError as failure:
            pytest.skip(f"cannot bind {address}: {failure}")
        listener.listen()
        server = listener.getsockname()[:2]
        with socket.create_connection(server) as client:
            accepted, peer = listener.accept()
            with accepted:
                assert socket_owner(peer[:2], server) == os.getuid()
                client.close()
                assert socket_owner(peer[:2], server) is None


def test_address_and_operators_are_those_of_the_moment(runtime: FakeRuntime) -> None:
    about = FakeAbout(http_address="", operators=frozenset())
    app = create_app(runtime, about, peer_uid=lambda _client, _server: 4242)
    client = TestClient(app, base_url="http://127.0.0.2:8766")
    assert client.post("/autoscaler/check").status_code == 421
    about.http_address = "127.0.0.2:8766"
    assert client.get("/status").status_code == 200
    assert client.post("/autoscaler/check").status_code == 403
    about.operators = frozenset({4242})
    assert client.post("/autoscaler/check").status_code == 200

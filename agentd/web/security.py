"""Who may ask what over HTTP: the outermost layer, in front of every route.

Owns four checks and the response headers; it never looks at what a request means. Every request must name us in
its Host header, which ends DNS rebinding (a rebound page counts as same-origin, so no other check sees it). Every
request that may change something, that is every method but GET and HEAD, must also not come from another
site's page, and must come from a process of agentd's own user, of root or of an operator. The process's user is
read from the kernel's socket table: both ends of a loopback connection are rows of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import sys
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from agentd.web.fleet import About

Address = tuple[str, int]
PeerUid = Callable[[Address, Address], int | None]

SAFE_METHODS = frozenset({"GET", "HEAD"})
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?\Z")
_ESTABLISHED = "01"
_TABLE_READS = 3


class Guard:
    """ASGI middleware: refuses what may not pass, and puts the security headers on every response.

    `request.state.peer_uid` carries the caller's uid to the routes that change something.
    """

    def __init__(self, app: ASGIApp, *, about: About, peer_uid: PeerUid | None = None) -> None:
        self._app = app
        self._about = about  # asked with each request: its address and operators change
        self._peer_uid = peer_uid or socket_owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Date"] = formatdate(usegmt=True)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = await self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_guarded)

    async def _refusal(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that may not pass, or None."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        port = scope["server"][1] if scope.get("server") else None
        names = LOOPBACK_NAMES | configured_name(self._about.http_address)
        if len(hosts) != 1 or not is_our_host(hosts[0], names=names, port=port):
            named = ", ".join(hosts)[:100] or "nothing"
            return error(421, "MISDIRECTED", f"cannot answer for host {named!r}: expected localhost:{port}")
        text = foreign_page(scope["method"], headers)
        if text:
            return error(403, "CROSS_SITE", text)
        if scope["method"] in SAFE_METHODS:
            return None
        return await self._wrong_user(scope)

    async def _wrong_user(self, scope: Scope) -> JSONResponse | None:
        client, server = scope.get("client"), scope.get("server")
        uid = None
        if client and server and server[1] is not None:
            # In a thread: with many sockets on the host the kernel takes milliseconds to print its table.
            uid = await asyncio.to_thread(self._peer_uid, tuple(client), tuple(server))
        if uid is None:
            return error(
                403,
                "CALLER_UNKNOWN",
                "cannot tell which local user is calling: a change needs a direct connection from a process on this "
                "host (no proxy, no other network namespace) that stays open until the answer",
            )
        if uid not in {os.getuid(), 0, *self._about.operators}:
            return error(
                403,
                "PERMISSION_DENIED",
                f"user {uid} may not change this fleet: only uid {os.getuid()} (agentd), root and operators may",
            )
        scope.setdefault("state", {})["peer_uid"] = uid
        return None


def error(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one shape of every error of this API."""
    return JSONResponse({"error": {"reason": reason, "message": message}}, status_code=status, headers=headers)


def configured_name(http_address: str) -> frozenset[str]:
    """The Host name of a configured loopback address such as `127.0.0.2:8766`; nothing for any other."""
    host = http_address.rpartition(":")[0].lower()
    try:
        loopback = ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return frozenset()
    return frozenset({host}) if loopback else frozenset()


def is_our_host(header: str, *, names: frozenset[str], port: int | None) -> bool:
    """Whether a Host header names us. Without a port it means port 80."""
    found = _HOST.match(header.lower())
    return found is not None and found[1] in names and int(found[2] or 80) == port


def foreign_page(method: str, headers: Headers) -> str:
    """Why this request looks like another site's page in a browser; empty when it does not.

    Browsers cannot be made to omit or forge Sec-Fetch-Site and Origin; programs send neither. A page elsewhere
    may link to the dashboard (a navigation), but gets no other answer, not even one it could not read: it could
    hold the event streams.
    """
    site = headers.get("sec-fetch-site")
    if method in SAFE_METHODS:
        linked = headers.get("sec-fetch-mode") == "navigate"
        foreign = site in ("cross-site", "same-site") and not linked
        return f"cannot serve a {site} request: open the dashboard instead" if foreign else ""
    if site is not None and site != "same-origin":
        return f"cannot {method} from outside the dashboard: Sec-Fetch-Site is {site[:20]!r}"
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{headers['host'].lower()}":
        return f"cannot {method} from another origin: Origin is {origin[:100]!r}"
    return ""


def socket_owner(client: Address, server: Address, table: Path = Path("/proc/self/net")) -> int | None:
    """The uid of the process that holds the `client` end of a connection to `server`, None if it cannot be told.

    Only an established socket that still has an owner counts: the kernel prints uid 0 for one that its process
    has closed already, and taking that for root would let anybody in. The table is read again a few times since
    a row can be missed while others come and go.
    """
    wanted = {(_table_form(client, mapped=mapped), _table_form(server, mapped=mapped)) for mapped in (False, True)}
    for _ in range(_TABLE_READS):
        for name in ("tcp", "tcp6"):
            uid = _owner_in(table / name, wanted)
            if uid is not None:
                return uid
    return None


def _owner_in(path: Path, wanted: set[tuple[str, str]]) -> int | None:
    try:
        rows = path.read_text("ascii").splitlines()[1:]
    except FileNotFoundError:  # a kernel without IPv6 has no tcp6
        return None
    for row in rows:
        # sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode
        fields = row.split()
        if (fields[1], fields[2]) in wanted:
            owned = fields[3] == _ESTABLISHED and fields[9] != "0"
            return int(fields[7]) if owned else None
    return None


def _table_form(address: Address, *, mapped: bool) -> str:
    """`address` as the kernel prints it: 32-bit words in the host's byte order, the port in plain hex.

    `mapped`: an IPv4 address as an IPv6 socket shows it.
    """
    ip = ipaddress.ip_address(address[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if mapped and isinstance(ip, ipaddress.IPv4Address):
        ip = ipaddress.IPv6Address(f"::ffff:{ip}")
    words = [ip.packed[at : at + 4] for at in range(0, len(ip.packed), 4)]
    text = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words).hex().upper()
    return f"{text}:{address[1]:04X}"

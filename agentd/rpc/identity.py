"""Who is at the other end of a connection, by the kernel's word.

grpcio shows no more of a Unix peer than the address of its socket. The relay therefore gives its own end of each
connection an address that says for whom it speaks: `agentd-peer/<uid>/<pid>/<instance>/<random>` in the abstract
namespace; the instance is `-` where the process is of no agent's unit.

Anybody can give a socket such an address. It counts only on a server whose socket nobody but the relay can reach;
`relayed` is for those, `unverified` for all others.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Callable

from msgspec import Struct

from agentd.core.model import InstanceId

_NAME = re.compile(
    r"unix-abstract:agentd-peer/(\d{1,10})/(\d{1,10})/(?:-|([a-z][a-z0-9]{0,18}-\d{1,5}))/[0-9a-f]{16}\Z", re.ASCII
)


class Peer(Struct, frozen=True):
    """The process that connected. `pid` is 0 where it has none that we can see; it may have ended since.

    `instance` is the one whose unit it is of; None where it is of no agent's, or where nobody asked (control.sock).
    """

    uid: int
    pid: int
    instance: InstanceId | None = None


PeerOf = Callable[[str], Peer | None]


def address(peer: Peer) -> str:
    """A fresh address for a socket that speaks for `peer`. Random, so that nobody else can take it first."""
    return f"\0agentd-peer/{peer.uid}/{peer.pid}/{peer.instance or '-'}/{os.urandom(8).hex()}"


def relayed(text: str) -> Peer | None:
    """The peer that `ServicerContext.peer()` names on a server behind a relay."""
    found = _NAME.match(text)
    if found is None:
        return None
    return Peer(int(found[1]), int(found[2]), InstanceId(found[3]) if found[3] else None)


def unverified(_text: str) -> Peer | None:
    """Nobody: of a server that others can reach, the peer's address proves nothing."""
    return None


def user_name(uid: int) -> str:
    """The name of user `uid`, or `uid 1234`. It may ask a directory on the network: not for the event loop."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"

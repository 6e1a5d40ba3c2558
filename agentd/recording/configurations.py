"""A configuration under a name made of its content, which decisions carry: so that they can be made again later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from msgspec.structs import replace

from agentd.core.model import FleetConfig, PoolConfig, PoolName
from agentd.recording import codec

FINGERPRINT_CHARS = 16


def hidden(config: FleetConfig, salt: bytes = b"") -> FleetConfig:
    """`config` without the environments of its agents, which may be secret.

    With a `salt` that nobody else knows something stands for each: whether it has changed shows, and nothing else.
    """
    return replace(config, pools=hidden_in(config.pools, salt))


def hidden_in(pools: Mapping[PoolName, PoolConfig], salt: bytes) -> dict[PoolName, PoolConfig]:
    """The same of some pools."""

    def stand_in(env: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        digest = hashlib.blake2b(repr(env).encode("utf-8", "backslashreplace"), key=salt, digest_size=8)
        return (("hidden", digest.hexdigest()),) if env and salt else ()

    return {name: replace(pool, env=stand_in(pool.env)) for name, pool in pools.items()}


def named(config: FleetConfig) -> tuple[FleetConfig, str]:
    """`config` with its fingerprint, and its text. Without what may be secret: that is in neither."""
    text = codec.text(codec.encode(FleetConfig, hidden(config)))
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_CHARS]
    return replace(config, fingerprint=fingerprint), text


def read(text: str) -> FleetConfig:
    """The configuration that `text` is of.

    Raises:
        CodecError: it is of another form.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise codec.CodecError(f"cannot read a configuration: {error}") from error
    return codec.decode(FleetConfig, value)

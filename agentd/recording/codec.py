"""Messages and configurations as JSON values, and back: `decode(kind, encode(kind, value)) == value`.

The form follows from the types' annotations. A struct is an object of those fields that are not as by default, one
of several structs is `[name, object]`, enums and ids are what they are worth. What a reader does not know it
refuses; what is missing is as by default, so that a field that is new may be added.

Left out is what may be secret and no decision looks at (settings of collectors, environments in what is started), and
what follows from the rest (what a decision was made from). Who encodes a configuration hides the environments in it
first (`configurations.hidden`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, NewType, TypeVar, Union, get_args, get_origin
from zoneinfo import ZoneInfo

from msgspec import NODEFAULT, Struct
from msgspec.structs import FieldInfo, fields

from agentd.core import cron
from agentd.core.cron import Cron
from agentd.errors import AgentdError

T = TypeVar("T")

LEFT_OUT = frozenset(
    {
        ("InstanceSpec", "env"), ("CollectorConfig", "settings"), ("FleetConfig", "fingerprint"),
        ("Decision", "basis"), ("Decision", "configuration"),
    }
)  # fmt: skip
_PLAIN = (str, int, float, bool)


class CodecError(AgentdError):
    """A value that is not of the form that this agentd writes."""


class Coder(Struct, frozen=True):
    """How values of one type become JSON values, and the other way round."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def encode(kind: object, value: object) -> Any:
    """`value`, which is of the type `kind`, as a JSON value."""
    return coder(kind).encode(value)


def decode(kind: type[T], value: object) -> T:
    """What `encode` gave, or an earlier agentd's.

    Raises:
        CodecError: it is something else.
    """
    try:
        decoded: T = _coder(kind).decode(value)
    except CodecError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise CodecError(f"cannot read a {getattr(kind, '__name__', kind)}: {error}") from error
    return decoded


def text(value: object) -> str:
    """A JSON value on one line."""
    return json.dumps(value, separators=(",", ":"))


@cache
def coder(kind: Any) -> Coder:
    """The coder of the type `kind`.

    Raises:
        TypeError: it is of no type that messages are made of, which is a mistake in this program.
    """
    if isinstance(kind, NewType):
        return coder(kind.__supertype__)
    if kind in _PLAIN or kind is NoneType:
        return Coder(_same, _same)
    if kind is Cron:
        return Coder(lambda value: value.text, cron.parse)
    if kind is tzinfo:
        return Coder(_zone_name, lambda name: UTC if name == "UTC" else ZoneInfo(name))
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _union(get_args(kind))
    if origin is tuple:
        return _tuple(get_args(kind))
    if origin in (frozenset, set):
        of = coder(get_args(kind)[0])
        return Coder(lambda value: sorted(map(of.encode, value)), lambda value: origin(map(of.decode, value)))
    if origin is list:
        of = coder(get_args(kind)[0])
        return Coder(lambda value: list(map(of.encode, value)), lambda value: list(map(of.decode, value)))
    if origin in (Mapping, dict):
        return _mapping(*get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return Coder(lambda value: value.value, kind)
    if _is_struct(kind):
        return _object(kind)
    raise TypeError(f"no coder for {kind!r}")


def _coder(kind: Any) -> Coder:
    """For the checker of types, to which a class is not hashable."""
    return coder(kind)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _same(value: Any) -> Any:
    return value


def _zone_name(zone: tzinfo) -> str:
    return zone.key if isinstance(zone, ZoneInfo) else "UTC"


def _union(kinds: tuple[Any, ...]) -> Coder:
    """Of several structs the name says which it is; plain values say so themselves."""
    some = [kind for kind in kinds if kind is not NoneType]
    optional = len(some) < len(kinds)
    if len(some) == 1:
        only = coder(some[0])
    elif all(map(_is_struct, some)):
        only = _named({kind.__name__: kind for kind in some})
    elif all(kind in _PLAIN for kind in some):
        only = Coder(_same, _same)
    else:
        raise TypeError(f"no coder for one of {kinds}")
    if not optional:
        return only
    return Coder(
        lambda value: None if value is None else only.encode(value),
        lambda value: None if value is None else only.decode(value),
    )


def _named(kinds: dict[str, Any]) -> Coder:
    def encoded(value: Any) -> Any:
        name = type(value).__name__
        return [name, coder(kinds[name]).encode(value)]

    def decoded(value: Any) -> Any:
        name, fields_given = value
        if name not in kinds:
            raise CodecError(f"there is no {name!r}; known are {', '.join(sorted(kinds))}")
        return coder(kinds[name]).decode(fields_given)

    return Coder(encoded, decoded)


def _tuple(kinds: tuple[Any, ...]) -> Coder:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        of = coder(kinds[0])
        return Coder(lambda value: list(map(of.encode, value)), lambda value: tuple(map(of.decode, value)))
    each = [coder(kind) for kind in kinds]
    return Coder(
        lambda value: [one.encode(item) for one, item in zip(each, value, strict=True)],
        lambda value: tuple(one.decode(item) for one, item in zip(each, value, strict=True)),
    )


def _mapping(key: Any, kind: Any) -> Coder:
    of, name = coder(kind), int if key is int else str
    return Coder(
        lambda value: {str(key): of.encode(item) for key, item in value.items()},
        lambda value: {name(key): of.decode(item) for key, item in value.items()},
    )


def _object(kind: Any) -> Coder:
    """The fields that are not as by default. A number of another type is not the default: texts show which it is."""
    parts: dict[str, tuple[Any, type, Coder]] = {}
    for each in fields(kind):
        if (kind.__name__, each.name) not in LEFT_OUT:
            default = _default(each)
            parts[each.name] = default, type(default), coder(each.type)

    def encoded(value: Any) -> dict[str, Any]:
        found = {}
        for name, (default, plain, part) in parts.items():
            item = getattr(value, name)
            if item is not default and (type(item) is not plain or item != default):
                found[name] = part.encode(item)
        return found

    def decoded(value: Any) -> Any:
        unknown = value.keys() - parts.keys()
        if unknown:
            raise CodecError(f"a {kind.__name__} has no {sorted(unknown)[0]}: a newer agentd wrote it")
        return kind(**{name: parts[name][2].decode(item) for name, item in value.items()})

    return Coder(encoded, decoded)


def _default(field: FieldInfo) -> Any:
    """NODEFAULT where there is none."""
    return field.default if field.default_factory is NODEFAULT else field.default_factory()

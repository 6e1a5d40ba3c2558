"""Readers: what the scalar values of a configuration may be, and the words in which they are refused.

Owns how a number, a size, a switch and a choice are written. Each reader takes a `nodes.Value` and returns what it
means, or raises the exception that the value itself makes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from typing import TypeVar

import yaml

from agentd.config.nodes import Value, nearest

T = TypeVar("T")
U = TypeVar("U")

# Stricter than YAML 1.1, in which 0600 is 384 and 1:30 is 90; and JSON's 1e3, which YAML 1.1 takes for text.
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*(?:_[0-9]+)*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?i:[-+]?\.?(?:nan|inf(?:inity)?))\Z")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:([KMGT])(?:iB)?)?\Z")
_SIZE_FACTOR = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE_BYTES_MAX = 1 << 50
_UNFIT = re.compile(r"[\x00\ud800-\udfff]")  # what no argument, environment variable or path can hold


def number(low: float, high: float, unit: str = "") -> Callable[[Value], float]:
    """A finite number in [low, high]; `unit` is for the error text."""
    bounds = f"from {low:.12g} to {high:.12g}{f' ({unit})' if unit else ''}"

    def reader(value: Value) -> float:
        text = value.plain
        if text is None or not _NUMBER.match(text):
            finite = "finite " if text is not None and _NOT_FINITE.match(text) else ""
            raise value.must(f"a {finite}number {bounds}")
        found = float(text)
        if not low <= found <= high:
            raise value.must(f"a number {bounds}")
        return found

    return reader


def seconds(low: float, high: float) -> Callable[[Value], float]:
    return number(low, high, "seconds")


def whole(low: int, high: int) -> Callable[[Value], int]:
    """A whole number in [low, high]; 5.0 is one."""

    def reader(value: Value) -> int:
        text = value.plain
        found = float(text) if text is not None and _NUMBER.match(text) else math.nan
        if not (low <= found <= high and found.is_integer()):
            raise value.must(f"a whole number from {low} to {high}")
        return int(found)

    return reader


def flag(value: Value) -> bool:
    found = value.switch
    if found is None:
        raise value.must("true or false")
    return found


def text(value: Value) -> str:
    """Text that is not empty. A bare number or word counts as text, as it is written."""
    if not isinstance(value.node, yaml.ScalarNode) or value.is_null or not value.node.value:
        raise value.must("text")
    if _UNFIT.search(value.node.value):
        raise value.bad("must not contain NUL characters or halves of characters")
    return str(value.node.value)


def scalar_text(value: Value) -> str:
    """Any scalar as it is written; nothing written is the empty text."""
    return "" if value.is_null or (isinstance(value.node, yaml.ScalarNode) and not value.node.value) else text(value)


def choice(known: Collection[str]) -> Callable[[Value], str]:
    def reader(value: Value) -> str:
        found = value.node.value if isinstance(value.node, yaml.ScalarNode) else ""
        if found in known:
            return str(found)
        if len(known) == 1:
            raise value.must(f"{next(iter(known))}, the only one that this version knows")
        near = nearest(found, known)
        raise value.must(f"one of {', '.join(known)}{f' (did you mean {near}?)' if near else ''}")

    return reader


def size(value: Value) -> int:
    """A size in bytes: 1048576, 512M, 1.5G; K, M, G and T are powers of 1024, as in systemd."""
    found = _SIZE.match(value.node.value) if isinstance(value.node, yaml.ScalarNode) else None
    total = float(found[1]) * _SIZE_FACTOR[found[2] or ""] if found else math.inf
    if not total <= SIZE_BYTES_MAX:
        raise value.must("a size like 512M, 2G or a number of bytes")
    return int(total)


def optional(reader: Callable[[Value], T]) -> Callable[[Value], T | None]:
    """`reader`, or None where nothing is written."""
    return lambda value: None if value.is_null else reader(value)


def or_off(reader: Callable[[Value], T]) -> Callable[[Value], T | None]:
    """`reader`, or None where the value is off, false or nothing."""
    return or_else(None, reader)


def or_else(off: U, reader: Callable[[Value], T]) -> Callable[[Value], T | U]:
    """`reader`, or `off` where the value is off, false or nothing."""
    return lambda value: off if value.is_null or value.switch is False else reader(value)

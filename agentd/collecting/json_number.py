"""Numbers in JSON: a document from bytes, and the value that a JSON pointer (RFC 6901) names. Pure."""

from __future__ import annotations

import json
import math
import re

from agentd.collecting.reading import ReadFailed, one_line

_INDEX = re.compile(r"(?:0|[1-9][0-9]*)\Z")
_ESCAPE = re.compile(r"~(?![01])")
_SHOWN_MAX = 40


def pointer_wrong(text: str) -> str:
    """The check of a JSON pointer."""
    if text and not text.startswith("/"):
        return "must be a JSON pointer, which begins with / (or is empty, for the whole document)"
    return "must be a JSON pointer, in which ~ is written ~0" if _ESCAPE.search(text) else ""


def document(body: bytes) -> object:
    """
    Raises:
        ReadFailed: it is no JSON.
    """
    try:
        # Exact JSON: Python would take NaN and Infinity, too.
        return json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        cause = "it is nested too deeply" if isinstance(error, RecursionError) else one_line(str(error))
        raise ReadFailed(f"the answer is not JSON: {cause}") from error


def at(value: object, pointer: str) -> object:
    """What `pointer` names in `value`.

    Raises:
        ReadFailed: nothing is there; says how far the way goes.
    """
    way = ""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _INDEX.match(key) and len(key) < 10 and int(key) < len(value):
            value = value[int(key)]
        else:
            where = f"at {way}" if way else "the answer"
            raise ReadFailed(f"nothing is at {pointer}: {where} is {_shown(value)}, which has no {key!r}")
        way += f"/{token}"
    return value


def number(value: object, name: str) -> float:
    """
    Raises:
        ReadFailed: it is not a finite number; `name` says what it is.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReadFailed(f"{name} is {_shown(value)}, not a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ReadFailed(f"{name} is not a finite number")
    return found


def _refuse(word: str) -> object:
    raise ValueError(f"{word} is not JSON")


def _shown(value: object) -> str:
    """A value in a few words."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."

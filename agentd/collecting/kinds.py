"""The kinds of collectors there are. Another one is a file beside this one, and a line in `KINDS`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from agentd.collecting import command, http_json, prometheus, redis_list, redis_stream
from agentd.collecting.reading import Kind, Reader, ReadFailed
from agentd.collecting.settings import Given, Settings

KINDS: Mapping[str, Kind] = {
    kind.name: kind for kind in (redis_list.KIND, redis_stream.KIND, prometheus.KIND, http_json.KIND, command.KIND)
}


def missing(kind: Kind) -> str:
    """What to do about the library that `kind` needs; "" where it is there."""
    if not kind.module or find_spec(kind.module) is not None:
        return ""
    return f"needs {kind.module}, which is not installed: pip install 'agentd[{kind.extra}]'"


def open_reader(kind: str, settings: Settings) -> Reader:
    """The reader of a collector. Loads its library, which may take 0.2 s: call it in a thread.

    Raises:
        ReadFailed: the library is not installed.
    """
    known = KINDS[kind]
    if text := missing(known):
        raise ReadFailed(text)
    return known.open(Given(settings))

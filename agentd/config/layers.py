"""Drop-ins: the files in FILE.d that lie over a configuration FILE, as one tree of nodes.

/etc/agentd/agentd.yaml.d/50-optimize.yaml changes what /etc/agentd/agentd.yaml says, and leaves it as it is. All files
there that end in .yaml and do not begin with a dot are read in the order of their names, each over what those before
it gave: a mapping is merged key by key, anything else takes the place of what was there. A key with nothing behind it
takes a value or a list away, so that the default holds again.

Owns the rule. It never reads what is in a file; every node keeps the file and the place it came from.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from agentd.config.nodes import Problems, Value, entries
from agentd.errors import ConfigError, Problem

SUFFIX = ".yaml"
FILES_MAX = 100


def directory(file: Path) -> Path:
    """Where the drop-ins of `file` are, which has a name."""
    return file.with_name(f"{file.name}.d")


def dropins(file: Path) -> tuple[Path, ...]:
    """The drop-ins of `file` that exist, in the order in which they count.

    Raises:
        ConfigError: the directory cannot be read, or holds more than FILES_MAX of them.
    """
    if not file.name:
        return ()  # the working directory, or /: no file, which reading it tells
    place = directory(file)
    try:
        names = sorted(path.name for path in place.iterdir() if _counts(path.name))
    except FileNotFoundError:
        return ()
    except OSError as error:
        cause = f"cannot read the drop-ins: {(error.strerror or str(error)).lower()}"
        raise ConfigError([Problem(str(place), 1, 1, cause)]) from error
    if len(names) > FILES_MAX:
        cause = f"cannot read the drop-ins: there are {len(names)}, more than {FILES_MAX}"
        raise ConfigError([Problem(str(place), 1, 1, cause)])
    return tuple(place / name for name in names)


def merged(base: yaml.Node, over: yaml.Node, problems: Problems) -> yaml.Node:
    """`base` with what `over`, the root of a drop-in, says differently. Neither is changed."""
    if not isinstance(over, yaml.MappingNode):
        if not Value("", over, problems).is_null:
            problems.error(over, "a drop-in must be a mapping of sections")
        return base
    return _merged(base, over, problems, frozenset())


def _counts(name: str) -> bool:
    return name.endswith(SUFFIX) and not name.startswith(".")


def _merged(base: yaml.Node, over: yaml.Node, problems: Problems, within: frozenset[int]) -> yaml.Node:
    """`within`: the mappings of the drop-in around `over`, by identity."""
    if not (isinstance(base, yaml.MappingNode) and isinstance(over, yaml.MappingNode)):
        return over
    if id(over) in within:
        problems.error(over, "a mapping must not stand in itself")
        return base
    found = entries(base, problems)
    for name, (key, value) in entries(over, problems).items():
        if name not in found:
            found[name] = (key, value)
            continue
        before_key, before = found[name]
        if isinstance(before, yaml.MappingNode) and isinstance(value, yaml.MappingNode):
            found[name] = (before_key, _merged(before, value, problems, within | {id(over)}))
        elif not isinstance(before, yaml.MappingNode) and Value("", value, problems).is_null:
            del found[name]
        else:
            found[name] = (key, value)
    return yaml.MappingNode(base.tag, list(found.values()), base.start_mark, base.end_mark, base.flow_style)

"""YAML with positions: a text becomes nodes, and nodes become typed values or problems that say where.

Owns duplicate and unknown keys, YAML's merge key, and how problems are worded and ordered. Knows no key of agentd's
configuration; never reads a file.

A reader is a function from `Value` to what it means; it raises the exception that `Value.must` or `Value.bad`
makes (`config.readers` has those for scalars). `Section.read` catches that, notes the problem and goes on with the
default, so that one pass finds all.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TypeVar

import yaml
from msgspec import Struct

from agentd.errors import ConfigError, Problem

T = TypeVar("T")

_TAG = "tag:yaml.org,2002:"
# What YAML itself calls values. Another tag, `!secret` for example, asks some program to put something in its place.
_TAGS = frozenset(
    _TAG + name for name in ("bool", "float", "int", "map", "merge", "null", "seq", "str", "timestamp", "value")
)
_SHOWN_MAX = 60
_ON = ("true", "yes", "on")
_OFF = ("false", "no", "off")


def compose(text: str, file: str) -> yaml.Node | None:
    """The root node of the one YAML document in `text`; None where it holds nothing.

    Raises:
        ConfigError: it is no YAML; one problem at the place where reading ended.
    """
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        loader.name = file  # every node's mark carries it
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
        cause = f"the character U+{int(error.character):04X} is not allowed"
        raise ConfigError([Problem(file, line, column, f"cannot read YAML: {cause}")]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        cause = ", ".join(part for part in (error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ConfigError([Problem(file, line, column, f"cannot read YAML: {cause}")]) from error
    except (RecursionError, ValueError, OverflowError) as error:
        # PyYAML lets some of its own through: an escape beyond Unicode is an error of chr().
        mark = loader.get_mark() if loader else None
        cause = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise ConfigError([Problem(file, line, column, f"cannot read YAML: {cause}")]) from error


class Problems:
    """Everything wrong or doubtful in one file and its drop-ins, collected while they are read.

    Nodes are remembered by identity: they must outlive this object's use, which they do as parts of one tree.
    A node knows its file; `file` is for what is in none. `homes` says where a key belongs that turns up in a section
    that does not know it.
    """

    def __init__(self, file: str, homes: Mapping[str, str]) -> None:
        self.file = file
        self.homes = homes
        self._errors: dict[Problem, None] = {}
        self._warnings: dict[Problem, None] = {}
        self._failed: set[int] = set()

    @property
    def count(self) -> int:
        return len(self._errors)

    def error(self, node: yaml.Node, text: str) -> None:
        self._errors[self._problem(node, text)] = None
        self.fail(node)

    def fail(self, node: yaml.Node) -> None:
        """Something at or inside this node is wrong, and noted."""
        self._failed.add(id(node))

    def warn(self, node: yaml.Node, text: str) -> None:
        self._warnings[self._problem(node, text)] = None

    def failed(self, node: yaml.Node) -> bool:
        """Whether an error was noted at or inside this node; what depends on it need not be checked."""
        return id(node) in self._failed

    def warnings(self) -> tuple[str, ...]:
        return tuple(str(problem) for problem in _in_file_order(self._warnings))

    def raise_errors(self) -> None:
        """
        Raises:
            ConfigError: there were errors; it carries all, in the order of the file.
        """
        if self._errors:
            raise ConfigError(_in_file_order(self._errors))

    def _problem(self, node: yaml.Node, text: str) -> Problem:
        return Problem(node.start_mark.name or self.file, line_of(node), node.start_mark.column + 1, text)


class Rejected(Exception):
    """A reader's answer to a value it cannot take. Never leaves this package."""

    def __init__(self, node: yaml.Node, text: str) -> None:
        self.node = node
        self.text = text
        super().__init__(text)


class Value(Struct, frozen=True):
    """A node, the dotted name under which people know it, and where its problems go."""

    name: str
    node: yaml.Node
    problems: Problems

    @property
    def is_null(self) -> bool:
        return self.node.tag == _TAG + "null"

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    @property
    def is_list(self) -> bool:
        return isinstance(self.node, yaml.SequenceNode)

    @property
    def plain(self) -> str | None:
        """The text of an unquoted scalar; None for anything else."""
        return self.node.value if isinstance(self.node, yaml.ScalarNode) and self.node.style is None else None

    @property
    def switch(self) -> bool | None:
        """true/yes/on and false/no/off; None for anything else."""
        word = (self.plain or "").lower()
        return True if word in _ON else False if word in _OFF else None

    def bad(self, text: str) -> Rejected:
        return Rejected(self.node, f"{self.name} {text}")

    def must(self, what: str) -> Rejected:
        """The rejection that says what was expected and what is there."""
        return self.bad(f"has no value: it must be {what}" if self.is_null else f"must be {what}, not {self.shown()}")

    def shown(self) -> str:
        """The value as an error names it."""
        if not isinstance(self.node, yaml.ScalarNode):
            empty = "" if self.node.value else "n empty"
            return f"a{empty} list" if self.is_list else f"a{empty} mapping"
        return shown_word(self.node.value) if self.node.style is None else repr(_shortened(self.node.value))

    def attempt(self, default: T, reader: Callable[[Value], T]) -> T:
        """What `reader` makes of it, or `default` with the problem noted."""
        before = self.problems.count
        try:
            self.refuse_tag()
            return reader(self)
        except Rejected as rejected:
            self.problems.error(rejected.node, rejected.text)
            return default
        finally:
            if self.problems.count > before:
                self.problems.fail(self.node)

    def refuse_tag(self) -> None:
        """
        Raises:
            Rejected: the value is not what is written, but what some other program makes of it.
        """
        if self.node.tag not in _TAGS:
            tag = shown_word(self.node.tag.replace(_TAG, "!!"))
            raise self.bad(f"has the tag {tag}, which agentd does not follow: write the value itself")

    def items(self, what: str) -> tuple[Value, ...]:
        """The elements of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.must(what)
        found = tuple(
            Value(f"{self.name}[{index}]", node, self.problems) for index, node in enumerate(self.node.value, start=1)
        )
        for one in found:
            one.refuse_tag()
        return found

    def section(self, known: Collection[str] | None, what: str = "a mapping") -> Section:
        """The mapping it is; empty where nothing is written. `known` None: any key is fine."""
        if not self.is_mapping and not self.is_null:
            raise self.must(what)
        section = Section(self.name, self.problems)
        for key, value in entries(self.node, self.problems).values():
            section.add(key, value)
        if known is not None:
            section.refuse_unknown(known)
        return section


class Section:
    """The entries of one mapping, by key, in the order of the file."""

    def __init__(self, name: str, problems: Problems) -> None:
        self.name = name
        self.problems = problems
        self._values: dict[str, Value] = {}
        self._keys: dict[str, yaml.Node] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, key: yaml.ScalarNode, node: yaml.Node) -> None:
        word = shown_word(key.value)
        name = f"{self.name}.{word}" if self.name else word
        self._values[key.value] = Value(name, node, self.problems)
        self._keys[key.value] = key

    def adopt(self, other: Section, key: str) -> None:
        """Take `key` over from another section, with the name it has there."""
        self._values[key] = other._values[key]
        self._keys[key] = other._keys[key]

    def get(self, key: str) -> Value | None:
        return self._values.get(key)

    def key_node(self, key: str) -> yaml.Node:
        return self._keys[key]

    def read(self, key: str, default: T, reader: Callable[[Value], T]) -> T:
        """What `reader` makes of the value of `key`; `default` where it is absent or wrong."""
        value = self._values.get(key)
        return default if value is None else value.attempt(default, reader)

    def subsection(self, key: str, known: Collection[str] | None) -> Section:
        """The mapping under `key`; an empty one where it is absent or wrong."""
        name = f"{self.name}.{key}" if self.name else key
        return self.read(key, Section(name, self.problems), lambda value: value.section(known))

    def place(self, *keys: str) -> yaml.Node | None:
        """The node of the first of `keys` that is written here."""
        return next((self._values[key].node for key in keys if key in self._values), None)

    def sound(self, *keys: str) -> bool:
        """Whether none of `keys` is written wrongly here."""
        return not any(key in self._values and self.problems.failed(self._values[key].node) for key in keys)

    def refuse_unknown(self, known: Collection[str]) -> None:
        for key, value in self._values.items():
            if key in known:
                continue
            home, near = self.problems.homes.get(key), nearest(key, known)
            if home:
                hint = f"it belongs {home}"
            elif near:
                hint = f"did you mean {near}?"
            else:
                hint = f"known here: {', '.join(known)}"
            self.problems.error(self._keys[key], f"unknown key {value.name}: {hint}")


def nearest(word: str, known: Collection[str], cutoff: float = 0.6) -> str | None:
    """The most similar of `known`, None where nothing is at least `cutoff` (0..1) alike."""
    found = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=cutoff)
    return found[0] if found else None


def shown_word(text: str) -> str:
    """A word of the file as an error may print it: short, and without control characters."""
    short = _shortened(text)
    return short if short.isprintable() and short else repr(short)


def line_of(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def line_in(node: yaml.Node, beside: yaml.Node) -> str:
    """Where `node` is, for an error that stands at `beside`: with its file where that is another one."""
    line = f"line {line_of(node)}"
    return line if node.start_mark.name == beside.start_mark.name else f"{line} of {node.start_mark.name}"


def is_later(one: yaml.Node, other: yaml.Node) -> bool:
    """Whether `one` is read after `other`: a drop-in after the file, drop-ins in the order of their names."""
    mine, theirs = one.start_mark, other.start_mark
    return (mine.name, mine.index) > (theirs.name, theirs.index)


Entries = dict[str, tuple[yaml.ScalarNode, yaml.Node]]


def entries(node: yaml.Node, problems: Problems, known: dict[int, Entries | None] | None = None) -> Entries:
    """The entries of a mapping, merge keys resolved: what is written beside `<<` wins over what it brings.

    `known` holds the mappings merged so far (None: under way), so that each is read once, however often it is named.
    """
    known = {} if known is None else known
    known[id(node)] = None
    merged: Entries = {}
    own: Entries = {}
    pairs: list[tuple[yaml.Node, yaml.Node]] = node.value if isinstance(node, yaml.MappingNode) else []
    for key, value in pairs:
        if not isinstance(key, yaml.ScalarNode):
            problems.error(key, "a key must be a word, not a list or a mapping")
        elif key.tag == _TAG + "merge":
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    problems.error(key, "<< must bring in a mapping")
                    continue
                found = known[id(source)] if id(source) in known else entries(source, problems, known)
                if found is None:
                    problems.error(key, "<< must not bring in the mapping that it stands in")
                merged = (found or {}) | merged
        elif key.value in own:
            problems.error(
                key, f"duplicate key {shown_word(key.value)}: it is also on line {line_of(own[key.value][0])}"
            )
        else:
            own[key.value] = (key, value)
    known[id(node)] = merged | own
    return merged | own


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "..."


def _in_file_order(problems: Collection[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column))

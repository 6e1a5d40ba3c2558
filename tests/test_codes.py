"""Every code that a decision may carry is explained in docs/explain.md, and nothing else is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).parent.parent / "agentd" / "core"
PAGE = Path(__file__).parent.parent / "docs" / "explain.md"
# What makes a reason or a limit, with the code first.
MAKERS = {"Reason", "Limit", "abstains"}
# What stands in for the parts of a code that is put together.
PARTS = {
    "which": ("up", "down"),
    "way": ("up", "down"),
    "direction": ("up", "down"),
    "window": ("hour", "day", "month"),
    "name": ("memory", "io"),
}


def codes() -> dict[str, set[str]]:
    """All codes in the core, each with the modules that use it."""
    found: dict[str, set[str]] = {}
    for path in sorted(CORE.glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for code in _of_function(function, path.name):
                    found.setdefault(code, set()).add(path.name)
    return found


def _of_function(function: ast.FunctionDef, where: str) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKERS and node.args:
            yield from _texts(node.args[0], function, where)


def _texts(node: ast.expr, function: ast.FunctionDef, where: str) -> Iterator[str]:
    """The texts that `node` may stand for: a literal, a choice of them, one put together, or a name for these."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body, function, where)
            yield from _texts(orelse, function, where)
        case ast.JoinedStr(values=values):
            yield from _joined(values, where)
        case ast.Name(id=name):
            given = [
                assign.value for assign in ast.walk(function)
                if isinstance(assign, ast.Assign) and name in [getattr(target, "id", "") for target in assign.targets]
            ]  # fmt: skip
            own = name in [argument.arg for argument in function.args.args]
            assert given or own, f"{where}: nobody can see what code {name} is"
            for value in given:
                yield from _texts(value, function, where)
        case ast.Attribute(attr="code"):
            return  # handed on: it is counted where it was made
        case _:
            raise AssertionError(f"{where}:{node.lineno}: nobody can see what code this is")


def _joined(values: list[ast.expr], where: str) -> Iterator[str]:
    texts = [""]
    for value in values:
        if isinstance(value, ast.Constant):
            more: tuple[str, ...] = (str(value.value),)
        else:
            assert isinstance(value, ast.FormattedValue) and isinstance(value.value, ast.Name), where
            more = PARTS[value.value.id]
        texts = [text + part for text in texts for part in more]
    yield from texts


def explained() -> list[str]:
    """The codes in the tables of the page, in their order."""
    cells = re.findall(r"(?m)^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", PAGE.read_text())
    return [code for cell in cells for code in re.findall(r"[a-z_]+", cell)]


def test_the_walk_sees_codes_of_every_form() -> None:
    found = codes()
    assert {"high_load", "max_agents", "up_cooldown", "host_io_pressure", "above_target"} <= found.keys()


@pytest.mark.parametrize("code", sorted(codes()))
def test_every_code_is_explained(code: str) -> None:
    assert code in explained(), f"docs/explain.md does not say what {code} means ({', '.join(sorted(codes()[code]))})"


def test_nothing_is_explained_twice_or_without_being_used() -> None:
    page = explained()
    assert sorted(set(page)) == sorted(page)
    assert set(page) <= codes().keys()

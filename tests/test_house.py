"""The rules of the house, held by a walk over the syntax trees: who may import whom, and how large things grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "agentd"
LINES_MAX = 460
LINES_MAX_OF = {"core/model.py": 570, "core/messages.py": 530}  # nouns alone: long, and not two things
FUNCTION_LINES_MAX = 60

NOUNS = (
    *("agentd.core.model", "agentd.core.rules", "agentd.core.effects", "agentd.core.views", "agentd.core.messages"),
    *("agentd.core.rates", "agentd.core.scalability", "agentd.errors"),
)
AROUND = (*NOUNS, "agentd.clock", "agentd.log")
# Nouns again, of what shows where work goes.
ENDPOINTS = ("agentd.core.balancer", "agentd.core.directory")


@dataclass(frozen=True)
class Part:
    """What the modules whose name begins with `prefix` may import besides each other and the standard library."""

    prefix: str
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()


# Its Structs are agentd's values (docs/decisions/0019); pure, and quick to load, make and compare.
STRUCTS = ("msgspec",)
# What the core has of it: no forms and no checks.
OF_STRUCTS = {"Struct", "field", "NODEFAULT", "replace", "asdict", "astuple", "fields", "to_builtins"}
LIGHT = ("agentd.sdk", "agentd.sample", "agentd.launch", "agentd.limits")
# What is started for each agent and each command makes few values: dataclasses do.
DATACLASSES = ("agentd.sdk", "agentd.sample", "agentd.launch", "agentd.agentctl")

PARTS = (
    Part("agentd.core"),
    Part("agentd.errors", ("agentd.core.model",)),
    Part("agentd.clock"),
    Part(
        "agentd.config",
        (
            *("agentd.collecting", "agentd.core.model", "agentd.core.rules", "agentd.core.cron", "agentd.core.rates"),
            *("agentd.core.experts", "agentd.errors"),
        ),
        ("yaml",),
    ),
    Part("agentd.units", ("agentd.core.model",)),
    Part("agentd.drivers", (*AROUND, "agentd.units", "agentd.cgroups", "agentd.limits"), ("dbus_fast",)),
    Part("agentd.collectors", (*AROUND, "agentd.procfs", "agentd.cgroups", "agentd.units"), ("psutil",)),
    Part("agentd.collecting", ("agentd.core.rules", "agentd.errors"), ("httpx", "redis")),
    Part("agentd.procfs"),
    Part("agentd.cgroups", ("agentd.procfs",)),
    Part("agentd.probes", AROUND, ("grpc", "grpc_health")),
    Part("agentd.ports", AROUND, ("psutil",)),
    Part("agentd.store", AROUND),
    Part(
        "agentd.recording",
        (*AROUND, "agentd.core", "agentd.sim.replay", "agentd.store_configurations", "agentd.store_schema"),
    ),
    Part("agentd.logfiles", (*AROUND, "agentd.units")),
    Part("agentd.statedir", ("agentd.errors",)),
    Part("agentd.log", ("agentd.core.model", "agentd.core.messages", "agentd.journal", "agentd.catalog")),
    Part("agentd.catalog", ("agentd.core.messages",)),
    Part("agentd.journal"),
    Part(
        "agentd.runtime",
        (*AROUND, "agentd.core", "agentd.collecting", "agentd.drivers", "agentd.store", "agentd.publisher"),
    ),
    Part("agentd.about"),
    Part("agentd.activation", ("agentd.errors",)),
    Part("agentd.publisher", (*AROUND, "agentd.store")),
    Part("agentd.discovery", (*AROUND, *ENDPOINTS)),
    Part(
        "agentd.rpc",
        (
            *(*NOUNS, *ENDPOINTS, "agentd.about", "agentd.discovery", "agentd.log", "agentd.runtime"),
            *("agentd.units", "agentd.v1"),
        ),
        ("grpc", "grpc_health", "grpc_reflection", "google.protobuf", "google.rpc"),
    ),
    Part("agentd.web", (*NOUNS, "agentd.clock", "agentd.runtime"), ("starlette", "uvicorn")),
    Part("agentd.sdk", ("agentd.v1",), ("grpc", "google.protobuf", "google.rpc")),
    Part("agentd.launch"),
    Part("agentd.sample", ("agentd.sdk",), ("starlette", "uvicorn")),
    Part(
        "agentd.demo",
        (
            *("agentd.config", "agentd.core.model", "agentd.errors", "agentd.sdk.address", "agentd.statedir"),
            "agentd.traces",
        ),
        ("h11", "yaml"),
    ),
    Part(
        "agentd.agentctl",
        (
            *("agentd.sdk", "agentd.v1", "agentd.collecting", "agentd.config", "agentd.errors"),
            *("agentd.units", "agentd.cgroups", "agentd.dropins", "agentd.sim", "agentd.traces"),
            *("agentd.core.model", "agentd.core.rules", "agentd.store_metrics", "agentd.recording"),
        ),
        ("click", "grpc", "google", "psutil"),
    ),
    Part("agentd.traces"),
    Part(
        "agentd.sim",
        ("agentd.core", "agentd.config", "agentd.drivers.memory", "agentd.errors", "agentd.traces"),
        ("cairosvg",),
    ),
    Part("agentd.limits", ("agentd.activation", "agentd.errors", "agentd.units"), ("dbus_fast",)),
    Part("agentd.dropins", ("agentd.config", "agentd.core.model", "agentd.errors", "agentd.units")),
    Part("agentd.service", ("agentd.units",), ("sdnotify",)),
    Part("agentd.daemon", ("agentd",)),
    Part("agentd.__main__", ("agentd.daemon",)),
)
# What `agentctl` loads only inside the commands that need it: `status` is a cold process each time.
LATE = (
    *STRUCTS,
    *("agentd.collecting", "agentd.config", "agentd.errors", "agentd.recording", "agentd.sim", "agentd.traces"),
)
# The core is pure: what these give depends on their arguments alone.
PURE = {
    "__future__", "bisect", "collections", "datetime", "enum", "functools", "heapq", "itertools", "json", "math",
    "operator", "re", "statistics", "typing",
}  # fmt: skip
IMPURE_METHODS = {"now", "today", "utcnow"}  # of dates
IMPURE_CALLS = {"open", "print", "input", "eval", "exec", "hash", "id", "__import__"}

MODULES = sorted(path for path in ROOT.rglob("*.py") if "v1" not in path.relative_to(ROOT).parts)
CORE = [path for path in MODULES if path.is_relative_to(ROOT / "core")]


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def is_module(name: str) -> bool:
    place = ROOT.parent.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").exists()


def imported(nodes: Iterator[ast.AST]) -> Iterator[tuple[int, str]]:
    """The line and the full name of every import among `nodes`; of `from x import y` it is x.y where that may be."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, f"line {node.lineno}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield node.lineno, full if is_module(full) or node.module == "agentd" else node.module


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def part_of(name: str) -> Part:
    """`agentd.store_kept` and the like belong to `agentd.store`."""
    owners = [part for part in PARTS if within(name, (part.prefix,)) or name.startswith(f"{part.prefix}_")]
    assert owners, f"{name} belongs to no part: say in PARTS what it may import"
    return max(owners, key=lambda part: len(part.prefix))


@pytest.mark.parametrize("path", [path for path in MODULES if path != ROOT / "__init__.py"], ids=shown)
def test_a_module_imports_only_what_its_part_may(path: Path) -> None:
    part = part_of(module_name(path))
    for line, name in imported(ast.walk(tree(path))):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            continue
        if top == "agentd":
            allowed = name in ("agentd", "agentd.__version__") or within(name, part.ours) or owner(name) is part
            assert allowed, f"{shown(path)}:{line}: {part.prefix} may not import {name}"
        else:
            allowed = within(name, part.theirs) or (within(name, STRUCTS) and part.prefix not in LIGHT)
            assert allowed, f"{shown(path)}:{line}: {part.prefix} may not import {name}"


@pytest.mark.parametrize("path", [p for p in MODULES if not within(module_name(p), DATACLASSES)], ids=shown)
def test_values_are_structs(path: Path) -> None:
    for line, name in imported(ast.walk(tree(path))):
        assert name != "dataclasses", f"{shown(path)}:{line}: a Struct is up sooner (docs/decisions/0019)"


def owner(name: str) -> Part | None:
    return None if within(name, ("agentd.v1",)) else part_of(name)


@pytest.mark.parametrize("path", CORE, ids=shown)
def test_the_core_is_pure(path: Path) -> None:
    for line, name in imported(ast.walk(tree(path))):
        top = name.partition(".")[0]
        assert top in PURE or top in STRUCTS or name.startswith("agentd.core"), (
            f"{shown(path)}:{line}: {name} is not pure"
        )
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            of_structs = any(within(name, STRUCTS) for _, name in imported(iter((node,))))
            more = {alias.name for alias in node.names} - OF_STRUCTS
            assert not (of_structs and more), f"{shown(path)}:{node.lineno}: the core has no use for {sorted(more)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"{shown(path)}:{node.lineno}: {node.func.id}() in the core"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in IMPURE_METHODS, f"{shown(path)}:{node.lineno}: .{node.func.attr}() in the core"
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"{shown(path)}: async in the core"


def test_nobody_imports_the_daemon_but_its_entry() -> None:
    importers = {
        shown(path)
        for path in MODULES
        for _, name in imported(ast.walk(tree(path)))
        if within(name, ("agentd.daemon",))
    }
    assert importers == {"__main__.py"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(ROOT / "agentctl")], ids=shown)
def test_agentctl_loads_late_what_few_commands_need(path: Path) -> None:
    for line, name in imported(iter(tree(path).body)):
        assert not within(name, LATE), f"{shown(path)}:{line}: import {name} inside the command"


def test_what_agents_load_is_small() -> None:
    """An SDK process is paid for 500 times: nothing of ours comes along with the SDK but the stubs."""
    loaded, ahead = set[str](), {"agentd.sdk"}
    while ahead:
        name = ahead.pop()
        loaded.add(name)
        place = ROOT.parent.joinpath(*name.split("."))
        path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        found = {other for _, other in imported(ast.walk(tree(path))) if is_module(other) and "agentd" in other}
        ahead |= found - loaded
    assert loaded > {"agentd.sdk.agent"}
    assert all(within(name, ("agentd.sdk", "agentd.v1")) for name in loaded), loaded


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_a_module_says_what_it_is_for_and_stays_small(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(tree(path)), f"{shown(path)} does not say what it is for"
    lines = len(text.splitlines())
    assert lines <= LINES_MAX_OF.get(shown(path), LINES_MAX), f"{shown(path)}: {lines} lines; is it two things?"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            long = node.end_lineno - node.lineno + 1
            assert long <= FUNCTION_LINES_MAX, f"{shown(path)}:{node.lineno}: {node.name} has {long} lines"


def test_no_module_has_the_name_of_a_standard_one() -> None:
    names = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert names & (sys.stdlib_module_names - {"__main__"}) == set()


def test_every_part_of_the_table_is_there_or_to_come() -> None:
    missing = {part.prefix for part in PARTS if not is_module(part.prefix)}
    assert missing <= {"agentd.launch", "agentd.sim"}


def test_agents_start_before_what_serves_others_is_loaded() -> None:
    """It takes as long to load as many agents to start."""
    later = {"google.protobuf", "starlette", "uvicorn", "agentd.collecting.kinds"}
    code = f"import agentd.daemon, sys; print(*sorted({later} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

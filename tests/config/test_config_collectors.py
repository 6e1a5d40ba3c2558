"""The collectors of a pool: what the file says is what readers are told, and every mistake has its place."""

from __future__ import annotations

from functools import partial
from importlib import util
from importlib.machinery import ModuleSpec

import pytest

from agentd.collecting import kinds
from agentd.config import parse
from agentd.config.collectors import COLLECTORS_MAX
from agentd.core.model import PoolName
from agentd.core.rules import CollectorConfig
from agentd.errors import ConfigError

AT = "pools:\n  research:\n    collectors:\n      "


def collectors(text: str) -> tuple[CollectorConfig, ...]:
    return parse(AT + text, "f.yaml").fleet.pools[PoolName("research")].collectors


def problems(text: str) -> list[str]:
    """Each as `line:column: text`, lines counted from the one of the collector."""
    with pytest.raises(ConfigError) as caught:
        collectors(text)
    assert all("secret" not in problem.text for problem in caught.value.problems)
    return [f"{problem.line - 3}:{problem.column}: {problem.text}" for problem in caught.value.problems]


def test_a_collector_has_its_settings_in_the_order_of_its_kind() -> None:
    assert collectors("queue: {key: tasks, type: redis-list, url: 'redis://127.0.0.1/3'}") == (
        CollectorConfig("queue", "redis-list", settings=(("url", "redis://127.0.0.1/3"), ("key", "tasks"))),
    )


def test_lists_and_tables_are_flat() -> None:
    found = collectors(
        "a: {type: command, argv: [count, --all, 7, ''], every_sec: 30, timeout_sec: 20}\n"
        "      b: {type: http-json, url: 'http://h/', pointer: '', headers: {X-A: one, X-B: '${TWO}'}}"
    )
    assert found == (
        CollectorConfig("a", "command", 30, 20, (("argv", "count"), ("argv", "--all"), ("argv", "7"), ("argv", ""))),
        CollectorConfig(
            "b",
            "http-json",
            settings=(("url", "http://h/"), ("headers.X-A", "one"), ("headers.X-B", "${TWO}"), ("pointer", "")),
        ),
    )


def test_who_is_asked_often_has_no_longer_than_that() -> None:
    (collector,) = collectors("a: {type: command, argv: [count], every_sec: 2}")
    assert (collector.every_s, collector.timeout_s) == (2, 2)


def test_a_pool_has_none_unless_it_says_so() -> None:
    assert parse("pools: {research: {}}", "f.yaml").fleet.pools[PoolName("research")].collectors == ()
    assert parse("pools: {research: {collectors: {}}}", "f.yaml").fleet.pools[PoolName("research")].collectors == ()


REDIS = "type: redis-list, key: k"
URL = "pools.research.collectors.a.url"
ADDRESS = "redis://127.0.0.1:6379/0"
SECRET = "must not hold a user name or a password, which would be shown with it"

MISTAKES = [
    ("a: 5", "1:10: pools.research.collectors.a must be a mapping with a type, not 5"),
    ("a: {}", "1:10: pools.research.collectors.a has no type: it must have one of redis-list, redis-stream, "),
    ("a: {type: redis_list}", "1:17: pools.research.collectors.a.type must be one of redis-list, redis-stream, "),
    ("a: {type: redis-lists}", "http-json, command (did you mean redis-list?), not redis-lists"),
    ("a: {type: redis-list}", "1:10: pools.research.collectors.a has no url and no key: type redis-list needs them"),
    ("a: {type: command}", "1:10: pools.research.collectors.a has no argv: type command needs it"),
    (
        f"a: {{{REDIS}, ulr: x, url: '{ADDRESS}'}}",
        "1:37: unknown key pools.research.collectors.a.ulr: did you mean url?",
    ),
    (
        f"a: {{{REDIS}, every: 5, url: '{ADDRESS}'}}",
        "unknown key pools.research.collectors.a.every: did you mean every_sec?",
    ),
    (
        f"a: {{{REDIS}, group: g, url: '{ADDRESS}'}}",
        "unknown key pools.research.collectors.a.group: known here: type, ",
    ),
    (f"a: {{{REDIS}, url: ''}}", f"{URL} must be text, not ''"),
    (f"a: {{{REDIS}, url: 'http://h/'}}", f"1:42: {URL} must be an address like {ADDRESS}"),
    (f"a: {{{REDIS}, url: 'redis://'}}", f"{URL} must be an address like {ADDRESS}"),
    (f"a: {{{REDIS}, url: 'redis://h:70000'}}", f"{URL} must be an address like {ADDRESS}"),
    (f"a: {{{REDIS}, url: 'redis://[h'}}", f"{URL} must be an address like {ADDRESS}"),
    (f"a: {{{REDIS}, url: 'unix://'}}", f"{URL} must be an address like {ADDRESS}"),
    (f"a: {{{REDIS}, url: 'redis://:secret@h'}}", f"{URL} {SECRET}"),
    (f"a: {{{REDIS}, url: 'redis://h/0?password=secret'}}", f"{URL} {SECRET}"),
    (
        f"a: {{{REDIS}, url: '{ADDRESS}', password_env: A-B}}",
        "password_env must be the name of an environment variable",
    ),
    (f"a: {{{REDIS}, url: '{ADDRESS}', password_file: p}}", "password_file must be an absolute path"),
    (
        f"a: {{{REDIS}, url: '{ADDRESS}', password_env: A, password_file: /p}}",
        "1:102: pools.research.collectors.a.password_file does not go together with password_env",
    ),
    (f"a: {{{REDIS}, url: '{ADDRESS}', username: u}}", "a.username needs password_env or password_file"),
    ("a: {type: command, argv: count}", "1:32: pools.research.collectors.a.argv must be a list of words, not count"),
    ("a: {type: command, argv: []}", "1:32: pools.research.collectors.a.argv must be a list of at least one word"),
    ("a: {type: command, argv: ['']}", "1:33: pools.research.collectors.a.argv[1] must be text"),
    (
        "a: {type: command, argv: [x], every_sec: 0.1}",
        "every_sec must be a number from 0.5 to 86400 (seconds), not 0.1",
    ),
    (
        "a: {type: command, argv: [x], timeout_sec: 0}",
        "timeout_sec must be a number from 0.05 to 3600 (seconds), not 0",
    ),
    (
        "a: {type: command, argv: [x], timeout_sec: 11}",
        "1:50: pools.research.collectors.a.timeout_sec does not fit: timeout_sec 11 is greater than every_sec 10",
    ),
    ("a: {type: http-json, url: 'http://h', pointer: x}", "pointer must be a JSON pointer, which begins with /"),
    ("a: {type: http-json, url: 'http://u:secret@h', pointer: /x}", f"{URL} {SECRET}"),
    ("a: {type: prometheus, url: 'h:9090', query: up}", f"{URL} must be an address like http://127.0.0.1:9090"),
    ("a: {type: prometheus, url: 'http://h', query: ''}", "a.query must be text, not ''"),
    (
        "a: {type: prometheus, url: 'http://h', query: up, headers: {'A B': x}}",
        "1:67: pools.research.collectors.a.headers.A B cannot be the name of a header",
    ),
    ("a: {type: prometheus, url: 'http://h', query: up, headers: {Host: x}}", "headers.Host is set by agentd itself"),
    (
        "a: {type: prometheus, url: 'http://h', query: up, headers: {X-A: $secret}}",
        "1:72: pools.research.collectors.a.headers.X-A must name environment variables like ${NAME}",
    ),
    ("a: {type: prometheus, url: 'http://h', query: up, headers: {X-A: 'sécret'}}", "X-A must be printable ASCII"),
    ("A: {type: command, argv: [x]}", "1:7: collector name 'A' must be 1 to 32 lower-case letters, digits, _ and -"),
    ("load: {type: command, argv: [x]}", "1:7: collector name 'load' is taken: it is what agents report"),
    (f"{'a' * 33}: {{type: command, argv: [x]}}", "must be 1 to 32 lower-case letters"),
]


@pytest.mark.parametrize(("text", "problem"), MISTAKES, ids=[str(number) for number in range(len(MISTAKES))])
def test_a_mistake_is_told_with_its_place(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert problem in found


def test_all_mistakes_are_told_at_once() -> None:
    found = problems("a: {type: nothing}\n      b: {type: command, argv: [], x: 1}\n      C: {}")
    assert [line.split(":")[0] for line in found] == ["1", "2", "2", "3", "3"]


def test_there_is_a_bound_to_how_many_a_pool_has() -> None:
    many = "\n      ".join(f"c{number}: {{type: command, argv: [x]}}" for number in range(COLLECTORS_MAX + 1))
    assert "has 33 collectors: a pool may have 32" in problems(many)[0]


@pytest.mark.parametrize(
    ("text", "module", "extra"),
    [
        (f"a: {{{REDIS}, url: '{ADDRESS}'}}", "redis", "redis"),
        ("a: {type: prometheus, url: 'http://h', query: up}", "httpx", "http"),
    ],
)
def test_a_library_that_is_missing_is_told_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, text: str, module: str, extra: str
) -> None:
    monkeypatch.setattr(kinds, "find_spec", partial(without, module))
    (found,) = problems(text)
    assert found.startswith("1:17: pools.research.collectors.a.type ")
    assert found.endswith(f"needs {module}, which is not installed: pip install 'agentd[{extra}]'")


def without(missing: str, name: str) -> ModuleSpec | None:
    return None if name == missing else util.find_spec(name)

"""The reader of Prometheus against a real one: one number, or what is wrong with the query."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from server_fixtures import free_port

from agentd.collecting.json_number import at, number, pointer_wrong
from agentd.collecting.kinds import open_reader
from agentd.collecting.prometheus import result
from agentd.collecting.reading import ReadFailed


def read(url: str, query: str) -> float:
    async def once() -> float:
        reader = open_reader("prometheus", (("url", url), ("query", query)))
        try:
            return await reader.read()
        finally:
            await reader.close()

    return asyncio.run(once())


def refused(url: str, query: str) -> str:
    with pytest.raises(ReadFailed) as failed:
        read(url, query)
    return str(failed.value)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("vector(3.5)", 3.5),
        ("scalar(vector(7))", 7),
        ("-2", -2),
        ('up{job="itself"}', 1),
        ('sum(up{job="nobody"}) or vector(0)', 0),
        ("1e20", 1e20),
    ],
)
def test_one_number_is_read(prometheus_url: str, query: str, value: float) -> None:
    assert read(prometheus_url, query) == value
    assert read(f"{prometheus_url}/", query) == value


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ('up{job="nobody"}', "the query gives no sample; where none means 0, add: or vector(0)"),
        ("vector(1) / 0", "the query gives +Inf, which is not a finite number"),
        ("scalar(up{job='nobody'})", "the query gives NaN, which is not a finite number"),
        ("up[1m]", "the query gives a matrix, and must give one number"),
        ("'words'", "the query gives a string, and must give one number"),
    ],
)
def test_what_is_no_number_is_said(prometheus_url: str, query: str, text: str) -> None:
    assert refused(prometheus_url, query) == text


def test_several_samples_are_refused_with_what_makes_them_one(prometheus_url: str) -> None:
    text = refused(prometheus_url, '{__name__=~"prometheus_tsdb_head_series|up"}')
    assert text == "the query gives 2 samples, and must give one: sum(...) or max(...) makes it one"


def test_the_error_of_prometheus_is_told_in_its_words(prometheus_url: str) -> None:
    text = refused(prometheus_url, "sum(up")
    assert text.startswith("Prometheus refuses the query: ") and "parse error" in text


def test_a_path_that_is_not_prometheus_is_said(prometheus_url: str) -> None:
    assert refused(f"{prometheus_url}/elsewhere", "up") == "answered 404 Not Found"


def test_a_server_that_is_not_there_is_said() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert refused(url, "up") == f"cannot ask {url}: connection refused"


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"status": "success"},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}},
        {"status": "error"},
    ],
    ids=repr,
)
def test_an_answer_of_another_kind_is_said(answer: object) -> None:
    with pytest.raises(ReadFailed, match="not one of Prometheus"):
        result(200, answer)
    with pytest.raises(ReadFailed):
        result(503, answer)


def test_a_histogram_is_no_number() -> None:
    data = {"resultType": "vector", "result": [{"metric": {}, "histogram": [1, {}]}]}
    with pytest.raises(ReadFailed, match="gives a histogram"):
        result(200, {"status": "success", "data": data})


def is_finite_or_says_why(read: Callable[[], float]) -> bool:
    try:
        return math.isfinite(read())
    except ReadFailed as failed:
        return bool(str(failed))


def as_pointer(keys: Iterable[str]) -> str:
    return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
WORDS = st.sampled_from(["success", "error", "scalar", "vector", "matrix", "1", "NaN", "x"])


@given(
    status=st.sampled_from([200, 400, 503, 999]),
    answer=JSON
    | st.fixed_dictionaries({"status": WORDS}, optional={"error": JSON, "data": JSON})
    | st.fixed_dictionaries(
        {
            "status": st.just("success"),
            "data": st.fixed_dictionaries(
                {
                    "resultType": WORDS,
                    "result": JSON | st.lists(st.fixed_dictionaries({"value": st.tuples(JSON, WORDS).map(list)})),
                }
            ),
        }
    ),
)
def test_whatever_is_answered_gives_a_finite_number_or_a_reason(status: int, answer: object) -> None:
    assert is_finite_or_says_why(lambda: result(status, answer))


@given(document=JSON, pointer=st.lists(st.text(max_size=3) | st.sampled_from(["0", "1", "-"])).map(as_pointer))
def test_whatever_a_pointer_finds_gives_a_finite_number_or_a_reason(document: object, pointer: str) -> None:
    assert pointer_wrong(pointer) == ""
    assert is_finite_or_says_why(lambda: number(at(document, pointer), "it"))

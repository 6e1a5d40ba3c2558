"""`prometheus`: what a PromQL query gives at this moment, from Prometheus or what speaks its HTTP API."""

from __future__ import annotations

import math

from agentd.collecting import http_reading, json_number
from agentd.collecting.http_reading import HttpReader
from agentd.collecting.reading import Kind, ReadFailed, one_line
from agentd.collecting.settings import Given, Setting


class QueryReader(HttpReader):
    """GET `url`/api/v1/query. The query must give one number: a scalar, or a vector of one sample."""

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._query = given.text("query")

    async def read(self) -> float:
        status, body = await self.get(f"{self.url.rstrip('/')}/api/v1/query", {"query": self._query})
        try:
            answer = json_number.document(body)
        except ReadFailed:
            if status == 200:
                raise
            raise ReadFailed(http_reading.status_text(status)) from None
        return result(status, answer)


def result(status: int, answer: object) -> float:
    """The one number in an answer of the API.

    Raises:
        ReadFailed: there is none, or more than one; Prometheus's own words where it refused.
    """
    match answer:
        case {"status": "error", "error": str(text)}:
            raise ReadFailed(f"Prometheus refuses the query: {one_line(text)}")
        case {"status": "success", "data": {"resultType": "scalar", "result": [_, str(text)]}}:
            return _sample(text)
        case {"status": "success", "data": {"resultType": "vector", "result": list(samples)}}:
            return _only(samples)
        case {"status": "success", "data": {"resultType": str(kind)}}:
            raise ReadFailed(f"the query gives a {kind}, and must give one number")
    text = "the answer is not one of Prometheus" if status == 200 else http_reading.status_text(status)
    raise ReadFailed(text)


def _only(samples: list[object]) -> float:
    match samples:
        case []:
            raise ReadFailed("the query gives no sample; where none means 0, add: or vector(0)")
        case [{"value": [_, str(text)]}]:
            return _sample(text)
        case [{"histogram": _}]:
            raise ReadFailed("the query gives a histogram, and must give one number")
        case [_]:
            raise ReadFailed("the answer is not one of Prometheus")
    raise ReadFailed(f"the query gives {len(samples)} samples, and must give one: sum(...) or max(...) makes it one")


def _sample(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise ReadFailed(f"the query gives {one_line(text)}, which is not a finite number")
    return found


KIND = Kind(
    "prometheus",
    (http_reading.URL, Setting("query", required=True), http_reading.HEADERS),
    QueryReader,
    module=http_reading.MODULE,
    extra=http_reading.EXTRA,
)

"""`http-json`: a number in the JSON that a server answers GET with."""

from __future__ import annotations

from agentd.collecting import http_reading, json_number
from agentd.collecting.http_reading import HttpReader
from agentd.collecting.reading import Kind, ReadFailed
from agentd.collecting.settings import Given, Setting


class JsonReader(HttpReader):
    """GET `url`; the number is what `pointer` names in the answer."""

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._pointer = given.text("pointer")

    async def read(self) -> float:
        status, body = await self.get(self.url)
        if status != 200:
            raise ReadFailed(http_reading.status_text(status))
        found = json_number.at(json_number.document(body), self._pointer)
        return json_number.number(found, f"what is at {self._pointer}" if self._pointer else "the answer")


KIND = Kind(
    "http-json",
    (
        http_reading.URL,
        http_reading.HEADERS,
        Setting("pointer", required=True, wrong=json_number.pointer_wrong, empty=True),
    ),
    JsonReader,
    module=http_reading.MODULE,
    extra=http_reading.EXTRA,
)

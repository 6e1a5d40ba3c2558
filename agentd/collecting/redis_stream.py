"""`redis-stream`: how many entries a stream in Redis has, or how many a consumer group has still to finish."""

from __future__ import annotations

from agentd.collecting import redis_reading
from agentd.collecting.reading import Kind, ReadFailed
from agentd.collecting.redis_reading import RedisReader
from agentd.collecting.settings import Given, Setting


class StreamReader(RedisReader):
    """XLEN; with `group`, what of the stream its consumers have not read yet (lag), and read but not acknowledged
    (pending). A stream keeps what was acknowledged, so its length alone is no queue unless somebody trims it.
    """

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self._group = given.text("group")

    async def read(self) -> float:
        length = await self.ask("XLEN", self.key)
        if not isinstance(length, int):
            raise ReadFailed(f"Redis answers XLEN {self.key} with no number")
        return float(await self._unfinished(length)) if self._group else float(length)

    async def _unfinished(self, length: int) -> int:
        found = await self._find_group()
        pending, lag = found.get(b"pending"), found.get(b"lag")
        if not isinstance(pending, int):
            raise ReadFailed(f"Redis does not tell what the group {self._group} has pending")
        if b"lag" not in found:
            raise ReadFailed("Redis tells the lag of a group from version 7.0 on: leave group out, or use that")
        if isinstance(lag, int):
            return pending + min(max(lag, 0), length)  # entries that were trimmed unread are nobody's work
        if length == 0:
            return pending
        # After deletions behind the group's place, or for a group made at a place in the middle.
        raise ReadFailed(
            f"Redis does not know how far the group {self._group} has come; it will when the group has read all, "
            f"or after XGROUP SETID {self.key} {self._group} with ENTRIESREAD"
        )

    async def _find_group(self) -> dict[bytes, object]:
        try:
            answer = await self.ask("XINFO", "GROUPS", self.key)
        except ReadFailed as failed:
            if "no such key" not in str(failed):
                raise
            answer = []
        for entry in answer if isinstance(answer, list) else ():
            found = _pairs(entry)
            if found.get(b"name") == self._group.encode():
                return found
        make = f"XGROUP CREATE {self.key} {self._group} 0 MKSTREAM makes it"
        raise ReadFailed(f"the stream {self.key} has no group {self._group}: {make}")


def _pairs(entry: object) -> dict[bytes, object]:
    """An entry of XINFO, which is keys and values in turn, or a mapping where the library has made it one."""
    if isinstance(entry, dict):
        return {key.encode() if isinstance(key, str) else key: value for key, value in entry.items()}
    words = entry if isinstance(entry, list) else []
    return dict(zip(words[::2], words[1::2], strict=False))


KIND = Kind(
    "redis-stream",
    (*redis_reading.SETTINGS, Setting("group")),
    StreamReader,
    redis_reading.clash,
    redis_reading.MODULE,
    redis_reading.EXTRA,
)

"""`redis-list`: how many entries a list in Redis has, as a queue of tasks made with LPUSH and BRPOP."""

from __future__ import annotations

from agentd.collecting import redis_reading
from agentd.collecting.reading import Kind, ReadFailed
from agentd.collecting.redis_reading import RedisReader


class ListReader(RedisReader):
    """LLEN. A list that is not there is an empty one: Redis itself removes it with its last entry."""

    async def read(self) -> float:
        found = await self.ask("LLEN", self.key)
        if not isinstance(found, int):
            raise ReadFailed(f"Redis answers LLEN {self.key} with no number")
        return float(found)


KIND = Kind(
    "redis-list",
    redis_reading.SETTINGS,
    ListReader,
    redis_reading.clash,
    redis_reading.MODULE,
    redis_reading.EXTRA,
)

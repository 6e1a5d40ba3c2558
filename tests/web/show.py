"""Serves the fake fleet on a free port, with loads that swing, to look at the dashboard by eye.

python -m tests.web.show
"""

from __future__ import annotations

import asyncio
import math

from msgspec.structs import replace

from agentd.clock import SystemClock
from agentd.web.app import create_app
from agentd.web.server import serve
from tests.web.fake import WALL, FakeAbout, FakeRuntime, rich_pools


async def show() -> None:
    """Serve the fleet with loads that swing, until interrupted."""
    clock = SystemClock()
    runtime = FakeRuntime(clock=clock)
    shift = clock.wall() - WALL
    runtime.records = [replace(each, wall=each.wall + shift) for each in runtime.records]
    async with serve(create_app(runtime, FakeAbout(started=clock.now() - 3600.0)), "127.0.0.1", 0) as server:
        print(f"http://{server.address}", flush=True)
        while True:
            await asyncio.sleep(1.0)
            swing = 0.1 * math.sin(clock.now() / 7.0)
            pools = [
                replace(pool, load=None if pool.load is None else min(1.0, max(0.0, pool.load + swing)))
                for pool in rich_pools()
            ]
            runtime.shown = replace(runtime.shown, pools=tuple(pools))


if __name__ == "__main__":
    asyncio.run(show())

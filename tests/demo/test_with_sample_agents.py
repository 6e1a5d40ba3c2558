"""The load generator against real sample agents: one is killed in the middle, and no request is lost."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys

import pytest

from agentd.demo.client import request
from agentd.demo.load import Agent, LoadGenerator
from agentd.demo.report import Tally

pytestmark = pytest.mark.host


async def start(name: str) -> tuple[asyncio.subprocess.Process, Agent]:
    """A sample agent on a port of the kernel's choice."""
    env = {**{k: v for k, v in os.environ.items() if not k.startswith("AGENTD_")}, "AGENTD_CONCURRENCY": "2"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agentd.sample"), env=env, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(rb"listens on 127\.0\.0\.1:(\d+)", line):
            return process, Agent(name, int(found[1]))
    raise AssertionError("the sample agent ended before it listened")


async def in_flight(agent: Agent) -> int:
    answer = await request(agent.port, "GET", "/", timeout_s=30.0)
    return int(answer.json()["in_flight"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_request_is_lost_when_an_agent_ends(number: signal.Signals) -> None:
    async def program() -> Tally:
        started = [await start("research-9101"), await start("research-9102")]
        processes, agents = zip(*started, strict=True)
        tally = Tally()
        load = LoadGenerator(tally, lambda: None)
        try:
            load.set_agents(agents, concurrency=2)
            # Agents get them in turn. Both of the first one's are still under way when its end comes.
            for service_s in (5.0, 0.1, 5.0, 0.1, 0.1, 0.1, 0.1, 0.1):
                load.submit(service_s)
            while await in_flight(agents[0]) < 2:
                pass
            processes[0].send_signal(number)
            status = await processes[0].wait()
            assert status == (0 if number is signal.SIGTERM else -number)
            load.set_agents(agents[1:], concurrency=2)
            await load.wait_idle()
            return tally
        finally:
            await load.close()
            for process in processes:
                if process.returncode is None:
                    process.kill()
                await process.communicate()

    async def bounded() -> Tally:
        async with asyncio.timeout(60):
            return await program()

    tally = asyncio.run(bounded())
    assert (tally.sent, tally.answered, tally.failed) == (8, 8, 0)
    if number is signal.SIGKILL:
        assert tally.retried > 0  # what it worked on was done again elsewhere

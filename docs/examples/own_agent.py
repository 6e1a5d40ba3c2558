"""Your own agent: it answers JSON objects, one a line, on its port. To run it: agentd --config mine.yaml, which holds
multi_agent: {enabled: true, autoscaling: {enabled: true}}
pools: {mine: {command: [python3, own_agent.py], ports: [9601, 9620], min: 1, max: 5}}
By hand: AGENTD_PORT=9601 python3 own_agent.py, then: echo '{"question": "why?"}' | nc 127.0.0.1 9601"""

import asyncio
import json
import signal

from agentd.sdk import Agent


async def think(question: str) -> str:
    await asyncio.sleep(1.0)  # call your model here
    return f"{question} Because."


async def main() -> None:
    agent = Agent.from_env()  # port, concurrency and the way to agentd; without agentd it runs on its own
    slots = asyncio.Semaphore(agent.concurrency)
    end = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while agent.accepting and (line := await reader.readline()):
            async with agent.task(), slots:  # reported: in flight, done, response time, load
                answer = {"answer": await think(json.loads(line)["question"])}
                writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", agent.port)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    async with agent:  # the first heartbeat says: ready
        await end.wait()  # asked to drain, it takes nothing new, see serve(); TERM follows when its tasks are done
        server.close()
        while agent.in_flight:  # finish what was accepted
            await asyncio.sleep(0.1)


asyncio.run(main())

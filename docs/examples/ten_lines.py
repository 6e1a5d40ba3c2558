import asyncio

from agentd.sdk import Agent


async def main() -> None:
    agent = Agent.from_env()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while agent.accepting and (line := await reader.readline()):
            async with agent.task():
                writer.write(line.upper())  # call your model here
        writer.close()

    await asyncio.start_server(serve, "127.0.0.1", agent.port)
    async with agent:  # the port listens: ready
        await agent.stopping.wait_async()


asyncio.run(main())

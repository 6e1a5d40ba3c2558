"""Run the sample agent: `python -m agentd.sample`, on the port and with the concurrency that agentd gives.

When agentd asks to drain, it takes nothing new, hands what waits to its successors, finishes what it has begun, and
waits for TERM; a drain that is called off opens its door again. On TERM, or when agentd has no more use for it, it
stops accepting, finishes what it accepted and exits with 0. Another TERM changes nothing: an agentd that was killed
between the two does not know of the first. Only an INT that finds it ending drops what is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from agentd.sample.app import make_app
from agentd.sample.handover import HandOver
from agentd.sample.journal import Journal
from agentd.sample.work import Job, Step, TaskQueue
from agentd.sdk import Agent

log = logging.getLogger("agentd.sample")


class Server(uvicorn.Server):
    """uvicorn, ended by us: its own signal handling would end the process by the signal instead of with 0."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Stop accepting and finish."""
        self.should_exit = True
        self._ending.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        # Instead of uvicorn's ten looks a second: an idle agent costs nothing, and there may be hundreds.
        await self.on_tick(0)
        await self._ending.wait()


async def serve(agent: Agent, queue: TaskQueue, listener: socket.socket, service_s: float) -> None:
    """Serve on `listener` until TERM, INT or agentd ends it and all accepted tasks are done."""
    config = uvicorn.Config(
        make_app(agent, queue, service_s),
        lifespan="off",
        access_log=False,
        log_level="warning",
        date_header=False,  # it is renewed by the loop that `Server` leaves out
        server_header=False,
    )
    server = Server(config)
    loop = asyncio.get_running_loop()

    def end() -> None:
        queue.closed = True
        server.end()

    def interrupt() -> None:
        server.force_exit = server.should_exit
        end()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    # Not the loop's: it would end by giving this one its default back, and so the process to whoever sends it then.
    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(end))
    # Entered when the port listens: the first heartbeat says that the agent is ready.
    async with agent:
        no_more_use = asyncio.create_task(_when_stopping(agent, end))
        port = listener.getsockname()[1]
        log.info("sample agent listens on 127.0.0.1:%d, %d tasks at a time", port, agent.concurrency)
        await server.serve(sockets=[listener])
        no_more_use.cancel()
        # Nothing is left to finish. One that comes from here on must not make the end of the process a failure.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log.info("sample agent has finished its tasks")


async def _when_stopping(agent: Agent, end: Callable[[], None]) -> None:
    await agent.stopping.wait_async()
    end()


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        agent = Agent.from_env()
        note = Journal(options.journal, agent) if options.journal else _note_nothing
        listener = socket.create_server(("127.0.0.1", agent.port), backlog=1024)
    except ValueError as error:
        log.error("%s", error)
        return 2
    except OSError as error:
        what = f"write {error.filename}" if error.filename else f"listen on 127.0.0.1:{agent.port}"
        log.error("cannot %s: %s", what, error.strerror)
        return 1
    queue = TaskQueue(agent, options.queue_max, options.speed, HandOver(agent), note)
    agent.on_drain(queue.offer)
    agent.on_configure(queue.resize)
    agent.on_resume(lambda: log.info("sample agent takes tasks again"))  # its door asks `agent.draining`
    asyncio.run(serve(agent, queue, listener, options.service_s))
    return 0


def _note_nothing(_job: Job, _step: Step) -> None:
    """Without a journal."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agentd.sample",
        description="The sample agent of agentd: an HTTP server with a task queue.",
        epilog="Environment: AGENTD_PORT (default: any free port), AGENTD_CONCURRENCY (default: 1), and what "
        "else agentd gives to its agents. Example: curl -d '{\"service_s\": 1.5}' http://127.0.0.1:PORT/task",
    )
    parser.add_argument(
        "--service-s", type=_positive, default=1.0, help="seconds a task takes that names none (default: 1)"
    )
    parser.add_argument("--speed", type=_positive, default=1.0, help="divide all service times by this (default: 1)")
    parser.add_argument("--queue-max", type=_count, default=256, help="tasks that may wait (default: 256)")
    parser.add_argument("--journal", metavar="FILE", help="append a line of JSON to FILE for each step of each task")
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return value


def _count(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 0 or more")
    return value


if __name__ == "__main__":
    sys.exit(main())

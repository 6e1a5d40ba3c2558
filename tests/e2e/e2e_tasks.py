"""A client that gives numbered tasks to pools through Endpoints, and the books: what became of each number.

What the agents did stands in the journal of the sample agent, which survives them; what the client heard of it, here.
"""

from __future__ import annotations

import http.client
import itertools
import json
import random
import select
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentd.sdk.endpoints import Endpoint, Endpoints, Retry

ANSWER_S = 60.0
# A long task may lose its agent more than twice where one is killed every few seconds.
ATTEMPTS = 8


class Caller:
    """One thread's HTTP: a connection for each task, or with `keeping` one for each agent, as long as that keeps it."""

    def __init__(self, *, keeping: bool) -> None:
        self._keeping = keeping
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self.tries = 0

    def __call__(self, endpoint: Endpoint, body: bytes) -> dict[str, Any]:
        """One task on one agent, as docs/examples/ask_agents.py does it."""
        self.tries += 1
        connection = self._kept(endpoint) or http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=ANSWER_S)
        try:
            connection.request("POST", "/task", body, {} if self._keeping else {"Connection": "close"})
            answer = connection.getresponse()
            content = answer.read()
        except http.client.HTTPException as error:
            connection.close()
            raise ConnectionError(f"{endpoint.id} stopped in the middle of its answer") from error
        except OSError:
            connection.close()
            raise
        if self._keeping and not answer.will_close:
            self._connections[endpoint.address] = connection
        else:
            connection.close()
        if answer.status == 503:
            raise Retry(f"{endpoint.id} takes nothing now")
        if answer.status != 200:
            raise RuntimeError(f"{endpoint.id} answered {answer.status}: {content[:200]!r}")
        found: dict[str, Any] = json.loads(content)
        return found

    def _kept(self, endpoint: Endpoint) -> http.client.HTTPConnection | None:
        """A connection that is still open, or was a moment ago."""
        connection = self._connections.pop(endpoint.address, None)
        if connection is not None and select.select([connection.sock], [], [], 0.0)[0]:
            connection.close()  # it has ended
            return None
        return connection

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


class Client:
    """Threads that give tasks to `pools` until they are told to stop, and at least `tasks_min`."""

    def __init__(self, address: str, pools: Sequence[str], seed: int, *, threads: int, tasks_min: int) -> None:
        self.answered: dict[int, dict[str, Any]] = {}
        self.failed: dict[int, str] = {}
        self.retries = 0
        self._tasks_min = tasks_min
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._enough = threading.Event()
        self._endpoints = [Endpoints(pool, address=address, timeout_s=ANSWER_S) for pool in pools]
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(self._endpoints[number % len(pools)], random.Random(seed + number), number % 4 < 2),
                name=f"client-{number}",
            )
            for number in range(threads)
        ]

    @property
    def given(self) -> int:
        """Tasks that have come to an end, good or bad."""
        return len(self.answered) + len(self.failed)

    def start(self) -> None:
        for endpoints in self._endpoints:
            endpoints.__enter__()
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Give no more tasks than is enough, and wait for those that are under way."""
        with self._lock:
            self._enough.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        self._tasks_min = 0
        self.finish()
        for endpoints in self._endpoints:
            endpoints.__exit__(None, None, None)

    def _run(self, endpoints: Endpoints, rng: random.Random, keeping: bool) -> None:
        caller = Caller(keeping=keeping)
        for number in self._given_out():
            # Mostly short, so that there are thousands; some so long that they outlive agentd.
            service_s = rng.uniform(0.8, 2.0) if rng.random() < 0.02 else rng.uniform(0.005, 0.08)
            body = json.dumps({"id": str(number), "service_s": service_s}).encode()
            before = caller.tries
            try:
                answer = endpoints.call(lambda endpoint, body=body: caller(endpoint, body), attempts=ATTEMPTS)
                self.answered[number] = answer
            except Exception as error:  # whatever it is, the task is lost, and the test says so
                self.failed[number] = repr(error)
            with self._lock:
                self.retries += max(0, caller.tries - before - 1)
        caller.close()

    def _given_out(self) -> Iterator[int]:
        while True:
            with self._lock:
                number = next(self._numbers)
                if self._enough.is_set() and number > self._tasks_min:
                    return
            yield number


@dataclass(slots=True)
class Books:
    """What agents noted of each task, by its number."""

    touched: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))  # incarnations that took it
    begun: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))  # incarnations, one for each time
    done: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    handed_over: int = 0

    @classmethod
    def read(cls, journal: Path) -> Books:
        books = cls()
        for line in journal.read_text().splitlines():
            note = json.loads(line)
            number, step = int(note["task"]), note["step"]
            books.touched[number].add(note["incarnation"])
            if step == "begun":
                books.begun[number].append(note["incarnation"])
            books.done[number] += step == "done"
            books.handed_over += step == "handed_over"
        return books

    def twice(self) -> list[int]:
        """The tasks that were begun more than once."""
        return [number for number, times in self.begun.items() if len(times) > 1]

    def without_excuse(self, killed: Collection[str]) -> list[int]:
        """Those of them that no agent had taken which was killed afterwards."""
        return [number for number in self.twice() if not self.touched[number] & set(killed)]

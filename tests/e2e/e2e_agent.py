"""A light agent for the end-to-end tests: HTTP on its port, heartbeats through the SDK.

POST /task {"service_s": 0.5}   200 {"instance": ...} when it is done, 503 while draining; it begins before this is read
POST /load {"load": 0.9}        the load that is reported from now on

On TERM it takes nothing new, finishes what it has accepted and exits with 0.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agentd.sdk import Agent

agent = Agent.from_env()
accepted: list[float] = []  # the service time of each task


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for the tasks
    request_queue_size = 128


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        if self.path == "/load":
            agent.load = self.content()["load"]
            self.answer(200)
        elif agent.draining:
            self.content()
            self.answer(503)
        else:
            with agent.task():
                service_s = self.content()["service_s"]
                accepted.append(service_s)
                time.sleep(service_s)
            self.answer(200)

    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return found

    def answer(self, status: int) -> None:
        content = json.dumps({"instance": agent.instance, "incarnation": agent.incarnation}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing per request."""


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk takes no output, and that is no reason to end
        print(text, flush=True)


def main() -> None:
    server = Server(("127.0.0.1", agent.port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    with agent, server:
        say(f"{agent.instance} listens on {agent.port}")
        server.serve_forever(poll_interval=0.05)
    say(f"finished, {len(accepted)} tasks")


if __name__ == "__main__":
    main()

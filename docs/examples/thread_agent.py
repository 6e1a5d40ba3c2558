"""An agent of plain threads, which works on another number of tasks at a time when agentd says so.
pools: {threads: {command: [python3, thread_agent.py], ports: [9651, 9659], concurrency: 2}}
By hand: AGENTD_PORT=9651 python3 thread_agent.py, then: curl -d 'why?' http://127.0.0.1:9651/"""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from agentd.sdk import Agent

agent = Agent.from_env()
slots = threading.Semaphore(agent.concurrency)


def resize(concurrency: int) -> None:
    """In a thread of its own, so it may wait; `agent.concurrency` is the old number until it returns."""
    for _ in range(concurrency - agent.concurrency):
        slots.release()
    for _ in range(agent.concurrency - concurrency):
        slots.acquire()  # as tasks end


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        if not agent.accepting:
            self.send_error(503)
            return
        with agent.task(), slots:
            question = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(question + b" Because.")  # call your model here


agent.on_configure(resize)
with ThreadingHTTPServer(("127.0.0.1", agent.port), Handler) as server, agent:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    agent.stopping.wait()

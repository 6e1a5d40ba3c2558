"""Gives tasks to the agents of a pool, eight at a time, and loses none when an agent drains, dies or is replaced.
Beside a running agentd (scripts/run starts one, whose agents take such tasks): python3 ask_agents.py research 40"""

import http.client
import json
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from agentd.sdk.endpoints import Endpoint, Endpoints, Retry


def ask(endpoint: Endpoint) -> str:
    """One task on one agent. What raises an OSError here (nobody listens, the agent died) is tried on another."""
    try:
        with urllib.request.urlopen(f"{endpoint.url}/task", b'{"service_s": 0.1}', timeout=60) as answer:
            return str(json.load(answer)["instance"])
    except urllib.error.HTTPError as error:  # an OSError too, and yet an answer: say which ones are worth a retry
        if error.code == 503:
            raise Retry(f"{endpoint.id} takes nothing now") from error
        raise RuntimeError(f"{endpoint.id} answered {error.code}: {error.read(200)!r}") from error
    except http.client.HTTPException as error:
        raise ConnectionError(f"{endpoint.id} stopped in the middle of its answer") from error


def main(pool: str, tasks: int) -> None:
    with Endpoints(pool) as endpoints, ThreadPoolExecutor(8) as threads:
        for instance in threads.map(lambda _: endpoints.call(ask), range(tasks)):
            print(instance, flush=True)


main(sys.argv[1], int(sys.argv[2]))

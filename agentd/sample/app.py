"""The HTTP face of the sample agent.

POST /task     {"service_s": 1.5, "cpu_s": 0, "id": "7"}  ->  200 {"instance", "waited_s", "service_s", "id"} when done
               400 a body that cannot be read; 503 with Retry-After: offer the task to another agent.
               A task that still waits when a drain begins is done by a successor, whose answer this is then
GET  /healthz  200 while tasks are taken, 503 while draining
GET  /         the agent's numbers
"""

from __future__ import annotations

import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentd.sample.work import Answer, Job, TaskQueue, Turned
from agentd.sdk import Agent

BODY_BYTES_MAX = 64 * 1024
TASK_SECONDS_MAX = 3600.0
TASK_ID_MAX = 100
RETRY_AFTER_S = 1


class BadBody(Exception):
    """The body of a request is not what POST /task takes."""


def make_app(agent: Agent, queue: TaskQueue, service_s: float) -> Starlette:
    """The application; `service_s` is the service time of a task that names none."""

    async def task(request: Request) -> Response:
        try:
            job = read_job(await _body(request), service_s)
            done = await queue.run(job)
        except BadBody as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        except Turned as error:
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            return JSONResponse({"error": str(error)}, status_code=503, headers=headers)
        if isinstance(done, Answer):
            return Response(done.body, media_type="application/json")
        answer = {"instance": agent.instance, "waited_s": done, "service_s": job.service_s}
        return JSONResponse(answer | ({"id": job.id} if job.id else {}))

    async def healthz(_request: Request) -> JSONResponse:
        return JSONResponse({"draining": agent.draining}, status_code=503 if agent.draining else 200)

    async def index(_request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "instance": agent.instance,
                "concurrency": agent.concurrency,
                "in_flight": agent.in_flight,
                "queue_length": queue.waiting,
                "draining": agent.draining,
            }
        )

    return Starlette(
        routes=[
            Route("/", index),
            Route("/healthz", healthz),
            Route("/task", task, methods=["POST"]),
        ]
    )


def read_job(body: bytes, service_s: float) -> Job:
    """The job in the body of POST /task; an empty body asks for the agent's own service time.

    Raises:
        BadBody: no JSON object, or a time out of range.
    """
    try:
        fields: Any = json.loads(body or b"{}")
    except ValueError as error:
        raise BadBody(f"cannot read the body as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadBody("cannot read the body: expected a JSON object")
    unknown = sorted(set(fields) - {"service_s", "cpu_s", "id"})
    if unknown:
        raise BadBody(f"unknown field {unknown[0]!r}: expected service_s, cpu_s, id")
    ident = fields.get("id", "")
    if not isinstance(ident, str) or len(ident) > TASK_ID_MAX:
        raise BadBody(
            f"cannot use id {str(ident)[:TASK_ID_MAX]!r}: expected a text of at most {TASK_ID_MAX} characters"
        )
    cpu_s = _seconds(fields, "cpu_s", 0.0)
    # A task that names its processor time alone does only that.
    return Job(_seconds(fields, "service_s", 0.0 if cpu_s else service_s), cpu_s, ident)


def _seconds(fields: dict[str, Any], name: str, default: float) -> float:
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= TASK_SECONDS_MAX:
        raise BadBody(f"cannot use {name} {value!r}: expected a number of seconds from 0 to {TASK_SECONDS_MAX:g}")
    return float(value)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise BadBody(f"cannot read the body: it is longer than {BODY_BYTES_MAX} bytes")
    return bytes(body)

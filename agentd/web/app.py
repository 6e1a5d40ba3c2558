"""The HTTP API and the dashboard's files as one Starlette application.

Owns the routes, their parameters and the mapping of errors to HTTP. It never decides anything: it reads the
runtime's views and hands it events. What may be asked by whom is `security`, what answers look like is `shapes`.
"""

from __future__ import annotations

import asyncio
import pwd
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agentd.core.messages import SCALING_EVENTS, Check, CheckReply, EventType, SetAutoscaling
from agentd.core.model import INSTANCE_ID, POOL_NAME, PoolName
from agentd.errors import AgentdError, Refused
from agentd.web import metrics, security, shapes
from agentd.web.fleet import About, Fleet
from agentd.web.stream import STREAMS_MAX, EventStream, Streams

EVENTS_MAX = 1000
ASSETS = {
    "app.js": "text/javascript",
    "dom.js": "text/javascript",
    "events.js": "text/javascript",
    "format.js": "text/javascript",
    "host.js": "text/javascript",
    "instances.js": "text/javascript",
    "pools.js": "text/javascript",
    "spark.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "FAILED_PRECONDITION": 409,
    "OUT_OF_RANGE": 410,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def create_app(runtime: Fleet, about: About, *, peer_uid: security.PeerUid | None = None) -> Starlette:
    """The application. `peer_uid` tells the uid at the other end of a connection; the kernel does by default.

    `app.state.streams` holds the open event streams: close it before the server stops, or the streams keep it.
    """
    streams = Streams()
    api = _Api(runtime, about, streams)
    guard = Middleware(security.Guard, about=about, peer_uid=peer_uid)
    app = Starlette(
        routes=[
            Route("/", api.dashboard),
            Route("/assets/{name}", api.asset),
            Route("/healthz", api.healthz),
            Route("/readyz", api.readyz),
            Route("/metrics", api.metrics),
            Route("/status", api.status),
            Route("/discovery", api.discovery),
            Route("/events", api.events),
            Route("/events/stream", api.stream),
            Route("/explain/{pool}", api.explain),
            Route("/autoscaler/stats", api.stats),
            Route("/autoscaler/events", api.scaling_events),
            Route("/autoscaler/plan", api.plan),
            Route("/autoscaler/check", api.check, methods=["POST"]),
            Route("/autoscaler/enable", api.enable, methods=["POST"]),
            Route("/autoscaler/disable", api.disable, methods=["POST"]),
        ],
        middleware=[guard],
        exception_handlers={
            HTTPException: _http_error,
            AgentdError: _agentd_error,
            Exception: _unexpected_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.streams = streams
    return app


class _Api:
    """The routes, in the order of the table above."""

    def __init__(self, runtime: Fleet, about: About, streams: Streams) -> None:
        self._runtime = runtime
        self._about = about
        self._streams = streams
        folder = files("agentd.web") / "assets"
        self._page = (folder / "index.html").read_bytes()
        self._assets = {name: (folder / name).read_bytes() for name in ASSETS}

    async def dashboard(self, _: Request) -> Response:
        return Response(self._page, media_type="text/html")

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._assets:
            raise HTTPException(404)
        return Response(self._assets[name], media_type=ASSETS[name])

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(self, _: Request) -> Response:
        """Ready: what runs has been adopted (the server starts after that) and agentd is not ending."""
        view = self._runtime.view()
        ready = not self._streams.closing.is_set()
        body = {
            "ready": ready,
            "recovering": view.recovering_s > 0,
            "recovering_s": view.recovering_s,
            "degraded": list(self._runtime.degraded()),
        }
        return JSONResponse(body, status_code=200 if ready else 503)

    async def metrics(self, _: Request) -> Response:
        runtime = self._runtime
        text = metrics.render(runtime.view(), runtime.config, self._about, runtime.degraded(), runtime.clock.now())
        return Response(text, headers={"Content-Type": metrics.CONTENT_TYPE})

    async def status(self, _: Request) -> Response:
        runtime, clock = self._runtime, self._runtime.clock
        body = shapes.status(
            runtime.view(), runtime.config, self._about, runtime.degraded(), now=clock.now(), wall=clock.wall()
        )
        return JSONResponse(body)

    async def discovery(self, request: Request) -> Response:
        """What Prometheus' http_sd_configs read."""
        name, view = request.query_params.get("pool", ""), self._runtime.view()
        if name and name not in [pool.name for pool in view.pools]:
            known = ", ".join(pool.name for pool in view.pools) or "none"
            raise Refused("UNKNOWN_POOL", f"no pool {name[:40]!r} (there are {known})", status="NOT_FOUND")
        return JSONResponse(shapes.targets(view, name))

    async def events(self, request: Request) -> Response:
        query = request.query_params
        limit = _limit(request, default=100)
        pool, instance = query.get("pool", ""), query.get("instance", "")
        if pool and not POOL_NAME.match(pool):
            raise _bad(f"cannot read pool {pool[:40]!r}: expected a name such as research")
        if instance and not INSTANCE_ID.match(instance):
            raise _bad(f"cannot read instance {instance[:40]!r}: expected <pool>-<port>, for example research-9101")
        types = tuple(_event_type(name) for name in query.getlist("type"))
        found = await self._runtime.events(limit=limit, pool=pool, instance=instance, types=types)
        return JSONResponse({"events": [shapes.event(stored) for stored in found]})

    async def stream(self, request: Request) -> ASGIApp:
        last = request.headers.get("last-event-id", "")
        if last and not _is_number(last):
            raise _bad(f"cannot read Last-Event-ID {last[:40]!r}: expected the id of an event")
        if self._streams.full:
            raise Refused(
                "TOO_MANY_STREAMS", f"cannot open one more event stream: {STREAMS_MAX} are open", status="UNAVAILABLE"
            )
        return EventStream(self._runtime, self._streams, int(last) if last else None)

    async def explain(self, request: Request) -> Response:
        name = request.path_params["pool"]
        limit = _limit(request, default=10)
        pools = {pool.name: pool for pool in self._runtime.view().pools}
        if name not in pools:
            known = ", ".join(pools) or "none"
            raise Refused(
                "UNKNOWN_POOL", f"cannot explain pool {name[:40]!r}: the pools are {known}", status="NOT_FOUND"
            )
        history = await self._runtime.decisions(name, limit)
        return JSONResponse(shapes.explanation(pools[name], history, self._runtime.clock.now()))

    async def stats(self, _: Request) -> Response:
        return JSONResponse(shapes.stats(self._runtime.view(), self._runtime.config))

    async def scaling_events(self, request: Request) -> Response:
        types: tuple[EventType, ...] = SCALING_EVENTS
        found = await self._runtime.events(limit=_limit(request, default=10), types=types)
        return JSONResponse({"events": [shapes.scaling_event(stored) for stored in found]})

    async def plan(self, request: Request) -> Response:
        name = request.query_params.get("pool")
        plans = self._runtime.plan(PoolName(name) if name else None)
        return JSONResponse(shapes.plans(plans, self._runtime.clock.now()))

    async def check(self, request: Request) -> Response:
        reply = await self._runtime.submit(Check(owner=await _caller(request)))
        assert isinstance(reply, CheckReply), reply
        return JSONResponse(shapes.checked(reply.decisions, self._runtime.clock.now()))

    async def enable(self, request: Request) -> Response:
        return await self._set_autoscaling(request, enabled=True)

    async def disable(self, request: Request) -> Response:
        return await self._set_autoscaling(request, enabled=False)

    async def _set_autoscaling(self, request: Request, *, enabled: bool) -> Response:
        owner = await _caller(request)
        await self._runtime.submit(SetAutoscaling(enabled, owner=owner, reason=f"POST {request.url.path}"))
        return JSONResponse({"enabled": self._runtime.view().autoscaling.enabled})


async def _caller(request: Request) -> str:
    """The name of the local user at the other end, as far as the host has one for the uid."""
    uid: int = request.state.peer_uid
    try:
        return (await asyncio.to_thread(pwd.getpwuid, uid)).pw_name
    except KeyError:
        return f"uid {uid}"


def _limit(request: Request, *, default: int) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return default
    if not _is_number(text) or not 1 <= int(text) <= EVENTS_MAX:
        raise _bad(f"cannot read limit {text[:40]!r}: expected a number from 1 to {EVENTS_MAX}")
    return int(text)


def _event_type(name: str) -> EventType:
    try:
        return EventType(name)
    except ValueError:
        raise _bad(f"cannot read type {name[:40]!r}: expected one of {', '.join(EventType)}") from None


def _is_number(text: str) -> bool:
    # Up to 18 digits: an id that SQLite can hold.
    return text.isascii() and text.isdigit() and len(text) <= 18


def _bad(text: str) -> Refused:
    return Refused("INVALID_ARGUMENT", text, status="INVALID_ARGUMENT")


async def _agentd_error(_: Request, failure: Exception) -> Response:
    if isinstance(failure, Refused):
        return security.error(HTTP_STATUS.get(failure.status, 500), failure.reason, str(failure))
    return security.error(503, "UNAVAILABLE", str(failure))


async def _http_error(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException), failure
    headers = dict(failure.headers or {})
    path = request.url.path[:100]
    if failure.status_code == 404:
        return security.error(404, "NOT_FOUND", f"cannot find {path!r}: there is no such page", headers)
    if failure.status_code == 405:
        allowed = headers.get("Allow", "another method")
        text = f"cannot {request.method} {path!r}: expected {allowed}"
        return security.error(405, "METHOD_NOT_ALLOWED", text, headers)
    return security.error(failure.status_code, "REFUSED", failure.detail, headers)


async def _unexpected_error(_: Request, failure: Exception) -> Response:
    # Starlette answers this outside of the guard, so the headers are put on here; the error itself is logged
    # with its traceback by the server.
    del failure
    return security.error(500, "INTERNAL", "agentd failed to answer; its log says why", headers=dict(security.HEADERS))

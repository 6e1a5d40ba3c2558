"""Probes against real servers on real ports: what counts as healthy, and how often each instance is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from grpc import aio, method_handlers_generic_handler, unary_unary_rpc_method_handler
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from agentd import probes
from agentd.core.messages import Probed
from agentd.core.model import HealthCheck, Incarnation, InstanceId
from agentd.probes import CONCURRENCY_MAX, Prober, ProbeTarget

GENEROUS_S = 20.0

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def http_server(answer: Answer) -> AsyncIterator[int]:
    """A server that gives each request's head to `answer`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(await reader.readuntil(b"\r\n\r\n"), writer)
            await writer.drain()
        except ConnectionError:
            return  # a probe leaves as soon as it knows
        finally:
            writer.transport.abort() if writer.is_closing() else writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def saying(reply: bytes) -> Answer:
    async def answer(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)

    return answer


@asynccontextmanager
async def grpc_server(status: health_pb2.HealthCheckResponse.ServingStatus.ValueType | None) -> AsyncIterator[int]:
    server = aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    if status is not None:
        servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # absent from the stubs
        await servicer.set("", status)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def closed_port() -> int:
    async with http_server(saying(b"")) as port:
        return port


# -- HTTP ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "healthy"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", True),
        (b"HTTP/1.1 399\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"HTTP/1.1 500 Internal Server Error\r\n\r\n", False),
        (b"HTTP/1.1 100 Continue\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", False),
        (b"HTTP/1.1 200 OK", False),
        (b"x" * 100_000, False),
        (b"", False),
    ],
    ids=lambda value: value[:24].decode() if isinstance(value, bytes) else "",
)
def test_http_is_healthy_with_a_status_from_200_to_399(reply: bytes, healthy: bool) -> None:
    async def main() -> None:
        async with http_server(saying(reply)) as port:
            assert await probes.http(port, "/", GENEROUS_S) is healthy

    asyncio.run(main())


def test_http_asks_for_the_path_and_a_path_cannot_add_headers() -> None:
    heads: list[bytes] = []

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def main() -> None:
        async with http_server(answer) as port:
            assert await probes.http(port, "/health?deep=1", GENEROUS_S)
            assert await probes.http(port, "/a b\r\nX-Forged: 1", GENEROUS_S)
            assert heads[0].startswith(b"GET /health?deep=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % port)
            assert heads[1].startswith(b"GET /a%20b%0D%0AX-Forged:%201 HTTP/1.1\r\n")

    asyncio.run(main())


def test_http_gives_up_on_a_server_that_does_not_answer() -> None:
    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        await writer.wait_closed()

    async def main() -> None:
        async with http_server(silent) as port:
            assert await probes.http(port, "/", 0.05) is False
        assert await probes.http(await closed_port(), "/", GENEROUS_S) is False

    asyncio.run(main())


# -- gRPC ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "healthy"),
    [
        (health_pb2.HealthCheckResponse.SERVING, True),
        (health_pb2.HealthCheckResponse.NOT_SERVING, False),
        (None, False),
    ],
    ids=["serving", "not serving", "no health service"],
)
def test_grpc_is_healthy_when_the_server_says_serving(
    status: health_pb2.HealthCheckResponse.ServingStatus.ValueType | None, healthy: bool
) -> None:
    async def main() -> None:
        async with grpc_server(status) as port:
            assert await probes.grpc(port, GENEROUS_S) is healthy

    asyncio.run(main())


def test_grpc_is_unhealthy_where_nobody_or_somebody_else_listens() -> None:
    async def main() -> None:
        assert await probes.grpc(await closed_port(), GENEROUS_S) is False
        async with http_server(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
            assert await probes.grpc(port, 0.5) is False

    asyncio.run(main())


@asynccontextmanager
async def malformed_grpc_server() -> AsyncIterator[int]:
    """A server whose health service answers with bytes that are no HealthCheckResponse."""

    async def check(_: bytes, __: object) -> bytes:
        return b"\xff\xff\xff"

    server = aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    handlers = {"Check": unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers((method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def test_grpc_with_a_malformed_answer_is_not_healthy() -> None:
    async def main() -> None:
        async with malformed_grpc_server() as port:
            assert await probes.grpc(port, GENEROUS_S) is False

    asyncio.run(main())


# -- the prober ----------------------------------------------------------------------------------


def target(number: int, port: int, kind: HealthCheck = HealthCheck.HTTP) -> ProbeTarget:
    return ProbeTarget(InstanceId(f"research-{9100 + number}"), Incarnation(f"i{number}"), port, kind)


async def probe_until(enough: Callable[[list[Probed]], bool], *targets: ProbeTarget) -> list[Probed]:
    """Run a prober over `targets` until what it reported is enough."""
    reported: list[Probed] = []
    done = asyncio.Event()

    def report(probed: Probed) -> None:
        reported.append(probed)
        if enough(reported):
            done.set()

    prober = Prober(lambda: targets, report, lambda: 0.02, timeout_s=GENEROUS_S)
    run = asyncio.create_task(prober.run())
    await asyncio.wait_for(done.wait(), GENEROUS_S)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    return reported


def test_only_successes_are_reported_again_and_again_with_the_incarnation() -> None:
    async def main() -> None:
        async with (
            http_server(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as good,
            http_server(saying(b"HTTP/1.1 503 Busy\r\n\r\n")) as bad,
            grpc_server(health_pb2.HealthCheckResponse.SERVING) as serving,
        ):
            both = {target(1, good), target(3, serving, HealthCheck.GRPC)}
            wanted = {Probed(one.instance, one.incarnation) for one in both}
            reported = await probe_until(
                lambda seen: all(seen.count(one) >= 3 for one in wanted),
                target(1, good),
                target(2, bad),
                target(3, serving, HealthCheck.GRPC),
                target(4, good, HealthCheck.NONE),
                target(5, good, HealthCheck.HEARTBEAT),
            )
            assert set(reported) == wanted

    asyncio.run(main())


def test_a_probe_that_breaks_is_said_once_and_ends_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broke = 0

    async def breaking(_: int, __: float) -> bool:
        nonlocal broke
        broke += 1
        raise AttributeError("no status")

    monkeypatch.setattr(probes, "grpc", breaking)

    async def main() -> None:
        async with http_server(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as good:
            await probe_until(
                lambda seen: len(seen) >= 3 and broke >= 3, target(1, good, HealthCheck.GRPC), target(2, good)
            )

    asyncio.run(main())
    assert [record.message for record in caplog.records if "probe" in record.message] == ["probe failed"]


def test_a_hung_agent_takes_one_slot_and_delays_nobody() -> None:
    hung = 0

    async def silent(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal hung
        hung += 1
        await writer.wait_closed()

    async def main() -> None:
        async with http_server(silent) as stuck, http_server(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as good:
            await probe_until(lambda seen: len(seen) >= 5, target(1, stuck), target(2, good))
            assert hung == 1

    asyncio.run(main())


def test_no_more_than_the_bound_are_probed_at_once() -> None:
    at_once = most = 0
    all_slots = asyncio.Event()

    async def slow(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == CONCURRENCY_MAX:
            all_slots.set()
        await all_slots.wait()
        await asyncio.sleep(0)
        at_once -= 1
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def main() -> None:
        count = CONCURRENCY_MAX * 2
        async with http_server(slow) as port:
            await probe_until(
                lambda seen: len({one.instance for one in seen}) == count, *(target(n, port) for n in range(count))
            )
            assert most == CONCURRENCY_MAX

    asyncio.run(main())


def test_the_next_interval_asks_for_targets_and_its_length_anew() -> None:
    async def main() -> None:
        async with http_server(saying(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
            asked: list[str] = []
            done = asyncio.Event()

            def targets() -> list[ProbeTarget]:
                asked.append("targets")
                return [target(len(asked), port)]

            def interval_s() -> float:
                asked.append("interval")
                return 0.01

            reported: list[Probed] = []

            def report(probed: Probed) -> None:
                reported.append(probed)
                if len(reported) == 2:
                    done.set()

            run = asyncio.create_task(Prober(targets, report, interval_s).run())
            await asyncio.wait_for(done.wait(), GENEROUS_S)
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            assert asked[:4] == ["interval", "targets", "interval", "targets"]
            assert reported[0].instance != reported[1].instance

    asyncio.run(main())

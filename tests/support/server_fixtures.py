"""Real servers for tests that ask them: Redis and Prometheus from Debian, on free ports of the loopback."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from redis import Redis

UP_S = 60.0
ATTEMPTS = 5  # a port that was free a moment ago may be somebody's by now


@dataclass(frozen=True)
class RedisServer:
    """A Redis of its own. `redis` is a connection for the test; every test uses keys of its own."""

    port: int
    socket: Path
    redis: Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    program = needed("redis-server")
    directory = tmp_path_factory.mktemp("redis")
    unix = directory / "redis.sock"

    def argv(port: int) -> list[str]:
        words = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(unix), "--dir", str(directory)]
        return [program, *words, "--save", "", "--appendonly", "no"]

    def is_up(port: int) -> bool:
        with Redis(port=port) as redis:
            return bool(redis.ping())

    port, process = started(argv, is_up, directory / "log")
    try:
        with Redis(port=port) as redis:
            yield RedisServer(port, unix, redis)
    finally:
        end(process)


@pytest.fixture(scope="session")
def prometheus_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that has scraped itself at least once."""
    program = needed("prometheus")
    directory = tmp_path_factory.mktemp("prometheus")
    config = directory / "prometheus.yml"

    def argv(port: int) -> list[str]:
        config.write_text(
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            f"scrape_configs: [{{job_name: itself, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
        )
        store = f"--storage.tsdb.path={directory / 'data'}"
        return [program, f"--config.file={config}", store, f"--web.listen-address=127.0.0.1:{port}"]

    def is_up(port: int) -> bool:
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": "up"}, trust_env=False)
        return answer.status_code == 200 and bool(answer.json()["data"]["result"])

    port, process = started(argv, is_up, directory / "log")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def needed(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed; scripts/test installs it as root")
    return program


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def started(
    argv: Callable[[int], list[str]], is_up: Callable[[int], bool], log: Path
) -> tuple[int, subprocess.Popen[bytes]]:
    """Start a server on a free port and wait until it answers."""
    for _ in range(ATTEMPTS):
        port = free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(argv(port), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if comes_up(process, port, is_up):
            return port, process
        end(process)
    raise AssertionError(f"{argv(0)[0]} does not come up: {log.read_text()[-2000:]}")


def comes_up(process: subprocess.Popen[bytes], port: int, is_up: Callable[[int], bool]) -> bool:
    deadline = time.monotonic() + UP_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if is_up(port):
                return process.poll() is None
        except Exception:  # whatever its library calls a server that is not there yet
            pass
        time.sleep(0.05)
    return False


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

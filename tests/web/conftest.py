"""Makes `tests.web` importable however pytest is started, and gives the fake fleet behind a client."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parents[2]))

from agentd.web.app import create_app
from tests.web.fake import ConnectAs, FakeAbout, FakeRuntime


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def connect_as(runtime: FakeRuntime) -> ConnectAs:
    """A client whose process belongs to the given uid; None: the kernel does not know it."""

    def connect(uid: int | None) -> TestClient:
        app = create_app(runtime, FakeAbout(), peer_uid=lambda _client, _server: uid)
        return TestClient(app, base_url="http://127.0.0.1:8766", raise_server_exceptions=False)

    return connect


@pytest.fixture
def client(connect_as: ConnectAs) -> TestClient:
    """A client of root's."""
    return connect_as(0)

"""What POST /task takes and answers."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from agentd.sample.app import BadBody, make_app, read_job
from agentd.sample.work import Job, TaskQueue
from agentd.sdk import Agent


def client(queue_max: int = 4) -> tuple[TestClient, TaskQueue, Agent]:
    agent = Agent(instance="research-9101", concurrency=2)
    queue = TaskQueue(agent, queue_max)
    return TestClient(make_app(agent, queue, service_s=0.0)), queue, agent


@pytest.mark.parametrize(
    ("body", "job"),
    [
        (b"", Job(2.5)),
        (b"{}", Job(2.5)),
        (b'{"service_s": 1.5}', Job(1.5)),
        (b'{"service_s": 0}', Job(0.0)),
        (b'{"cpu_s": 0.5}', Job(0.0, 0.5)),
        (b'{"service_s": 1, "id": "seven"}', Job(1.0, 0.0, "seven")),
        (b'{"service_s": 1, "cpu_s": 0.5}', Job(1.0, 0.5)),
    ],
)
def test_bodies(body: bytes, job: Job) -> None:
    assert read_job(body, service_s=2.5) == job


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b'{"service_s": "1"}',
        b'{"service_s": true}',
        b'{"service_s": null}',
        b'{"service_s": -1}',
        b'{"service_s": NaN}',
        b'{"service_s": 1e9}',
        b'{"cpu_s": Infinity}',
        b'{"servise_s": 1}',
        b'{"id": 7}',
        b'{"id": "%s"}' % (b"7" * 101),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(body: bytes) -> None:
    with pytest.raises(BadBody):
        read_job(body, 1.0)
    answer = client()[0].post("/task", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_a_task_is_answered_when_it_is_done() -> None:
    http, _queue, agent = client()
    answer = http.post("/task", json={"service_s": 0.0})
    assert answer.status_code == 200
    assert answer.json() == {"instance": "research-9101", "waited_s": answer.json()["waited_s"], "service_s": 0.0}
    assert answer.json()["waited_s"] >= 0.0
    assert agent.in_flight == 0


def test_a_task_that_has_a_name_is_answered_by_it() -> None:
    assert client()[0].post("/task", json={"service_s": 0.0, "id": "seven"}).json()["id"] == "seven"


def test_a_long_body_is_refused() -> None:
    assert client()[0].post("/task", content=b" " * 70_000).status_code == 400


def test_a_refusal_tells_when_to_come_back() -> None:
    http, queue, _agent = client()
    queue.closed = True
    answer = http.post("/task")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"


def test_the_agents_numbers_and_health() -> None:
    http, _queue, agent = client()
    assert http.get("/").json() == {
        "instance": "research-9101",
        "concurrency": 2,
        "in_flight": 0,
        "queue_length": 0,
        "draining": False,
    }
    assert http.get("/healthz").status_code == 200
    agent._drain.begin(1, 0.0, ())
    assert http.get("/healthz").status_code == 503
    assert http.post("/task").status_code == 503

"""The shapes of the API, exactly, and what it answers to bad questions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace
from starlette.testclient import TestClient

from agentd.core.ledger import Scaling, Spent
from agentd.core.messages import Check, EventType, Record, SetAutoscaling, StoredRecord
from agentd.core.season import Quantiles
from agentd.core.views import Advice, BudgetView, CostView, ForecastAhead, ForecastSummary, ReadingView, RuleView
from agentd.errors import AgentdError, Refused
from agentd.web.app import ASSETS, HTTP_STATUS
from tests.web.fake import HELPED, WALL, ConnectAs, FakeRuntime

HELD_DECISION = {
    "id": "d-execution-1",
    "pool": "execution",
    "wall": WALL,
    "direction": "none",
    "current": 3,
    "wanted": 2,
    "granted": 3,
    "held": True,
    "reasons": [{"code": "low_load", "text": "Low load: 0.11 < 0.25"}],
    "limits": [
        {
            "code": "down_cooldown", "text": "scaled 388 s ago, scale-down waits 600 s", "lifts_in_s": 212.0,
            "allows": None, "until_wall": WALL + 212.0,
        },
    ],
    "counterfactual": "shrinks in 212 s if the load stays below 0.25",
    "victims": [],
    "effect": None,
    "trigger": "",
    "proposals": [],
    "binding": "",
    "chain": [{"code": "wanted", "count": 2}, {"code": "granted", "count": 3}],
}  # fmt: skip


# -- the original shapes ------------------------------------------------------------------------


def test_stats_have_the_original_shape(client: TestClient) -> None:
    assert client.get("/autoscaler/stats").json() == {
        "policy": {
            "scale_up_threshold": 0.75,
            "scale_down_threshold": 0.25,
            "min_agents_per_type": 1,
            "max_agents_per_type": 5,
        },
        "specializations": {
            "primary": {"count": 1, "avg_load": 0.42},
            "research": {"count": 4, "avg_load": 0.88},
            "execution": {"count": 3, "avg_load": 0.11},
            "analysis": {"count": 2, "avg_load": 0.55},
            "planning": {"count": 1, "avg_load": 0.0},
            "testing": {"count": 2, "avg_load": 0.61},
        },
        "scaling_events": 5,
        "unhealthy_agents": 1,
    }


def test_events_have_the_original_shape_newest_first_and_scaling_only(client: TestClient) -> None:
    assert client.get("/autoscaler/events?limit=2").json() == {
        "events": [
            {
                "timestamp": WALL - 120.0,
                "type": "scale_up",
                "specialization": "research",
                "reason": "High load: 0.87 > 0.75",
                "agent_id": "research-9103",
            },
            {
                "timestamp": WALL - 240.0,
                "type": "replace",
                "specialization": "analysis",
                "reason": "missed 3 heartbeats",
                "agent_id": "analysis-9302",
            },
        ]
    }
    types = [event["type"] for event in client.get("/autoscaler/events").json()["events"]]
    assert types == ["scale_up", "replace", "scale_down"]


def test_ten_events_are_the_default(client: TestClient, runtime: FakeRuntime) -> None:
    record = Record(EventType.SCALE_UP, "High load: 0.88 > 0.75", "research", "research-9101")
    runtime.records = [StoredRecord(at, WALL + at, record) for at in range(1, 31)]
    assert len(client.get("/autoscaler/events").json()["events"]) == 10
    assert len(client.get("/autoscaler/events?limit=1").json()["events"]) == 1
    assert len(client.get("/autoscaler/events?limit=1000").json()["events"]) == 30


@pytest.mark.parametrize("path", ["/autoscaler/events", "/events", "/explain/research"])
@pytest.mark.parametrize("limit", ["0", "1001", "-1", "ten", "1.0", "", "1e2", "%D9%A1", "9" * 5000])
def test_a_limit_out_of_range_is_told(client: TestClient, path: str, limit: str) -> None:
    response = client.get(f"{path}?limit={limit}")
    assert response.status_code == 400
    assert response.json()["error"]["reason"] == "INVALID_ARGUMENT"
    assert "expected a number from 1 to 1000" in response.json()["error"]["message"]


def test_check_answers_with_decisions(client: TestClient, runtime: FakeRuntime) -> None:
    body = client.post("/autoscaler/check").json()
    assert list(body) == ["decisions"]
    assert len(body["decisions"]) == 6
    assert body["decisions"][2] == {"specialization": "execution", **HELD_DECISION}
    assert runtime.submitted == [Check(owner="root")]


def test_plan_answers_with_what_a_check_would_do_and_does_nothing(client: TestClient, runtime: FakeRuntime) -> None:
    body = client.get("/autoscaler/plan?pool=execution").json()
    (plan,) = body["plans"]
    assert plan == {
        "specialization": "execution",
        "decision": HELD_DECISION,
        "starts": ["execution-9107"],
        "takes_back": [],
        "stops": [],
    }
    assert len(client.get("/autoscaler/plan").json()["plans"]) == 6
    assert client.get("/autoscaler/plan?pool=x").status_code == 404
    assert client.post("/autoscaler/plan").status_code == 405
    assert runtime.submitted == []


def test_disable_and_enable_answer_with_the_state(client: TestClient, runtime: FakeRuntime) -> None:
    assert client.post("/autoscaler/disable").json() == {"enabled": False}
    assert client.post("/autoscaler/enable").json() == {"enabled": True}
    assert runtime.submitted == [
        SetAutoscaling(False, owner="root", reason="POST /autoscaler/disable"),
        SetAutoscaling(True, owner="root", reason="POST /autoscaler/enable"),
    ]


# -- status -------------------------------------------------------------------------------------


def test_status_has_a_stable_shape(client: TestClient, runtime: FakeRuntime) -> None:
    runtime.wrong = ("cannot write to the store: disk full",)
    body = client.get("/status").json()
    parts = {name: body.pop(name) for name in ("pools", "instances", "host")}
    assert body == {
        "version": "0.1.0",
        "controller_epoch": 7,
        "driver": "process",
        "wall": WALL,
        "uptime_s": 3600.0,
        "enabled": True,
        "autoscaling": {"enabled": True, "owner": "configuration", "reason": "", "since_wall": 0.0, "pauses": []},
        "recovering_s": 0.0,
        "next_check_s": 23.0,
        "scaling_events": 5,
        "unhealthy_agents": 1,
        "degraded": ["cannot write to the store: disk full"],
        "state_dir": "/var/lib/agentd",
        "config_file": "/etc/agentd/agentd.yaml",
        "http_address": "127.0.0.1:8766",
        "agents_address": "unix:/run/agentd/agents.sock",
        "cost": None,
        "advice": [],
    }
    assert [pool["name"] for pool in parts["pools"]] == [pool.name for pool in runtime.shown.pools]
    assert len(parts["instances"]) == 15


def test_status_shows_a_pool_with_all_it_knows(client: TestClient) -> None:
    pools = {pool["name"]: pool for pool in client.get("/status").json()["pools"]}
    assert pools["execution"] == {
        "name": "execution",
        "count": 3,
        "ready": 3,
        "starting": 0,
        "draining": 1,
        "unhealthy": 0,
        "failed": 0,
        "min": 1,
        "max": 5,
        "capacity": 5,
        "core": 1,
        "load": 0.11,
        "queue_length": 0,
        "in_flight": 1,
        "concurrency": 2,
        "policy": "threshold",
        "scale_up_threshold": 0.75,
        "scale_down_threshold": 0.25,
        "target": None,
        "headroom": {"instances": 14, "resource": "memory", "text": "memory for 14 more"},
        "footprint_bytes": 96 * 1024 * 1024,
        "footprint_learned": True,
        "next": HELD_DECISION,
        "up_cooldown_s": 0.0,
        "down_cooldown_s": 212.0,
        "bundled_agent": False,
        "cost_per_hour": 0.0,
        "start_failure": "",
        "rolling": {
            "state": "rolling",
            "owner": "alice",
            "total": 3,
            "done": 1,
            "max_unavailable": 0,
            "away": ["research-9101"],
            "stand_in": "research-9103",
            "text": "restarting 2 of 3, waiting for research-9101 to be ready",
            "no_stand_in": "",
        },
        "start_times": {"p50_s": None, "p95_s": None, "counted": 0, "failed": 0},
        "effect": None,
        "measuring": "",
        "readings": [],
        "offers": [],
        "pauses": [],
        "useful_max": None,
        "scaling_law": None,
        "conditions": [],
        "cost": None,
        "rules": [],
        "guards": [],
        "held_s": None,
        "forecast": None,
    }
    assert pools["testing"]["target"] == {
        "count": 3,
        "owner": "alice",
        "reason": "regression run tonight",
        "expires_in_s": 2400.0,
    }


def test_status_shows_what_pools_cost_and_how_they_scale(client: TestClient, runtime: FakeRuntime) -> None:
    cost = CostView(
        "EUR", 1.5, 0.5, Spent(0.5), Spent(20.0), Spent(30.0, 60.0, 1.0, 2.0, 3.0), 99.0,
        (BudgetView("day", 25.0, 20.0, 5.0, 3600.0),), (Scaling("7-3", WALL, -2, -1.0),),
    )  # fmt: skip
    rule = RuleView("threshold", (("scale_up_threshold", "0.75"),), 300.0, 600.0)
    pools = (replace(runtime.shown.pools[0], cost=cost, rules=(rule,), held_s=7.0), *runtime.shown.pools[1:])
    advice = (Advice("held_long", "primary", "why"),)
    runtime.shown = replace(runtime.shown, pools=pools, cost=replace(cost, one_more_per_hour=None), advice=advice)
    body = client.get("/status").json()
    shown = body["pools"][0]
    assert shown["cost"]["currency"] == "EUR"
    assert shown["cost"]["month"] == {
        "amount": 30.0, "agent_hours": 60.0, "cpu_hours": 1.0, "gib_hours": 2.0, "tasks": 3.0,
    }  # fmt: skip
    assert shown["cost"]["budgets"] == [
        {"window": "day", "amount": 25.0, "spent": 20.0, "left": 5.0, "ends_in_s": 3600.0}
    ]
    assert shown["cost"]["scalings"] == [{"decision": "7-3", "wall": WALL, "change": -2, "per_hour": -1.0}]
    assert (body["cost"]["per_hour"], body["cost"]["one_more_per_hour"]) == (1.5, None)
    assert body["advice"] == [{"code": "held_long", "pool": "primary", "text": "why"}]
    assert shown["held_s"] == 7.0
    assert shown["rules"] == [
        {
            "type": "threshold",
            "parameters": [{"name": "scale_up_threshold", "value": "0.75"}],
            "up_cooldown_s": 300.0,
            "down_cooldown_s": 600.0,
        }
    ]


def test_status_shows_what_collectors_have_read(client: TestClient, runtime: FakeRuntime) -> None:
    reading = ReadingView("queue", "redis_list", 12.0, 3.5, 10.0, False, "cannot connect")
    pools = (replace(runtime.shown.pools[0], readings=(reading,)), *runtime.shown.pools[1:])
    runtime.shown = replace(runtime.shown, pools=pools)
    assert client.get("/status").json()["pools"][0]["readings"] == [
        {
            "name": "queue", "kind": "redis_list", "value": 12.0, "age_s": 3.5, "every_s": 10.0, "stale": False,
            "trouble": "cannot connect",
        }
    ]  # fmt: skip


def test_status_shows_what_is_expected(client: TestClient, runtime: FakeRuntime) -> None:
    ahead = (ForecastAhead(600.0, Quantiles(1.0, 2.5, 4.0)),)
    found = ForecastSummary(heeded=False, code="forecast_costs", text="why not", ahead=ahead)
    runtime.shown = replace(
        runtime.shown, pools=(replace(runtime.shown.pools[0], forecast=found), *runtime.shown.pools[1:])
    )
    assert client.get("/status").json()["pools"][0]["forecast"] == {
        "heeded": False, "code": "forecast_costs", "text": "why not",
        "ahead": [{"ahead_s": 600.0, "expected": {"low": 1.0, "middle": 2.5, "high": 4.0}}],
    }  # fmt: skip


def test_status_shows_an_instance_with_all_it_knows(client: TestClient) -> None:
    instances = {instance["id"]: instance for instance in client.get("/status").json()["instances"]}
    assert instances["research-9101"] == {
        "id": "research-9101",
        "pool": "research",
        "port": 9101,
        "core_name": "",
        "incarnation": "9101a7",
        "pid": 29101,
        "state": "ready",
        "cause": "",
        "age_s": 1800.0,
        "state_age_s": 1790.0,
        "load": 0.86,
        "queue_length": 5,
        "in_flight": 2,
        "tasks_completed": 420,
        "response_time_p50_s": 1.26,
        "response_time_p95_s": 3.48,
        "last_beat_age_s": 2.4,
        "missed_beats": 0,
        "restarts": 0,
        "oom_kills": 0,
        "memory_bytes": 97 * 1024 * 1024,
        "cpu_cores": 0.12,
        "labels": {"model": "llama3:8b"},
        "health": "heartbeat",
    }
    assert instances["research-9103"]["load"] is None


def test_status_shows_the_host_with_its_reserve(client: TestClient) -> None:
    host = client.get("/status").json()["host"]
    assert host["memory_reserve_bytes"] == 32 * 1024**3 // 10
    assert host["disk_reserve_bytes"] == 1024**3
    assert host["watched"][0] == {
        "name": "ollama",
        "running": True,
        "pids": 2,
        "memory_bytes": 6 * 1024**3,
        "cpu_cores": 3.4,
    }


def test_status_is_answered_before_the_host_has_been_seen(client: TestClient, runtime: FakeRuntime) -> None:
    runtime.shown = replace(runtime.shown, host=None, pools=(), instances=(), next_check_s=None)
    body = client.get("/status").json()
    assert (body["host"], body["pools"], body["instances"], body["next_check_s"]) == (None, [], [], None)


# -- events and explanations --------------------------------------------------------------------


def test_events_of_all_kinds_with_their_ids(client: TestClient) -> None:
    events = client.get("/events?limit=2").json()["events"]
    assert events[1] == {
        "id": 10,
        "wall": WALL - 120.0,
        "type": "scale_up",
        "pool": "research",
        "instance": "research-9103",
        "reason": "High load: 0.87 > 0.75",
        "decision": "",
        "actor": "",
    }
    assert events[0]["type"] == "hold"


def test_events_are_narrowed_by_pool_instance_and_type(client: TestClient) -> None:
    def ids(query: str) -> list[int]:
        return [event["id"] for event in client.get(f"/events?{query}").json()["events"]]

    assert ids("pool=testing") == [7, 6, 5]
    assert ids("instance=research-9103") == [10]
    assert ids("type=scale_up&type=replace") == [10, 8]
    assert ids("pool=gone") == []


@pytest.mark.parametrize("query", ["pool=Research", "pool=a/b", "instance=research", "type=nonsense"])
def test_a_filter_that_can_match_nothing_is_told(client: TestClient, query: str) -> None:
    response = client.get(f"/events?{query}")
    assert (response.status_code, response.json()["error"]["reason"]) == (400, "INVALID_ARGUMENT")


def test_explain_tells_the_next_the_latest_and_the_history(client: TestClient) -> None:
    body = client.get("/explain/research").json()
    assert list(body) == ["pool", "next", "latest", "history"]
    assert body["pool"] == "research"
    assert body["next"]["limits"][0]["code"] == "headroom_memory"
    assert body["latest"]["direction"] == "up"
    assert body["history"] == [body["latest"]]
    assert client.get("/explain/primary").json()["latest"] is None


def test_an_unknown_pool_is_not_found(client: TestClient) -> None:
    response = client.get("/explain/nonsense")
    assert response.status_code == 404
    assert response.json() == {
        "error": {
            "reason": "UNKNOWN_POOL",
            "message": "cannot explain pool 'nonsense': the pools are "
            "primary, research, execution, analysis, planning, testing",
        }
    }


# -- health and errors --------------------------------------------------------------------------


def test_alive_and_ready(client: TestClient, runtime: FakeRuntime) -> None:
    assert client.get("/healthz").json() == {"alive": True}
    runtime.shown = replace(runtime.shown, recovering_s=4.0)
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "recovering": True, "recovering_s": 4.0, "degraded": []}


def test_not_ready_while_ending(client: TestClient) -> None:
    client.app.state.streams.close()  # type: ignore[attr-defined]
    response = client.get("/readyz")
    assert (response.status_code, response.json()["ready"]) == (503, False)
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/status/", "/assets/app.py", "/assets/../app.py", "/assets/%2e%2e/a.js"])
def test_an_unknown_path_is_not_found(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert (response.status_code, response.json()["error"]["reason"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/autoscaler/disable"), ("POST", "/status"), ("DELETE", "/autoscaler/stats"), ("PATCH", "/")],
)
def test_a_wrong_method_is_told_with_the_right_one(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.json()["error"]["reason"]) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["Allow"]


@pytest.mark.parametrize(("status", "code"), HTTP_STATUS.items())
def test_a_refusal_keeps_its_reason(client: TestClient, runtime: FakeRuntime, status: str, code: int) -> None:
    runtime.refusal = Refused("FLEET_DISABLED", "cannot scale: multi_agent.enabled is false", status=status)
    response = client.post("/autoscaler/enable")
    assert response.status_code == code
    assert response.json() == {
        "error": {"reason": "FLEET_DISABLED", "message": "cannot scale: multi_agent.enabled is false"}
    }


def test_an_error_of_agentd_is_explained(
    client: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise AgentdError("cannot read the store: disk I/O error")

    monkeypatch.setattr(runtime, "view", broken)
    response = client.get("/status")
    assert response.status_code == 503
    assert response.json()["error"] == {"reason": "UNAVAILABLE", "message": "cannot read the store: disk I/O error"}


def test_an_unexpected_error_tells_no_secrets(
    client: TestClient, runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(runtime, "view", broken)
    response = client.get("/status")
    assert (response.status_code, response.json()["error"]["reason"]) == (500, "INTERNAL")
    assert "secret" not in response.text


# -- the page -----------------------------------------------------------------------------------


def test_the_page_and_its_files_are_served(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for name, kind in ASSETS.items():
        asset = client.get(f"/assets/{name}")
        assert asset.status_code == 200
        assert asset.headers["content-type"].startswith(kind)


def test_the_page_needs_nothing_from_elsewhere_and_no_inline_code(client: TestClient) -> None:
    page = client.get("/").text
    assert "http" not in page
    assert "style=" not in page
    assert "onclick" not in page
    for name in ASSETS:
        text = client.get(f"/assets/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text, name
        assert "innerHTML" not in text, name


def test_the_page_is_small(client: TestClient) -> None:
    weight = len(client.get("/").content) + sum(len(client.get(f"/assets/{name}").content) for name in ASSETS)
    assert weight < 64 * 1024


def test_a_user_without_a_name_is_shown_by_number(connect_as: ConnectAs, runtime: FakeRuntime) -> None:
    connect_as(4242).post("/autoscaler/check")
    assert runtime.submitted == [Check(owner="uid 4242")]


# -- service discovery ----------------------------------------------------------------------------


def test_discovery_has_the_shape_that_prometheus_reads(client: TestClient) -> None:
    response = client.get("/discovery?pool=execution")
    assert response.headers["content-type"] == "application/json"
    groups = response.json()
    assert groups[0] == {
        "targets": ["127.0.0.1:9003"],
        "labels": {
            "__meta_agentd_pool": "execution",
            "__meta_agentd_instance": "execution-9003",
            "__meta_agentd_incarnation": "9003a7",
            "__meta_agentd_core_name": "executor",
            "__meta_agentd_state": "ready",
        },
    }
    assert groups[3]["labels"]["__meta_agentd_state"] == "draining"
    for group in groups:
        assert all(isinstance(value, str) for value in group["labels"].values()), "http_sd takes nothing else"


def test_the_documented_scrape_configuration_uses_what_there_is(client: TestClient) -> None:
    page = (Path(__file__).parents[2] / "docs/discovery.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (job,) = yaml.safe_load(block)["scrape_configs"]
    (source,) = job["http_sd_configs"]
    labels = client.get(source["url"].removeprefix("http://127.0.0.1:8766")).json()[0]["labels"]
    assert {name for rule in job["relabel_configs"] for name in rule["source_labels"]} <= set(labels)
    assert all(f"`{name}`" in page for name in labels)


def test_discovery_lists_what_runs_of_all_pools_the_silent_included(client: TestClient) -> None:
    found = {group["labels"]["__meta_agentd_instance"] for group in client.get("/discovery").json()}
    assert "analysis-9301" in found, "late with its heartbeat"
    assert found & {"research-9103", "testing-9501", "testing-9502"} == set(), "starting, in backoff, failed"
    assert len(found) == 12


def test_discovery_of_an_unknown_pool_names_the_known_ones(client: TestClient) -> None:
    response = client.get("/discovery?pool=reserch")
    assert response.status_code == 404
    text = "no pool 'reserch' (there are primary, research, execution, analysis, planning, testing)"
    assert response.json()["error"]["message"] == text


def test_what_a_scaling_brought_is_shown_with_pool_and_decision(client: TestClient, runtime: FakeRuntime) -> None:
    pools = {pool["name"]: pool for pool in client.get("/status").json()["pools"]}
    shown = pools["research"]["effect"]
    assert pools["research"]["measuring"] == "d-research-2"
    assert pools["research"]["start_times"] == {"p50_s": 1.25, "p95_s": 4.0, "counted": 12, "failed": 2}
    assert pools["execution"]["effect"] is None
    assert (shown["verdict"], shown["decision"], shown["whole"]) == ("helped", "d-research-1", None)
    assert shown["per_agent"] == {
        "metric": "response_time_p50",
        "demand": "arrivals",
        "relative": True,
        "change": -0.31,
        "low": -0.42,
        "high": -0.18,
        "before": 30,
        "after": 22,
    }
    assert (shown["before"]["response_time_p50_s"], shown["after"]["queue_length"]) == (2.5, None)
    made = next(each for each in runtime.history if each.pool == "research")
    runtime.history = [replace(made, effect=HELPED)]
    assert client.get("/explain/research").json()["latest"]["effect"] == shown

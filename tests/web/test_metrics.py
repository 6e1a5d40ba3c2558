"""The metrics page, as Prometheus reads it."""

from __future__ import annotations

import re

from msgspec.structs import replace
from starlette.testclient import TestClient

from agentd.core.ledger import Spent
from agentd.core.model import RollingState, State
from agentd.core.season import Quantiles
from agentd.core.views import BudgetView, CostView, ForecastAhead, ForecastSummary, ReadingView
from tests.web.fake import HOSTILE, FakeRuntime

LABELS = r'\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*\}'
LINE = re.compile(rf"[a-z_]+(?:{LABELS})? -?[0-9.e+-]+\Z")


def lines(client: TestClient) -> list[str]:
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.text.endswith("\n")
    return str(response.text).splitlines()


def test_every_line_is_well_formed_and_no_series_stands_twice(client: TestClient) -> None:
    samples = [line for line in lines(client) if not line.startswith("#")]
    assert [line for line in samples if not LINE.match(line)] == []
    series = [line.rpartition(" ")[0] for line in samples]
    assert len(series) == len(set(series))


def test_every_metric_has_help_and_type_once_before_its_samples(client: TestClient) -> None:
    seen: list[str] = []
    for line in lines(client):
        name = line.split()[2] if line.startswith("#") else re.split(r"[{ ]", line)[0]
        if not seen or seen[-1] != name:
            assert name not in seen, "samples of one metric must stand together"
            seen.append(name)
            assert line.startswith(f"# HELP {name} ")


def test_the_figures_of_the_fleet(client: TestClient) -> None:
    page = lines(client)
    for line in (
        'agentd_info{version="0.1.0",driver="process"} 1',
        "agentd_epoch 7",
        "agentd_autoscaling_enabled 1",
        "agentd_scaling_events_total 5",
        "agentd_unhealthy_agents 1",
        'agentd_pool_agents{pool="research",state="ready"} 3',
        'agentd_pool_agents{pool="research",state="starting"} 1',
        'agentd_pool_agents{pool="research",state="failed"} 0',
        'agentd_pool_load_ratio{pool="research"} 0.88',
        'agentd_pool_queue_length{pool="research"} 17',
        'agentd_pool_max{pool="research"} 5',
        'agentd_pool_start_seconds{pool="research",quantile="0.5"} 1.25',
        'agentd_pool_start_seconds{pool="research",quantile="0.95"} 4.0',
        "# TYPE agentd_pool_starts_failed_total counter",
        'agentd_pool_starts_failed_total{pool="research"} 2',
        'agentd_pool_starts_failed_total{pool="planning"} 0',
        'agentd_pool_effect{pool="research",verdict="helped"} 1',
        'agentd_pool_limited{pool="research",limit="headroom_memory"} 1',
        'agentd_pool_headroom_agents{pool="research"} 0',
        f"agentd_host_memory_total_bytes {32 * 1024**3}",
        'agentd_host_pressure_percent{resource="memory"} 1.7',
        'agentd_watched_running{name="ollama"} 1',
        "# TYPE agentd_scaling_events_total counter",
    ):
        assert line in page
    states = [line for line in page if line.startswith('agentd_pool_agents{pool="research"')]
    assert len(states) == len(State)


def test_a_rolling_restart_and_how_far_it_is(client: TestClient, runtime: FakeRuntime) -> None:
    page = lines(client)
    for line in (
        'agentd_pool_rolling{pool="research",state="rolling"} 1',
        'agentd_pool_rolling{pool="research",state="stopped"} 0',
        'agentd_pool_rolling_agents{pool="research"} 3',
        'agentd_pool_rolling_done{pool="research"} 1',
        'agentd_pool_rolling_away{pool="research"} 1',
    ):
        assert line in page
    runtime.shown = replace(runtime.shown, pools=tuple(replace(pool, rolling=None) for pool in runtime.shown.pools))
    none = [line for line in lines(client) if line.startswith("agentd_pool_rolling")]
    assert len(none) == len(RollingState) * len(runtime.shown.pools)
    assert all(line.endswith(" 0") for line in none)


def test_event_loops_that_stand_still_are_counted(client: TestClient, runtime: FakeRuntime) -> None:
    assert 'agentd_pool_loops_blocked{pool="research"} 0' in lines(client)
    instances = tuple(
        replace(one, loop_blocked_s=0.0 if one.pool == "research" else None) for one in runtime.shown.instances
    )
    runtime.shown = replace(runtime.shown, instances=instances)
    count = sum(one.pool == "research" for one in instances)
    assert count > 1
    assert f'agentd_pool_loops_blocked{{pool="research"}} {count}' in lines(client)
    assert 'agentd_pool_loops_blocked{pool="planning"} 0' in lines(client)


def test_what_is_unknown_has_no_line(client: TestClient, runtime: FakeRuntime) -> None:
    runtime.shown = replace(runtime.shown, host=None)
    page = "\n".join(lines(client))
    assert 'agentd_pool_load_ratio{pool="planning"}' not in page
    assert "agentd_host" not in page


def test_labels_are_escaped(client: TestClient, runtime: FakeRuntime) -> None:
    assert runtime.shown.host is not None
    strange = replace(runtime.shown.host.watched[0], name=f'{HOSTILE}\\"\n')
    runtime.shown = replace(runtime.shown, host=replace(runtime.shown.host, watched=(strange, strange)))
    assert r'agentd_watched_running{name="<img src=x onerror=\"document.title=1\">\\\"\n"} 1' in lines(client)


def test_collectors_have_their_number_its_age_and_whether_they_fail(client: TestClient, runtime: FakeRuntime) -> None:
    read = ReadingView("queue", "redis-list", 12.5, 3.0, 10.0, stale=False, trouble="")
    never = ReadingView("other", "command", None, None, 10.0, stale=True, trouble="no such program")
    pools = runtime.shown.pools
    runtime.shown = replace(runtime.shown, pools=(replace(pools[0], readings=(read, never)), *pools[1:]))
    found = [line for line in lines(client) if line.startswith("agentd_collector")]
    name = pools[0].name
    assert found == [
        f'agentd_collector_value{{pool="{name}",collector="queue"}} 12.5',
        f'agentd_collector_age_seconds{{pool="{name}",collector="queue"}} 3.0',
        f'agentd_collector_failing{{pool="{name}",collector="queue"}} 0',
        f'agentd_collector_failing{{pool="{name}",collector="other"}} 1',
    ]


def test_what_pools_cost_and_what_budgets_leave(client: TestClient, runtime: FakeRuntime) -> None:
    assert not [line for line in lines(client) if line.startswith("agentd_cost")]
    budgets = (BudgetView("day", 25.0, 20.0, 5.0, 3600.0),)
    cost = CostView("EUR", 1.5, 0.5, Spent(0.5), Spent(20.0), Spent(30.0), 99.0, budgets, ())
    first = replace(runtime.shown.pools[0], cost=cost)
    runtime.shown = replace(runtime.shown, pools=(first, *runtime.shown.pools[1:]), cost=replace(cost, per_hour=2.5))
    shown = lines(client)
    for line in (
        'agentd_cost_per_hour{pool="primary"} 1.5',
        'agentd_cost_one_more_per_hour{pool="primary"} 0.5',
        'agentd_cost_spent{pool="primary",window="hour"} 0.5',
        'agentd_cost_spent{pool="primary",window="month"} 30.0',
        'agentd_cost_projected_month{pool="primary"} 99.0',
        'agentd_cost_budget{pool="primary",window="day"} 25.0',
        'agentd_cost_budget_left{pool="primary",window="day"} 5.0',
        "agentd_cost_total_per_hour 2.5",
        'agentd_cost_total_spent{window="day"} 20.0',
        "agentd_cost_total_projected_month 99.0",
        'agentd_cost_total_budget_left{window="day"} 5.0',
    ):
        assert line in shown


def test_what_is_expected_of_the_pools_of_which_anything_is(client: TestClient, runtime: FakeRuntime) -> None:
    assert not [line for line in lines(client) if not line.startswith("#") and "forecast" in line]
    ahead = (ForecastAhead(600.0, Quantiles(1.0, 2.5, 4.0)), ForecastAhead(86400.0, Quantiles(0.0, 1.0, 9.0)))
    first, *others = runtime.shown.pools
    for heeded in (False, True):
        found = ForecastSummary(heeded=heeded, code="it", text="why", ahead=ahead)
        runtime.shown = replace(runtime.shown, pools=(replace(first, forecast=found), *others))
        page = lines(client)
        assert [line for line in page if not line.startswith("#") and "forecast" in line] == [
            'agentd_pool_forecast_tasks{pool="primary",ahead_seconds="600",quantile="0.1"} 1.0',
            'agentd_pool_forecast_tasks{pool="primary",ahead_seconds="600",quantile="0.5"} 2.5',
            'agentd_pool_forecast_tasks{pool="primary",ahead_seconds="600",quantile="0.9"} 4.0',
            'agentd_pool_forecast_tasks{pool="primary",ahead_seconds="86400",quantile="0.1"} 0.0',
            'agentd_pool_forecast_tasks{pool="primary",ahead_seconds="86400",quantile="0.5"} 1.0',
            'agentd_pool_forecast_tasks{pool="primary",ahead_seconds="86400",quantile="0.9"} 9.0',
            f'agentd_pool_forecast_heeded{{pool="primary"}} {int(heeded)}',
        ]

"""The metrics page in Prometheus' text format, version 0.0.4.

Owns the names of the metrics, which are an interface: they are added to, never renamed. Series are per pool, never
per instance, so that their number follows the configuration and not the load. It never computes what the view
does not say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from agentd.core.model import FleetConfig, HostSample, RollingState, State
from agentd.core.views import CostView, FleetView, PoolView
from agentd.web.fleet import About

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float | None]
_Priced = list[tuple[dict[str, str], CostView]]


def render(view: FleetView, config: FleetConfig, about: About, degraded: tuple[str, ...], now: float) -> str:
    """The whole page. A value that is unknown has no line."""
    page = _Page()
    page.one("agentd_info", "Always 1; what runs here.", 1, version=about.version, driver=about.driver)
    page.one("agentd_epoch", "Counts up with every start of agentd.", view.epoch)
    page.one("agentd_uptime_seconds", "Time since agentd started.", max(0.0, now - about.started))
    page.one("agentd_enabled", "1 when agentd manages the fleet.", view.enabled)
    page.one("agentd_autoscaling_enabled", "1 when agentd scales.", view.autoscaling.enabled)
    page.one("agentd_recovering_seconds", "Time left in which nothing is replaced.", view.recovering_s)
    page.one("agentd_degraded", "How many things are wrong with agentd itself.", len(degraded))
    page.one("agentd_unhealthy_agents", "Agents late with their heartbeats.", view.unhealthy)
    page.one(
        "agentd_scaling_events_total", "Scale-ups, scale-downs and replacements ever.", view.scaling_events, "counter"
    )
    _pools(page, view)
    _costs(page, view)
    if view.host is not None:
        _host(page, view.host, config)
    return page.text()


def _pools(page: _Page, view: FleetView) -> None:
    states = Counter((instance.pool, instance.state) for instance in view.instances)
    page.many(
        "agentd_pool_agents",
        "Agents by state.",
        (
            ({"pool": pool.name, "state": state.value}, states[pool.name, state])
            for pool in view.pools
            for state in State
        ),
    )

    def gauge(name: str, text: str, values: Mapping[str, float | None]) -> None:
        page.many(f"agentd_pool_{name}", text, (({"pool": pool}, value) for pool, value in values.items()))

    def each(read: str) -> dict[str, float | None]:
        return {pool.name: getattr(pool, read) for pool in view.pools}

    gauge("count", "Committed capacity: ready, starting and unhealthy not yet replaced.", each("count"))
    gauge("min", "Fewest agents.", each("min"))
    gauge("max", "Most agents.", each("max"))
    gauge("capacity", "How many it could have: the least of max, ports and headroom.", each("capacity"))
    gauge("load_ratio", "Mean load of the ready agents.", each("load"))
    gauge("queue_length", "Tasks accepted and not begun.", each("queue_length"))
    gauge("in_flight", "Tasks begun and not finished.", each("in_flight"))
    gauge("concurrency", "Tasks one agent works on at a time.", each("concurrency"))
    gauge("scale_up_threshold_ratio", "Load above which it grows.", each("scale_up_threshold"))
    gauge("scale_down_threshold_ratio", "Load below which it shrinks.", each("scale_down_threshold"))
    gauge("up_cooldown_seconds", "Time until it may grow.", each("up_cooldown_s"))
    gauge("down_cooldown_seconds", "Time until it may shrink.", each("down_cooldown_s"))
    gauge("footprint_bytes", "Memory of one agent.", each("footprint_bytes"))
    gauge("cost_per_hour", "Cost of all its agents.", each("cost_per_hour"))
    gauge("wanted", "Agents the next evaluation asks for.", {pool.name: pool.next.wanted for pool in view.pools})
    gauge("granted", "Agents it gets, after all limits.", {pool.name: pool.next.granted for pool in view.pools})
    gauge(
        "headroom_agents",
        "How many more the host can carry.",
        {pool.name: pool.headroom.instances for pool in view.pools},
    )
    blocked = Counter(instance.pool for instance in view.instances if instance.loop_blocked_s is not None)
    gauge(
        "loops_blocked", "Agents whose event loop stands still.", {pool.name: blocked[pool.name] for pool in view.pools}
    )
    _rolling(page, view.pools)
    _starts(page, view.pools)
    _collectors(page, view.pools)
    _forecasts(page, view.pools)
    page.many(
        "agentd_pool_effect",
        "1 for the verdict on the last scaling that was judged.",
        (({"pool": pool.name, "verdict": pool.effect.verdict.value}, 1) for pool in view.pools if pool.effect),
    )
    page.many("agentd_pool_limited", "1 for each limit in force.", _limits(view.pools))


def _costs(page: _Page, view: FleetView) -> None:
    """Of the pools that cost something, and `total` of all of them: with it also what removed pools have spent."""
    pools: _Priced = [({"pool": pool.name}, pool.cost) for pool in view.pools if pool.cost is not None]
    total: _Priced = [({}, view.cost)] if view.cost is not None else []
    _costs_of(page, "agentd_cost", "What a pool costs", "What a pool has", pools)
    _costs_of(page, "agentd_cost_total", "What all pools cost", "What all pools have", total)
    page.many(
        "agentd_cost_one_more_per_hour",
        "What one more agent would cost in an hour.",
        ((labels, cost.one_more_per_hour) for labels, cost in pools),
    )


def _costs_of(page: _Page, prefix: str, costs: str, has: str, priced: _Priced) -> None:
    page.many(f"{prefix}_per_hour", f"{costs} in an hour at the present size.", ((x, c.per_hour) for x, c in priced))
    page.many(
        f"{prefix}_spent",
        f"{has} spent in this hour, day and month (UTC).",
        (
            ({**labels, "window": window}, spent.amount)
            for labels, cost in priced
            for window, spent in (("hour", cost.spent_hour), ("day", cost.spent_day), ("month", cost.spent_month))
        ),
    )
    page.many(
        f"{prefix}_projected_month",
        f"{has} spent when this month ends, as it looks now.",
        ((labels, cost.projected_month) for labels, cost in priced),
    )
    budgets = [({**labels, "window": each.window}, each) for labels, cost in priced for each in cost.budgets]
    page.many(f"{prefix}_budget", f"{has} as budgets.", ((labels, each.amount) for labels, each in budgets))
    page.many(f"{prefix}_budget_left", f"{has} left of that.", ((labels, each.left) for labels, each in budgets))


def _starts(page: _Page, pools: Sequence[PoolView]) -> None:
    page.many(
        "agentd_pool_start_seconds",
        "Time from asking for an agent's start to ready, of the last 50 starts.",
        (
            ({"pool": pool.name, "quantile": name}, value)
            for pool in pools
            for name, value in (("0.5", pool.start_times.p50_s), ("0.95", pool.start_times.p95_s))
        ),
    )
    page.many(
        "agentd_pool_starts_failed_total",
        "Starts that failed or were not ready in time.",
        (({"pool": pool.name}, pool.start_times.failed) for pool in pools),
        "counter",
    )


def _collectors(page: _Page, pools: Sequence[PoolView]) -> None:
    found = [({"pool": pool.name, "collector": one.name}, one) for pool in pools for one in pool.readings]
    page.many("agentd_collector_value", "The last number read.", ((labels, one.value) for labels, one in found))
    page.many("agentd_collector_age_seconds", "Time since that.", ((labels, one.age_s) for labels, one in found))
    text = "1 when the last attempt to read has failed."
    page.many("agentd_collector_failing", text, ((labels, bool(one.trouble)) for labels, one in found))


def _forecasts(page: _Page, pools: Sequence[PoolView]) -> None:
    """Of pools of which anything can be expected, as far ahead as it can."""
    found = [(pool.name, pool.forecast) for pool in pools if pool.forecast is not None]
    page.many(
        "agentd_pool_forecast_tasks",
        "Tasks expected at work and waiting so many seconds ahead, the most of five minutes.",
        (
            ({"pool": pool, "ahead_seconds": f"{each.ahead_s:g}", "quantile": quantile}, value)
            for pool, summary in found
            for each in summary.ahead
            for quantile, value in (
                ("0.1", each.expected.low), ("0.5", each.expected.middle), ("0.9", each.expected.high)
            )
        ),
    )  # fmt: skip
    text = "1 when the forecast may raise the pool."
    page.many("agentd_pool_forecast_heeded", text, (({"pool": pool}, summary.heeded) for pool, summary in found))


def _rolling(page: _Page, pools: Sequence[PoolView]) -> None:
    """Restarts of pools that are under way or stopped; a pool without one has no lines but those of its state."""
    page.many(
        "agentd_pool_rolling",
        "1 for the state that a rolling restart of the pool is in.",
        (
            ({"pool": pool.name, "state": state.value}, pool.rolling is not None and pool.rolling.state is state)
            for pool in pools
            for state in RollingState
        ),
    )
    under_way = [(pool.name, pool.rolling) for pool in pools if pool.rolling is not None]
    for name, text, read in (
        ("agents", "Agents that the rolling restart is of.", lambda rolling: rolling.total),
        ("done", "Agents that it has restarted, or that are gone.", lambda rolling: rolling.done),
        ("away", "Agents that it has taken down and that are not back.", lambda rolling: len(rolling.away)),
    ):
        samples = (({"pool": pool}, read(rolling)) for pool, rolling in under_way)
        page.many(f"agentd_pool_rolling_{name}", text, samples)


def _limits(pools: Iterable[PoolView]) -> Iterable[Sample]:
    for pool in pools:
        # A code can stand twice in one decision; a series can stand on the page only once.
        for code in sorted({limit.code for limit in pool.next.limits}):
            yield {"pool": pool.name, "limit": code}, 1


def _host(page: _Page, host: HostSample, config: FleetConfig) -> None:
    reserve = config.reserve.memory_reserve_bytes(host.memory_total_bytes)
    page.one("agentd_host_cpu_cores", "Cores.", host.cores)
    page.one("agentd_host_cpu_used_cores", "Cores in use.", host.cpu_used_cores)
    page.one("agentd_host_memory_total_bytes", "Memory.", host.memory_total_bytes)
    page.one("agentd_host_memory_available_bytes", "Memory available.", host.memory_available_bytes)
    page.one("agentd_host_memory_reserve_bytes", "Memory that scaling leaves free.", reserve)
    page.one("agentd_host_disk_free_bytes", "Disk space free.", host.disk_free_bytes)
    pressures = {
        "memory": host.memory_pressure_percent,
        "cpu": host.cpu_pressure_percent,
        "io": host.io_pressure_percent,
    }
    page.many(
        "agentd_host_pressure_percent",
        "Share of the last 10 s in which some task waited.",
        (({"resource": resource}, value) for resource, value in pressures.items()),
    )
    watched = {each.name: each for each in host.watched}  # the last of two of one name
    page.many(
        "agentd_watched_running",
        "1 when the watched program runs.",
        (({"name": name}, each.running) for name, each in watched.items()),
    )
    page.many(
        "agentd_watched_memory_bytes",
        "Memory of a watched program.",
        (({"name": name}, each.memory_bytes) for name, each in watched.items()),
    )
    page.many(
        "agentd_watched_cpu_cores",
        "Cores used by a watched program.",
        (({"name": name}, each.cpu_cores) for name, each in watched.items()),
    )


class _Page:
    def __init__(self) -> None:
        self._lines: list[str] = []

    def one(self, name: str, text: str, value: float | None, kind: str = "gauge", /, **labels: str) -> None:
        self.many(name, text, [(labels, value)], kind)

    def many(self, name: str, text: str, samples: Iterable[Sample], kind: str = "gauge") -> None:
        """One metric; without any known sample it is left out."""
        lines = [_line(name, labels, value) for labels, value in samples if value is not None]
        if lines:
            self._lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines]

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    number = repr(float(value)) if isinstance(value, float) else str(int(value))
    return f"{name}{{{inside}}} {number}" if inside else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

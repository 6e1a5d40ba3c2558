"""The dashboard in a real browser: what a person sees, and what the two buttons do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from agentd.core.ledger import Scaling, Spent
from agentd.core.messages import Check, EventType, Record, SetAutoscaling
from agentd.core.model import Limit
from agentd.core.season import Quantiles
from agentd.core.views import Advice, BudgetView, CostView, ForecastAhead, ForecastSummary, ReadingView, RuleView
from agentd.web.app import create_app
from agentd.web.listener import listen
from agentd.web.server import HttpServer
from tests.web import browser as webdriver
from tests.web.browser import Browser
from tests.web.fake import HOSTILE, FakeAbout, FakeRuntime

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(webdriver.missing()), reason=webdriver.missing()),
]


@dataclass
class Site:
    """A server of a fake fleet, on a loop of its own in a thread."""

    runtime: FakeRuntime
    server: HttpServer
    loop: asyncio.AbstractEventLoop

    @property
    def url(self) -> str:
        return f"http://{self.server.address}/"

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=20)


@pytest.fixture
def site(runtime: FakeRuntime) -> Iterator[Site]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    made = Site(runtime, HttpServer(create_app(runtime, FakeAbout()), listen("127.0.0.1", 0)), loop)
    try:
        made.run(made.server.start())
        yield made
    finally:
        made.run(made.server.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with webdriver.chromium() as found:
        yield found


@pytest.fixture
def page(chromium: Browser, site: Site) -> Browser:
    chromium.console()
    chromium.open(site.url)
    chromium.until("document.querySelectorAll('#instances tr').length && document.querySelector('#events li')")
    return chromium


def test_pools_instances_events_and_host_are_shown(page: Browser) -> None:
    research = page.text('[data-pool="research"]')
    assert "88 % load" in research
    assert "wants 5, stays at 4. High load: 0.88 > 0.75" in research
    assert "memory headroom allows 4: 310 MiB more are needed for 5" in research
    assert page.script("document.querySelectorAll('#pools article').length") == 6
    assert page.script("document.querySelectorAll('#instances tr').length") == 15
    assert "failed" in page.text('#instances [data-id="testing-9502"]')
    assert "High load: 0.87 > 0.75" in page.text("#events")
    host = page.text("#host")
    assert "3.1 GiB free" in host
    assert "ollama" in host


def test_what_agents_say_stays_text_and_the_console_stays_empty(page: Browser) -> None:
    assert HOSTILE in page.text('#instances [data-id="testing-9502"]')
    assert HOSTILE in page.text("#events")
    assert page.script("document.querySelectorAll('main img, main script').length") == 0
    assert page.console() == []


def test_the_switch_turns_autoscaling_off_and_on(page: Browser, site: Site) -> None:
    page.until("!document.querySelector('#autoscaling').disabled")
    page.click("#autoscaling")
    page.until("document.querySelector('#autoscaling').ariaChecked === 'false'")
    page.until("document.querySelector('#notices').innerText.includes('Autoscaling is off')")
    page.click("#autoscaling")
    page.until("document.querySelector('#autoscaling').ariaChecked === 'true'")
    switched = [event.enabled for event in site.runtime.submitted if isinstance(event, SetAutoscaling)]
    assert switched == [False, True]


def test_check_now_tells_what_came_of_it(page: Browser, site: Site) -> None:
    page.until("!document.querySelector('#check').disabled")
    page.click("#check")
    page.until("document.querySelector('#answer').innerText.includes('Checked 6 pools: testing 2 → 3')")
    assert "held back: research, execution" in page.text("#answer")
    assert [type(event) for event in site.runtime.submitted] == [Check]


def scale_up(site: Site) -> None:
    record = Record(EventType.SCALE_UP, "High load: 0.99 > 0.75", "research", "research-9104")
    site.run(site.runtime.add(record))


def test_a_new_event_appears_by_itself_on_top(page: Browser, site: Site) -> None:
    page.until("document.querySelector('#live').innerText === 'live'")

    scale_up(site)
    page.until("document.querySelector('#events li').innerText.includes('research-9104')")
    page.until("document.querySelector('#spoken').innerText.includes('scale up research-9104')")


STREAM_IS_SLOW = """(() => {
Object.defineProperty(EventSource.prototype, "onmessage", {
  set(hear) { this.addEventListener("message", (message) => { window.late = () => hear(message); }); },
});
for (const hidden of [true, false]) {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}
})()"""


def test_a_new_event_is_spoken_also_where_the_list_was_quicker_than_the_stream(page: Browser, site: Site) -> None:
    page.until("document.querySelector('#live').innerText === 'live'")
    page.script("document.querySelector('#live').innerText = ''")
    page.script(STREAM_IS_SLOW)
    page.until("document.querySelector('#live').innerText === 'live'")

    scale_up(site)
    page.until("Boolean(window.late)")
    page.click("#scaling-only")
    page.until("document.querySelector('#events li').innerText.includes('research-9104')")
    assert "research-9104" not in page.text("#spoken")
    page.script("window.late()")
    page.until("document.querySelector('#spoken').innerText.includes('scale up research-9104')")


def test_scaling_only_leaves_out_the_rest(page: Browser) -> None:
    page.click("#scaling-only")
    page.until("document.querySelectorAll('#events li').length === 3")


def test_the_filter_narrows_the_instances(page: Browser) -> None:
    page.type("#filter", "research start")
    page.until("document.querySelectorAll('#instances tr').length === 1")
    assert "research-9103" in page.text("#instances")
    assert page.text("#instances-sum") == "1 of 15"


def test_figures_change_in_place(page: Browser, site: Site) -> None:
    page.script("document.querySelector('[data-pool=research]').marked = true")
    pools = tuple(replace(pool, load=0.31) if pool.name == "research" else pool for pool in site.runtime.shown.pools)
    site.runtime.shown = replace(site.runtime.shown, pools=pools)
    page.until("document.querySelector('[data-pool=research]').innerText.includes('31 % load')")
    assert page.script("document.querySelector('[data-pool=research]').marked") is True


def test_what_all_costs_is_a_tile_where_any_cost_is_configured(page: Browser, site: Site) -> None:
    assert "Cost" not in page.text("#host")
    budget = BudgetView("day", 25.0, 24.5, 0.5, 3600.0)
    scalings = (Scaling("d-2", 0.0, -2, -0.5), Scaling("d-1", 0.0, 2, 0.5))
    cost = CostView("EUR", 1.5, None, Spent(0.5), Spent(24.5), Spent(30.0), 99.0, (budget,), scalings)
    pools = tuple(replace(pool, cost=cost) if pool.name == "research" else pool for pool in site.runtime.shown.pools)
    site.runtime.shown = replace(site.runtime.shown, cost=cost, pools=pools)
    page.until("document.querySelector('#host').innerText.includes('Cost')")
    host = page.text("#host")
    assert "1.50 EUR an hour" in host
    assert "24.50 today, 99.00 projected this month; 0.50 of 25.00 left today" in host
    text = "1.50 EUR an hour · the last scaling saves 0.50 EUR an hour · 0.50 of 25.00 left today"
    assert text in page.text('[data-pool="research"]')


def test_what_a_person_might_change_is_shown(page: Browser, site: Site) -> None:
    advice = (Advice("ports_scarce", "research", "0 of 3 ports are free"), Advice("autoscaling_off", "", HOSTILE))
    site.runtime.shown = replace(site.runtime.shown, advice=advice)
    page.until("document.querySelectorAll('#notices .advice').length === 2")
    assert "research: 0 of 3 ports are free" in page.text("#notices")
    assert HOSTILE in page.text("#notices")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scale-up cooldown: 90 s left", "scale-up cooldown: 90 s left"),
        ("at most 2 started in 30 s; 2 were", "at most 2 started in 30 s; 2 were · 90 s left"),
    ],
)
def test_how_long_a_limit_holds_is_told_once(page: Browser, site: Site, text: str, told: str) -> None:
    pool = next(pool for pool in site.runtime.shown.pools if pool.name == "research")
    until = site.runtime.clock.now() + 90.0
    change(site, next=replace(pool.next, limits=(Limit("up_rate", text, until),)))
    page.until(f"document.querySelector('[data-pool=research] .limits').innerText.startsWith({text!r})")
    assert page.text("[data-pool=research] .limits") == told


LINES = "document.querySelectorAll('[data-pool=research] .spark-threshold')"
HEIGHT_OF = f"[...{LINES}].map((line) => line.getAttribute('y1')).sort()"


@pytest.mark.parametrize(
    ("rules", "policy", "heights", "told"),
    [
        ([("threshold", ())], "threshold", ["12.0", "32.0"], "grows above 75 %"),
        ([("adaptive", (("standby", "0"),))], "adaptive", [], ""),
        ([("target", (("signal", "load"), ("target", "0.5")))], "target", ["22.0"], "aims at 50 %"),
        ([("target", (("signal", "queue"), ("target", "5")))], "target", [], ""),
    ],
)
def test_lines_are_drawn_at_the_loads_that_mean_something(
    page: Browser, site: Site, rules: list[tuple[str, tuple[tuple[str, str], ...]]], policy: str, heights: list[str],
    told: str,
) -> None:  # fmt: skip
    assert page.script(HEIGHT_OF) == ["12.0", "32.0"]
    views = tuple(RuleView(kind, parameters, 0.0, 0.0) for kind, parameters in rules)
    change(site, rules=views, policy=policy, count=4)
    page.until("document.querySelector('[data-pool=research] .number-now').innerText === '4'")
    page.until(f"{LINES}.length === {len(heights)}")
    assert page.script(HEIGHT_OF) == heights
    assert told in page.script("document.querySelector('[data-pool=research]').innerHTML")


def test_what_collectors_have_read_is_shown_where_a_pool_has_any(page: Browser, site: Site) -> None:
    assert page.script("document.querySelector('[data-pool=research] .readings').hidden") is True
    read = ReadingView("queue", "redis_list", 1234.0, 3.0, 10.0, False, "")
    stale = ReadingView("depth", "command", 5.0, 90.0, 10.0, True, "ended with code 1")
    never = ReadingView("cost", "command", None, None, 10.0, True, HOSTILE)
    change(site, readings=(read, stale, never))
    page.until("!document.querySelector('[data-pool=research] .readings').hidden")
    text = page.text('[data-pool="research"] .readings')
    assert text == f"queue 1,234 · depth 5, 90 s old: ended with code 1 · cost: {HOSTILE}"
    assert page.script("document.querySelectorAll('main img, main script').length") == 0


def test_what_is_expected_is_one_line_where_anything_is(page: Browser, site: Site) -> None:
    assert page.script("document.querySelector('[data-pool=research] .forecast').hidden") is True
    leads = ((600.0, 11.6), (3600.0, 14.0), (86400.0, 9.2))
    ahead = tuple(ForecastAhead(ahead_s, Quantiles(0.0, middle, 99.0)) for ahead_s, middle in leads)
    for heeded, told in ((False, "not heeded"), (True, "heeded")):
        change(site, forecast=ForecastSummary(heeded=heeded, code="it", text=HOSTILE, ahead=ahead))
        page.until(f"document.querySelector('[data-pool=research] .forecast').innerText.includes('24 h; {told}: ')")
    text = page.text('[data-pool="research"] .forecast')
    assert text == f"Tasks expected: 12 in 10 min, 14 in 1 h, 9 in 24 h; heeded: {HOSTILE}"
    change(site, forecast=ForecastSummary(heeded=False, code="forecast_unused", text="no trigger", ahead=ahead[:1]))
    page.until("document.querySelector('[data-pool=research] .forecast').innerText === 'Tasks expected: 12 in 10 min'")
    assert page.script("document.querySelectorAll('main img, main script').length") == 0


def change(site: Site, **changes: Any) -> None:
    """Let the pool research be otherwise."""
    pools = tuple(replace(pool, **changes) if pool.name == "research" else pool for pool in site.runtime.shown.pools)
    site.runtime.shown = replace(site.runtime.shown, pools=pools)


def test_a_lost_connection_is_told_and_mends_itself(page: Browser, site: Site, runtime: FakeRuntime) -> None:
    port = int(site.server.address.rpartition(":")[2])
    site.run(site.server.stop())
    page.until("!document.querySelector('#lost').hidden")
    assert "Agents run on without it" in page.text("#lost")
    site.server = HttpServer(create_app(runtime, FakeAbout()), listen("127.0.0.1", port))
    site.run(site.server.start())
    page.until("document.querySelector('#lost').hidden && document.querySelector('#live').innerText === 'live'")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_is_wider_than_the_screen(page: Browser, width: int, scheme: str) -> None:
    page.show_as(width, 900, scheme)
    assert page.script("document.documentElement.scrollWidth") <= width
    assert page.script(f"matchMedia('(prefers-color-scheme: {scheme})').matches") is True

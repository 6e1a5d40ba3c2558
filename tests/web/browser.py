"""A headless Chromium, steered through chromedriver's WebDriver protocol with the standard library alone."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
WAIT_MS = 20_000

# Resolves when the expression holds, looking again at every frame; the driver's script timeout bounds it.
_UNTIL = """
const done = arguments[arguments.length - 1];
const holds = () => { try { return (EXPRESSION); } catch { return false; } };
const look = () => { const found = holds(); if (found) done(found); else setTimeout(look, 20); };
look();
"""


class Browser:
    """One page in one Chromium."""

    def __init__(self, driver: str, session: str) -> None:
        self._url = f"{driver}/session/{session}"

    def open(self, url: str) -> None:
        call("POST", f"{self._url}/url", {"url": url})

    def script(self, text: str) -> Any:
        return call("POST", f"{self._url}/execute/sync", {"script": f"return ({text});", "args": []})

    def until(self, expression: str) -> Any:
        """The value of a JavaScript expression as soon as it is truthy.

        Raises:
            WebDriverError: it was not within `WAIT_MS`.
        """
        return call(
            "POST", f"{self._url}/execute/async", {"script": _UNTIL.replace("EXPRESSION", expression), "args": []}
        )

    def click(self, selector: str) -> None:
        found = call("POST", f"{self._url}/element", {"using": "css selector", "value": selector})
        call("POST", f"{self._url}/element/{next(iter(found.values()))}/click", {})

    def type(self, selector: str, text: str) -> None:
        found = call("POST", f"{self._url}/element", {"using": "css selector", "value": selector})
        call("POST", f"{self._url}/element/{next(iter(found.values()))}/value", {"text": text})

    def text(self, selector: str) -> str:
        return str(self.script(f"document.querySelector({json.dumps(selector)}).innerText"))

    def console(self) -> list[str]:
        """What was written to the console, errors of the page among it, since the last call."""
        return [entry["message"] for entry in call("POST", f"{self._url}/se/log", {"type": "browser"})]

    def devtools(self, command: str, **parameters: Any) -> Any:
        return call("POST", f"{self._url}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def show_as(self, width: int, height: int, scheme: str) -> None:
        """Lay the page out at this size, in the `light` or `dark` scheme."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


class WebDriverError(Exception):
    """What chromedriver answered instead of a value."""


def missing() -> str:
    """What is not installed, or an empty text."""
    gone = [str(path) for path in (CHROMIUM, CHROMEDRIVER) if not path.exists()]
    return f"{' and '.join(gone)} missing: apt-get install chromium chromium-driver" if gone else ""


@contextmanager
def chromium() -> Iterator[Browser]:
    with tempfile.TemporaryDirectory() as profile:
        driver = subprocess.Popen(
            [CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            yield from _session(driver, profile)
        finally:
            driver.terminate()
            driver.wait()
            assert driver.stdout is not None
            driver.stdout.close()


def _session(driver: subprocess.Popen[str], profile: str) -> Iterator[Browser]:
    assert driver.stdout is not None
    started = next(found for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
    url = f"http://127.0.0.1:{started[1]}"
    options = {"binary": str(CHROMIUM), "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
    wanted = {
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"browser": "ALL"},
        "timeouts": {"script": WAIT_MS, "pageLoad": WAIT_MS},
    }
    session = call("POST", f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
    try:
        yield Browser(url, session)
    finally:
        call("DELETE", f"{url}/session/{session}")


def call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as failure:
        raise WebDriverError(json.load(failure)["value"]["message"]) from failure

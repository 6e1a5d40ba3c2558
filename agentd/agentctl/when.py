"""Moments as people write them: a time of today, a date with one, or how long ago."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

import click

from agentd.agentctl.command import Duration

_OF_TODAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")


class Moment(click.ParamType):  # type: ignore[type-arg]  # no generic at run time before click 8.3
    """A wall-clock time in the past, in seconds since the epoch: 12:03, 12:03:10, 2026-01-31T12:03:10 or 10m (ago)."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        text, now = str(value).strip(), time.time()
        found = _read(text, now)
        if found is None:
            if not re.fullmatch(r"[0-9.]+[smhd][0-9.smhd]*", text):
                what = "write a time of today (12:03:10), 2026-01-31T12:03:10, or how long ago (10m)"
                self.fail(f"{text[:40]!r} is no time; {what}", param, ctx)
            found = now - Duration().convert(text, param, ctx)
        if found > now:
            self.fail(f"{text[:40]!r} has not come yet", param, ctx)
        return found


def _read(text: str, now: float) -> float | None:
    """A time of today, or with its date; None: it is neither."""
    today = _OF_TODAY.fullmatch(text)
    if today:
        hour, minute, second = (int(part or 0) for part in today.groups())
        # Local time, also where today's clock is changed.
        day = datetime.fromtimestamp(now)
        # To the end of the second: what happened in it had happened.
        end = day.replace(hour=hour, minute=minute, second=second, microsecond=0).timestamp() + 0.999
        return min(end, now) if end - 0.999 <= now else end
    try:
        return datetime.fromisoformat(text).timestamp() if "-" in text else None
    except (ValueError, OverflowError, OSError):
        return None

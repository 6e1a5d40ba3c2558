"""What a pool's guards may be told: `rate`, `no_bounce`, `diminishing_returns`, with their bounds."""

from __future__ import annotations

from agentd.config.nodes import Section, Value
from agentd.config.readers import choice, flag, number, seconds, whole
from agentd.core.rules import RETURNS, GuardConfig, RateLimit

RATE_KEYS = ("up", "down")
RATE_LIMIT_KEYS = ("count", "percent", "period_sec")
COUNT_MAX = 65_535
PERCENT_MAX = 10_000
PERIOD_SEC_MIN, PERIOD_SEC_MAX = 0.1, 86_400.0


def read_guards(section: Section) -> GuardConfig:
    """The guards of the pool in `section`."""
    base = GuardConfig()
    rate = section.subsection("rate", RATE_KEYS)
    return GuardConfig(
        up_rate=rate.read("up", None, _rate_limit(PERCENT_MAX)),
        down_rate=rate.read("down", None, _rate_limit(100)),
        no_bounce=section.read("no_bounce", base.no_bounce, flag),
        diminishing_returns=section.read("diminishing_returns", base.diminishing_returns, _returns),
    )


class _rate_limit:
    """A reader of one direction; more than all cannot leave."""

    def __init__(self, percent_max: float) -> None:
        self._percent_max = percent_max

    def __call__(self, value: Value) -> RateLimit:
        entry = value.section(RATE_LIMIT_KEYS)
        if "count" not in entry and "percent" not in entry:
            raise value.bad("has neither count nor percent: it needs one of them, or both")
        if "period_sec" not in entry:
            raise value.bad("has no period_sec: the seconds in which so many may change")
        return RateLimit(
            period_s=entry.read("period_sec", 60.0, seconds(PERIOD_SEC_MIN, PERIOD_SEC_MAX)),
            count=entry.read("count", None, whole(0, COUNT_MAX)),
            percent=entry.read("percent", None, number(0, self._percent_max)),
        )


def _returns(value: Value) -> str:
    return "off" if value.switch is False else choice(RETURNS)(value)

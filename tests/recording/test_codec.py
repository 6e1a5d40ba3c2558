"""Messages and configurations come back from their JSON form as they were, and what is not theirs is refused."""

from __future__ import annotations

import json
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from fleets import CONFIGS, FLEET, RESEARCH, fleet, research
from msgspec.structs import fields, replace

from agentd.core import cron
from agentd.core.cron import Window
from agentd.core.messages import (
    Acknowledgement,
    Beat,
    ConfigChanged,
    Event,
    HostSampled,
    InstanceExited,
    InstancesListed,
    Restored,
    Stage,
    Tick,
)
from agentd.core.model import (
    ExitCause,
    ExitKind,
    FleetConfig,
    HostSample,
    Incarnation,
    InstanceId,
    Observed,
    Phase,
    Usage,
    Wall,
    Watched,
)
from agentd.core.rules import (
    AdaptiveTrigger,
    CollectorConfig,
    DemandTrigger,
    ExternalTrigger,
    LatencyTrigger,
    RateLimit,
    ScheduleTrigger,
    TargetTrigger,
    ThresholdTrigger,
)
from agentd.recording import codec, configurations

IDENT, INCARNATION = InstanceId("research-9101"), Incarnation("i1")
SAMPLE = HostSample(
    8, 1.5, 2, 1, 3, 0.25, instances={IDENT: Usage(7, 0.1)}, walls={"": Wall(4, 2)},
    watched=(Watched("ollama", True, 2, 3, 0.5),),
)  # fmt: skip
EVENTS: tuple[Event, ...] = (
    Restored({"controller": '{"a":1}'}, 1.0, 2.0, 3.1),
    Tick(1_700_000_000.123456, 0.1),
    Beat(IDENT, INCARNATION, 3, 0, 0, labels={"a": "\udcff"}, acks=(Acknowledgement(1, Stage.DONE, "so", True),)),
    HostSampled(SAMPLE),
    InstanceExited(IDENT, INCARNATION, ExitCause(ExitKind.OOM, 9), -1.0),
    InstancesListed((Observed(IDENT, INCARNATION, 7, Phase.BACKOFF),), frozenset({IDENT})),
)
DAY = Window("day", cron.parse("0 8 * * mon-fri"), cron.parse("0 20 * * *"), None, ZoneInfo("Europe/Berlin"), 2, 9)
NIGHT = Window("night", cron.parse("0 0 * * *"), None, 60.0)
RICH = fleet(
    research(
        triggers=(
            ThresholdTrigger(), TargetTrigger("queue", 3), DemandTrigger(0.5), LatencyTrigger(2.0), AdaptiveTrigger(1),
            ExternalTrigger(("a",)),
            ScheduleTrigger((DAY, NIGHT)),
        ),
        guards=replace(FLEET.pools[RESEARCH].guards, up_rate=RateLimit(60.0, 4, 10.0)),
    )
)  # fmt: skip


def through_text(kind: type, value: object) -> object:
    return codec.decode(kind, json.loads(codec.text(codec.encode(kind, value))))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    again = through_text(type(event), event)
    assert again == event
    assert repr(again) == repr(event), "texts that are made of it are the same, too"


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
def test_every_kind_of_event_has_a_form(kind: type) -> None:
    assert callable(codec.coder(kind).encode)


@pytest.mark.parametrize("number", range(len(CONFIGS) + 1))
def test_a_configuration_comes_back_as_it_was(number: int) -> None:
    config = (*CONFIGS, RICH)[number]
    assert through_text(FleetConfig, config) == config
    found, text = configurations.named(config)
    assert configurations.read(text) == config == replace(found, fingerprint="")
    assert configurations.named(configurations.read(text)) == (found, text)


def test_configurations_that_differ_have_different_fingerprints() -> None:
    assert len({configurations.named(config)[0].fingerprint for config in (*CONFIGS, RICH)}) == len(CONFIGS) + 1


def test_what_may_be_secret_is_in_no_form_of_a_configuration() -> None:
    collector = CollectorConfig("queue", "redis_list", settings=(("url", "redis://:hunter2@h"),))
    config = fleet(research(env=(("KEY", "hunter2"),), collectors=(collector,)))
    texts = [configurations.named(config)[1]]
    texts += [codec.text(codec.encode(ConfigChanged, ConfigChanged(configurations.hidden(config, b"salt"))))]
    assert not [text for text in texts if "hunter2" in text or "KEY" in text]


def test_that_an_environment_has_changed_shows_in_a_recording() -> None:
    one, other = (configurations.hidden(fleet(research(env=(("KEY", value),))), b"salt") for value in "ab")
    assert one != other
    assert one == configurations.hidden(fleet(research(env=(("KEY", "a"),))), b"salt")
    assert configurations.hidden(fleet(research()), b"salt") == fleet(research())


@pytest.mark.parametrize(
    ("kind", "value", "error"),
    [
        (Tick, {"wall": 1.0, "moon": 2}, "a Tick has no moon: a newer agentd wrote it"),
        (Tick, {}, "cannot read a Tick: .*wall"),
        (Tick, [], "cannot read a Tick"),
        (ConfigChanged, {"config": {"pools": {"a": {"name": "a", "triggers": [["Moon", {}]]}}}}, "there is no 'Moon'"),
    ],
)
def test_what_is_of_no_known_form_is_refused(kind: type, value: object, error: str) -> None:
    with pytest.raises(codec.CodecError, match=error):
        codec.decode(kind, value)


def test_what_is_left_out_is_there_to_leave_out() -> None:
    from agentd.core import model, rules

    for kind, name in codec.LEFT_OUT:
        assert name in [each.name for each in fields(getattr(model, kind, None) or getattr(rules, kind))]

"""What one agentd remembers: its store, the configurations that decisions are made under, and a recording if wanted."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from agentd import __version__
from agentd.clock import Clock
from agentd.config.model import History
from agentd.core.controller import Controller
from agentd.core.model import FleetConfig
from agentd.recording import configurations
from agentd.runtime_troubles import Troubles
from agentd.store import Bounds, Store


def open_store(history: History, state_dir: Path, clock: Clock) -> Store:
    """The store of the state directory; see `Store.open`."""
    bounds = Bounds(history.events_max, history.decisions_max, history.metrics_days)
    return Store.open(state_dir / "agentd.db", bounds, clock)


def remembered(config: FleetConfig, store: Store) -> FleetConfig:
    """`config` with its fingerprint, under which the store has it as long as decisions are kept that it made."""
    found, text = configurations.named(config)
    store.configured(found.fingerprint, text)
    return found


def controller(
    config: FleetConfig, history: History, store: Store, state_dir: Path, clock: Clock, troubles: Troubles,
    stack: contextlib.AsyncExitStack,
) -> Controller:  # fmt: skip
    """The controller; with `record: full` all that reaches it is written down until `stack` ends."""
    config, epoch = remembered(config, store), store.load().epoch
    if history.record != "full":
        return Controller(config, epoch)
    from agentd.recording.recorder import Bounds as RecordingBounds
    from agentd.recording.recorder import RecordedController, Recorder
    from agentd.recording.segments import DIRECTORY

    def told(text: str) -> None:
        if text:
            troubles.began("recording", text)
        else:
            troubles.ended("recording")

    bounds = RecordingBounds(history.record_bytes_max, history.record_days)
    recorder = Recorder(state_dir / DIRECTORY, bounds, clock, version=__version__, on_trouble=told)
    stack.push_async_callback(asyncio.to_thread, recorder.close)
    return RecordedController.of(config, epoch, recorder)

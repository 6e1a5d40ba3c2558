"""A world whose controller is recorded, and what its recording comes to when it is run again."""

from __future__ import annotations

from pathlib import Path

from chaos import Chaos
from world import WALL, World

from agentd.core.controller import Controller
from agentd.core.model import FleetConfig
from agentd.recording.recorder import Bounds, RecordedController, Recorder
from agentd.recording.rerun import Rerun, rerun
from agentd.recording.segments import listed

VERSION = "9.9"
# Nobody's disk is too full for a test, and a segment ends soon.
BOUNDS = Bounds(free_bytes_min=0, segment_bytes_max=4096)


class WorldClock:
    """The time of a world, where there is one."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.offset = WALL

    def now(self) -> float:
        return self.world.now if self.world is not None else 0.0

    def wall(self) -> float:
        return self.now() + self.offset


def recorder(directory: Path, clock: WorldClock, bounds: Bounds = BOUNDS) -> Recorder:
    return Recorder(directory, bounds, clock, version=VERSION)


class Recorded(Chaos):
    """Every agentd that it boots goes on with a new segment of the recording in `directory`.

    What Chaos looks at after each step is left to the tests that are about it.
    """

    def __init__(
        self, config: FleetConfig, directory: Path, *, bounds: Bounds = BOUNDS, start_delay_s: float = 0.0
    ) -> None:
        self.directory = directory
        self.clock = WorldClock()
        self.bounds = bounds
        self.recorder = recorder(directory, self.clock, bounds)
        super().__init__(config, start_delay_s=start_delay_s)
        self.clock.world = self
        self.on_step = None

    def new_controller(self) -> Controller:
        self.recorder.close()
        self.recorder = recorder(self.directory, self.clock, self.bounds)
        return RecordedController.of(self.config, self.epoch, self.recorder)

    def rerun(self) -> list[Rerun]:
        """All segments, run again."""
        self.recorder.close()
        made = [rerun(path, version=VERSION) for path in listed(self.directory)]
        return [one for one in made if one is not None]

"""What `history.record: full` costs with 500 agents that beat every 10 s: processor time, bytes, and time of the loop.

The real controller and the real recorder, in virtual time: agents beat with loads, queues and times of their own, the
host is measured every 5 s with the use of every agent, and the pools are checked every minute. In turns with a
recording and without one; what is written is flushed as often in virtual time as a running agentd does. Given are the
processor time that recording takes beside that of the controller, as a share of one core; the bytes that a day takes;
for how long the loop stands still when a segment begins; and how fast the recording is run again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from harness import Report, parser, positive

from agentd.core.controller import Controller
from agentd.core.messages import Beat, HostSampled, InstancesListed, Restored, Tick
from agentd.core.model import (
    FleetConfig,
    HostSample,
    Incarnation,
    Observed,
    PoolConfig,
    PoolName,
    PortRange,
    Usage,
    instance_id,
)
from agentd.recording import recorder as recording
from agentd.recording.recorder import Bounds, RecordedController, Recorder
from agentd.recording.rerun import rerun
from agentd.recording.segments import listed

RESEARCH = PoolName("research")
MIB = 1024 * 1024
BEAT_S, SAMPLE_S, WALL = 10.0, 5.0, 1_700_000_000.0
VERSION = "bench"


class VirtualClock:
    at = 1000.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return WALL + self.at


def live(controller: Controller, clock: VirtualClock, agents: int, length_s: float, recorder: Recorder | None) -> float:
    """So long a life; the processor time it took."""
    idents = [instance_id(RESEARCH, 2000 + number) for number in range(agents)]
    incarnations = [Incarnation(f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}") for number in range(agents)]
    seen = tuple(Observed(each, own, 1000) for each, own in zip(idents, incarnations, strict=True))
    controller.step(Restored({}, clock.at, clock.wall(), clock.wall()), clock.at)
    controller.step(InstancesListed(seen), clock.at)
    controller.step(Tick(clock.wall()), clock.at)
    end, turn, flushed = clock.at + length_s, 0, clock.at
    spent = 0.0
    while clock.at < end:
        number = turn % agents
        turn += 1
        clock.at += BEAT_S / agents * (0.5 + turn * 0.6180339887498949 % 1.0)
        scattered = turn * 0.7548776662466927 % 1.0
        beat = Beat(
            idents[number], incarnations[number], turn, 0.3 + scattered / 10, turn % 7, 1, turn // agents * 5 + number,
            0.4 + scattered, 0.9 + scattered,
        )  # fmt: skip
        began = time.process_time()
        controller.step(beat, clock.at)
        if turn % (agents // 2) == 0:
            usage = {ident: Usage(100 * MIB + turn * 4096, 0.05 + scattered / 10) for ident in idents}
            sample = HostSample(64, 10.0 + scattered, 1024**2 * MIB, 512 * 1024 * MIB, 1024**2 * MIB, instances=usage)
            controller.step(HostSampled(sample), clock.at)
        if controller.deadline is not None and controller.deadline <= clock.at:
            controller.step(Tick(clock.wall()), clock.at)
        if recorder is not None and clock.at - flushed >= recording.FLUSH_S:
            recorder.flush()
            flushed = clock.at
        spent += time.process_time() - began
    return spent


def main() -> int:
    made = parser(__doc__, rounds=3)
    made.add_argument("--agents", type=positive, default=500, metavar="N", help="500")
    made.add_argument("--minutes", type=positive, default=10, metavar="N", help="of virtual time, 10")
    options = made.parse_args()
    pool = PoolConfig(RESEARCH, min=0, max=options.agents + 50, ports=PortRange(2000, 2100 + options.agents))
    config = FleetConfig(enabled=True, autoscaling_enabled=True, pools={RESEARCH: pool})
    length_s = options.minutes * 60.0
    shares, plain_shares, days, begins, speeds = [], [], [], [], []
    for _ in range(options.rounds):
        plain_s = live(Controller(config), VirtualClock(), options.agents, length_s, None)
        directory = Path(tempfile.mkdtemp(prefix="agentd-bench-"))
        try:
            clock = VirtualClock()
            recorder = Recorder(directory, Bounds(bytes_max=1 << 40), clock, version=VERSION)
            controller = RecordedController.of(config, 1, recorder)
            recorded_s = live(controller, clock, options.agents, length_s, recorder)
            began = time.perf_counter()
            recorder.begin(clock.at, config, controller.whole(), 1)
            begins.append((time.perf_counter() - began) * 1e3)
            recorder.close()
            paths = listed(directory)
            days.append(sum(path.stat().st_size for path in paths) / length_s * 86_400.0 / MIB)
            began = time.perf_counter()
            again = [rerun(path, version=VERSION) for path in paths]
            speeds.append(length_s / (time.perf_counter() - began))
            assert all(one is not None and one.first is None for one in again)
        finally:
            shutil.rmtree(directory)
        plain_shares.append(100.0 * plain_s / length_s)
        shares.append(100.0 * (recorded_s - plain_s) / length_s)
    report = Report(options)
    report.add(f"{options.agents:,} agents: controller alone", plain_shares, "% of a core")
    report.add(f"{options.agents:,} agents: recording besides", shares, "% of a core")
    report.add(f"{options.agents:,} agents: recording", days, "MiB a day")
    report.add(f"{options.agents:,} agents: a segment begins", begins, "ms of the loop")
    report.add(f"{options.agents:,} agents: run again", speeds, "times as fast as it was")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())

"""Run the demo: `python -m agentd.demo`, or `scripts/run`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from agentd.demo import options, settings
from agentd.demo.child import Agentd, InUseError
from agentd.demo.fleet import Api
from agentd.demo.report import minutes, unwritable
from agentd.demo.show import Show
from agentd.errors import ConfigError
from agentd.traces import TraceError, read_trace, window


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 done or stopped by a person, 1 agentd or a request failed, 2 wrong options or files."""
    given = options.parse(argv)
    if given.trace is not None and not given.trace.exists():
        print(f"--trace {given.trace}: no such file", file=sys.stderr)
        return 2
    # Told now: at the end, perhaps hours later, there would be nothing left to tell it of.
    if given.report is not None and (why := unwritable(given.report)):
        print(f"--report {given.report}: {why}", file=sys.stderr)
        return 2
    try:
        requests = read_trace(given.trace_file, given.service_s)
        arrivals = window(requests, start_s=given.from_s, length_s=given.for_s, speed=given.speed)
        if not arrivals:
            last = f"; the last one is at {minutes(requests[-1].offset_s)}" if requests else ""
            raise TraceError(f"cannot replay {given.trace_file}: it has no request in the given time{last}")
        text = settings.effective(
            given.config,
            speed=given.speed,
            pool=given.pool,
            concurrency=given.concurrency,
            instances_max=given.instances_max,
            http=given.http,
        )
        agentd = Agentd(text, given.state_dir)
        agentd.prepare()
    except (TraceError, ConfigError, settings.OptionError) as error:
        print(error, file=sys.stderr)
        return 2
    except InUseError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"cannot use {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    control = settings.control_address(text, given.state_dir)
    return asyncio.run(Show(given, arrivals, agentd, Api(settings.http_port(text)), control).run())


if __name__ == "__main__":
    sys.exit(main())

"""What the SDK costs an agent: the memory of a process that holds an `Agent`, and of what it is made from.

Several processes of each kind run at once, as in a fleet, so that PSS divides what they share. USS, the private bytes,
is what one more of them adds to the host. The agents report to a real agentd, and each has been heard. Beside them
stand the same process without the SDK, and one that has nothing but a gRPC channel to the same agentd, connected: less
than that no agent can have that speaks gRPC from Python.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack

from harness import MIB, Memory, Report, environment, free_ports, memory, parser, positive, running
from own_agentd import fleet_settings, own_agentd

WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"
AGENT = """
import sys
from agentd.sdk import Agent
with Agent.from_env() as agent:
    print('ready', flush=True)
    sys.stdin.read()
"""
CHANNEL = """
import os
import sys
import grpc
with grpc.insecure_channel(os.environ['AGENTD_ENDPOINT']) as channel:
    grpc.channel_ready_future(channel).result(30)
    print('ready', flush=True)
    sys.stdin.read()
"""
BARE, CONNECTED, SDK = "python", "python + a grpc channel, connected", "python + sdk, beating"
KINDS = {
    BARE: WAIT,
    "python + grpc": f"import grpc\n{WAIT}",
    CONNECTED: CHANNEL,
    "python + grpc + our messages": f"import agentd.v1.agent_pb2_grpc\n{WAIT}",
}


def main() -> int:
    made = parser(__doc__, rounds=3)
    made.add_argument("--processes", type=positive, default=5, metavar="N", help="of each kind at once (5)")
    options = made.parse_args()
    report = Report(options)
    found: dict[str, list[Memory]] = {name: [] for name in (*KINDS, SDK)}
    for _ in range(options.rounds):
        for name, readings in _round(options).items():
            found[name] += readings
    bare, channel = (statistics.median(one.uss for one in found[name]) for name in (BARE, CONNECTED))
    for name, readings in found.items():
        report.add(f"{name}: USS", [one.uss / MIB for one in readings], "MiB")
        report.add(f"{name}: PSS", [one.pss / MIB for one in readings], "MiB")
    report.add("sdk beyond the same process without it, USS", [(one.uss - bare) / MIB for one in found[SDK]], "MiB")
    report.add("sdk beyond a channel, USS", [(one.uss - channel) / MIB for one in found[SDK]], "MiB")
    report.add("sdk / python, USS", [one.uss / bare for one in found[SDK]])
    report.add("sdk / channel, USS", [one.uss / channel for one in found[SDK]])
    return report.finish()


def _round(options: argparse.Namespace) -> dict[str, list[Memory]]:
    first, last = free_ports(options.processes)
    core = {f"a{port}": port for port in range(first, last + 1)}
    with ExitStack() as stack:
        # The agents that agentd starts are placeholders: ours come in their names, as a person would by hand.
        daemon = stack.enter_context(
            own_agentd(fleet_settings({"bench": {"command": ["sleep", "infinity"], "core": core}}))
        )
        daemon.wait_running(options.processes, 30.0)
        env = {**environment(), "AGENTD_ENDPOINT": daemon.agents_address}
        started = {
            name: [stack.enter_context(running("-c", code, env=env)) for _ in range(options.processes)]
            for name, code in KINDS.items()
        }
        agents = []
        for instance in daemon.instances():
            marks = {"AGENTD_INSTANCE": instance.id, "AGENTD_INCARNATION": instance.incarnation}
            agents.append(stack.enter_context(running("-c", AGENT, env={**env, **marks})))
        started[SDK] = agents
        for processes in started.values():
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n", "a process ended before it was ready"
        daemon.wait_ready(options.processes, 30.0)  # each was heard
        return {name: [memory(process.pid) for process in processes] for name, processes in started.items()}


if __name__ == "__main__":
    sys.exit(main())

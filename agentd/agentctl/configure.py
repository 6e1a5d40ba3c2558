"""The command configure: change settings of running agents without a restart."""

from __future__ import annotations

import click

from agentd.agentctl.command import Command, Duration, Session, Whole, show_json
from agentd.agentctl.terminal import show

CONCURRENCY_MAX = 10_000


@click.command(
    cls=Command,
    examples=("agentctl configure research-9101 --concurrency 4", "agentctl configure research --interval 2s"),
)
@click.argument("name", metavar="ID|POOL|NAME")
@click.option("--concurrency", type=Whole(1, CONCURRENCY_MAX), help="Tasks to work on at a time.")
@click.option("--interval", "interval_s", type=Duration(), help="Time between heartbeats.")
@click.pass_obj
def configure(session: Session, name: str, *, concurrency: int | None, interval_s: float | None) -> None:
    """Change settings of an instance, or of all of a pool that run now, without a restart.

    --interval is at most a third of heartbeat_timeout_sec. Both hold until the agent's process ends, or a reload
    changes that setting in the configuration: what is to last belongs there. The agent is asked at once; whether it
    follows, agentctl events tells. One that cannot goes on as it was. An instance that drains is passed over.
    """
    if concurrency is None and interval_s is None:
        raise click.UsageError("say --concurrency, --interval, or both")
    with session.client() as client:
        asked = client.configure(name, concurrency=concurrency, interval_s=interval_s)
    if session.json:
        from agentd.agentctl.values import as_value

        show_json({"instances": [as_value(instance) for instance in asked]})
    else:
        show([f"asked {', '.join(instance.id for instance in asked)}"])

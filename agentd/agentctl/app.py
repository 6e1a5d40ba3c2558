"""The `agentctl` command: its global options, its commands, and how any outcome becomes an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from agentd import __version__
from agentd.agentctl import (
    auto,
    collectors,
    config,
    configure,
    daemon,
    doctor,
    drain,
    endpoints,
    events,
    explain,
    forecast,
    heartbeat,
    instances,
    optimize,
    plan,
    propose,
    replay,
    restart,
    scale,
    simulate,
    status,
)
from agentd.agentctl import command as common
from agentd.agentctl.command import Address, Duration, Failure, Session
from agentd.agentctl.interrupt import INTERRUPTED

EXIT_CODES = (
    (common.DONE, "done"),
    (common.FAILED, "refused or failed"),
    (common.USAGE, "usage, and an N on the wrong side of the present number"),
    (common.NO_DAEMON, "no agentd is running"),
    (common.PARTIAL, "granted in part"),
    (INTERRUPTED, "interrupted"),
    (common.PIPE_CLOSED, "nobody reads the output any more"),
)


class App(click.Group):
    """The group of all commands. Gives the errors of the operating system their exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # What is still buffered has no reader; without this the interpreter complains at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return common.PIPE_CLOSED
        return code

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added, the most used first."""
        del ctx
        return list(self.commands)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES])


def run(arguments: Sequence[str]) -> int:
    """Run agentctl with `arguments`; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal of another encoding shows ? instead of ending us
    try:
        code = cli.main(args=list(arguments), prog_name="agentctl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except Failure as failure:
        click.echo(str(failure), err=True)
        return failure.code
    except OSError as error:
        click.echo(f"agentctl: {error.strerror or error}: {error.filename or 'standard output'}", err=True)
        return common.FAILED
    return code if isinstance(code, int) else common.DONE


@click.group(cls=App, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--address",
    type=Address(),
    envvar="AGENTD_ADDRESS",
    show_envvar=True,
    help="Where agentd serves control, for example unix:/run/agentd/control.sock. Default: look for it.",
)
@click.option("--timeout", "timeout_s", type=Duration(), default="10s", show_default=True, help="For each answer.")
@click.option(
    "--output",
    "-o",
    type=click.Choice(["table", "json"]),
    default="table",
    help="For all commands; each also takes it itself.",
)
@click.version_option(__version__, prog_name="agentctl", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, address: str | None, timeout_s: float, output: str) -> None:
    """Show and steer agentd, which keeps a fleet of agents alive and the right size."""
    ctx.obj = Session(address=address, timeout_s=timeout_s, output=output)


for _command in (
    status.status,
    instances.ps,
    scale.up,
    scale.down,
    auto.auto,
    scale.check,
    plan.plan,
    propose.propose,
    explain.explain,
    forecast.forecast,
    replay.replay,
    collectors.collectors,
    events.events,
    endpoints.endpoints,
    instances.logs,
    restart.restart,
    drain.drain,
    configure.configure,
    heartbeat.heartbeat,
    daemon.reload,
    daemon.shutdown,
    simulate.simulate,
    optimize.optimize,
    doctor.doctor,
    config.config,
):
    cli.add_command(_command)

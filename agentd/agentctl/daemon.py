"""Commands about agentd itself: reload, shutdown."""

from __future__ import annotations

import click

from agentd.agentctl.command import Command, Failure, Session, show_json
from agentd.agentctl.terminal import show, styled
from agentd.agentctl.text import plural, printable


@click.command(cls=Command, examples=("agentctl reload",))
@click.pass_obj
def reload(session: Session) -> None:
    """Have agentd read its configuration file again.

    Shows what changed. A bad file is refused with all its errors, and the old configuration stays.
    """
    with session.client() as client:
        from agentd.sdk.control import ControlError

        try:
            answer = client.reload()
        except ControlError as error:
            if error.reason != "CONFIG_INVALID":
                raise
            text = "the old configuration stays, the file has errors"
            raise Failure(text, details=str(error).splitlines()) from error
        if session.json:
            from agentd.agentctl.values import as_value

            show_json(as_value(answer))
            return
    lines = [printable(f"read {answer.config_file}" if answer.config_file else "there is no configuration file")]
    lines += [styled(printable(f"warning: {warning}"), "warn") for warning in answer.warnings]
    lines += [printable(f"changed: {change}") for change in answer.changes] or ["nothing changed"]
    show(lines)


@click.command(cls=Command, examples=("agentctl shutdown", "agentctl shutdown --keep-agents"))
@click.option("--keep-agents", is_flag=True, help="Leave the agents running; the next agentd takes them over.")
@click.pass_obj
def shutdown(session: Session, keep_agents: bool) -> None:
    """End agentd, after its agents have finished their work and ended.

    Returns as soon as agentd has taken the request.
    """
    with session.client() as client:
        stopping = client.shutdown(keep_agents=keep_agents)
    if session.json:
        show_json({"stopping": stopping})
    elif keep_agents:
        show(["agentd ends; its agents run on"])
    else:
        show([f"agentd ends after {plural(stopping, 'instance')}" if stopping else "agentd ends"])

"""The command heartbeat: one report of an agent that is a shell script, or any program that can start another."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

import click

from agentd.agentctl.command import NO_DAEMON, Command, Failure, Session, Whole, show_json
from agentd.agentctl.terminal import show
from agentd.agentctl.text import printable

if TYPE_CHECKING:
    from agentd.v1 import agent_pb2

_UINT32_MAX = 2**32 - 1
_UINT64_MAX = 2**64 - 1
_KINDS = {1: "continue", 2: "drain", 3: "shut_down", 4: "resume", 5: "configure"}


class _Ack(click.ParamType):  # type: ignore[type-arg]  # no generic at run time before click 8.3
    """The id of a directive, and how far the agent has come with it: 7, 7:done, 7:failed."""

    name = "id[:stage]"
    _WHOLE = re.compile(r"([0-9]{1,19})(?::(accepted|done|failed))?")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str]:
        found = self._WHOLE.fullmatch(str(value))
        if found is None:
            self.fail(f"{str(value)[:40]!r} is no acknowledgement; write 7, 7:done or 7:failed", param, ctx)
        return int(found[1]), found[2] or "accepted"


@click.command(
    cls=Command,
    examples=(
        "agentctl heartbeat --load 0.4 --queue 2 --in-flight 1",
        "agentctl heartbeat --in-flight 0 --queue 0 --ack 7:done",
    ),
)
@click.option("--load", type=click.FloatRange(0.0, 1.0), help="Share of the agent's capacity in use, 0 to 1.")
@click.option("--queue", type=Whole(0, _UINT32_MAX), help="Tasks accepted and not begun.")
@click.option("--in-flight", type=Whole(0, _UINT32_MAX), help="Tasks begun and not finished.")
@click.option("--completed", type=Whole(0, _UINT64_MAX), help="Tasks finished since the agent started.")
@click.option("--ack", "acks", type=_Ack(), multiple=True, help="Acknowledge a directive; may be repeated.")
@click.option(
    "--instance", envvar="AGENTD_INSTANCE", default="", show_envvar=True, help="Who reports, for example research-9101."
)
@click.option("--incarnation", envvar="AGENTD_INCARNATION", default="", show_envvar=True, help="Which life of it.")
@click.option("--endpoint", envvar="AGENTD_ENDPOINT", default="", show_envvar=True, help="Where agents report.")
@click.pass_obj
def heartbeat(
    session: Session,
    *,
    load: float | None,
    queue: int | None,
    in_flight: int | None,
    completed: int | None,
    acks: tuple[tuple[int, str], ...],
    instance: str,
    incarnation: str,
    endpoint: str,
) -> None:
    """Report as an agent, once, and show what agentd says to it.

    For agents that are shell scripts: agentd gives them who they are and where to report in their environment. The
    first heartbeat says that the agent is ready. Say it again within the time that is shown. A drain asks to take
    nothing new and to finish: acknowledge it with --ack ID. It is done when nothing is in flight or queued any more,
    or when --ack ID:done says so; TERM follows.
    """
    for name, value in (("instance", instance), ("incarnation", incarnation), ("endpoint", endpoint)):
        if not value:
            text = f"there is no AGENTD_{name.upper()} in the environment: run it as an agent does, or say --{name}"
            raise click.UsageError(text)
    from agentd.v1 import agent_pb2, common_pb2

    beat = agent_pb2.Heartbeat(
        instance=common_pb2.InstanceRef(id=instance, incarnation=incarnation),
        # Each is a process of its own, and they have to count up.
        seq=time.time_ns() // 1_000_000,
        load=load,
        queue_length=queue,
        in_flight=in_flight,
        tasks_completed=completed,
        acks=[
            agent_pb2.Acknowledgement(id=ident, stage=agent_pb2.Acknowledgement.Stage.Value(f"STAGE_{stage.upper()}"))
            for ident, stage in acks
        ],
    )
    reply = _report(endpoint, beat, session.timeout_s)
    if session.json:
        show_json(_shown(reply))
    else:
        show([printable(_line(reply))])


def _report(endpoint: str, beat: agent_pb2.Heartbeat, timeout_s: float) -> agent_pb2.HeartbeatReply:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own log lines would mix with ours
    import grpc

    from agentd.sdk.status import error_reason
    from agentd.v1 import agent_pb2, agent_pb2_grpc

    with grpc.insecure_channel(endpoint, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            answer = agent_pb2_grpc.AgentServiceStub(channel).Heartbeat(
                agent_pb2.HeartbeatRequest(heartbeats=[beat]), timeout=timeout_s
            )
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call):
                raise
            reason = error_reason(error)
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) and not reason:
                raise Failure(f"no agentd answers at {endpoint}", NO_DAEMON) from error
            text = error.details() or error.code().name
            raise Failure(f"{text} ({reason})" if reason else text) from error
    return answer.replies[0]


def _shown(reply: agent_pb2.HeartbeatReply) -> dict[str, Any]:
    told = reply.directive
    return {
        "directive": _KINDS.get(told.kind, "unknown"),
        "id": told.id,
        "deadline_s": told.deadline_s,
        "successors": [
            {"id": one.instance, "port": one.endpoint.port, "weight": one.weight} for one in told.successors
        ],
        "concurrency": told.concurrency if told.HasField("concurrency") else None,
        "interval_s": reply.interval_s,
    }


def _line(reply: agent_pb2.HeartbeatReply) -> str:
    told = reply.directive
    parts = [_KINDS.get(told.kind, "unknown")]
    if told.deadline_s:
        parts.append(f"{told.deadline_s:.0f} s left")
    if told.HasField("concurrency"):
        parts.append(f"work on {told.concurrency} at a time")
    if told.id:
        # What nobody knows nobody can have accepted.
        stage = "" if told.kind in _KINDS else ":failed"
        parts.append(f"acknowledge it with --ack {told.id}{stage}")
    parts.append(f"next heartbeat within {reply.interval_s:g} s")
    return "; ".join(parts)

"""A client of ControlService and DiscoveryService, for programs that watch or steer agentd.

It owns one channel, gives every call a deadline and every call that changes something a request id, and turns
gRPC errors into `ControlError`. It never retries: a repeated wish is the caller's decision.

    with ControlClient() as agentd:
        for instance in agentd.instances("research"):
            print(instance.id, instance.load)

Answers are the messages of agentd.v1 as they came.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import grpc

from agentd.sdk.address import CONTROL_SOCKET, find_control, runtime_dir_candidates
from agentd.sdk.status import error_reason
from agentd.v1 import control_pb2 as pb
from agentd.v1 import discovery_pb2
from agentd.v1.control_pb2_grpc import ControlServiceStub
from agentd.v1.discovery_pb2_grpc import DiscoveryServiceStub

# The status of 10,000 instances with labels passes the 4 MiB that gRPC takes by default.
_OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 64 * 1024 * 1024))

UP = pb.ScaleRequest.DIRECTION_UP
DOWN = pb.ScaleRequest.DIRECTION_DOWN


class ControlError(Exception):
    """A call that agentd refused, or that failed.

    `code` is the name of the gRPC status, for example NOT_FOUND; `reason` the stable UPPER_SNAKE code in the
    status details, empty when the error does not come from agentd itself. The text is for people.
    """

    def __init__(self, text: str, *, code: str, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(text)


class NoDaemonError(ControlError):
    """Nobody answers. The text says where an agentd was looked for."""

    def __init__(self, text: str) -> None:
        super().__init__(text, code="UNAVAILABLE")


def find_address(env: Mapping[str, str], uid: int) -> str:
    """Where agentd serves control for user `uid`: $AGENTD_ADDRESS, else what `find_control` finds.

    Raises:
        NoDaemonError: there is no such socket.
    """
    if env.get("AGENTD_ADDRESS"):
        return env["AGENTD_ADDRESS"]
    found = find_control(env, uid)
    if found is not None:
        return found
    tried = []
    for directory in runtime_dir_candidates(env, uid):
        closed = directory.is_dir() and not os.access(directory, os.X_OK)
        tried.append(f"{directory}/{CONTROL_SOCKET}" + (": permission denied" if closed else ""))
    raise NoDaemonError(f"no agentd is running (looked for {', '.join(tried)})")


def default_owner() -> str:
    """The person behind this process: for root under sudo, who called sudo."""
    uid = os.getuid()
    if uid == 0 and os.environ.get("SUDO_USER"):
        return os.environ["SUDO_USER"]
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


class ControlClient:
    """A connection to one agentd; a context manager. Safe to use from several threads.

    Every method raises `NoDaemonError` when nobody answers and `ControlError` when agentd refuses.
    """

    def __init__(self, address: str | None = None, *, timeout_s: float = 10.0, owner: str | None = None) -> None:
        """`address` in gRPC syntax (`unix:/run/agentd/control.sock`), None: look for it.

        `timeout_s` bounds each call, streams that follow excepted. `owner` is who asks, as shown to people
        beside what was asked; None: the user of this process.
        """
        self.address = address or find_address(os.environ, os.getuid())
        self._timeout_s = timeout_s
        self._owner = owner or default_owner()
        self._channel = grpc.insecure_channel(self.address, options=_OPTIONS)
        self._stub = ControlServiceStub(self._channel)
        self._discovery = DiscoveryServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the connection go; calls under way are cancelled."""
        self._channel.close()

    def status(self) -> pb.Status:
        """Everything agentd knows about itself, its pools, its instances and the host."""
        with self._translated():
            return self._stub.GetStatus(pb.GetStatusRequest(), timeout=self._timeout_s).status

    def instances(self, pool: str = "") -> list[pb.Instance]:
        """The instances of `pool`; empty: of all pools."""
        with self._translated():
            answer = self._stub.ListInstances(pb.ListInstancesRequest(pool=pool), timeout=self._timeout_s)
        return list(answer.instances)

    def scale(
        self,
        direction: pb.ScaleRequest.Direction.ValueType,
        count: int,
        *,
        pool: str = "",
        reason: str = "",
        for_s: float | None = None,
        dry_run: bool = False,
    ) -> list[pb.Grant]:
        """Ask for `count` instances of `pool`, or (empty) of the whole fleet; `direction` is UP or DOWN.

        `for_s` > 0: how long the target holds; None: agentd's default. Grants may be below the wish; each then
        names its limits.
        """
        request = pb.ScaleRequest(
            request_id=_request_id(),
            direction=direction,
            count=count,
            pool=pool,
            owner=self._owner,
            reason=reason,
            for_s=for_s,
            dry_run=dry_run,
        )
        with self._translated():
            return list(self._stub.Scale(request, timeout=self._timeout_s).grants)

    def set_autoscaling(self, enabled: bool, reason: str = "") -> pb.AutoscalingMode:
        """Switch scaling on, which also clears people's targets, or off. Repair goes on either way."""
        request = pb.SetAutoscalingRequest(request_id=_request_id(), enabled=enabled, owner=self._owner, reason=reason)
        with self._translated():
            return self._stub.SetAutoscaling(request, timeout=self._timeout_s).autoscaling

    def propose(
        self, pool: str, count: int, *, source: str, reason: str = "", for_s: float | None = None
    ) -> list[pb.Offer]:
        """Ask, as the program `source`, for `count` instances of `pool` for `for_s` seconds (None: ten minutes).

        The pool needs a trigger of type external. Ask again before the time has passed to be heard on; what all
        programs ask of the pool comes back.
        """
        request = pb.ProposeRequest(
            request_id=_request_id(),
            pool=pool,
            source=source,
            count=count,
            owner=self._owner,
            reason=reason,
            for_s=for_s,
        )
        with self._translated():
            return list(self._stub.Propose(request, timeout=self._timeout_s).offers)

    def withdraw(self, pool: str, *, source: str) -> list[pb.Offer]:
        """Take back what the program `source` has asked of `pool`; what the others ask comes back."""
        request = pb.ProposeRequest(
            request_id=_request_id(), pool=pool, source=source, owner=self._owner, withdraw=True
        )
        with self._translated():
            return list(self._stub.Propose(request, timeout=self._timeout_s).offers)

    def pause(
        self, direction: str = "both", *, pool: str = "", for_s: float | None = None, reason: str = ""
    ) -> list[pb.PoolPauses]:
        """Keep agentd from scaling "up", "down" or "both" ways in `pool` (empty: all), for `for_s` seconds.

        None: until `go_on`. People's targets and repair go on. The answer is what is paused now.
        """
        return self._switch_part(False, direction, pool, for_s, reason)

    def go_on(self, direction: str = "both", *, pool: str = "", reason: str = "") -> list[pb.PoolPauses]:
        """End such a pause. The answer is what is still paused; a pause of all pools holds each of them."""
        return self._switch_part(True, direction, pool, None, reason)

    def _switch_part(
        self, enabled: bool, direction: str, pool: str, for_s: float | None, reason: str
    ) -> list[pb.PoolPauses]:
        request = pb.SetAutoscalingRequest(
            request_id=_request_id(),
            enabled=enabled,
            owner=self._owner,
            reason=reason,
            pool=pool,
            direction=direction,
            for_s=for_s,
        )
        with self._translated():
            return list(self._stub.SetAutoscaling(request, timeout=self._timeout_s).pools)

    def check(self, pool: str = "") -> list[pb.Decision]:
        """Evaluate `pool` now; empty: all pools. Cooldowns and all other guards still apply."""
        request = pb.CheckRequest(request_id=_request_id(), pool=pool, owner=self._owner)
        with self._translated():
            return list(self._stub.Check(request, timeout=self._timeout_s).decisions)

    def plan(self, pool: str = "") -> list[pb.PoolPlan]:
        """What a check of `pool` now would decide and do; empty: of all pools. Nothing of it comes about."""
        with self._translated():
            return list(self._stub.Plan(pb.PlanRequest(pool=pool), timeout=self._timeout_s).plans)

    def forecast(self, pool: str, label: str = "") -> pb.GetForecastResponse:
        """What `pool` had to do in the last day and is expected to in the next one.

        `label`: of the tasks of agents with that label (`workload=chat`) alone.
        """
        with self._translated():
            return self._stub.GetForecast(pb.GetForecastRequest(pool=pool, label=label), timeout=self._timeout_s)

    def explain(self, pool: str, history: int = 10, *, at_wall: float | None = None) -> pb.ExplainResponse:
        """The pool as it is and its last `history` decisions, newest first.

        `at_wall`: those until that moment, and the one that followed.
        """
        request = pb.ExplainRequest(pool=pool, history=history, at_wall=at_wall)
        with self._translated():
            return self._stub.Explain(request, timeout=self._timeout_s)

    def events(
        self, limit: int = 100, *, pool: str = "", instance: str = "", types: Sequence[str] = ()
    ) -> list[pb.Event]:
        """The last `limit` events (1..10,000), newest first; filters left empty match everything."""
        request = pb.ListEventsRequest(limit=limit, pool=pool, instance=instance, types=types)
        with self._translated():
            return list(self._stub.ListEvents(request, timeout=self._timeout_s).events)

    def watch_events(self, resume_token: str = "", *, pool: str = "", for_s: float | None = None) -> Iterator[pb.Event]:
        """Events as they happen, after the one that carried `resume_token`; empty: from now on.

        `for_s` > 0: no longer than that; None: without end.

        Raises:
            ControlError: code OUT_OF_RANGE when the token is too old, or this reader too slow; DEADLINE_EXCEEDED when
                `for_s` have passed.
        """
        with self._translated():
            request = pb.WatchEventsRequest(resume_token=resume_token, pool=pool)
            stream = self._stub.WatchEvents(request, timeout=for_s)
            try:
                for answer in stream:
                    yield answer.event
            finally:
                stream.cancel()  # type: ignore[no-untyped-call]

    def endpoints(self, pool: str = "") -> list[discovery_pb2.InstanceEndpoint]:
        """Where `pool` takes tasks; empty: all pools. To give it tasks there is `agentd.sdk.endpoints`."""
        with self._translated():
            answer = self._discovery.Resolve(discovery_pb2.ResolveRequest(pool=pool), timeout=self._timeout_s)
        return list(answer.endpoints)

    def watch_endpoints(self, pool: str = "", revision: str = "") -> Iterator[discovery_pb2.WatchResponse]:
        """The endpoints of `pool`, or what has changed of them since `revision`; then what changes."""
        with self._translated():
            stream = self._discovery.Watch(discovery_pb2.WatchRequest(pool=pool, revision=revision))
            try:
                yield from stream
            finally:
                stream.cancel()  # type: ignore[no-untyped-call]

    def logs(self, instance: str, *, lines: int = 100, follow: bool = False) -> Iterator[bytes]:
        """What `instance` has written, from `lines` before the end, in pieces of any size."""
        request = pb.ReadLogsRequest(instance=instance, lines=lines, follow=follow)
        with self._translated():
            stream = self._stub.ReadLogs(request, timeout=None if follow else self._timeout_s)
            try:
                for answer in stream:
                    yield answer.data
            finally:
                stream.cancel()  # type: ignore[no-untyped-call]

    def restart(
        self, name: str, *, rolling: bool = False, max_unavailable: int | None = None, cancel: bool = False
    ) -> pb.RestartResponse:
        """Restart an instance, a core agent by its name, or all of a pool; each in place.

        Where a core agent has the name of a pool, `rolling` has the pool meant. `max_unavailable` (0 or more) of a pool
        may be away at once; None: as few as possible. `cancel` ends the restart of a pool that is under way after its
        present step; a second one is refused meanwhile, with the reason RESTART_UNDER_WAY.
        """
        request = pb.RestartRequest(
            request_id=_request_id(),
            name=name,
            owner=self._owner,
            rolling=rolling,
            max_unavailable=max_unavailable,
            cancel=cancel,
        )
        with self._translated():
            return self._stub.Restart(request, timeout=self._timeout_s)

    def drain(self, name: str, *, force: bool = False) -> pb.Instance:
        """Let an instance, or a core agent by its name, finish its work and stop; the instance as it is now.

        A core agent is refused without `force`, and with it started again in place.
        """
        request = pb.DrainRequest(request_id=_request_id(), name=name, owner=self._owner, force=force)
        with self._translated():
            return self._stub.Drain(request, timeout=self._timeout_s).instance

    def configure(
        self, name: str, *, concurrency: int | None = None, interval_s: float | None = None
    ) -> list[pb.Instance]:
        """Change settings of an instance, a core agent by its name, or a pool, without a restart; who is asked.

        `concurrency`: tasks at a time, 1 to 10,000. `interval_s`: seconds between heartbeats. At least one is needed.
        They hold until an agent's process ends or a reload changes them.
        """
        request = pb.ConfigureRequest(
            request_id=_request_id(), name=name, owner=self._owner, concurrency=concurrency, interval_s=interval_s
        )
        with self._translated():
            return list(self._stub.Configure(request, timeout=self._timeout_s).instances)

    def reload(self) -> pb.ReloadResponse:
        """Have agentd read its configuration file again; a bad one is refused and changes nothing."""
        request = pb.ReloadRequest(request_id=_request_id(), owner=self._owner)
        with self._translated():
            return self._stub.Reload(request, timeout=self._timeout_s)

    def shutdown(self, *, keep_agents: bool = False) -> int:
        """End agentd, after its instances unless `keep_agents`; how many instances are being stopped."""
        request = pb.ShutdownRequest(request_id=_request_id(), keep_agents=keep_agents, owner=self._owner)
        with self._translated():
            return self._stub.Shutdown(request, timeout=self._timeout_s).stopping

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise self._translate(error) from error

    def _translate(self, error: grpc.RpcError) -> ControlError:
        """The error of a call, which grpc types as RpcError and makes a grpc.Call as well."""
        assert isinstance(error, grpc.Call), f"an RpcError of a call is a grpc.Call: {error!r}"
        code, text = error.code(), error.details() or ""
        reason = error_reason(error)
        if code is grpc.StatusCode.UNAVAILABLE and not reason:
            if self._denied():
                text = f"permission denied for {self.address}: {_who_may(self.address.removeprefix('unix:'))}"
                return ControlError(text, code="PERMISSION_DENIED")
            if text.startswith(("failed to connect", "errors resolving", "empty address")):
                return NoDaemonError(f"no agentd is running (looked for {self.address})")
            return NoDaemonError(f"the connection to agentd at {self.address} ended")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and not reason:
            text = f"agentd at {self.address} did not answer within {self._timeout_s:g} s"
        return ControlError(text or code.name, code=code.name, reason=reason)

    def _denied(self) -> bool:
        """Whether the socket is there and file permissions keep this user from it."""
        path = self.address.removeprefix("unix:")
        return path != self.address and os.path.exists(path) and not os.access(path, os.W_OK)


def _who_may(socket: str) -> str:
    """Who may use a socket that this user may not, and how to become one of them."""
    status = os.stat(socket)
    group = _name_of(status.st_gid, lambda gid: grp.getgrgid(gid).gr_name)
    if status.st_mode & stat.S_IWGRP:
        joined = f"sudo usermod -aG {group} {default_owner()}, and log in again"
        return f"members of group {group} may use it ({joined}), and root (sudo)"
    return f"only {_name_of(status.st_uid, lambda uid: pwd.getpwuid(uid).pw_name)} and root (sudo) may use it"


def _name_of(number: int, find: Callable[[int], str]) -> str:
    try:
        return find(number)
    except KeyError:
        return str(number)


def _request_id() -> str:
    return str(uuid.uuid4())

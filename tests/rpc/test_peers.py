"""Who calls, by the kernel's word: how a server behind the relay knows it, and what it does with it."""

from __future__ import annotations

import dataclasses
import os
import socket
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode, aio
from serving import asynchronous, listening, make_servers, refused, serving

from agentd.core.model import InstanceId
from agentd.rpc import agents, identity, origin
from agentd.rpc.identity import Peer
from agentd.rpc.origin import Origin
from agentd.rpc.relay import Relay
from agentd.v1 import agent_pb2, agent_pb2_grpc
from agentd.v1 import control_pb2 as pb


class WhoAmI(agent_pb2_grpc.AgentServiceServicer):
    """Answers with the peer as grpc sees it, in the text of an error."""

    async def Heartbeat(self, request: Any, context: Any) -> agent_pb2.HeartbeatResponse:
        del request
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, context.peer())
        raise AssertionError


@asynchronous
async def test_a_grpc_handler_knows_its_caller(tmp_path: Path) -> None:
    server = aio.server()
    agent_pb2_grpc.add_AgentServiceServicer_to_server(WhoAmI(), server)
    server.add_insecure_port(f"unix:{tmp_path}/private.sock")
    await server.start()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "public.sock"))
        listener.listen()
        it = Relay([listener.dup()], tmp_path / "private.sock")
        it.start()
        said = []
        for path in ("public.sock", "private.sock"):
            async with aio.insecure_channel(f"unix:{tmp_path}/{path}") as channel:
                with pytest.raises(aio.AioRpcError) as raised:
                    await agent_pb2_grpc.AgentServiceStub(channel).Heartbeat(agent_pb2.HeartbeatRequest())
                said.append(identity.relayed(raised.value.details() or ""))
        assert said == [Peer(os.getuid(), os.getpid()), None]
        it.close()
    await server.stop(None)


# -- who asked --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "said", "shown"),
    [
        (None, "alice", "alice"),
        (None, "", "somebody"),
        (Peer(65534, 1), "root", "nobody"),
        (Peer(4_000_000_001, 1), "root", "uid 4000000001"),
        (Peer(0, 1), "alice", "alice"),  # sudo: root speaks for whom it likes
        (Peer(0, 1), "", "root"),
    ],
)
@asynchronous
async def test_the_kernels_word_on_who_asks_counts_more_than_the_callers(
    peer: Peer | None, said: str, shown: str, tmp_path: Path
) -> None:
    async with serving(tmp_path, peer_of=lambda _text: peer) as agentd:
        answer = await agentd.control.SetAutoscaling(pb.SetAutoscalingRequest(enabled=False, owner=said))
        assert answer.autoscaling.owner == shown
        await agentd.control.Reload(pb.ReloadRequest(owner=said))
        assert agentd.operations.reloads == [shown]


@asynchronous
async def test_a_name_that_anybody_can_take_proves_nothing(tmp_path: Path) -> None:
    whole = "unix-abstract:agentd-peer/0/1/-/0123456789abcdef"
    assert identity.relayed(whole) == Peer(0, 1)
    assert identity.unverified(whole) is None
    for text in ("unix:", f"{whole}\n", "", whole.replace("-/", "a/"), whole.replace("/-", ""), whole[:-1]):
        assert identity.relayed(text) is None
    servers = make_servers(tmp_path, None)
    assert servers.control_peer is identity.unverified
    assert servers.agents_peer is identity.unverified


@pytest.mark.parametrize("found", [Origin(b"", b""), None], ids=["systemd", "hidden"])
@asynchronous
async def test_agents_are_told_apart_where_systemd_shows_their_units(
    found: Origin | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(origin, "find", lambda: found)
    with listening(tmp_path) as listeners:
        servers = make_servers(tmp_path, listeners)
        assert servers.agents_peer is (identity.relayed if found else identity.unverified)
        assert ("agents can report in each other's name" in caplog.messages) is (found is None)
        await servers.stop()


# -- who speaks for whom ----------------------------------------------------------------------------

OWN = Peer(61_000, 4711, InstanceId("research-9101"))
OTHER = Peer(61_001, 4712, InstanceId("research-9102"))
PERSON = Peer(1000, 4713)
ROOT = Peer(0, 4714)
DENIED = StatusCode.PERMISSION_DENIED


@dataclasses.dataclass
class Caller:
    """Whom agentd takes the next call for."""

    peer: Peer | None = ROOT

    def __call__(self, _text: str) -> Peer | None:
        return self.peer


@pytest.mark.parametrize("peer", [OWN, ROOT, None], ids=["its own unit", "root", "not asked"])
@asynchronous
async def test_an_instance_is_reported_from_its_own_unit_and_by_root(peer: Peer | None, tmp_path: Path) -> None:
    async with serving(tmp_path, agents_peer=(caller := Caller())) as agentd:
        caller.peer = peer
        await agentd.heartbeat(agentd.beat(seq=2, load=0.75))
        assert agentd.instance("research-9101").load == 0.75


@pytest.mark.parametrize(
    ("peer", "where"),
    [(OTHER, "pid 4712 is of agent@research-9102.service"), (PERSON, "pid 4713 is of no agent's unit")],
)
@asynchronous
async def test_nobody_else_reports_it_and_it_stays_as_it_was(peer: Peer, where: str, tmp_path: Path) -> None:
    async with serving(tmp_path, agents_peer=(caller := Caller())) as agentd:
        before = agentd.instance("research-9101")
        caller.peer = peer
        told = await refused(agentd.heartbeat(agentd.beat(seq=2, load=0.75)), DENIED, "NOT_ITS_UNIT")
        assert told.text == f"research-9101 is reported only from its own unit; {where}"
        assert told.metadata == {"instance": "research-9101"}
        assert agentd.instance("research-9101") == before


@asynchronous
async def test_a_stranger_does_not_learn_which_instances_there_are(tmp_path: Path) -> None:
    async with serving(tmp_path, agents_peer=(caller := Caller())) as agentd:
        beat = agentd.beat(seq=2)
        caller.peer = OTHER
        beat.instance.incarnation = "of long ago"
        await refused(agentd.heartbeat(beat), DENIED, "NOT_ITS_UNIT")
        beat.instance.id = "nobody-1"
        await refused(agentd.heartbeat(beat), DENIED, "NOT_ITS_UNIT")
        beat.instance.id = "no instance"
        await refused(agentd.heartbeat(beat), StatusCode.INVALID_ARGUMENT, "INVALID_HEARTBEAT")


@asynchronous
async def test_of_several_heartbeats_each_is_taken_or_refused_by_itself(tmp_path: Path) -> None:
    async with serving(tmp_path, agents_peer=(caller := Caller())) as agentd:
        beats = [agentd.beat(f"research-{port}", seq=2, load=0.75) for port in (9101, 9102)]
        caller.peer = OTHER
        refusal, taken = (await agentd.heartbeat(*beats)).replies
        assert refusal.refusal.code == DENIED.value[0]
        assert refusal.refusal.reason == "NOT_ITS_UNIT"
        assert "pid 4712 is of agent@research-9102.service" in refusal.refusal.message
        assert not taken.HasField("refusal")
        assert agentd.instance("research-9101").load == 0.5
        assert agentd.instance("research-9102").load == 0.75


@asynchronous
async def test_who_lies_is_told_once_whatever_he_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def warnings() -> int:
        return caplog.messages.count("heartbeat refused")

    async with serving(tmp_path, agents_peer=(caller := Caller())) as agentd:
        beat = agentd.beat(seq=2)
        for peer, told in ((OTHER, 1), (PERSON, 2), (OTHER, 2)):
            caller.peer = peer
            for number in range(1, 20):
                beat.instance.id = f"research-{number}"
                await refused(agentd.heartbeat(beat), DENIED, "NOT_ITS_UNIT")
            assert warnings() == told
        monkeypatch.setattr(agents, "STRANGER_TOLD_AGAIN_S", 0.0)
        await refused(agentd.heartbeat(beat), DENIED, "NOT_ITS_UNIT")
        assert warnings() == 3

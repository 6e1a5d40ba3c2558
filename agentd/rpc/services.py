"""What the gRPC servers serve, and to whom.

agents.sock serves AgentService; control.sock serves ControlService, health and reflection; both serve
DiscoveryService. Apart from the servers, for all these messages take as long to load as many agents to start.
"""

from __future__ import annotations

from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from agentd.rpc import reading
from agentd.rpc.agents import AgentService
from agentd.rpc.control import ControlService
from agentd.rpc.discovery import DiscoveryService
from agentd.rpc.server import Servers
from agentd.v1 import agent_pb2, control_pb2, discovery_pb2

HEALTH_SERVICE = "grpc.health.v1.Health"


class Services:
    """The services of one agentd. `serve` once, `close` before the servers stop."""

    def __init__(self, agents: AgentService, control: ControlService, discovery: DiscoveryService) -> None:
        self._agents = agents
        self._control = control
        self._discovery = discovery
        self._health = HealthServicer()

    async def serve(self, servers: Servers) -> None:
        """Add them to the servers, and start those."""
        servers.agents.add_generic_rpc_handlers((self._agents.handler(),))
        service = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
        servers.control.add_generic_rpc_handlers((reading.handler(service, self._control),))
        for server in (servers.agents, servers.control):
            server.add_generic_rpc_handlers((self._discovery.handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, servers.control)
        ours = _names(control_pb2.DESCRIPTOR, discovery_pb2.DESCRIPTOR)
        of_control = (*ours, HEALTH_SERVICE, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(of_control, servers.control)
        of_agents = _names(agent_pb2.DESCRIPTOR, discovery_pb2.DESCRIPTOR)
        servers.agents.add_generic_rpc_handlers((reading.UnknownMethods(of_agents),))
        servers.control.add_generic_rpc_handlers((reading.UnknownMethods(of_control),))
        for name in ("", *ours):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await servers.start()

    async def close(self) -> None:
        """End the sessions of agents, which find the next agentd if there is one, and be well no longer."""
        self._agents.close()
        await self._health.enter_graceful_shutdown()


def _names(*files: FileDescriptor) -> list[str]:
    return [service.full_name for file in files for service in file.services_by_name.values()]

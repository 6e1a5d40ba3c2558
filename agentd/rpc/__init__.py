"""gRPC: AgentService for agents, ControlService for people, each on its own socket."""

"""agentd: keeps a fleet of AI agents alive and the right size on a Linux machine."""

__version__ = "0.1.0"

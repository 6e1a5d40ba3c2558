"""The decisions of agentd, pure: events in, actions and records out. No I/O, no clock, no chance of its own."""

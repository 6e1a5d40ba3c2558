"""The demonstration behind `scripts/run`: agentd, real agents, and a load generator that replays a request trace.

It talks to agentd over HTTP as any program would, and to the agents on their own ports. It ends what it started
and touches nothing else.
"""

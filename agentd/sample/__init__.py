"""The sample agent that comes with agentd: what a pool without a command runs.

A real program on the SDK's public face alone: an HTTP server with a bounded task queue. It imports nothing of
agentd but `agentd.sdk`.
"""

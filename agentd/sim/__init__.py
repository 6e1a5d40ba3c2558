"""The simulator: the real controller on a virtual clock, against virtual agents and the peers' published policies.

`peers` holds the comparison policies. They know nothing of agentd: each is the rule its project publishes, as pure
functions and small state machines that are told the time, and `peers.policies` lets them run in the simulated world.
"""

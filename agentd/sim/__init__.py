"""The simulator: the real controller on a virtual clock, against virtual agents and the requests of a trace.

`world` is the world around the controller, `agents` what is in it, `measure` what comes out. `policies` makes a
configuration and, where another autoscaler is compared, whoever asks for its counts; `clairvoyant` plans with all
arrivals known; `run` is one policy on one trace; `plot` draws.

`peers` holds the comparison policies. They know nothing of agentd: each is the rule its project publishes, as pure
functions and small state machines that are told the time, and `peers.policies` lets them run in the simulated world.
"""

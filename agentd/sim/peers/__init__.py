"""What other autoscalers would do: their published rules, written anew from the rule, never from their code.

    hpa       Kubernetes HorizontalPodAutoscaler: `hpa_pods` groups, `hpa_calculator` counts, `hpa_behavior` limits
    kpa       Knative's autoscaler: `kpa_windows` averages and remembers
    nomad     HashiCorp Nomad Autoscaler: strategies, their combination, the policy's states
    ray       Ray Serve's autoscaling policy
    policies  these as the simulator runs them, on what a view of a pool shows

Units are the peers' own: sizes in replicas, `_m` in thousandths (1000 = one core, or 1.0 of any other number), times in
seconds on a clock whose zero means nothing. No module here reads a clock, draws a random number or does I/O.
`tests/conformance` holds every rule against the decision tables of the peers' own tests.
"""

"""Runs whole clusters of the production actors in one thread, on virtual time, from one seed.

What happens in a run depends on its `Plan` alone: the same plan gives the same run, event for
event, in any process. `world` holds the time and the nodes, `network` the broker, `machine` one
node with its turn, `disk` its journal. `faults` draws what goes wrong, `workload` is the clients,
`invariants` judge at every step, `run` is one seed from the founding to the verdict.
"""

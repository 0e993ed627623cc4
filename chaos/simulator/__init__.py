"""Runs whole clusters of the production actors in one thread, on virtual time, from one seed.

A run depends on its `Plan` alone: the same plan gives the same run, event for event, in any
process. `schedule` and `parcels` are at the bottom: time, and what travels. `machine` is one node
with its turn, `disk` its journal, `network` the broker; `world` puts them together. `faults` draws
the faults of a run and `fault_injector` injects them; `workload` and `large_files` are the clients.
`invariants` checks every step, `verdict` the end, against the `reference_log`. `run` is one seed
from the founding to the verdict, `batch` many of them.
"""

"""Tests of the simulator: it is deterministic, finds broken rules, and finds none in batches."""

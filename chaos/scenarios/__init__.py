"""Scenarios that break a cluster, and their verdicts and reports."""

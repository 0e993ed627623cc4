"""Dashboards and alerts, held against a real Prometheus."""

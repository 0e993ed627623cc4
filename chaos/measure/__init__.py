"""Measurements of what a cluster costs: at rest, with tracing, over a very long run."""

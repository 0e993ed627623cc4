"""The simulator: that it is deterministic, that it judges, and what it finds."""

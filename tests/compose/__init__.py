"""The cluster in containers."""

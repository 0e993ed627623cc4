"""Backups: taking one of a running cluster, its folder, and restoring it."""

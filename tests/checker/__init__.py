"""Tests of the checker: histories that are linearizable, and histories that are not."""

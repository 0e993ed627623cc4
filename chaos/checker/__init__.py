"""Histories, and whether they are linearizable."""

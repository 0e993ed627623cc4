"""Breaks a cluster on purpose and judges what is left."""

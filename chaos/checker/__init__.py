"""Histories of client operations, and the check whether they are linearizable."""

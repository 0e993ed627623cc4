"""Checks whether a node could run with the settings that it is given, here and at its brokers."""

"""The HTTP API: one module for each resource, and the modules that all of them share."""

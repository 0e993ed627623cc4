"""The interfaces to a cluster: HTTP, command line and web UI."""

"""Tests of the gateway: HTTP, the command line, backups, and the client library."""

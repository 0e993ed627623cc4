"""Clients that put load on a cluster over HTTP."""

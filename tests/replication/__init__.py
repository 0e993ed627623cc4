"""Views, takeover and rejoin on the real runtime, each node stopped at the critical point."""

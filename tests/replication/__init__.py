"""Views, takeover and rejoin on the real runtime, each node stopped exactly where it hurts."""

"""Deliberate bugs, and the proof that the simulator or a named test catches each of them."""

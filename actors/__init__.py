"""The protocol: deterministic, synchronous actors without clock, randomness or input and output."""

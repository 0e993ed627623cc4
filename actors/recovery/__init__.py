"""Recovery after a disaster: what the journals of a lost cluster prove (decision 32)."""

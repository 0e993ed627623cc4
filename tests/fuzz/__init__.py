"""Hostile input, drawn anew at each run: a little with the tests, more by `make fuzz`."""

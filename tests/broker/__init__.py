"""Tests of the runtime, the journal and the transports."""

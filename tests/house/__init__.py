"""Tests of the house itself: imports, tidiness and the private broker."""

"""Tests of the project itself: imports, names, tidiness and the private broker."""

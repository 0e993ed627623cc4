"""Tests of the scenarios, and proof that their verdict can fail."""

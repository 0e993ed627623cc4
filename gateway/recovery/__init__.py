"""Founds a new cluster from what the disks of a lost one still hold (docs/recovery.md)."""

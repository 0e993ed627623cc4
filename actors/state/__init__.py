"""The replicated state machine: the tree, what changes it, sessions, snapshots."""

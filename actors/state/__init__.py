"""The replicated state machine: the tree and its operations, sessions, snapshots."""

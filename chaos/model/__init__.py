"""An explicit-state model of membership change: its rules, its mutants, and their checker."""

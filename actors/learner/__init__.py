"""The learner, and the coordinator of two-phase commit that one of them is."""

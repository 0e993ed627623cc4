"""The learner; one of the learners coordinates two-phase commit."""

"""The errors that an actor raises."""


class InvariantViolation(AssertionError):
    """A state that the protocol rules out. The node halts, stays halted and reports why.

    The message carries the values that contradict each other.
    """


class JournalUnreadable(ValueError):
    """A record of the node's own journal that this actor can't read."""

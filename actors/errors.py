"""What an actor raises."""


class InvariantViolation(AssertionError):
    """A state that the protocol rules out was seen. The node halts, stays halted and says why.

    The message carries the values that contradict each other.
    """


class JournalUnreadable(ValueError):
    """A record of the node's own journal does not mean anything to this actor."""

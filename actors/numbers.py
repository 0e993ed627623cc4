"""The numbers that cross the broker: bounded, so that no message can carry one that breaks a node.

A larger one would not fit into a header of AMQP, or into the text that journal keys are ordered by,
and readers of JSON would lose its last digits (RFC 8259, section 6).
"""

from typing import Annotated

from pydantic import Field

Milliseconds = int
"""A duration, or a reading of the node's monotonic clock."""

COUNT_MAX = 2**53 - 1

SLOTS_AHEAD_MAX = 65_536
"""A learner takes votes and values in for so many slots after those that it knows as chosen. Who is
further behind asks for pages of the log first."""

GAP_SLOTS_MAX = 8_192
"""A leader fills gaps of the log up to so many slots at once. It has a bounded window of slots
under way, so none leaves a longer gap: what lies behind one was not proposed by a proposer."""

ROUNDS_AHEAD_MAX = 2**32
"""A ballot whose round is further ahead of all that were seen is not used. Candidates count up by
one, so none comes so far in the life of a cluster, while one number could use all others up."""

Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
"""A slot, an epoch, a round, or how many there are of something."""

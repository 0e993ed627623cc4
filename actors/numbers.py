"""Bounds of the numbers that cross the broker, so that no message can carry one that breaks a node.

A larger number would not fit into an AMQP header, or into the text that journal keys are ordered
by, and readers of JSON would lose its last digits (RFC 8259, section 6).
"""

from typing import Annotated

from pydantic import Field

Milliseconds = int
"""A duration, or a reading of the node's monotonic clock."""

COUNT_MAX = 2**53 - 1

SLOTS_AHEAD_MAX = 65_536
"""A learner records votes and values for at most this many slots beyond its chosen prefix. One that
is further behind first pulls pages of the log."""

GAP_SLOTS_MAX = 8_192
"""The longest gap in the log that a leader fills. A leader has a bounded window of slots in flight,
so none leaves a longer gap: a value beyond one was not proposed by a proposer."""

ROUNDS_AHEAD_MAX = 2**32
"""A ballot whose round is further ahead than this of all known ones is refused. Candidates count up
by one, so no cluster lives long enough to get there, while one such number could exhaust all
others."""

Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
"""A slot, an epoch, a round, or a quantity."""

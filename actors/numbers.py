"""The numbers that cross the broker: bounded, so that no message can carry one that breaks a node.

A larger one would not fit into a header of AMQP, or into the text that journal keys are ordered by,
and readers of JSON would lose its last digits (RFC 8259, section 6).
"""

from typing import Annotated

from pydantic import Field

COUNT_MAX = 2**53 - 1

Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
"""A slot, an epoch, a round, or how many there are of something."""

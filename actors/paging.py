"""How much one message may carry, and how answers are cut to it.

RabbitMQ closes the channel of a node that publishes a larger message than it takes, and the sender
would build the same message again after it reconnects: the answer never arrives. So whatever may
hold many items is cut by the bytes that they take as JSON, never by their number alone. A page ends
with the item that fills it, so that every page holds one at least and its reader gets on. That is
safe because a single item is bounded: none is larger than what one slot holds.
"""

from dataclasses import dataclass

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""The largest body that RabbitMQ 4 takes by default. No node sends a larger one."""

COMMAND_BYTES_MAX = 8 * 1024 * 1024
"""The largest command that a leader takes, as JSON. What a gateway takes in makes no larger one:
2 MiB of a transaction's body, whose contents grow by a third in base64, with some 400 bytes around
each of 1,000 steps.
"""

BATCH_BYTES_MAX = COMMAND_BYTES_MAX
"""What the commands of a slot may take together: as much as one of them may take alone."""

PAGE_BYTES = 1024 * 1024
"""A page ends with the item with which it takes more than this."""

# The largest item is the value of a slot, or what watchers are told of it: up to half as much
# again, for a step that takes 80 bytes as JSON makes a change that takes 120. The rest is left for
# the refusals of a slot's commands and for what stands around the items.
assert BATCH_BYTES_MAX * 3 // 2 + PAGE_BYTES + 2 * 1024 * 1024 <= MESSAGE_BYTES_MAX


@dataclass(slots=True)
class Page:
    """What one answer holds so far."""

    bytes_max: int
    size_bytes: int = 0

    def takes(self, size_bytes: int) -> bool:
        """Whether the next item, of `size_bytes` as JSON, belongs to this page."""
        if self.size_bytes > self.bytes_max:
            return False
        self.size_bytes += size_bytes
        return True

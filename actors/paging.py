"""How much one message may carry, and how answers are cut into pages.

RabbitMQ closes the channel of a node that publishes a message above its limit, and after it
reconnects the sender would build the same message again: the answer would never arrive. So an
answer that may hold many items is cut by the bytes that they take as JSON, never by their number
alone. A page ends with the item that fills it, so that every page holds at least one item and its
reader makes progress. That is safe because no item is larger than what one slot holds.
"""

from dataclasses import dataclass

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""The largest body that RabbitMQ 4 accepts by default. No node sends a larger one."""

COMMAND_BYTES_MAX = 8 * 1024 * 1024
"""The largest command that a leader accepts, as JSON. No request to a gateway makes a larger one: a
transaction's body has at most 2 MiB, its contents grow by a third in base64, and each of at most
1,000 steps adds some 400 bytes.
"""

BATCH_BYTES_MAX = COMMAND_BYTES_MAX
"""The largest batch of a slot: as much as a single command may take."""

PAGE_BYTES = 1024 * 1024
"""A page ends with the item that takes it beyond this size."""

# The largest item is the value of a slot, or its changes as watchers receive them: up to half as
# much again, for a step of 80 bytes of JSON makes a change of 120. What is left serves the refusals
# of the slot's commands and the rest of the message.
assert BATCH_BYTES_MAX * 3 // 2 + PAGE_BYTES + 2 * 1024 * 1024 <= MESSAGE_BYTES_MAX


@dataclass(slots=True)
class Page:
    """The size of one page so far."""

    bytes_max: int
    size_bytes: int = 0

    def takes(self, size_bytes: int) -> bool:
        """Whether the next item, of `size_bytes` as JSON, belongs to this page."""
        if self.size_bytes > self.bytes_max:
            return False
        self.size_bytes += size_bytes
        return True

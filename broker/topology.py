"""The names of a cluster's exchanges and queues on the broker, and the delay levels (design 6)."""

import bisect
from dataclasses import dataclass
from typing import Any

from actors.effects import Group
from actors.numbers import Milliseconds

DELAY_RATIO = 1.15
"""Between levels; small enough that a timer's jitter survives rounding up to the next level."""

LONGEST_DELAY_MS = 60_000

CONTROL_TOPICS = "control.#"
"""The topics of the events exchange that every node's runtime subscribes to."""

CONTROL_TRACE = "control.trace"
TRACE_TOPICS = "trace.#"


def trace_topic(node: str) -> str:
    """The topic on which the node publishes its trace records."""
    return f"trace.{node}"


def _delay_levels() -> tuple[Milliseconds, ...]:
    levels = [10]
    while levels[-1] < LONGEST_DELAY_MS:
        levels.append(min(max(levels[-1] + 1, round(levels[-1] * DELAY_RATIO)), LONGEST_DELAY_MS))
    return tuple(levels)


DELAYS_MS = _delay_levels()
"""Each has its own queue, because a message behind one with a longer delay would be late."""


def delay_level_ms(delay_ms: Milliseconds) -> Milliseconds:
    """The smallest level that is at least `delay_ms`, or the largest level."""
    return DELAYS_MS[min(bisect.bisect_left(DELAYS_MS, delay_ms), len(DELAYS_MS) - 1)]


@dataclass(frozen=True, slots=True)
class Topology:
    """The names and queue arguments of one cluster on a broker.

    `queue_type` is `classic` on a single broker and `quorum` on a cluster of brokers. All queues
    are durable, and bounded in bytes and in the age of their messages: a dead node's queue must not
    fill the broker, and a message that old has been sent again or is useless.
    """

    cluster: str
    queue_type: str = "classic"
    control_bytes_max: int = 64 * 1024 * 1024
    bulk_bytes_max: int = 64 * 1024 * 1024
    delay_bytes_max: int = 16 * 1024 * 1024
    quarantine_bytes_max: int = 16 * 1024 * 1024
    message_age_ms_max: Milliseconds = 120_000

    def __post_init__(self) -> None:
        if self.queue_type not in ("classic", "quorum"):
            raise ValueError(f"queue_type must be classic or quorum, not {self.queue_type!r}")
        if not self.cluster or len(self.cluster.encode()) > 128:
            raise ValueError(f"a cluster's name has 1 to 128 bytes, not {self.cluster!r}")

    @property
    def prefix(self) -> str:
        """The prefix of all names of the cluster."""
        return f"synod.{self.cluster}."

    def _name(self, last: str) -> str:
        return f"{self.prefix}{last}"

    @property
    def nodes(self) -> str:
        """The direct exchange of all nodes; the routing key is the node's name."""
        return self._name("nodes")

    @property
    def events(self) -> str:
        """The topic exchange of events: trace records, and commands to all nodes."""
        return self._name("events")

    @property
    def quarantine(self) -> str:
        """The exchange and the queue of messages that could not be processed."""
        return self._name("quarantine")

    def group(self, group: str) -> str:
        """The fanout exchange of a `Group`."""
        return self._name(group.removeprefix("@"))

    def node_queue(self, node: str) -> str:
        """The queue of the node's control messages."""
        return self._name(node)

    def bulk_queue(self, node: str) -> str:
        """The queue of the contents for the node."""
        return self._name(self.bulk_key(node))

    @staticmethod
    def bulk_key(node: str) -> str:
        """The routing key of the node's bulk queue."""
        return f"{node}.bulk"

    def delay(self, delay_ms: Milliseconds) -> str:
        """The fanout exchange and the queue of one delay level."""
        return f"{self.delay_prefix}{delay_ms}"

    @property
    def delay_prefix(self) -> str:
        """The prefix of the names of all delay levels."""
        return self._name("delay.")

    def delay_of(self, exchange: str) -> Milliseconds | None:
        """The delay level whose exchange has this name, if any."""
        level = exchange.removeprefix(self.delay_prefix)
        return int(level) if level != exchange and level.isdecimal() else None

    @property
    def exchanges(self) -> dict[str, str]:
        """All exchanges but the delays', with their types."""
        return {
            self.nodes: "direct",
            **{self.group(group): "fanout" for group in Group.ALL},
            self.events: "topic",
            self.quarantine: "fanout",
        }

    def node_arguments(self, bytes_max: int) -> dict[str, Any]:
        """The arguments of a node's queue."""
        return {
            **self._type(),
            "x-single-active-consumer": True,
            "x-max-length-bytes": bytes_max,
            "x-message-ttl": self.message_age_ms_max,
        }

    def delay_arguments(self, delay_ms: Milliseconds) -> dict[str, Any]:
        """The arguments of a delay queue: expired messages go to the node of their routing key."""
        return {
            **self._type(),
            "x-message-ttl": delay_ms,
            "x-dead-letter-exchange": self.nodes,
            "x-max-length-bytes": self.delay_bytes_max,
        }

    def quarantine_arguments(self) -> dict[str, Any]:
        """The arguments of the quarantine queue, which drops its oldest messages first."""
        return {**self._type(), "x-max-length-bytes": self.quarantine_bytes_max}

    def _type(self) -> dict[str, Any]:
        return {"x-queue-type": self.queue_type}

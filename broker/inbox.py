"""A node's inbox: its own calls and notices, and the two lanes of the broker's deliveries."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from actors.calls import Call
from actors.disk_events import Notice
from actors.effects import Envelope
from broker.transport import Delivery, Lane, Receipt, TimerMessage


@dataclass(slots=True)
class TurnInput:
    """The messages that one turn processes, and the receipts that acknowledge them."""

    items: list[Envelope | TimerMessage] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    receipts: dict[str, Receipt] = field(default_factory=dict)


class Inbox:
    """Queues local calls and the deliveries of both lanes.

    The transport's prefetch bounds the lanes, as no delivery is acknowledged before its turn.
    """

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self.local: deque[Call | Notice] = deque()
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._control: deque[Delivery] = deque()
        self._bulk: deque[Delivery] = deque()

    def __len__(self) -> int:
        return len(self.local) + len(self._control) + len(self._bulk)

    def put(self, delivery: Delivery) -> None:
        """Add a delivery of the broker."""
        self._lane_of(delivery).append(delivery)

    def put_back(self, batch: TurnInput) -> None:
        """Put the deliveries of a turn that did not happen back in front."""
        for delivery in reversed(batch.deliveries):
            self._lane_of(delivery).appendleft(delivery)

    def forget_deliveries(self) -> None:
        """Drop the deliveries of a session that ended: the broker will deliver them again."""
        self._control.clear()
        self._bulk.clear()

    def drain(
        self, envelope_of: Callable[[Call | Notice], Envelope], *, local_only: bool = False
    ) -> TurnInput:
        """Remove the messages of one turn; `envelope_of` wraps local calls and notices.

        With `local_only` the broker's deliveries stay.
        """
        batch = TurnInput()
        size_bytes = 0
        while self.local and len(batch.items) < self._messages_max:
            batch.items.append(envelope_of(self.local.popleft()))
        for lane in () if local_only else (self._control, self._bulk):
            # At least one delivery of each lane, so that neither starves the other.
            first = True
            while lane and (
                first
                or (
                    len(batch.items) < self._messages_max
                    and size_bytes + lane[0].size_bytes <= self._bytes_max
                )
            ):
                first = False
                delivery = lane.popleft()
                batch.deliveries.append(delivery)
                size_bytes += delivery.size_bytes
                batch.receipts[delivery.receipt.lane] = delivery.receipt
                batch.items.extend(_items_of(delivery))
        return batch

    def _lane_of(self, delivery: Delivery) -> deque[Delivery]:
        return self._bulk if delivery.receipt.lane == Lane.BULK else self._control


def _items_of(delivery: Delivery) -> Iterable[Envelope | TimerMessage]:
    item = delivery.item
    if item is None:
        return ()
    if isinstance(item, TimerMessage):
        return (item,)
    cluster, sender, disk, incarnation, messages = item
    return [Envelope(cluster, sender, disk, incarnation, message) for message in messages]

"""A broker within one process: the default of `synod up`, and of tests.

It gives a node what RabbitMQ does (durable bounded queues, groups, delayed messages, at-least-once
delivery with acknowledgements, a maximum message size), but passes message objects without
encoding them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from actors.calls import Call
from actors.disk_events import Notice
from actors.messages import (
    BULK,
    Accept,
    AcceptedRange,
    AnyMessage,
    Chosen,
    Decided,
    LogPage,
    Promise,
    ReadReply,
    SnapshotPage,
    Submit,
    TxnPrepare,
    TxnState,
    TxnVote,
)
from actors.numbers import Milliseconds
from actors.paging import MESSAGE_BYTES_MAX
from actors.values import weight
from broker.transport import (
    Delivery,
    Lane,
    Parcel,
    Receipt,
    TimerMessage,
    TransportHealth,
    groups_of,
)

CONTROL_MESSAGE_BYTES = 512
"""The assumed size of a control message without the slot values and rows in it."""


@dataclass(slots=True)
class _Queue:
    """One lane of one node. It outlives the node, as a durable queue does."""

    lane: str
    bytes_max: int
    prefetch: int
    ready: deque[tuple[Parcel | TimerMessage, int]] = field(default_factory=deque)
    unacknowledged: deque[tuple[int, Parcel | TimerMessage, int]] = field(default_factory=deque)
    held_bytes: int = 0
    last_tag: int = 0
    session: int = 0
    deliver: Callable[[Delivery], None] | None = None

    def put(self, item: Parcel | TimerMessage, size_bytes: int) -> int:
        """Add `item`; return how many older messages were dropped to stay within the bound."""
        self.ready.append((item, size_bytes))
        self.held_bytes += size_bytes
        dropped = 0
        while self.held_bytes > self.bytes_max and self.ready:
            self.held_bytes -= self.ready.popleft()[1]
            dropped += 1
        self.pump()
        return dropped

    def attach(self, session: int, deliver: Callable[[Delivery], None]) -> None:
        self.session = session
        self.deliver = deliver
        self.pump()

    def detach(self) -> None:
        """Remove the consumer, and requeue what it did not acknowledge."""
        self.deliver = None
        while self.unacknowledged:
            _, item, size_bytes = self.unacknowledged.pop()
            self.ready.appendleft((item, size_bytes))

    def acknowledge(self, receipt: Receipt) -> None:
        if receipt.session != self.session:
            return
        while self.unacknowledged and self.unacknowledged[0][0] <= receipt.tag:
            self.held_bytes -= self.unacknowledged.popleft()[2]
        self.pump()

    def pump(self) -> None:
        while self.deliver and self.ready and len(self.unacknowledged) < self.prefetch:
            item, size_bytes = self.ready.popleft()
            self.last_tag += 1
            self.unacknowledged.append((self.last_tag, item, size_bytes))
            self.deliver(
                Delivery(item, Receipt(self.session, self.lane, self.last_tag), size_bytes)
            )


class MemoryBroker:
    """The queues of a cluster in one process, on one event loop."""

    def __init__(
        self,
        *,
        control_bytes_max: int = 16 * 1024 * 1024,
        bulk_bytes_max: int = 64 * 1024 * 1024,
        prefetch: int = 256,
        bulk_prefetch: int = 4,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self._control_bytes_max = control_bytes_max
        self._bulk_bytes_max = bulk_bytes_max
        self._prefetch = prefetch
        self._bulk_prefetch = bulk_prefetch
        self.message_bytes_max = message_bytes_max
        self._queues: dict[tuple[str, str], _Queue] = {}
        self._groups: dict[str, list[str]] = {}
        self._listeners: list[Callable[[str, str, bytes], None]] = []
        self.connected: list[MemoryTransport] = []
        """The running transports, which are notified when the broker is unblocked."""
        self.blocked = False
        """Whether it accepts no messages, as RabbitMQ during an alarm; it still delivers."""
        self.quarantined: deque[tuple[Parcel, str]] = deque(maxlen=1000)
        """The latest messages that could not be processed, and why."""

    def transport(self, name: str) -> "MemoryTransport":
        """The connection of the node `name`; creates its queues."""
        if (name, Lane.CONTROL) not in self._queues:
            self._queues[name, Lane.CONTROL] = _Queue(
                Lane.CONTROL, self._control_bytes_max, self._prefetch
            )
            self._queues[name, Lane.BULK] = _Queue(
                Lane.BULK, self._bulk_bytes_max, self._bulk_prefetch
            )
            for group in groups_of(name):
                self._groups.setdefault(group, []).append(name)
        return MemoryTransport(self, name)

    def block(self) -> None:
        """Accept no more messages."""
        self.blocked = True

    def unblock(self) -> None:
        """Accept messages again, and notify the nodes."""
        self.blocked = False
        for transport in self.connected:
            transport.on_unblocked()

    def lanes(self, name: str) -> tuple[_Queue, _Queue]:
        """The node's control and bulk queue."""
        return self._queues[name, Lane.CONTROL], self._queues[name, Lane.BULK]

    def receivers(self, to: str, sender: str) -> Iterable[str]:
        """The nodes that receive a message from `sender` to `to`: a group's members but itself."""
        if to.startswith("@"):
            return [name for name in self._groups.get(to, ()) if name != sender]
        return (to,) if (to, Lane.CONTROL) in self._queues else ()

    def listen(self, listener: Callable[[str, str, bytes], None]) -> None:
        """Call `listener` with the topic, type and body of every event."""
        self._listeners.append(listener)

    def emit(self, key: str, kind: str, body: bytes) -> None:
        """Publish an event to all listeners."""
        for listener in self._listeners:
            listener(key, kind, body)

    def put(self, name: str, lane: str, item: Parcel | TimerMessage, size_bytes: int) -> int:
        """Put `item` into a queue; return how many messages were dropped for it."""
        return self._queues[name, lane].put(item, size_bytes)


class MemoryTransport:
    """One node's connection to a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self._broker = broker
        self._name = name
        self._health = TransportHealth()
        self._delayed: set[asyncio.TimerHandle] = set()
        self._receipts: list[Receipt] = []
        self._staged: list[tuple[str, Parcel]] = []
        self.on_unblocked: Callable[[], None] = lambda: None

    @property
    def health(self) -> TransportHealth:
        """Live figures, updated in place."""
        self._health.blocked = self._health.connected and self._broker.blocked
        return self._health

    @property
    def unsent_bytes(self) -> int:
        """Always 0: there is no socket."""
        return 0

    async def run(
        self,
        deliver: Callable[[Delivery], None],
        connected: Callable[[], None],
        unblocked: Callable[[], None],
    ) -> None:
        """Deliver until cancelled."""
        self.on_unblocked = unblocked
        self._broker.connected.append(self)
        lanes = self._broker.lanes(self._name)
        self._health.sessions += 1
        self._health.connected = True
        connected()
        try:
            for lane in lanes:
                lane.attach(lane.session + 1, deliver)
            await asyncio.Event().wait()
        finally:
            self._health.connected = False
            self._broker.connected.remove(self)
            for lane in lanes:
                lane.detach()
            for handle in self._delayed:
                handle.cancel()
            self._delayed.clear()

    def publish(self, to: str, parcel: Parcel) -> None:
        """Stage `parcel` for a node or a group."""
        self._staged.append((to, parcel))

    def delay(self, delay_ms: Milliseconds, timer_message: TimerMessage) -> bool:
        """Deliver `timer_message` to this node after `delay_ms`."""
        if not self._takes_messages:
            self._health.dropped += 1
            return False

        def arrive() -> None:
            self._delayed.discard(handle)
            self._put(self._name, Lane.CONTROL, timer_message, CONTROL_MESSAGE_BYTES)

        handle = asyncio.get_running_loop().call_later(delay_ms / 1000, arrive)
        self._delayed.add(handle)
        return True

    def quarantine(self, parcel: Parcel, reason: str) -> None:
        """Keep a message that this node can't process, for inspection."""
        self._health.quarantined += 1
        self._broker.quarantined.append((parcel, reason))

    def acknowledge(self, receipt: Receipt) -> None:
        """Stage the acknowledgement of `receipt` and all before it on its lane."""
        self._receipts.append(receipt)

    async def flush(self) -> None:
        """Deliver what is staged, then acknowledge."""
        staged, self._staged = self._staged, []
        receipts, self._receipts = self._receipts, []
        if self._takes_messages:
            for to, parcel in staged:
                self._send(to, parcel)
        else:
            self._health.dropped += len(staged)
        control, bulk = self._broker.lanes(self._name)
        for receipt in receipts:
            (control if receipt.lane == Lane.CONTROL else bulk).acknowledge(receipt)

    def emit(self, key: str, kind: str, body: bytes) -> bool:
        """Publish an event."""
        if self._takes_messages:
            self._broker.emit(key, kind, body)
        return self._takes_messages

    @property
    def _takes_messages(self) -> bool:
        return self._health.connected and not self._broker.blocked

    def on_control(self, listener: Callable[[str, bytes], None]) -> None:
        """Call `listener` for each event on the topics `control.#`."""

        def on_event(key: str, kind: str, body: bytes) -> None:
            if key.startswith("control."):
                listener(kind, body)

        self._broker.listen(on_event)

    def _send(self, to: str, parcel: Parcel) -> None:
        control = tuple(message for message in parcel.messages if not _is_bulk(message))
        if any(isinstance(message, Call | Notice) for message in control):
            raise TypeError(f"a local call or notice can't leave its node: {control}")
        sizes = list(map(_weight, control))
        if sizes and max(sizes) > self._broker.message_bytes_max:
            self._refuse_too_large(parcel, control, sizes)
            return
        size_bytes = sum(sizes)
        for name in self._broker.receivers(to, self._name):
            if control:
                part = parcel._replace(messages=control)
                self._put(name, Lane.CONTROL, part, size_bytes)
            if len(control) < len(parcel.messages):
                for message in parcel.messages:
                    if _is_bulk(message):
                        data_bytes = len(message.data)  # type: ignore[attr-defined]
                        part = parcel._replace(messages=(message,))
                        self._put(name, Lane.BULK, part, data_bytes + CONTROL_MESSAGE_BYTES)

    def _refuse_too_large(
        self, parcel: Parcel, control: tuple[AnyMessage, ...], sizes: list[int]
    ) -> None:
        """Drop the parcel: no node builds such a message, and tests check `quarantined`."""
        self._health.dropped += len(control)
        for message, size_bytes in zip(control, sizes, strict=True):
            if size_bytes > self._broker.message_bytes_max:
                reason = f"not sent: {size_bytes} bytes are more than a message may have"
                self.quarantine(parcel._replace(messages=(message,)), reason)

    def _put(self, name: str, lane: str, item: Parcel | TimerMessage, size_bytes: int) -> None:
        self._health.dropped += self._broker.put(name, lane, item, size_bytes)


def _weight(message: AnyMessage) -> int:
    """The size of a control message, a little more than on RabbitMQ: the queue of an absent node
    holds many of them, and none may exceed RabbitMQ's limit. Only types that may be large are
    measured.
    """
    match message:
        case TxnPrepare(batch=batch):
            held = batch.weight
        case Accept(value=value):
            held = weight(value)
        case Submit(command=command):
            held = command.size_bytes
        case Promise(accepted=slots):
            held = sum(weight(slot.value) for slot in slots)
        case AcceptedRange(entries=entries) | Chosen(entries=entries) | Decided(entries=entries):
            held = sum(len(entry.to_json()) + 1 for entry in entries)
        case ReadReply(children=(), changes=()):
            held = 0
        case ReadReply() | LogPage() | SnapshotPage() | TxnState() | TxnVote():
            held = len(message.to_json())
        case _:
            held = 0
    return CONTROL_MESSAGE_BYTES + held


def _is_bulk(message: AnyMessage) -> bool:
    return message.type in BULK  # type: ignore[attr-defined]

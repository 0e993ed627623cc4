"""The broker between the nodes: every parcel and every timer goes through it.

Each node has one queue, which outlives the node's crash but not the broker's. Parcels between the
same two nodes arrive in order, unless the fault `reordering` is on.
"""

import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.effects import Group, TimerKey
from actors.numbers import Milliseconds
from broker.delay_levels import delay_level_ms
from broker.timers import OVERDUE_MS
from chaos.simulator.parcels import DueTimer, Envelopes
from chaos.simulator.schedule import US_PER_MS, Schedule
from chaos.simulator.trace import TraceSink

_GROUPS = {
    Group.ACCEPTORS: ("acceptor",),
    Group.LEARNERS: ("learner",),
    Group.STORES: ("store",),
    Group.HEARTBEATS: ("proposer", "learner", "store", "gateway"),
    Group.PHASE_2: ("acceptor", "learner"),
}


@dataclass(slots=True)
class Conditions:
    """How reliable and how fast the network is: probabilities, and delays in microseconds."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    """How often a parcel may overtake those before it, by up to `reorder_us_max`."""
    reorder_us_max: int = 50_000
    lag: float = 0.0
    """How often a parcel is delayed for long, by up to `lag_us_max`."""
    lag_us_max: int = 1_000_000
    least_us: int = 200
    most_us: int = 2_000


class Receiver(Protocol):
    """A node, as the network sees it."""

    name: str
    serial: int
    inbox: deque[Any]

    def arrive(self, item: Any) -> None:
        """A parcel or the message of a timer is in the node's queue."""

    def resend_timer(self, lost: tuple[int, TimerKey, int]) -> None:
        """The message of a timer was lost."""

    def forget_queue(self) -> None:
        """The broker lost the node's queue."""

    def rearm(self) -> None:
        """The node has connected again."""


@dataclass(slots=True)
class ResourceAlarm:
    """The broker is low on memory or disk and accepts nothing from `senders`.

    While it lasts, what they publish is dropped, or waits if the alarm `holds` it.
    """

    senders: frozenset[str]
    holds: bool
    held: list[Callable[[], None]] = field(default_factory=list)
    """What to publish at the end, in order."""

    def refuse(self, publish: Callable[[], None]) -> None:
        """Hold or drop one publication."""
        if self.holds:
            self.held.append(publish)


class Network:
    """Delivers parcels and the messages of timers, late or never if faults are on."""

    def __init__(
        self,
        schedule: Schedule,
        rng: random.Random,
        names: tuple[str, ...],
        trace: TraceSink | None,
    ) -> None:
        self._schedule = schedule
        self._random = rng
        self._trace = trace
        self._nodes: dict[str, Receiver] = {}
        self.conditions = Conditions()
        self.up = True
        self.cut: set[tuple[str, str]] = set()
        """Pairs of sender and receiver between which nothing passes."""
        self.disconnected: set[str] = set()
        """Nodes without a connection to the broker."""
        self.alarms: list[ResourceAlarm] = []
        self.blocked_publications = 0
        self.deliveries = 0
        self._restarts = 0
        self._last_us: dict[tuple[str, str], int] = {}
        self.receivers: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
        for group, roles in _GROUPS.items():
            self.receivers[group] = tuple(n for n in names if n.rpartition("-")[0] in roles)

    def attach(self, nodes: Iterable[Receiver]) -> None:
        """Deliver to these nodes from now on."""
        self._nodes.update((node.name, node) for node in nodes)

    def remove(self, name: str) -> None:
        """Delete the queue of a node; nothing is sent to it any more."""
        self.disconnected.discard(name)
        del self.receivers[name]
        for group in _GROUPS:
            kept = tuple(other for other in self.receivers[group] if other != name)
            self.receivers[group] = kept

    def add(self, node: Receiver) -> None:
        """Declare the queue of one more node, and bind it to its groups."""
        self._nodes[node.name] = node
        self.receivers[node.name] = (node.name,)
        for group, roles in _GROUPS.items():
            if node.name.rpartition("-")[0] in roles:
                self.receivers[group] = (*self.receivers[group], node.name)

    # -- parcels ---------------------------------------------------------------------------------

    def publish(self, sender: str, to: str, parcel: Envelopes) -> None:
        """Put a copy into the queue of each receiver after a delay, unless it is lost."""
        if self.alarms and self._is_blocked(sender, lambda: self.publish(sender, to, parcel)):
            return
        schedule = self._schedule
        conditions = self.conditions
        draw = self._random.random
        trace = self._trace
        for receiver in self.receivers.get(to, ()):
            if (
                not self.up
                or (self.cut and (sender, receiver) in self.cut)
                or (
                    self.disconnected
                    and (sender in self.disconnected or receiver in self.disconnected)
                )
                or (conditions.loss and draw() < conditions.loss)
            ):
                if trace is not None:
                    trace.parcel(schedule.now_us, None, sender, receiver, parcel, duplicate=False)
                continue
            at_us = self._arrival_us(sender, receiver)
            node = self._nodes[receiver]
            schedule.at_us(at_us, self._arrive, (node, parcel, self._restarts))
            if trace is not None:
                trace.parcel(schedule.now_us, at_us, sender, receiver, parcel, duplicate=False)
            if conditions.duplication and draw() < conditions.duplication:
                at_us += int(draw() * 100_000)
                schedule.at_us(at_us, self._arrive, (node, parcel, self._restarts))
                if trace is not None:
                    trace.parcel(schedule.now_us, at_us, sender, receiver, parcel, duplicate=True)

    def _arrival_us(self, sender: str, receiver: str) -> int:
        conditions = self.conditions
        draw = self._random.random
        least = conditions.least_us
        at_us = self._schedule.now_us + least + int(draw() * (conditions.most_us - least))
        if conditions.lag and draw() < conditions.lag:
            at_us += int(draw() * conditions.lag_us_max)
        if conditions.reordering and draw() < conditions.reordering:
            return at_us + int(draw() * conditions.reorder_us_max)
        link = (sender, receiver)
        at_us = max(at_us, self._last_us.get(link, 0))
        self._last_us[link] = at_us
        return at_us

    def _arrive(self, arrival: tuple[Receiver, Envelopes, int]) -> None:
        node, parcel, restarts = arrival
        if restarts == self._restarts:
            self.deliveries += len(parcel)
            node.arrive(parcel)

    # -- timers ----------------------------------------------------------------------------------

    def delay(self, node: Receiver, key: TimerKey, generation: int, delay_ms: Milliseconds) -> None:
        """Send a timer's message through the delay queue of its level.

        The broker's clock, which is true time here, measures the level.
        """
        if not self.up or node.name in self.disconnected:
            return  # The node sends it again once it has connected again.
        schedule = self._schedule
        level_ms = delay_level_ms(max(1, delay_ms))
        serial = node.serial
        conditions = self.conditions

        def publish() -> None:
            if serial == node.serial:
                self.delay(node, key, generation, delay_ms)

        blocked = bool(self.alarms) and self._is_blocked(node.name, publish)
        if blocked or (conditions.loss and self._random.random() < conditions.loss):
            late_ms = level_ms + max(OVERDUE_MS, delay_ms // 2)
            schedule.after_us(late_ms * US_PER_MS, node.resend_timer, (serial, key, generation))
            return
        late_us = conditions.least_us
        if conditions.lag and self._random.random() < conditions.lag:
            late_us += int(self._random.random() * conditions.lag_us_max)
        schedule.after_us(
            level_ms * US_PER_MS + late_us,
            self._deliver_timer,
            (node, DueTimer(serial, key, generation), self._restarts),
        )

    def _deliver_timer(self, arrival: tuple[Receiver, DueTimer, int]) -> None:
        node, message, restarts = arrival
        if restarts != self._restarts:
            return
        if node.name in self.disconnected:
            # The queue keeps the message until the node has connected again.
            node.inbox.append(message)
        else:
            node.arrive(message)

    def _is_blocked(self, sender: str, publish: Callable[[], None]) -> bool:
        for alarm in self.alarms:
            if sender in alarm.senders:
                self.blocked_publications += 1
                alarm.refuse(publish)
                return True
        return False

    # -- faults ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """The broker goes down and loses every message, those under way and those in queues."""
        self.up = False
        for alarm in self.alarms:
            alarm.held.clear()
        self._restarts += 1
        self._last_us.clear()
        for node in self._nodes.values():
            node.forget_queue()

    def start(self) -> None:
        """The broker is back: every node connects again and sends its timers again."""
        self.up = True
        for node in self._nodes.values():
            node.rearm()

    def reconnect(self, name: str) -> None:
        """A disconnected node connects again."""
        self.disconnected.discard(name)
        if self.up:
            self._nodes[name].rearm()

    def clear_alarm(self, alarm: ResourceAlarm) -> None:
        """The broker accepts messages again, beginning with those that it held."""
        if alarm in self.alarms:
            self.alarms.remove(alarm)
            for publish in alarm.held:
                publish()

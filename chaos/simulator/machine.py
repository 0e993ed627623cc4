"""One node: its process, its clock, its disk, and the runtime's turn (`broker.runtime`).

A turn is the same as in production, on virtual time::

    drain -> receive* -> expire* -> settle -> commit -> sends -> timers -> acknowledge -> answers

The process can die at any of these arrows. The broker delivers again what was not acknowledged;
what was not committed is gone.
"""

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Protocol

from actors.calls import Call
from actors.disk_events import BlobRotten, DiskSpace, Notice, RowRotten
from actors.effects import (
    Answer,
    Blob,
    Effects,
    Envelope,
    Record,
    Send,
    SendBlob,
    SetTimer,
    TimerKey,
)
from actors.errors import InvariantViolation
from actors.messages import ChunkData, ChunkMissing
from actors.numbers import Milliseconds
from actors.options import Identity, Options
from actors.roles import build_actor
from chaos.simulator.changed_setting import ChangedSetting
from chaos.simulator.clock import Clock
from chaos.simulator.disk import Disk
from chaos.simulator.parcels import SPURIOUS, DueTimer, Envelopes
from chaos.simulator.schedule import Schedule
from chaos.simulator.violation import Violation

DRAIN_MESSAGES_MAX = 512
_EARLY_MS = 2
_LOCAL = (Call, Notice)
_TURN_DELAY_US = 50

CRASH_POINTS = ("before_commit", "after_commit", "between_sends", "before_ack", "rebuild")
"""Where in a turn a process may die; at `rebuild` the actor raises and is built again."""


class MachineObserver:
    """Observes every step of every machine. This one ignores them all; `Invariants` checks them."""

    observed_messages: frozenset[type] = frozenset()
    """The types of the messages that `receiving` is called for."""

    def started(self, machine: "Machine") -> None:
        """A process has restored its actor."""

    def stopped(self, machine: "Machine") -> None:
        """A process is about to end; this is the last chance to look at its actor."""

    def receiving(self, machine: "Machine", envelope: Envelope) -> None:
        """An actor is about to receive a message of an observed type."""

    def stepped(self, machine: "Machine", sends: list[Send | SendBlob]) -> None:
        """An actor has received the messages of a turn; nothing is durable or sent yet."""

    def committed(self, machine: "Machine", records: list[Record], blobs: list[Blob]) -> None:
        """A turn's records are durable."""

    def published(self, machine: "Machine", to: str, message: Any) -> None:
        """A node sends a message."""

    def halted(self, machine: "Machine", reason: str) -> None:
        """A node has halted, or has refused to start."""


class Carrier(Protocol):
    """The network, as a machine sees it."""

    def publish(self, sender: str, to: str, parcel: Envelopes) -> None:
        """Put a copy into the queue of each receiver after a delay, unless it is lost."""

    def delay(self, node: Any, key: TimerKey, generation: int, delay_ms: Milliseconds) -> None:
        """Send a timer's message through its delay queue."""


class MachineHost(Protocol):
    """The world, as a machine sees it."""

    options: Options
    schedule: Schedule
    observer: MachineObserver
    rng: random.Random
    timer_rng: random.Random
    identity_rng: random.Random

    @property
    def network(self) -> Carrier:
        """The network that carries the machine's messages."""

    def trace_event(self, text: str) -> None:
        """Add something that is no message to the trace."""

    def process_died(self, machine: Any) -> None:
        """A process died in its turn."""

    def disk_refused(self, machine: Any) -> None:
        """A process did not start, because rows of its journal are rotten."""

    def node_halted(self, machine: Any, reason: str) -> None:
        """A node has halted, or has refused to start."""

    def answered(self, token: int, value: Any) -> None:
        """A call has its answer."""

    def call_lost(self, token: int) -> None:
        """The node died with the call under way."""


@dataclass(slots=True)
class RunningTurn:
    """The items of one turn, and the effects that the actor asks for."""

    items: list[Any]
    records: list[Record] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    sends: list[Send | SendBlob] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    timers: list[TimerKey] = field(default_factory=list)
    halt: str | None = None
    committed: bool = False
    discarded: bool = False
    """Whether it certainly is not committed, also not by a process that dies."""


class Machine:
    """A node of the world: its disk and its clock, and its process if `actor` is not `None`."""

    def __init__(self, host: MachineHost, name: str, disk: Disk, clock: Clock) -> None:
        self._host = host
        self._schedule = host.schedule
        self.name = name
        self.role = name.rpartition("-")[0]
        self.disk = disk
        self.clock = clock
        self.actor: Any = None
        self.inbox: deque[Any] = deque()
        """The node's queue at the broker, and the local calls and notices."""
        self.serial = 0
        """Counts starts and rebuilds: what belongs to an earlier one is void."""
        self.paused_until_us = 0
        self.changed_setting: ChangedSetting | None = None
        """The setting in which the process differs from the cluster when it starts."""
        self.dies_at = ""
        """The crash point at which the next turn that reaches it dies."""
        self.disk_least_us = 0
        self.disk_most_us = 0
        self.is_low_on_space = False
        """Whether the disk has less space than the reserve, which the actor is notified of."""
        self.is_full = False
        """Whether commits fail for lack of space. The turn is discarded, and the node waits."""
        self.waits_for_space = False
        self.known_timers: dict[TimerKey, None] = {}
        self._armed: dict[TimerKey, tuple[int, Milliseconds]] = {}
        self._generation = 0
        self._immediate: list[TimerKey] = []
        self._turn: RunningTurn | None = None
        self._turn_due = False
        self._one_by_one = 0
        self._calls: dict[int, None] = {}

    @property
    def now_ms(self) -> Milliseconds:
        """What the node's own clock shows."""
        return self.clock.read_ms(self._schedule.now_us)

    @property
    def ran_ms(self) -> Milliseconds:
        """How long the node's own clock has run, which no crash and no reboot stops."""
        return self.clock.ran_ms(self._schedule.now_us)

    @property
    def true_ms(self) -> int:
        """True time."""
        return self._schedule.now_ms

    @property
    def cluster_options(self) -> Options:
        """The cluster's settings, whatever this node was started with."""
        return self._host.options

    @property
    def is_up(self) -> bool:
        """Whether the process runs, paused or not."""
        return self.actor is not None

    @property
    def is_paused(self) -> bool:
        """Whether the process exists and gets no processor time."""
        return self._schedule.now_us < self.paused_until_us

    # -- the process -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process on the disk, unless the disk is full or rotten."""
        assert self.actor is None, f"{self.name} runs already"
        self.waits_for_space = self.is_full
        if self.waits_for_space:
            return
        if self.disk.rotten_rows:
            self._host.disk_refused(self)
            return
        self._begin_incarnation()
        if self.inbox:
            self._turn_soon()
        if self.is_low_on_space and self.is_up:
            self.report_space()

    def report_space(self) -> None:
        """Notify the actor of the free space, as the runtime does."""
        low = self.is_low_on_space
        self.arrive(DiskSpace(low=low, free_bytes=0 if low else 1 << 30))

    def scrub(self) -> None:
        """Read the whole disk and notify the actor of what has rotted, as the runtime does."""
        found: list[Notice] = [BlobRotten(sha256=name) for name in sorted(self.disk.rotten_blobs)]
        found += [RowRotten(key=key) for key in sorted(self.disk.rotten_rows)]
        for notice in found:
            if self.is_up:  # The notice before may have led to a turn in which the process died.
                self.arrive(notice)

    def _stall(self, turn: RunningTurn) -> None:
        """The disk has no space for the commit: discard the turn, and wait for space."""
        turn.discarded = True
        self._host.trace_event(f"{self.name} is silent: its disk has no room")
        self.crash()
        self.waits_for_space = True

    def _begin_incarnation(self) -> None:
        self.disk.begin_incarnation()
        self.serial += 1
        self._armed.clear()
        self._immediate.clear()
        self.known_timers.clear()
        identity = Identity(
            name=self.name,
            disk=self.disk.identity,
            incarnation=self.disk.incarnation,
            journal_commits=self.disk.commits,
            fresh_id=f"{self._host.identity_rng.getrandbits(128):032x}",
        )
        options = self.changed_setting.options if self.changed_setting else self._host.options
        try:
            self.actor = build_actor(identity, options)
        except ValueError as error:
            if self.changed_setting is None:
                raise
            self._host.node_halted(self, str(error))
            return
        turn = RunningTurn([])
        now = self.now_ms
        self._absorb(self.actor.restore(self.disk.rows(), now), turn)
        self._expire_immediate(turn, now)
        self._absorb(self.actor.settle(now), turn)
        self._host.observer.started(self)
        self._end_step(turn)

    def crash(self) -> None:
        """End the process without warning. A commit under way may have reached the disk, or not."""
        turn = self._turn
        in_progress = turn is not None and not (turn.committed or turn.discarded or self.is_full)
        if turn is not None and in_progress and self._host.rng.random() < 0.5:
            self._commit(turn)
        self._void_turn()
        self._host.observer.stopped(self)
        self.actor = None
        self.serial += 1
        self._armed.clear()
        self._immediate.clear()
        self.paused_until_us = 0
        self.dies_at = ""
        self._one_by_one = 0
        calls, self._calls = self._calls, {}
        self.inbox = deque(item for item in self.inbox if type(item) is tuple)
        for token in calls:
            self._host.call_lost(token)

    def _rebuild(self) -> None:
        """The turn raised: discard it, and build the actor again, which counts as a restart."""
        assert self._turn is not None
        if self.is_full:
            self._stall(self._turn)
            return
        if self.disk.rotten_rows:
            self._turn.discarded = True
            self.crash()
            self._host.disk_refused(self)
            return
        kept = [item for item in self._turn.items if type(item) is not DueTimer]
        tokens = {item.token for item in (*kept, *self.inbox) if isinstance(item, Call)}
        self._turn = None
        self.inbox.extendleft(reversed(kept))
        self._one_by_one = len(kept)
        self._host.observer.stopped(self)
        for token in [token for token in self._calls if token not in tokens]:
            del self._calls[token]
            self._host.call_lost(token)
        self._begin_incarnation()
        self._turn_soon()

    def _void_turn(self) -> None:
        """The turn's parcels were not acknowledged: the broker delivers them again."""
        if self._turn is not None:
            parcels = [item for item in self._turn.items if type(item) is tuple]
            self.inbox.extendleft(reversed(parcels))
            self._turn = None

    def pause(self, duration_us: int) -> None:
        """Give the process no processor time; its clock and its leases run on."""
        self.paused_until_us = max(self.paused_until_us, self._schedule.now_us + duration_us)
        self._schedule.at_us(self.paused_until_us, self._on_pause_over)

    def resume(self) -> None:
        """End a pause early."""
        self.paused_until_us = 0
        self._turn_soon()

    def _on_pause_over(self, _: object) -> None:
        if self.is_up and not self.is_paused:
            self._turn_soon()

    # -- the inbox -------------------------------------------------------------------------------

    def arrive(self, item: Any) -> None:
        """Queue a parcel, a timer message, a call or a notice. An idle node takes it at once."""
        self.inbox.append(item)
        if (
            self.actor is not None
            and self._turn is None
            and not self._turn_due
            and self._schedule.now_us >= self.paused_until_us
        ):
            self._take_turn()

    def call(self, call: Call) -> None:
        """Take a call of the node's API, which is lost if the process is down."""
        if self.actor is None:
            self._host.call_lost(call.token)
            return
        self._calls[call.token] = None
        self.arrive(call)

    def forget_queue(self) -> None:
        """Drop what the broker lost: everything but local calls and notices."""
        self.inbox = deque(item for item in self.inbox if isinstance(item, _LOCAL))
        if self._turn is not None:
            self._turn.items = [item for item in self._turn.items if isinstance(item, _LOCAL)]

    def _turn_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._schedule.after_us(_TURN_DELAY_US, self._on_turn_due)

    def _on_turn_due(self, _: object) -> None:
        self._turn_due = False
        if self.inbox and self.actor is not None and self._turn is None and not self.is_paused:
            self._take_turn()

    # -- the turn --------------------------------------------------------------------------------

    def _take_turn(self) -> None:
        inbox = self.inbox
        limit = 1 if self._one_by_one else DRAIN_MESSAGES_MAX
        if self._one_by_one:
            self._one_by_one -= 1
        if len(inbox) <= limit:
            items = list(inbox)
            inbox.clear()
        else:
            items = [inbox.popleft() for _ in range(limit)]
        turn = RunningTurn(items)
        try:
            self._step(turn)
        except InvariantViolation as violation:
            raise Violation("actors_own_checks", f"{self.name}: {violation}") from violation
        self._end_step(turn)

    def _step(self, turn: RunningTurn) -> None:
        actor = self.actor
        now = self.now_ms
        absorb = self._absorb
        observer = self._host.observer
        observed = observer.observed_messages
        for item in turn.items:
            if type(item) is tuple:
                for envelope in item:
                    if envelope.message.__class__ in observed:
                        observer.receiving(self, envelope)
                    absorb(actor.receive(envelope, now), turn)
            elif type(item) is DueTimer:
                self._on_timer(item, turn, now)
            elif not (isinstance(item, BlobRotten) and self._is_mended(item.sha256, turn)):
                identity = actor.identity
                me = Envelope(actor.cluster, self.name, identity.disk, identity.incarnation, item)
                absorb(actor.receive(me, now), turn)
            if self._immediate:
                self._expire_immediate(turn, now)
        absorb(actor.settle(now), turn)

    def _absorb(self, effects: Effects, turn: RunningTurn) -> None:
        if effects.sends:
            turn.sends += effects.sends
        if effects.records:
            turn.records += effects.records
        if effects.blobs:
            turn.blobs += effects.blobs
        if effects.answers:
            turn.answers += effects.answers
        if effects.halt:
            turn.halt = turn.halt or effects.halt
        for timer in effects.timers:
            key = timer.key
            if not isinstance(timer, SetTimer):
                self._armed.pop(key, None)
                continue
            spread = timer.most_ms - timer.least_ms
            delay_ms = timer.least_ms + int(self._host.timer_rng.random() * (spread + 1))
            if delay_ms <= 0:
                self._armed.pop(key, None)
                self._immediate.append(key)
                continue
            self._generation += 1
            self._armed[key] = (self._generation, self.now_ms + delay_ms)
            self.known_timers[key] = None
            turn.timers.append(key)

    def _is_mended(self, sha256: str, turn: RunningTurn) -> bool:
        """Whether a rotten blob was replaced since it was found, so that its notice is stale."""
        replaced = any(blob.sha256 == sha256 for blob in turn.blobs)
        return replaced or sha256 not in self.disk.rotten_blobs

    def _expire_immediate(self, turn: RunningTurn, now: Milliseconds) -> None:
        while self._immediate:
            self._absorb(self.actor.expire(self._immediate.pop(0), now), turn)

    def _end_step(self, turn: RunningTurn) -> None:
        """Carry out what the actor asks for. From here on the process can die at every arrow."""
        self._turn = turn
        self._host.observer.stepped(self, turn.sends)
        if self.dies_at and self._dies_before_commit(turn):
            return
        if turn.records or turn.blobs:
            if self.disk_most_us:
                spread = self.disk_most_us - self.disk_least_us
                latency_us = self.disk_least_us + int(self._host.rng.random() * spread)
                self._schedule.after_us(latency_us, self._on_committed, self.serial)
                return
            if self.is_full:
                self._stall(turn)
                return
            self._commit(turn)
        self._carry_out(turn)

    def _on_committed(self, serial: int) -> None:
        turn = self._turn
        if serial != self.serial or turn is None:
            return
        if not turn.committed:
            if self.is_full:
                self._stall(turn)
                return
            self._commit(turn)
        if self.is_paused:
            # Paused between the commit and the sends: all that follows is late.
            self._schedule.at_us(self.paused_until_us, self._on_committed, serial)
            return
        self._carry_out(turn)

    def _commit(self, turn: RunningTurn) -> None:
        self.disk.commit(turn.records, turn.blobs)
        turn.committed = True
        self._host.observer.committed(self, turn.records, turn.blobs)

    def _carry_out(self, turn: RunningTurn) -> None:
        """The commit is durable: sends, timers, acknowledgement, answers."""
        host = self._host
        if self.dies_at == "after_commit" and turn.committed:
            self._die("after the commit, before the sends")
            return
        if turn.sends and not self._send(turn):
            return
        for key in turn.timers:
            armed = self._armed.get(key)
            if armed is not None:
                host.network.delay(self, key, armed[0], armed[1] - self.now_ms)
        if self.dies_at == "before_ack" and turn.items:
            self._die("after the sends, before the acknowledgement")
            return
        self._turn = None
        for token, value in turn.answers:
            if self._calls.pop(token, 0) is None:
                host.answered(token, value)
        if turn.halt is not None and self.actor is not None:
            self._halt(turn.halt)
        elif self.inbox:
            self._turn_soon()

    def _halt(self, reason: str) -> None:
        self.crash()
        self._host.node_halted(self, reason)

    # -- sending ---------------------------------------------------------------------------------

    def _send(self, turn: RunningTurn) -> bool:
        """Publish one parcel for each destination; false if the process died in between."""
        host = self._host
        actor, identity = self.actor, self.actor.identity
        cluster = actor.cluster
        by_destination: dict[str, list[Envelope]] = {}
        for send in turn.sends:
            message = send.message if isinstance(send, Send) else self._blob_message(send)
            envelope = Envelope(cluster, self.name, identity.disk, identity.incarnation, message)
            known = by_destination.get(send.to)
            if known is None:
                by_destination[send.to] = [envelope]
            else:
                known.append(envelope)
        left = len(by_destination)
        if self.dies_at == "between_sends" and left > 1:
            left = host.rng.randrange(1, left)
        published = host.observer.published
        for to, envelopes in by_destination.items():
            if left == 0:
                self._die("between two sends")
                return False
            left -= 1
            for envelope in envelopes:
                published(self, to, envelope.message)
            host.network.publish(self.name, to, tuple(envelopes))
        return True

    def _blob_message(self, send: SendBlob) -> Any:
        data = self.disk.blobs.get(send.sha256)
        if send.sha256 in self.disk.rotten_blobs:
            self.arrive(BlobRotten(sha256=send.sha256))
            data = None
        if data is None:
            return ChunkMissing(sha256=send.sha256)
        return ChunkData(sha256=send.sha256, data=data)

    # -- timers ----------------------------------------------------------------------------------

    def _on_timer(self, message: DueTimer, turn: RunningTurn, now: Milliseconds) -> None:
        serial, key, generation = message
        if serial != self.serial:
            return
        if generation == SPURIOUS:
            self._absorb(self.actor.expire(key, now), turn)
            return
        armed = self._armed.get(key)
        if armed is None or armed[0] != generation:
            return
        if armed[1] - now > _EARLY_MS:
            turn.timers.append(key)  # This clock is slower than the broker's: wait for the rest.
            return
        del self._armed[key]
        self._absorb(self.actor.expire(key, now), turn)

    def resend_timer(self, lost: tuple[int, TimerKey, int]) -> None:
        """Send the message of an overdue timer again, which the runtime takes to be lost."""
        serial, key, generation = lost
        armed = self._armed.get(key)
        if serial == self.serial and armed is not None and armed[0] == generation:
            self._host.network.delay(self, key, generation, armed[1] - self.now_ms)

    def rearm(self) -> None:
        """Send every timer again after a new connection, as earlier messages may be lost."""
        for key, (generation, due_ms) in self._armed.items():
            self._host.network.delay(self, key, generation, due_ms - self.now_ms)
        if self.is_up and self.inbox and self._turn is None and not self.is_paused:
            self._turn_soon()

    # -- dying -----------------------------------------------------------------------------------

    def _dies_before_commit(self, turn: RunningTurn) -> bool:
        if not (turn.records or turn.blobs):
            return False
        if self.dies_at == "before_commit":
            turn.discarded = True
            self._die("before the commit")
            return True
        if self.dies_at == "rebuild" and turn.items:
            self.dies_at = ""
            self._host.trace_event(
                f"{self.name}: a turn raises; the actor is rebuilt from its journal"
            )
            self._rebuild()
            return True
        return False

    def _die(self, where: str) -> None:
        self._host.trace_event(f"{self.name} dies {where}")
        self.crash()
        self._host.process_died(self)


def counters_of(machine: Machine) -> Counter[str]:
    """The counters of the running actor; none if the process is down."""
    counters: Counter[str] = machine.actor.counters if machine.actor is not None else Counter()
    return counters

"""One node: its process, its clock, its disk, and the runtime's turn (`broker.runtime`).

A turn is the same as in production, on virtual time::

    drain -> receive* -> expire* -> settle -> commit -> sends -> timers -> acknowledge -> answers

It can end at any of these arrows. What was not acknowledged comes again after the restart; what
was not committed never was.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

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
from actors.options import Identity
from actors.roles import build_actor
from chaos.simulator.changed_setting import Changed
from chaos.simulator.clock import Clock
from chaos.simulator.disk import Disk
from chaos.simulator.interfaces import Host
from chaos.simulator.network import Wakeup
from chaos.simulator.violation import Violation

DRAIN_MESSAGES_MAX = 512
_EARLY_MS = 2
_LOCAL = (Call, Notice)

CRASH_POINTS = ("before_commit", "after_commit", "between_sends", "before_ack", "rebuild")
"""Where in a turn a process may die; at `rebuild` the actor raises and is made anew."""


@dataclass(slots=True)
class Turn:
    """What one turn took in and what it asks for."""

    items: list[Any]
    records: list[Record] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    sends: list[Send | SendBlob] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    timers: list[TimerKey] = field(default_factory=list)
    halt: str | None = None
    committed: bool = False


class Machine:
    """A node of the world. `actor` is `None` while the process is down."""

    def __init__(self, world: Host, name: str, disk: Disk, clock: Clock) -> None:
        self.world = world
        self.name = name
        self.role = name.rpartition("-")[0]
        self.disk = disk
        self.clock = clock
        self.actor: Any = None
        self.inbox: deque[Any] = deque()
        """The node's queue at the broker, and the calls of its own doors."""
        self.serial = 0
        """Counts the starts and rebuilds: what belongs to a former one is void."""
        self.paused_until_us = 0
        self.changed: Changed | None = None
        """The setting with which its starts differ from the cluster."""
        self.dies_at = ""
        """The crash point that the next turn that reaches it will not survive."""
        self.disk_least_us = 0
        self.disk_most_us = 0
        self.is_low = False
        """Whether the disk has less room than the reserve, of which the actor is told."""
        self.is_full = False
        """Whether no commit finds room. The turn is thrown away, and the node waits for room."""
        self.waits_for_room = False
        self.known_timers: dict[TimerKey, None] = {}
        self._armed: dict[TimerKey, tuple[int, Milliseconds]] = {}
        self._generation = 0
        self._immediate: list[TimerKey] = []
        self._turn: Turn | None = None
        self._turn_due = False
        self._one_by_one = 0
        self._calls: dict[int, None] = {}

    @property
    def now_ms(self) -> Milliseconds:
        """What the node's own clock shows."""
        return self.clock.read_ms(self.world.now_us)

    @property
    def is_up(self) -> bool:
        """Whether the process runs, paused or not."""
        return self.actor is not None

    @property
    def is_paused(self) -> bool:
        """Whether the process runs and gets no time."""
        return self.world.now_us < self.paused_until_us

    # -- the life of the process -----------------------------------------------------------------

    def start(self) -> None:
        """Start a process on the disk."""
        assert self.actor is None, f"{self.name} runs already"
        self.waits_for_room = self.is_full
        if self.waits_for_room:
            return
        if self.disk.rotten_rows:
            self.world.refused(self)
            return
        self._begin_incarnation()
        if self.inbox:
            self._turn_soon()
        if self.is_low and self.is_up:
            self.tell_room()

    def tell_room(self) -> None:
        """The runtime saw how much room there is."""
        self.arrive(DiskSpace(low=self.is_low, free_bytes=0 if self.is_low else 1 << 30))

    def scrub(self) -> None:
        """The runtime reads the disk once through and tells the actor what has rotted."""
        found: list[Notice] = [BlobRotten(sha256=name) for name in sorted(self.disk.rotten_blobs)]
        found += [RowRotten(key=key) for key in sorted(self.disk.rotten_rows)]
        for notice in found:
            if self.is_up:  # The process may die of the turn that the one before brought about.
                self.arrive(notice)

    def _stall(self, turn: Turn) -> None:
        """No room for a commit: nothing of the turn was, and the node is silent until there is."""
        turn.committed = True  # It never was, and no chance makes it so.
        self.world.tell(f"{self.name} is silent: its disk has no room")
        self.crash()
        self.waits_for_room = True

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
            fresh_id=f"{self.world.identities.getrandbits(128):032x}",
        )
        options = self.changed.options if self.changed else self.world.options
        try:
            self.actor = build_actor(identity, options)
        except ValueError as error:
            if self.changed is None:
                raise
            self._refuse(str(error))
            return
        turn = Turn([])
        now = self.now_ms
        self._absorb(self.actor.restore(self.disk.rows(), now), turn)
        self._expire_immediate(turn, now)
        self._absorb(self.actor.settle(now), turn)
        self.world.watcher.started(self)
        self._end_step(turn)

    def crash(self) -> None:
        """The process vanishes. A commit under way may have reached the disk, or not."""
        turn = self._turn
        may_commit = turn is not None and not turn.committed and not self.is_full
        if turn is not None and may_commit and self.world.chances.random() < 0.5:
            self._commit(turn)
        self._void_turn()
        self.world.watcher.stopped(self)
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
            self.world.call_lost(token)

    def _rebuild(self) -> None:
        """The turn raised: nothing of it happened, and the actor is made anew (a restart)."""
        assert self._turn is not None
        if self.is_full:
            self._stall(self._turn)
            return
        if self.disk.rotten_rows:
            self._turn.committed = True  # It never was, and no chance makes it so.
            self.crash()
            self.world.refused(self)
            return
        kept = [item for item in self._turn.items if type(item) is not Wakeup]
        tokens = {item.token for item in (*kept, *self.inbox) if isinstance(item, Call)}
        self._turn = None
        self.inbox.extendleft(reversed(kept))
        self._one_by_one = len(kept)
        self.world.watcher.stopped(self)
        for token in [token for token in self._calls if token not in tokens]:
            del self._calls[token]
            self.world.call_lost(token)
        self._begin_incarnation()
        self._turn_soon()

    def _void_turn(self) -> None:
        """What the turn took in was not acknowledged: the broker delivers it again."""
        if self._turn is not None:
            parcels = [item for item in self._turn.items if type(item) is tuple]
            self.inbox.extendleft(reversed(parcels))
            self._turn = None

    def pause(self, duration_us: int) -> None:
        """The process gets no time; its clock and its leases run on."""
        self.paused_until_us = max(self.paused_until_us, self.world.now_us + duration_us)
        self.world.at_us(self.paused_until_us, self._go_on)

    def resume(self) -> None:
        """The process gets time again."""
        self.paused_until_us = 0
        self._turn_soon()

    def _go_on(self, _: object) -> None:
        if self.is_up and not self.is_paused:
            self._turn_soon()

    # -- the inbox -------------------------------------------------------------------------------

    def arrive(self, item: Any) -> None:
        """A parcel, a wakeup or a call. An idle node takes it at once."""
        self.inbox.append(item)
        if (
            self.actor is not None
            and self._turn is None
            and not self._turn_due
            and self.world.now_us >= self.paused_until_us
        ):
            self._take_turn()

    def call(self, call: Call) -> None:
        """A door of this node wants something; if nobody is there, the call is lost."""
        if self.actor is None:
            self.world.call_lost(call.token)
            return
        self._calls[call.token] = None
        self.arrive(call)

    def forget_queue(self) -> None:
        """The broker lost its messages; the calls of the node's own doors are not among them."""
        self.inbox = deque(item for item in self.inbox if isinstance(item, _LOCAL))
        if self._turn is not None:
            self._turn.items = [item for item in self._turn.items if isinstance(item, _LOCAL)]

    def _turn_soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.world.after_us(50, self._on_turn_due)

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
        turn = Turn(items)
        try:
            self._step(turn)
        except InvariantViolation as violation:
            raise Violation("actors_own_checks", f"{self.name}: {violation}") from violation
        self._end_step(turn)

    def _step(self, turn: Turn) -> None:
        actor = self.actor
        now = self.now_ms
        absorb = self._absorb
        hears = self.world.watcher.hears
        for item in turn.items:
            if type(item) is tuple:
                for envelope in item:
                    if envelope.message.__class__ in hears:
                        self.world.watcher.heard(self, envelope)
                    absorb(actor.receive(envelope, now), turn)
            elif type(item) is Wakeup:
                self._wake(item, turn, now)
            elif not (isinstance(item, BlobRotten) and self._is_mended(item.sha256, turn)):
                identity = actor.identity
                me = Envelope(actor.cluster, self.name, identity.disk, identity.incarnation, item)
                absorb(actor.receive(me, now), turn)
            if self._immediate:
                self._expire_immediate(turn, now)
        absorb(actor.settle(now), turn)

    def _absorb(self, effects: Effects, turn: Turn) -> None:
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
            delay_ms = timer.least_ms + int(self.world.jitter.random() * (spread + 1))
            if delay_ms <= 0:
                self._armed.pop(key, None)
                self._immediate.append(key)
                continue
            self._generation += 1
            self._armed[key] = (self._generation, self.now_ms + delay_ms)
            self.known_timers[key] = None
            turn.timers.append(key)

    def _is_mended(self, sha256: str, turn: Turn) -> bool:
        """As the runtime: a blob that was replaced since it was found rotten is not told of."""
        changed = any(blob.sha256 == sha256 for blob in turn.blobs)
        return changed or sha256 not in self.disk.rotten_blobs

    def _expire_immediate(self, turn: Turn, now: Milliseconds) -> None:
        while self._immediate:
            self._absorb(self.actor.expire(self._immediate.pop(0), now), turn)

    def _end_step(self, turn: Turn) -> None:
        """The actor has spoken. From here on the turn can die at every arrow."""
        self._turn = turn
        self.world.watcher.stepped(self, turn.sends)
        if self.dies_at and self._dies_before_commit(turn):
            return
        if turn.records or turn.blobs:
            if self.disk_most_us:
                spread = self.disk_most_us - self.disk_least_us
                latency_us = self.disk_least_us + int(self.world.chances.random() * spread)
                self.world.after_us(latency_us, self._on_committed, self.serial)
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
            self.world.at_us(self.paused_until_us, self._on_committed, serial)
            return
        self._carry_out(turn)

    def _commit(self, turn: Turn) -> None:
        self.disk.commit(turn.records, turn.blobs)
        turn.committed = True
        self.world.watcher.committed(self, turn.records, turn.blobs)

    def _carry_out(self, turn: Turn) -> None:
        """The commit is durable: sends, timers, acknowledgement, answers."""
        world = self.world
        if self.dies_at == "after_commit" and turn.committed:
            self._die("after the commit, before the sends")
            return
        if turn.sends and not self._send(turn):
            return
        for key in turn.timers:
            armed = self._armed.get(key)
            if armed is not None:
                world.network.delay(self, key, armed[0], armed[1] - self.now_ms)
        if self.dies_at == "before_ack" and turn.items:
            self._die("after the sends, before the acknowledgement")
            return
        self._turn = None
        for token, value in turn.answers:
            if self._calls.pop(token, 0) is None:
                world.answered(token, value)
        if turn.halt is not None and self.actor is not None:
            self._halt(turn.halt)
        elif self.inbox:
            self._turn_soon()

    def _halt(self, reason: str) -> None:
        self.crash()
        self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        self.world.tell(f"{self.name} halts: {reason}")
        self.world.halted[self.name] = reason
        self.world.watcher.halted(self, reason)

    # -- sending ---------------------------------------------------------------------------------

    def _send(self, turn: Turn) -> bool:
        """Publish one parcel for each destination; false if the process died in between."""
        world = self.world
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
            left = world.chances.randrange(1, left)
        published = world.watcher.published
        for to, envelopes in by_destination.items():
            if left == 0:
                self._die("between two sends")
                return False
            left -= 1
            for envelope in envelopes:
                published(self, to, envelope.message)
            world.network.publish(self.name, to, tuple(envelopes))
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

    def _wake(self, wakeup: Wakeup, turn: Turn, now: Milliseconds) -> None:
        serial, key, generation = wakeup
        if serial != self.serial:
            return
        if generation < 0:
            self._absorb(self.actor.expire(key, now), turn)
            return
        armed = self._armed.get(key)
        if armed is None or armed[0] != generation:
            return
        if armed[1] - now > _EARLY_MS:
            turn.timers.append(key)  # This clock is slower than the broker's: the rest of it.
            return
        del self._armed[key]
        self._absorb(self.actor.expire(key, now), turn)

    def resend_timer(self, lost: tuple[int, TimerKey, int]) -> None:
        """The runtime found the timer overdue: its message got lost."""
        serial, key, generation = lost
        armed = self._armed.get(key)
        if serial == self.serial and armed is not None and armed[0] == generation:
            self.world.network.delay(self, key, generation, armed[1] - self.now_ms)

    def rearm(self) -> None:
        """Connected again: nothing that was under way is relied on any more."""
        for key, (generation, due_ms) in self._armed.items():
            self.world.network.delay(self, key, generation, due_ms - self.now_ms)
        if self.is_up and self.inbox and self._turn is None and not self.is_paused:
            self._turn_soon()

    # -- dying -----------------------------------------------------------------------------------

    def _dies_before_commit(self, turn: Turn) -> bool:
        if not (turn.records or turn.blobs):
            return False
        if self.dies_at == "before_commit":
            turn.committed = True  # It never was, and no chance makes it so.
            self._die("before the commit")
            return True
        if self.dies_at == "rebuild" and turn.items:
            self.dies_at = ""
            self.world.tell(f"{self.name}: a turn raises; the actor is rebuilt from its journal")
            self._rebuild()
            return True
        return False

    def _die(self, where: str) -> None:
        self.world.tell(f"{self.name} dies {where}")
        self.crash()
        self.world.died(self)


def counters_of(machine: Machine) -> Counter[str]:
    """What the running actor has counted."""
    counters: Counter[str] = machine.actor.counters if machine.actor is not None else Counter()
    return counters

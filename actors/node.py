"""What every role shares: who it is, which messages fit it, its heartbeat and its disk's honesty.

A role's file holds the role's own transitions; this one holds rules 9 and 10 of DESIGN section 3
together with `actors.founding`. A message reaches a handler only if its sender is known on its
disk and in its start (`actors.peers`) and may send it (`actors.messages.permissions`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from actors.calls import Call
from actors.effects import (
    NOTHING,
    CancelTimer,
    Effects,
    Envelope,
    Group,
    Milliseconds,
    Outbox,
    Record,
    Send,
    SetTimer,
    TimerKey,
)
from actors.errors import InvariantViolation, JournalUnreadable
from actors.founding import Founding
from actors.messages import AnyMessage, NodeHeartbeat, StaleDisk
from actors.messages.permissions import FOUNDING, UNKNOWN, Rule, permitted, role_in
from actors.notices import DiskSpace, Notice, RowRotten
from actors.options import Identity, Options
from actors.peers import Key, Peers
from actors.values import Constants, Frozen, Genesis

_LEADER_BEATS_MISSED = 5

Handler = Callable[[Any, Any], None]
T = TypeVar("T")

_SILENT_BEATS = 3
"""A gateway's name is free for another disk once so many of its heartbeats have stayed away."""


class Door(NamedTuple):
    """What takes a type of message in, and the rule that its sender has to keep."""

    rule: Rule | None
    handler: Handler


class Fitted(NamedTuple):
    """A sender that fits: what its envelopes say of it, and the doors that are open to it."""

    head: tuple[object, ...]
    doors: Mapping[type[AnyMessage], Door]


def read_record(adapter: TypeAdapter[T], record: Record) -> T:
    """The value of a journal row. Raises `JournalUnreadable` naming the row."""
    try:
        return adapter.validate_json(record.value or b"")
    except ValidationError as error:
        raise JournalUnreadable(f"record {record.key!r} can't be read: {error}") from error


class Node:
    """The base of every actor; see `actors.effects.Actor` for the three doors and `settle`."""

    handlers: ClassVar[Mapping[str, str]] = {}
    """Message type to the name of the method that takes `(sender, message)`."""

    timers: ClassVar[Mapping[str, str]] = {}
    """Timer name to the name of the method that takes the timer's subject."""

    def __init__(self, identity: Identity, options: Options) -> None:
        self.identity = identity
        self.name = identity.name
        self.options = options
        self.now: Milliseconds = 0
        self.back_at: Milliseconds = 0
        """When this node took its first turn after a gap that is longer than a leader's silence."""
        self.counters: Counter[str] = Counter()
        """What happened, by name; read by observers, never by the protocol."""
        self.disk_full = False
        """Whether the journal's disk has less room than the reserve."""
        self.out = Outbox()
        self._commits = identity.journal_commits
        self._commit_pending = False
        self._started = False
        self._halted = False
        """Whether it has said that it halts: the rest of that turn finds it deaf, too."""
        self._armed: set[TimerKey] = set()
        self.sender_disk = ""
        self.sender_incarnation = 0
        """The disk and the start of whoever sent the message that is being handled."""
        self._peers = Peers(_SILENT_BEATS * options.heartbeat_ms)
        self._fitted: dict[str, Fitted] = {}
        """Of each sender, its last fitting envelope."""
        self.founding = Founding(self)
        methods = {
            **self.handlers,
            "node.heartbeat": "_take_heartbeat",
            "node.stale_disk": "_on_stale_disk",
        }
        self._handlers: dict[str, Handler] = {k: getattr(self, m) for k, m in methods.items()}
        self._doors: dict[tuple[str, bool], Mapping[type[AnyMessage], Door]] = {}

    # -- what the runtime reads ------------------------------------------------------------------

    @property
    def cluster(self) -> str:
        """The cluster's id, or nothing before it is founded."""
        genesis = self.founding.genesis
        return genesis.cluster if genesis else ""

    @property
    def genesis(self) -> Genesis:
        """The cluster's slot 0; only asked for once it is founded."""
        genesis = self.founding.genesis
        assert genesis is not None, "asked for the genesis before the cluster was founded"
        return genesis

    @property
    def constants(self) -> Constants:
        """What the whole cluster computes with; only asked for once it is founded."""
        return self.genesis.constants

    # -- the doors -------------------------------------------------------------------------------

    def restore(self, records: Iterable[Record], now: Milliseconds) -> Effects:
        """See `Actor.restore`."""
        self.now = now
        own = [record for record in records if not self.founding.restore(record)]
        self._restore(own)
        self.founding.begin()
        self._start_if_founded()
        return self._take()

    def receive(self, envelope: Envelope, now: Milliseconds) -> Effects:
        """See `Actor.receive`. What does not fit is dropped and counted (section 3, rule 10)."""
        self._awake(now)
        if self._halted:
            return NOTHING
        message: Any = envelope.message
        if envelope.sender == self.name:
            self._receive_own(message)
        elif message.__class__ in FOUNDING:
            if self._may_found(envelope):
                self.founding.receive(envelope)
                self._start_if_founded()
        elif (handler := self._admit(envelope)) is not None:
            self.sender_disk = envelope.disk
            self.sender_incarnation = envelope.incarnation
            handler(envelope.sender, message)
        return self._take()

    def _receive_own(self, message: Any) -> None:
        """Calls and notices are of no type that crosses the broker. Any other message under this
        node's name is its own to a group, or that of another process with the same name.
        """
        if isinstance(message, Call):
            self._on_call(message)
        elif isinstance(message, Notice):
            self._on_notice(message)
        else:
            self.counters["dropped_from_itself"] += 1

    def expire(self, timer: TimerKey, now: Milliseconds) -> Effects:
        """See `Actor.expire`."""
        self._awake(now)
        if self._halted:
            return NOTHING
        self._armed.discard(timer)
        if timer.name == "founding":
            self.founding.expire()
        elif self._started:
            if timer.name == "heartbeat":
                self._beat()
            else:
                getattr(self, self.timers[timer.name])(timer.subject)
        return self._take()

    def settle(self, now: Milliseconds) -> Effects:
        """See `Actor.settle`."""
        self._awake(now)
        if self._started and not self._halted:
            self._settle()
        effects = self._take()
        if self._commit_pending:
            self._commit_pending = False
            self._commits += 1
        return effects

    # -- what a role fills in --------------------------------------------------------------------

    def _restore(self, records: list[Record]) -> None:
        """Take in the journal's rows that belong to the role."""

    def _start(self) -> None:
        """The cluster is founded and this node is the member it says: begin."""

    def _settle(self) -> None:
        """The turn's inbox is drained."""

    def _vitals(self) -> NodeHeartbeat:
        """The heartbeat to send."""
        return NodeHeartbeat(role=self.identity.role, journal_commits=self._commits)

    def _on_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        """Somebody else's sign of life."""

    def _on_notice(self, notice: Notice) -> None:
        """The runtime says something about the disk."""
        if isinstance(notice, DiskSpace):
            self.disk_full = notice.low
        elif isinstance(notice, RowRotten):
            self.counters["rows_rotten"] += 1
            value = self.founding.row(notice.key) or self._remake_row(notice.key)
            if value is None and not self._may_be_gone(notice.key):
                raise InvariantViolation(
                    f"row {notice.key!r} of the journal of {self.name} has rotted, and its memory "
                    "does not know the row"
                )
            self._journal(notice.key, value)

    def _remake_row(self, key: str) -> Frozen | bytes | None:
        """What the journal is to hold under `key`, from memory, in step with all its other rows."""
        return None

    def _may_be_gone(self, key: str) -> bool:
        """Whether a row that memory does not know is one that was to be removed anyway."""
        return False

    def _on_call(self, call: Any) -> None:
        """A door of this node wants something."""
        raise TypeError(f"{self.name} is no gateway: it takes no {call.type}")

    # -- tools for the roles ---------------------------------------------------------------------

    def _send(self, to: str, message: Frozen) -> None:
        self.out.sends.append(Send(to, message))

    def _journal(self, key: str, value: Frozen | bytes | None) -> None:
        data = value.to_json() if isinstance(value, Frozen) else value
        self.out.records.append(Record(key, data))

    def _set_timer(self, name: str, least: int, most: int, subject: str = "") -> None:
        """Arm, replacing what was armed under the same key."""
        key = TimerKey(name, subject)
        self._armed.add(key)
        self.out.timers.append(SetTimer(key, least, most))

    def _arm(self, name: str, least: int, most: int, subject: str = "") -> None:
        """Arm unless it is armed already, so that a busy node has one timer message under way."""
        if TimerKey(name, subject) not in self._armed:
            self._set_timer(name, least, most, subject)

    def _cancel_timer(self, name: str, subject: str = "") -> None:
        key = TimerKey(name, subject)
        if key in self._armed:
            self._armed.discard(key)
            self.out.timers.append(CancelTimer(key))

    def _say_vitals(self) -> None:
        """Tell everybody now, not with the next heartbeat only."""
        vitals = self._vitals()
        if self.disk_full:
            vitals = vitals.model_copy(update={"disk_full": True})
        self._send(Group.HEARTBEATS, vitals)

    def _beat(self) -> None:
        self._say_vitals()
        every = self.options.heartbeat_ms
        self._set_timer("heartbeat", every, every + every // 20)
        self.founding.confirm()

    # -- fitting ---------------------------------------------------------------------------------

    def _start_if_founded(self) -> None:
        if not self._started and self.founding.genesis is not None and self.out.halt is None:
            self._started = True
            self._start()
            self._beat()

    def _role_of(self, sender: str) -> str:
        """The role of a member or of a gateway; nothing for what is no node's name."""
        role = role_in(sender)
        return role if role in ("", "gateway") or self.founding.names(sender) else UNKNOWN

    def _may_found(self, envelope: Envelope) -> bool:
        """Founding comes before clusters and disks are known, so names are all there is to see."""
        own, kind = self.identity.role, envelope.message.__class__
        permissions = permitted(self._role_of(envelope.sender), own, on_founding_disk=False)
        rule = permissions.get(kind)
        if kind not in permissions or (rule is not None and not rule(envelope, self.name)):
            self.counters["dropped_not_permitted"] += 1
            return False
        return True

    def _admit(self, envelope: Envelope) -> Handler | None:
        """What takes the message in, if its sender fits and may send it; else it is counted."""
        fitted = self._fitted.get(envelope.sender)
        if fitted is not None and fitted.head == envelope[:4]:
            # Nearly all: the same start of the same process as last time.
            door = fitted.doors.get(envelope.message.__class__)
            if door is not None and (door.rule is None or door.rule(envelope, self.name)):
                return door.handler
            self.counters["dropped_not_permitted"] += 1
            return None
        return self._admit_new(envelope)

    def _admit_new(self, envelope: Envelope) -> Handler | None:
        """As `_admit`, of a sender that is new here, or another start, or on another disk."""
        if not self._started:
            self.counters["dropped_before_founding"] += 1
            return None
        if envelope.cluster != self.cluster:
            self.counters["dropped_foreign_cluster"] += 1
            return None
        key, role = (envelope.sender, envelope.disk), self._role_of(envelope.sender)
        founded = self.founding.disks
        if not self._fits(key, role):
            return None
        doors = self._doors_for(role, founded.get(envelope.sender) == envelope.disk)
        door = doors.get(envelope.message.__class__)
        if door is None or (door.rule is not None and not door.rule(envelope, self.name)):
            self.counters["dropped_not_permitted"] += 1
            return None
        if envelope.incarnation < self._peers.incarnation(key):
            self.counters["dropped_former_incarnation"] += 1
            if envelope.message.__class__ is NodeHeartbeat:
                self._tell_stale(key)
            return None
        for forgotten in self._peers.meet(key, role, envelope.incarnation, founded, self.now):
            self._fitted.pop(forgotten[0], None)
            self._forget_peer(forgotten)
        self._fitted[envelope.sender] = Fitted(envelope[:4], doors)
        return door.handler

    def _fits(self, key: Key, role: str) -> bool:
        """Whether the sender may be the member or the gateway that its name says."""
        if role in ("", UNKNOWN):
            self.counters["dropped_unknown_sender"] += 1
        elif not self._peers.may_be(key, role, self.founding.disks, self.now):
            self.counters["dropped_foreign_disk"] += 1
        elif role == "gateway" and not self._peers.has_room_for(key[0], self.now):
            self.counters["dropped_too_many_gateways"] += 1
        else:
            return True
        return False

    def _doors_for(self, role: str, on_founding_disk: bool) -> Mapping[type[AnyMessage], Door]:
        doors = self._doors.get((role, on_founding_disk))
        if doors is None:
            own = self.identity.role
            doors = self._doors[role, on_founding_disk] = {
                kind: Door(rule, self._handlers[_type_of(kind)])
                for kind, rule in permitted(role, own, on_founding_disk).items()
                if kind not in FOUNDING
            }
        return doors

    def _forget_peer(self, key: Key) -> None:
        """Nothing is to be kept any more of a node on a disk: others take its place."""

    def _take_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        """Remember how far a disk has come, and tell an older copy of it (section 3, rule 9)."""
        key = (sender, self.sender_disk)
        if self._peers.beat(key, message.journal_commits, self.now):
            self._tell_stale(key)
        self._on_heartbeat(sender, message)

    def _tell_stale(self, key: Key) -> None:
        """Only the word of a member on its founding disk counts (`PERMISSIONS`)."""
        if self.founding.disks.get(self.name) == self.identity.disk:
            incarnation, commits = self._peers.incarnation(key), self._peers.commits(key)
            report = StaleDisk(disk=key[1], incarnation=incarnation, journal_commits=commits)
            self._send(key[0], report)

    def _on_stale_disk(self, sender: str, message: StaleDisk) -> None:
        """Halt if somebody saw this very disk further on than it is; old reports are lower."""
        if message.disk != self.identity.disk:
            return
        newer_start = message.incarnation > self.identity.incarnation
        # Whatever this start has reported is not above what it counts now.
        if newer_start or message.journal_commits > self._commits:
            self.out.halt = (
                f"{self.name}: this disk is older than what it once reported (commit "
                f"{message.journal_commits} of start {message.incarnation}; it holds commit "
                f"{self._commits} of start {self.identity.incarnation}). An older copy was "
                "restored, or another process uses the same disk. It must not act as the member "
                "it was: put the newest copy back, or stop the other process."
            )

    def _awake(self, now: Milliseconds) -> None:
        """A turn begins. The process was paused, the broker away, or nothing happened till now."""
        if now - self.now > _LEADER_BEATS_MISSED * self.options.leader_heartbeat_ms:
            self.back_at = now
        self.now = now

    def _take(self) -> Effects:
        effects = self.out.take()
        if effects.halt:
            self._halted = True
        if effects.records or effects.blobs:
            self._commit_pending = True
        return effects


def _type_of(kind: type[AnyMessage]) -> str:
    name: str = kind.model_fields["type"].default
    return name

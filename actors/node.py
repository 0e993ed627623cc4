"""The base of every role: identity, admission of messages, heartbeats, and checks of its disk.

A role's file holds the role's own transitions; this one holds design 3.9 and 3.10 together with
`actors.founding`. A message reaches a handler only if its sender is admitted, by its disk and its
incarnation (`actors.peers`), and may send it (`actors.messages.permissions`).
"""

from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import Any, ClassVar, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from actors.calls import Call
from actors.disk_events import DiskSpace, Notice, RowRotten
from actors.effects import NOTHING, Effects, Envelope, Group, Record, TimerKey
from actors.errors import InvariantViolation, JournalUnreadable
from actors.founding import Founding
from actors.messages import AnyMessage, NodeHeartbeat, StaleDisk
from actors.messages.permissions import FOUNDING, UNKNOWN, Rule, permitted, role_in
from actors.numbers import Milliseconds
from actors.options import Identity, Options, may_be_added
from actors.paxos.membership import Membership
from actors.peers import Key, Peers
from actors.turn import Turn
from actors.values import Constants, Frozen, Genesis

Handler = Callable[[str, Any], None]
"""Takes the sender's name and the message."""

Handlers = Mapping[type[AnyMessage], Callable[[Any, str, Any], None]]
"""Which method of a role takes each type of message."""

Timers = Mapping[str, Callable[[Any, str], None]]
"""Which method of a role takes the expiry of each timer, with its subject."""

T = TypeVar("T")

_SILENT_BEATS = 3
"""A gateway's name is free for another disk once so many of its heartbeats have stayed away."""


class Route(NamedTuple):
    """The handler of a type of message, and the rule that its sender has to keep."""

    rule: Rule | None
    handler: Handler


class AdmittedSender(NamedTuple):
    """An admitted sender: the head of its envelopes, and the routes of its messages."""

    head: tuple[object, ...]
    routes: Mapping[type[AnyMessage], Route]


def read_record(adapter: TypeAdapter[T], record: Record) -> T:
    """The value of a journal row. Raises `JournalUnreadable` naming the row."""
    try:
        return adapter.validate_json(record.value or b"")
    except ValidationError as error:
        raise JournalUnreadable(f"record {record.key!r} can't be read: {error}") from error


class Node:
    """The base of every actor; `actors.effects.Actor` describes its four entry points."""

    handlers: ClassVar[Handlers] = {}
    timers: ClassVar[Timers] = {}

    def __init__(self, identity: Identity, options: Options) -> None:
        self.turn = turn = Turn(identity, options)
        self.identity = identity
        self.name = identity.name
        self.options = options
        self.counters = turn.counters
        self.out = turn.out
        self._send = turn.send
        self._journal = turn.journal
        self._set_timer = turn.set_timer
        self._arm = turn.arm
        self._commits = identity.journal_commits
        self._commit_pending = False
        self._started = False
        self._halted = False
        """Whether it has asked to halt; it ignores the rest of that turn, too."""
        self._peers = Peers(_SILENT_BEATS * options.heartbeat_ms)
        self._admitted: dict[str, AdmittedSender] = {}
        """Each sender that was admitted last under its name."""
        self.founding = Founding(turn)
        shared: Handlers = {
            NodeHeartbeat: Node._take_heartbeat,
            StaleDisk: Node._on_stale_disk,
        }
        self._handlers: dict[type[AnyMessage], Handler] = {
            kind: MethodType(method, self) for kind, method in {**self.handlers, **shared}.items()
        }
        self._routes: dict[tuple[str, bool], Mapping[type[AnyMessage], Route]] = {}

    # -- read by the runtime ---------------------------------------------------------------------

    @property
    def now(self) -> Milliseconds:
        """This node's monotonic clock, at the beginning of the turn."""
        return self.turn.now

    @property
    def disk_full(self) -> bool:
        """Whether the journal's disk has less room than the reserve."""
        return self.turn.disk_full

    @property
    def cluster(self) -> str:
        """The cluster's id, or nothing before it is founded."""
        founded = self.turn.founded
        return founded.cluster if founded else ""

    @property
    def genesis(self) -> Genesis:
        """The cluster's slot 0. To be read only once the cluster is founded."""
        return self.turn.genesis

    @property
    def constants(self) -> Constants:
        """The constants of the genesis. To be read only once the cluster is founded."""
        return self.turn.constants

    @property
    def is_started(self) -> bool:
        """Whether the cluster is founded and this node takes part in it."""
        return self._started

    # -- entry points ----------------------------------------------------------------------------

    def restore(self, records: Iterable[Record], now: Milliseconds) -> Effects:
        """See `Actor.restore`."""
        self.turn.now = now
        own = [record for record in records if not self.founding.restore(record)]
        self._restore(own)
        self.founding.begin()
        self._start_if_founded()
        return self._take()

    def receive(self, envelope: Envelope, now: Milliseconds) -> Effects:
        """See `Actor.receive`. Messages that are not admitted are dropped and counted (3.10)."""
        self.turn.begin(now)
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
            self.turn.sender_disk = envelope.disk
            self.turn.sender_incarnation = envelope.incarnation
            handler(envelope.sender, message)
        return self._take()

    def _receive_own(self, message: Any) -> None:
        """Calls and notices have types that never cross the broker. Any other message under this
        node's name is its own to a group, or comes from another process of the same name.
        """
        if isinstance(message, Call):
            self._on_call(message)
        elif isinstance(message, Notice):
            self._on_notice(message)
        else:
            self.counters["dropped_from_itself"] += 1

    def expire(self, timer: TimerKey, now: Milliseconds) -> Effects:
        """See `Actor.expire`."""
        self.turn.begin(now)
        if self._halted:
            return NOTHING
        self.turn.expired(timer)
        if timer.name == "founding":
            self.founding.expire()
        elif self._started:
            if timer.name == "heartbeat":
                self._beat()
            else:
                self.timers[timer.name](self, timer.subject)
        return self._take()

    def settle(self, now: Milliseconds) -> Effects:
        """See `Actor.settle`."""
        self.turn.begin(now)
        if self._started and not self._halted:
            self._settle()
        effects = self._take()
        if self._commit_pending:
            self._commit_pending = False
            self._commits += 1
        return effects

    # -- filled in by a role ---------------------------------------------------------------------

    def _restore(self, records: list[Record]) -> None:
        """Restore the rows of the journal that belong to the role."""

    def _start(self) -> None:
        """Start: the cluster is founded and this node is the member that its name says."""

    def _settle(self) -> None:
        """Finish the turn: its inbox is drained."""

    def heartbeat(self) -> NodeHeartbeat:
        """The heartbeat to send."""
        return NodeHeartbeat(role=self.identity.role, journal_commits=self._commits)

    def _on_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        """Handle another node's heartbeat."""

    def _on_notice(self, notice: Notice) -> None:
        """Handle a notice of the runtime about the disk."""
        if isinstance(notice, DiskSpace):
            self.turn.disk_full = notice.low
            if self._started:
                self._send_heartbeat()
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
        """The value of the row `key`, remade from memory so that it fits all other rows."""
        return None

    def _may_be_gone(self, key: str) -> bool:
        """Whether a row that is not in memory may be one that was about to be removed."""
        return False

    def _on_call(self, call: Any) -> None:
        """Handle a call of this node's own process; only gateways take any."""
        raise TypeError(f"{self.name} is no gateway: it takes no {call.type}")

    def _removal(self) -> str:
        """Why this node is no member any more, if it was removed and that can't be forgotten: then
        it halts. Empty: it is a member, or may become one.
        """
        return ""

    # -- tools for the roles ---------------------------------------------------------------------

    def _send_heartbeat(self) -> None:
        """Send a heartbeat now, without waiting for the next one to be due."""
        heartbeat = self.heartbeat()
        if self.disk_full:
            heartbeat = heartbeat.model_copy(update={"disk_full": True})
        self._send(Group.HEARTBEATS, heartbeat)

    def _is_held(self, membership: Membership | None, durable: int) -> bool:
        """Whether the roster has changed, and the last change is durable."""
        roster = None if membership is None else membership.roster
        return roster is not None and roster.slot <= durable

    def _removed_by(self, membership: Membership | None) -> str:
        """The reason to halt, if the roster has removed this disk."""
        assert membership is not None
        if not membership.is_removed(self.name, self.identity.disk, self.genesis):
            return ""
        return (
            f"{self.name}: it was removed (version {membership.roster_version} of the roster). "
            "Nothing depends on it: it may be switched off, and its folder removed. To add it "
            "again, start it on an empty folder."
        )

    def _beat(self) -> None:
        self._send_heartbeat()
        every = self.options.heartbeat_ms
        self._set_timer("heartbeat", every, every + every // 20)
        self.founding.confirm()
        if removal := self._removal():
            self.out.halt = removal

    # -- admission -------------------------------------------------------------------------------

    def _start_if_founded(self) -> None:
        if not self._started and self.turn.founded is not None and self.out.halt is None:
            self._started = True
            self._start()
            self._beat()

    def _role_of(self, sender: str) -> str:
        """The role of a gateway or of a node that is a member or may become one; empty if `sender`
        is no node's name. What counts is for views, configurations and the roster to say.
        """
        role = role_in(sender)
        heard = role in ("", "gateway") or self.founding.names(sender) or may_be_added(sender)
        return role if heard else UNKNOWN

    def _may_found(self, envelope: Envelope) -> bool:
        """Founding precedes the knowledge of clusters and disks, so only names are checked."""
        own, kind = self.identity.role, envelope.message.__class__
        permissions = permitted(self._role_of(envelope.sender), own, on_founding_disk=False)
        rule = permissions.get(kind)
        if kind not in permissions or (rule is not None and not rule(envelope, self.name)):
            self.counters["dropped_not_permitted"] += 1
            return False
        return True

    def _admit(self, envelope: Envelope) -> Handler | None:
        """The handler of the message, if its sender is admitted and may send it; else count it."""
        admitted = self._admitted.get(envelope.sender)
        if admitted is not None and admitted.head == envelope[:4]:
            # The usual case: the same start of the same process as last time.
            route = admitted.routes.get(envelope.message.__class__)
            if route is not None and (route.rule is None or route.rule(envelope, self.name)):
                return route.handler
            self.counters["dropped_not_permitted"] += 1
            return None
        return self._admit_new(envelope)

    def _admit_new(self, envelope: Envelope) -> Handler | None:
        """As `_admit`, for a new sender, or one on another disk or of another incarnation."""
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
        routes = self._routes_for(role, founded.get(envelope.sender) == envelope.disk)
        route = routes.get(envelope.message.__class__)
        if route is None or (route.rule is not None and not route.rule(envelope, self.name)):
            self.counters["dropped_not_permitted"] += 1
            return None
        if envelope.incarnation < self._peers.incarnation(key):
            self.counters["dropped_former_incarnation"] += 1
            if envelope.message.__class__ is NodeHeartbeat:
                self._report_stale_disk(key)
            return None
        for forgotten in self._peers.meet(key, role, envelope.incarnation, founded, self.now):
            self._admitted.pop(forgotten[0], None)
            self._forget_peer(forgotten)
        self._admitted[envelope.sender] = AdmittedSender(envelope[:4], routes)
        return route.handler

    def _fits(self, key: Key, role: str) -> bool:
        """Whether the sender can be the member or the gateway that its name says."""
        if role in ("", UNKNOWN):
            self.counters["dropped_unknown_sender"] += 1
        elif not self._peers.may_be(key, self.now):
            self.counters["dropped_foreign_disk"] += 1
        elif role == "gateway" and not self._peers.has_room_for(key[0], self.now):
            self.counters["dropped_too_many_gateways"] += 1
        else:
            return True
        return False

    def _routes_for(self, role: str, on_founding_disk: bool) -> Mapping[type[AnyMessage], Route]:
        routes = self._routes.get((role, on_founding_disk))
        if routes is None:
            own = self.identity.role
            routes = self._routes[role, on_founding_disk] = {
                kind: Route(rule, self._handlers[kind])
                for kind, rule in permitted(role, own, on_founding_disk).items()
                if kind not in FOUNDING
            }
        return routes

    def _forget_peer(self, key: Key) -> None:
        """Forget what is kept of a node on a disk: others take its place."""

    def _take_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        """Remember how far a disk has come, and report an older copy of it (design 3.9)."""
        key = (sender, self.turn.sender_disk)
        self.turn.note_roster(message.membership)
        if self._peers.beat(key, message.journal_commits, self.now):
            self._report_stale_disk(key)
        self._on_heartbeat(sender, message)

    def _report_stale_disk(self, key: Key) -> None:
        """Report to a node that its disk is an older copy; only members on founding disks do."""
        if self.founding.disks.get(self.name) == self.identity.disk:
            incarnation, commits = self._peers.incarnation(key), self._peers.commits(key)
            report = StaleDisk(disk=key[1], incarnation=incarnation, journal_commits=commits)
            self._send(key[0], report)

    def _on_stale_disk(self, sender: str, message: StaleDisk) -> None:
        """Halt if this disk once reported more than it holds now; old reports are lower."""
        if message.disk != self.identity.disk:
            return
        newer_start = message.incarnation > self.identity.incarnation
        # This start has never reported more than it counts now.
        if newer_start or message.journal_commits > self._commits:
            self.out.halt = (
                f"{self.name}: this disk is older than what it once reported (commit "
                f"{message.journal_commits} of start {message.incarnation}; it holds commit "
                f"{self._commits} of start {self.identity.incarnation}). An older copy was "
                "restored, or another process uses the same disk. It must not act as the member "
                "it was: put the newest copy back, or stop the other process."
            )

    def _take(self) -> Effects:
        effects = self.turn.take()
        if effects.halt:
            self._halted = True
        if effects.records or effects.blobs:
            self._commit_pending = True
        return effects

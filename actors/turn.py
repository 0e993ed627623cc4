"""The turn: what an actor and its parts share while they handle messages and timers.

A part that decides something receives the turn and the state that it decides about, never the
actor that owns it. So each part can be read and tested alone, and no part depends on another.
"""

from collections import Counter

from actors.effects import Answer, CancelTimer, Effects, Outbox, Record, Send, SetTimer, TimerKey
from actors.numbers import Milliseconds
from actors.options import Identity, Options
from actors.paxos.membership import CountedRoster, Membership
from actors.values import Constants, Frozen, Genesis

_LEADER_BEATS_MISSED = 5


class Turn:
    """The actor's identity, the time, the sender of the message being handled, and the effects.

    One object serves all turns of one start. `now` is the node's monotonic clock.
    """

    def __init__(self, identity: Identity, options: Options) -> None:
        self.identity = identity
        self.name = identity.name
        self.options = options
        self.now: Milliseconds = 0
        self.resumed_at: Milliseconds = 0
        """When this node took its first turn after a gap that is longer than a leader's silence."""
        self.sender_disk = ""
        self.sender_incarnation = 0
        """The disk and the start of the sender of the message that is being handled."""
        self.counters: Counter[str] = Counter()
        """Counts of events, by name, for metrics and tests; the protocol never reads them."""
        self.disk_full = False
        """Whether the journal's disk has less room than the reserve."""
        self.founded: Genesis | None = None
        """Slot 0, once it is known."""
        self._roster: CountedRoster | None = None
        """The newest one that this node has applied or heard of."""
        self.out = Outbox()
        self._armed: set[TimerKey] = set()

    @property
    def genesis(self) -> Genesis:
        """The cluster's slot 0. To be read only once the cluster is founded."""
        assert self.founded is not None, "asked for the genesis before the cluster was founded"
        return self.founded

    @property
    def constants(self) -> Constants:
        """The constants of the genesis. To be read only once the cluster is founded."""
        return self.genesis.constants

    def note_roster(self, membership: Membership | None) -> None:
        """Note who the members are, as applied or reported."""
        roster = membership.roster if membership is not None else None
        if roster is not None and (self._roster is None or roster.version > self._roster.version):
            self._roster = roster

    def names(self, role: str) -> tuple[str, ...]:
        """The proposers, learners or stores, as far as this node has heard: whom to ask. Who counts
        is for views, ballots and the log to say.
        """
        if self._roster is not None:
            return self._roster.names(role)
        return (self.founded or self.options).names(role)

    # -- its phases ------------------------------------------------------------------------------

    def begin(self, now: Milliseconds) -> None:
        """Begin a turn. A long gap before it was a pause, a time without a broker, or idleness."""
        if now - self.now > _LEADER_BEATS_MISSED * self.options.leader_heartbeat_ms:
            self.resumed_at = now
        self.now = now

    def expired(self, timer: TimerKey) -> None:
        """The timer expired, so it is no longer armed."""
        self._armed.discard(timer)

    def take(self) -> Effects:
        """Take the effects collected so far."""
        return self.out.take()

    # -- effects ---------------------------------------------------------------------------------

    def send(self, to: str, message: Frozen) -> None:
        """Send to a node or to a `Group`."""
        self.out.sends.append(Send(to, message))

    def answer(self, token: int, answer: object) -> None:
        """Answer a local call."""
        self.out.answers.append(Answer(token, answer))

    def journal(self, key: str, value: Frozen | bytes | None) -> None:
        """Write `value` to the row `key`; `None` removes the row."""
        data = value.to_json() if isinstance(value, Frozen) else value
        self.out.records.append(Record(key, data))

    def set_timer(
        self, name: str, least: Milliseconds, most: Milliseconds, subject: str = ""
    ) -> None:
        """Arm a timer, replacing one with the same key."""
        key = TimerKey(name, subject)
        self._armed.add(key)
        self.out.timers.append(SetTimer(key, least, most))

    def arm(self, name: str, least: Milliseconds, most: Milliseconds, subject: str = "") -> None:
        """Arm a timer unless it is armed, so that a busy node has one timer message under way."""
        if TimerKey(name, subject) not in self._armed:
            self.set_timer(name, least, most, subject)

    def cancel_timer(self, name: str, subject: str = "") -> None:
        """Disarm a timer."""
        key = TimerKey(name, subject)
        if key in self._armed:
            self._armed.discard(key)
            self.out.timers.append(CancelTimer(key))

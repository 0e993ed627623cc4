"""The cluster as a gateway knows it from heartbeats: the leader, the view, the live nodes.

It may be stale, which costs time but no safety: a command names the ballot that it is meant for,
and a store that may not serve a read refuses it.
"""

from actors.calls import AcceptorsReport, LeaseReport, NodeReport
from actors.messages import LeaderBeat, NodeHeartbeat
from actors.numbers import Milliseconds
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.paxos.membership import Membership
from actors.rotation import Rotation
from actors.turn import Turn
from actors.values import StoreMember, View

_SILENT_BEATS = 3
"""A node that has missed so many of its heartbeats is silent."""


class ClusterState:
    """The cluster's last known state at one gateway."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.leader: Ballot = NO_BALLOT
        self.leader_ready = False
        """Whether the leader's last beat says that it holds its lease and takes commands."""
        self.view: View | None = None
        self._membership: Membership | None = None
        """The acceptors, once a learner has reported that they have changed."""
        self._membership_through = 0
        self._durable_mark = 0
        self._view_through = 0
        """A slot no lower than that of the latest view reported."""
        self.nodes: dict[str, tuple[Milliseconds, int, NodeHeartbeat, str]] = {}
        """The last heartbeat of each node: its time, the node's incarnation, the message, and the
        node's disk.
        """
        self._leader_heard_at = -10 * turn.options.constants.lease_ms
        self._leader_beat: LeaderBeat | None = None
        self._heard_at: Milliseconds | None = None
        self._listening_since: Milliseconds = 0
        """Since when messages came without a long gap; silence before it does not count."""
        self._next_store = 0

    # -- heartbeats ------------------------------------------------------------------------------

    def on_leader_beat(self, message: LeaderBeat) -> bool:
        """A leader's beat; whether it makes another proposer or ballot the leader."""
        self._hear()
        silent = self._turn.now - self._leader_heard_at >= 2 * self._turn.constants.lease_ms
        if message.ballot < self.leader and not silent:
            return False  # A wrong ballot is replaced like that of a dead leader, after a silence.
        former = (self.leader, self.has_leader)
        self.leader = message.ballot
        self._leader_heard_at = self._turn.now
        self.leader_ready = message.ready
        self._leader_beat = message
        return self.has_leader and former != (self.leader, True)

    def on_heartbeat(self, name: str, message: NodeHeartbeat) -> bool:
        """A node's heartbeat; whether it reports a later view."""
        self._hear()
        turn = self._turn
        self.nodes[name] = (turn.now, turn.sender_incarnation, message, turn.sender_disk)
        if message.membership is not None and message.chosen_through >= self._membership_through:
            self._membership_through = message.chosen_through
            self._membership = message.membership
        if message.durable_mark <= self._membership_through:
            self._durable_mark = max(self._durable_mark, message.durable_mark)
        if message.view and (self.view is None or message.view.epoch > self.view.epoch):
            self.view = message.view
            self._view_through = max(message.chosen_through, message.applied)
            return True
        return False

    def _hear(self) -> None:
        """Note a sign of life. After a gap that no healthy cluster leaves, this node was away."""
        gap_ms = 3 * self._turn.options.heartbeat_ms // 2
        if self._heard_at is None or self._turn.now - self._heard_at > gap_ms:
            self._listening_since = self._turn.now
        self._heard_at = self._turn.now

    @property
    def heard_ms(self) -> Milliseconds | None:
        """How long ago the last sign of life came; `None` if none came."""
        return None if self._heard_at is None else self._turn.now - self._heard_at

    @property
    def listening_ms(self) -> Milliseconds:
        """For how long messages have come without a long gap."""
        return self._turn.now - self._listening_since

    @property
    def silent_ms(self) -> Milliseconds:
        """The time after which a node without heartbeats is silent."""
        return _SILENT_BEATS * self._turn.options.heartbeat_ms

    @property
    def has_leader(self) -> bool:
        """Whether a leader's recent beat says that it holds its lease and takes commands."""
        silence = self._turn.now - self._leader_heard_at
        return self.leader_ready and silence < 2 * self._turn.constants.lease_ms

    def heard_at(self, name: str) -> Milliseconds:
        """When the last heartbeat of a node came; a time long ago if none has."""
        report = self.nodes.get(name)
        return report[0] if report is not None else -10 * self._turn.options.heartbeat_ms

    def silent(self, names: tuple[str, ...]) -> set[str]:
        """Those of `names` that are silent; they are asked last."""
        now, patience_ms = self._turn.now, self.silent_ms
        return {name for name in names if now - self.heard_at(name) >= patience_ms}

    # -- the stores of the view ------------------------------------------------------------------

    @property
    def members(self) -> tuple[StoreMember, ...]:
        """The stores of the latest view reported."""
        return (self.view or self._turn.genesis.view).stores

    @property
    def stores(self) -> tuple[str, ...]:
        """The names of the `members`."""
        return tuple(store.name for store in self.members)

    def sending_member(self, name: str) -> StoreMember | None:
        """The place in the view of the disk that sent the message being handled."""
        member = next((store for store in self.members if store.name == name), None)
        return member if member is not None and member.disk == self._turn.sender_disk else None

    def rotation(self, deadline: Milliseconds) -> Rotation:
        """A rotation over the stores for one request; each begins with another store."""
        self._next_store += 1
        return Rotation(self._next_store, deadline)

    def next_store(self, rotation: Rotation, patience_ms: Milliseconds) -> str | None:
        """The store of the view to ask now, if it is time to ask one."""
        return rotation.next(self.stores, self._turn.now, patience_ms, self.silent(self.stores))

    # -- reports ---------------------------------------------------------------------------------

    def node_reports(self) -> dict[str, NodeReport]:
        """Every node's last heartbeat, and how long ago it came."""
        return {
            name: NodeReport(self._turn.now - at, incarnation, heartbeat, disk)
            for name, (at, incarnation, heartbeat, disk) in self.nodes.items()
        }

    def acceptors_report(self) -> AcceptorsReport:
        """The acceptors as learners report them."""
        membership = self._membership or Membership.founded(self._turn.genesis)
        return AcceptorsReport(membership, self._durable_mark)

    def names(self, role: str) -> tuple[str, ...]:
        """The members of a role, as learners report them; before the founding by the settings."""
        if self._turn.founded is None:
            return self._turn.options.names(role)
        return self.acceptors_report().membership.names(role, self._turn.genesis)

    @property
    def stores_needed(self) -> int:
        """The number of whole stores that a new write needs."""
        return self.acceptors_report().membership.stores_needed(self._turn.genesis)

    def version_of(self, name: str) -> int:
        """The version that a change of that member is about: of the acceptors, or of the roster."""
        membership = self.acceptors_report().membership
        if name.startswith("acceptor-"):
            return membership.newest.version
        return membership.roster_version

    @property
    def is_view_undurable(self) -> bool:
        """Whether the latest view reported is not known to be held durably everywhere."""
        return self._durable_mark < self._view_through

    def lease_report(self) -> LeaseReport | None:
        """The leases as the leader's last beat reports them."""
        beat = self._leader_beat
        if beat is None:
            return None
        age_ms = self._turn.now - self._leader_heard_at
        return LeaseReport(age_ms, beat.ballot, beat.lease_left_ms, beat.read_leases_ms)

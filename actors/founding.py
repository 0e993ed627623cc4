"""How a cluster is founded, and how a starting node learns whether it belongs to it (design 3.9).

acceptor-1 asks every member for its disk identity and whether the disk is empty; it mints the
cluster's id only when all have answered that it is. All acceptors hold the genesis durably before
any of them votes. A durable queue may hold answers of another cluster, so every answer echoes the
asking disk and incarnation, or is tied to a disk identity, which is never used twice.
"""

from typing import Any

from pydantic import TypeAdapter

from actors.effects import Envelope, Group, Record
from actors.errors import JournalUnreadable
from actors.messages import Census, Founded, HoldsGenesis, Inquiry, Present, ProposeGenesis
from actors.messages.permissions import FOUNDER
from actors.options import MEMBER_NUMBER_MAX, may_be_added, role_of
from actors.paxos.quorum import majority
from actors.turn import Turn
from actors.values import ACCEPTORS_LEAST, FoundingMember, Genesis, StoreMember, View

_GENESIS = TypeAdapter(Genesis)
HELD = "genesis/held"
"""The key of the row with a genesis that an acceptor holds, founded or not."""
FOUNDED = "genesis/founded"
"""The key of the row with the genesis that all acceptors are known to hold."""
_RETRY_MS = 500


class Founding:
    """The part of every node that finds out which cluster it belongs to."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.disks: dict[str, str] = {}
        """The disk identity of every member."""
        self._held: Genesis | None = None
        self._confirmed = False
        self._present: dict[str, tuple[str, int]] = {}
        self._holders: set[str] = set()
        self._founded_answers: dict[str, Founded] = {}
        self.version = 0
        """An acceptor's: the highest version of the acceptors that it has answered."""
        self._is_acceptor = turn.identity.role == "acceptor"
        self._is_founder = turn.name == FOUNDER

    def names(self, node: str) -> bool:
        """Whether `node` is a member of the cluster, or of the one that is to be founded."""
        return node in (self.disks or self._turn.options.members)

    # -- restart ---------------------------------------------------------------------------------

    def restore(self, record: Record) -> bool:
        """Restore a row if it is one of founding's; whether it was."""
        if record.key not in (HELD, FOUNDED):
            return False
        try:
            genesis = _GENESIS.validate_json(record.value or b"")
        except ValueError as error:
            raise JournalUnreadable(f"record {record.key!r} can't be read: {error}") from error
        self._held = genesis
        self._check_settings(genesis)
        if record.key == FOUNDED:
            self._adopt(genesis)
        return True

    def row(self, key: str) -> Genesis | None:
        """The value of the row `key`, if it is one of founding's."""
        return {HELD: self._held, FOUNDED: self._turn.founded}.get(key)

    def begin(self) -> None:
        """Begin, or go on after a restart."""
        self.expire()

    def confirm(self) -> None:
        """Inquire with every heartbeat until the living cluster has confirmed this disk."""
        if not self._confirmed:
            self._inquire()

    def expire(self) -> None:
        """Send again what has not been answered."""
        if self._turn.founded is not None:
            return
        if self._is_founder and self._held is not None:
            self._propose()
        elif self._is_founder:
            self._ask_census()
        self._inquire()
        self._turn.set_timer("founding", _RETRY_MS, _RETRY_MS + _RETRY_MS // 4)

    # -- messages --------------------------------------------------------------------------------

    def receive(self, envelope: Envelope) -> None:
        """Handle a `genesis.*` message; these are exempt from the checks of cluster and disk."""
        message: Any = envelope.message
        match message:
            case Census():
                self._on_census(envelope.sender, message)
            case Present():
                self._on_present(envelope, message)
            case ProposeGenesis():
                self._on_propose(envelope.sender, message)
            case HoldsGenesis():
                self._on_held(envelope, message)
            case Inquiry():
                self._on_inquiry(envelope)
            case Founded():
                self._on_founded(envelope.sender, message)

    @property
    def _known_cluster(self) -> str:
        """The id of the cluster that this disk belongs to, or whose genesis it holds."""
        known = self._turn.founded or self._held
        return known.cluster if known else ""

    def _on_census(self, sender: str, message: Census) -> None:
        self._turn.send(
            sender,
            Present(
                asker_disk=message.disk,
                asker_incarnation=message.incarnation,
                cluster=self._known_cluster,
            ),
        )

    def _on_present(self, envelope: Envelope, message: Present) -> None:
        me = self._turn.identity
        fits = (message.asker_disk, message.asker_incarnation) == (me.disk, me.incarnation)
        is_asked = envelope.sender in self._turn.options.members
        if not self._is_founder or self._held is not None or not fits or not is_asked:
            return
        if message.cluster:
            # That disk belongs to a cluster, so none may be founded. If this node founded it on a
            # disk that it lost, the acceptors' answers to the inquiry will say so.
            self._present.pop(envelope.sender, None)
            return
        self._present[envelope.sender] = (envelope.disk, envelope.incarnation)
        others = [name for name in self._turn.options.members if name != self._turn.name]
        if all(name in self._present for name in others):
            self._mint()

    def _mint(self) -> None:
        turn = self._turn
        me = turn.identity
        starts = {**self._present, turn.name: (me.disk, me.incarnation)}
        coordinator = turn.options.names("learner")[0]
        stores = tuple(
            StoreMember(name=name, disk=starts[name][0], added_slot=0)
            for name in turn.options.names("store")
        )
        self._held = Genesis(
            cluster=me.fresh_id,
            constants=turn.options.constants,
            members=tuple(
                FoundingMember(name=name, disk=starts[name][0]) for name in turn.options.members
            ),
            view=View(
                epoch=0,
                coordinator=coordinator,
                coordinator_disk=starts[coordinator][0],
                coordinator_incarnation=starts[coordinator][1],
                stores=stores,
            ),
        )
        turn.journal(HELD, self._held)
        self._propose()

    def _propose(self) -> None:
        assert self._held is not None
        for name in self._held.names("acceptor"):
            if name != self._turn.name:
                self._turn.send(name, ProposeGenesis(genesis=self._held))

    def _on_propose(self, sender: str, message: ProposeGenesis) -> None:
        """Hold the genesis if it names this disk; one of another cluster can't name it."""
        if not self._is_acceptor or not self._names_this_disk(message.genesis):
            return
        if not self._known_cluster:
            self._check_settings(message.genesis)
            self._held = message.genesis
            self._turn.journal(HELD, message.genesis)
        if self._known_cluster == message.genesis.cluster:
            self._turn.send(sender, HoldsGenesis(cluster=message.genesis.cluster))

    def _on_held(self, envelope: Envelope, message: HoldsGenesis) -> None:
        if not self._is_founder or self._held is None or self._turn.founded is not None:
            return
        disks = {member.name: member.disk for member in self._held.members}
        if message.cluster != self._held.cluster or disks.get(envelope.sender) != envelope.disk:
            return
        self._holders.add(envelope.sender)
        acceptors = self._held.names("acceptor")
        if all(name in self._holders for name in acceptors if name != self._turn.name):
            genesis = self._held
            self._record_founded(genesis)
            for name in disks:
                if name != self._turn.name:
                    self._turn.send(name, Founded(genesis=genesis))

    def _on_inquiry(self, envelope: Envelope) -> None:
        if self._is_acceptor and self._turn.founded is not None:
            self._turn.send(
                envelope.sender,
                Founded(
                    genesis=self._turn.founded,
                    asker_disk=envelope.disk,
                    asker_incarnation=envelope.incarnation,
                    version=self.version,
                ),
            )

    def _on_founded(self, sender: str, message: Founded) -> None:
        if self._confirmed:
            return  # A confirmed node has stopped asking, and ignores late answers.
        me = self._turn.identity
        answered = (message.asker_disk, message.asker_incarnation) == (me.disk, me.incarnation)
        if answered:
            self._founded_answers[sender] = message
        if self._turn.founded is None and self._names_this_disk(message.genesis):
            self._record_founded(message.genesis)
        if self._turn.founded is not None and self._turn.founded.cluster == message.genesis.cluster:
            self._confirmed = True
        elif answered:
            self._judge()

    # -- judgement -------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Decide once a majority of acceptors name one cluster that is not known as this node's."""
        answers = self._founded_answers
        clusters = [answer.genesis.cluster for answer in answers.values()]
        most = max(sorted(set(clusters)), key=clusters.count)
        genesis = next(a.genesis for a in answers.values() if a.genesis.cluster == most)
        agreed = {name: a.version for name, a in answers.items() if a.genesis == genesis}
        # Also as many as this node's settings ask for: a genesis names its own voters.
        expected = majority(len(self._turn.options.names("acceptor")))
        is_quorum = genesis.voters.are_quorum(agreed) and len(agreed) >= expected
        # Once the acceptors have changed, those of the genesis may be gone, and who they are is not
        # known here. An empty disk counts for nothing whatever it believes.
        are_later = any(agreed.values()) and len(agreed) >= majority(ACCEPTORS_LEAST)
        if not is_quorum and not (are_later and len(agreed) == len(answers)):
            return
        known = {member.name for member in genesis.members}
        name = self._turn.name
        mine = self._known_cluster
        if mine and mine != most:
            self._turn.out.halt = (
                f"{name}: this data folder belongs to cluster {mine}, but the cluster behind this "
                f"broker is {most}. Use the folder with its own cluster, or start {name} on "
                "another cluster name."
            )
        elif name in known or role_of(name) == "gateway" or may_be_added(name):
            # A newcomer with an empty disk: it is not taken for the member that it was, because
            # views, configurations and ballots name disks. A replica copies what it lacks from its
            # peers; an acceptor counts once it is put in the place of the former disk; and whoever
            # the cluster does not name waits to be added.
            self._record_founded(genesis)
            self._confirmed = True
        else:
            self._turn.out.halt = (
                f"{name}: cluster {most} has no member of this name, and none with a number above "
                f"{MEMBER_NUMBER_MAX} can be added."
            )

    def _names_this_disk(self, genesis: Genesis) -> bool:
        me = FoundingMember(name=self._turn.name, disk=self._turn.identity.disk)
        return me in genesis.members

    def _record_founded(self, genesis: Genesis) -> None:
        self._turn.journal(FOUNDED, genesis)
        self._adopt(genesis)

    def _check_settings(self, genesis: Genesis) -> None:
        """Halt if settings differ: the genesis is what counts, but the operator would not know."""
        differences = self._turn.options.differences(genesis)
        if differences:
            self._turn.out.halt = (
                f"{self._turn.name}: what a cluster is founded with is fixed, and these settings "
                f"differ from cluster {genesis.cluster}: {'; '.join(differences)}. Set them back."
            )

    def _adopt(self, genesis: Genesis) -> None:
        self._check_settings(genesis)
        self._turn.founded = genesis  # All acceptors hold it.
        self.disks = {member.name: member.disk for member in genesis.members}

    # -- asking ----------------------------------------------------------------------------------

    def _inquire(self) -> None:
        self._turn.send(Group.ACCEPTORS, Inquiry(cluster=self._known_cluster))

    def _ask_census(self) -> None:
        me = self._turn.identity
        for name in self._turn.options.members:
            if name != self._turn.name and name not in self._present:
                self._turn.send(name, Census(disk=me.disk, incarnation=me.incarnation))

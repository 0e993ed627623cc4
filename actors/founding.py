"""How a cluster comes to be, and how a starting node learns whether it belongs (design 3.9).

acceptor-1 asks every member for its disk identity and whether it is empty; only when all of them
have said so does it mint the cluster's id. All acceptors hold the genesis durably before any of
them votes. Every answer that could be left over from another cluster in a durable queue echoes
the asking disk and incarnation, or is tied to a disk identity, which is never used twice.
"""

from typing import Any

from pydantic import TypeAdapter

from actors.effects import Envelope, Group, Record
from actors.errors import JournalUnreadable
from actors.messages import Census, Founded, HoldsGenesis, Inquiry, Present, ProposeGenesis
from actors.messages.permissions import FOUNDER
from actors.paxos.quorum import majority
from actors.turn import Turn
from actors.values import FoundingMember, Genesis, StoreMember, View

_GENESIS = TypeAdapter(Genesis)
HELD = "genesis/held"
"""The key of the row with a genesis that an acceptor holds, founded or not."""
FOUNDED = "genesis/founded"
"""The key of the row with the genesis that all acceptors are known to hold."""
_RETRY_MS = 500


class Founding:
    """The part of every node that knows, or finds out, which cluster it belongs to."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.disks: dict[str, str] = {}
        """The disk identity of every member."""
        self._held: Genesis | None = None
        self._confirmed = False
        self._present: dict[str, tuple[str, int]] = {}
        self._holders: set[str] = set()
        self._founded_answers: dict[str, Genesis] = {}
        self._is_acceptor = turn.identity.role == "acceptor"
        self._is_founder = turn.name == FOUNDER

    def names(self, node: str) -> bool:
        """Whether `node` is a member of the cluster, or of the one that is to be founded."""
        return node in (self.disks or self._turn.options.members)

    # -- restart ---------------------------------------------------------------------------------

    def restore(self, record: Record) -> bool:
        """Take in a row if it is one of founding's."""
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
        """What the journal is to hold under `key`, if it is one of founding's."""
        return {HELD: self._held, FOUNDED: self._turn.founded}.get(key)

    def begin(self) -> None:
        """Start, or go on, finding out."""
        self.expire()

    def confirm(self) -> None:
        """Ask once more, with every heartbeat, until the living cluster has confirmed this disk."""
        if not self._confirmed:
            self._inquire()

    def expire(self) -> None:
        """Whatever is not answered yet is asked again."""
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
        """Any `genesis.*` message; these are exempt from the fit of cluster and disk."""
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
        """The id of the cluster that this disk belongs to, or that it holds the genesis of."""
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
        if not self._is_founder or self._held is not None or not fits:
            return
        if message.cluster:
            # Somebody holds a cluster, so this is not the time to found one. If the disk that
            # founded it was this node's, the acceptors' answers to the inquiry will say so.
            self._present.pop(envelope.sender, None)
            return
        self._present[envelope.sender] = (envelope.disk, envelope.incarnation)
        others = [name for name in self._turn.options.members if name != self._turn.name]
        if all(name in self._present for name in others):
            self._mint()

    def _mint(self) -> None:
        turn = self._turn
        me = turn.identity
        seen = {**self._present, turn.name: (me.disk, me.incarnation)}
        coordinator = turn.options.names("learner")[0]
        stores = tuple(
            StoreMember(name=name, disk=seen[name][0], added_slot=0)
            for name in turn.options.names("store")
        )
        self._held = Genesis(
            cluster=me.fresh_id,
            constants=turn.options.constants,
            members=tuple(
                FoundingMember(name=name, disk=seen[name][0]) for name in turn.options.members
            ),
            view=View(
                epoch=0,
                coordinator=coordinator,
                coordinator_disk=seen[coordinator][0],
                coordinator_incarnation=seen[coordinator][1],
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
        """Hold it, if it names this very disk; a proposal left over from elsewhere can't."""
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
                ),
            )

    def _on_founded(self, sender: str, message: Founded) -> None:
        if self._confirmed:
            return  # Nobody is asked any more, and no answer makes a confirmed node doubt.
        me = self._turn.identity
        answered = (message.asker_disk, message.asker_incarnation) == (me.disk, me.incarnation)
        if answered:
            self._founded_answers[sender] = message.genesis
        if self._turn.founded is None and self._names_this_disk(message.genesis):
            self._record_founded(message.genesis)
        if self._turn.founded is not None and self._turn.founded.cluster == message.genesis.cluster:
            self._confirmed = True
        elif answered:
            self._judge()

    # -- judging ---------------------------------------------------------------------------------

    def _judge(self) -> None:
        """A majority of acceptors name one cluster, and it is not known here as ours."""
        clusters = [genesis.cluster for genesis in self._founded_answers.values()]
        most = max(sorted(set(clusters)), key=clusters.count)
        genesis = next(g for g in self._founded_answers.values() if g.cluster == most)
        agreed = [name for name, other in self._founded_answers.items() if other == genesis]
        # Also as many as this node's settings ask for: what one node says names its own voters.
        expected = majority(len(self._turn.options.names("acceptor")))
        if not genesis.voters.are_quorum(agreed) or len(agreed) < expected:
            return
        known = {member.name: member.disk for member in genesis.members}
        name = self._turn.name
        mine = self._known_cluster
        if mine and mine != most:
            self._turn.out.halt = (
                f"{name}: this data folder belongs to cluster {mine}, but the cluster behind this "
                f"broker is {most}. Use the folder with its own cluster, or start {name} on "
                "another cluster name."
            )
        elif name in known and self._turn.identity.role in ("learner", "store"):
            # A newcomer with an empty disk: nobody takes it for the member that it was, because
            # views name disks. It copies what it lacks from its peers.
            self._record_founded(genesis)
            self._confirmed = True
        elif name in known and known[name] != self._turn.identity.disk:
            self._turn.out.halt = (
                f"{name}: this disk ({self._turn.identity.disk}) is empty, but cluster {most} "
                f"knows {name} by disk {known[name]}. A member that lost its disk must not act as "
                "the member it was, because it has forgotten what it promised. Put the former "
                "data folder back."
            )
        elif name in known or name.startswith("gateway-"):
            self._record_founded(genesis)
            self._confirmed = True
        else:
            self._turn.out.halt = f"{name}: cluster {most} has no member of this name."

    def _names_this_disk(self, genesis: Genesis) -> bool:
        me = FoundingMember(name=self._turn.name, disk=self._turn.identity.disk)
        return me in genesis.members

    def _record_founded(self, genesis: Genesis) -> None:
        self._turn.journal(FOUNDED, genesis)
        self._adopt(genesis)

    def _check_settings(self, genesis: Genesis) -> None:
        """Nothing is computed from settings that differ, but their owner believes that it is."""
        differences = self._turn.options.differences(genesis)
        if differences:
            self._turn.out.halt = (
                f"{self._turn.name}: what a cluster is founded with is fixed, and these settings "
                f"differ from cluster {genesis.cluster}: {'; '.join(differences)}. Set them back."
            )

    def _adopt(self, genesis: Genesis) -> None:
        self._check_settings(genesis)
        self._turn.founded = genesis  # All acceptors are known to hold it.
        self.disks = {member.name: member.disk for member in genesis.members}

    # -- asking ----------------------------------------------------------------------------------

    def _inquire(self) -> None:
        self._turn.send(Group.ACCEPTORS, Inquiry(cluster=self._known_cluster))

    def _ask_census(self) -> None:
        me = self._turn.identity
        for name in self._turn.options.members:
            if name != self._turn.name and name not in self._present:
                self._turn.send(name, Census(disk=me.disk, incarnation=me.incarnation))

"""How a cluster is founded, and signs of life (design 3.9 and 5.1)."""

from typing import Literal

from pydantic import Field

from actors.numbers import Count
from actors.paxos.ballot import Ballot
from actors.paxos.membership import Membership
from actors.values import Frozen, Genesis, View


class Census(Frozen):
    """acceptor-1 asks every member whether its disk is empty, to found a cluster."""

    type: Literal["genesis.census"] = "genesis.census"
    disk: str
    incarnation: Count


class Present(Frozen):
    """The answer to a `Census`, echoing it. `cluster` is the cluster of the answering disk."""

    type: Literal["genesis.present"] = "genesis.present"
    asker_disk: str
    asker_incarnation: Count
    cluster: str


class ProposeGenesis(Frozen):
    """acceptor-1 asks the other acceptors to hold the genesis durably."""

    type: Literal["genesis.propose"] = "genesis.propose"
    genesis: Genesis


class HoldsGenesis(Frozen):
    """The sender's disk holds the genesis of this cluster."""

    type: Literal["genesis.held"] = "genesis.held"
    cluster: str


class Inquiry(Frozen):
    """A starting node asks the acceptors which cluster lives here."""

    type: Literal["genesis.inquiry"] = "genesis.inquiry"
    cluster: str


class Founded(Frozen):
    """All acceptors hold `genesis`. `asker_*` echo the `Inquiry`, if this answers one. `version` is
    the highest one of the acceptors that the sender has answered.
    """

    type: Literal["genesis.founded"] = "genesis.founded"
    genesis: Genesis
    asker_disk: str = ""
    asker_incarnation: Count = 0
    version: Count = Field(0, exclude_if=lambda version: version == 0)


class NodeHeartbeat(Frozen):
    """A sign of life. `journal_commits` counts the commits of the sender's journal so far.

    `applied` is the end of the applied prefix, `durable` the end of its durable part, and
    `chosen_through` that of the chosen prefix; `state_hash` chains all applied slots. A replica
    that copies a snapshot still has to receive `rows_left` of it; a store lacks `chunks_missing` of
    its contents, and a learner records of the audit, if that is not 0.
    `ballot` is the one that a proposer leads under, or that an acceptor has promised.
    `membership` and `durable_mark` are a learner's, as in `LearnerProgress`.
    """

    type: Literal["node.heartbeat"] = "node.heartbeat"
    role: str
    journal_commits: Count
    applied: Count = 0
    durable: Count = 0
    chosen_through: Count = 0
    state_hash: str = ""
    ballot: Ballot | None = None
    view: View | None = None
    pending: Count = 0
    in_doubt: Count = 0
    installing: bool = False
    rows_left: Count = 0
    chunks_missing: Count = 0
    disk_full: bool = False
    halted: str = ""
    membership: Membership | None = Field(None, exclude_if=lambda membership: membership is None)
    durable_mark: Count = Field(0, exclude_if=lambda mark: mark == 0)


class StaleDisk(Frozen):
    """The receiver's disk once reported more commits than it holds now, so it is an older copy."""

    type: Literal["node.stale_disk"] = "node.stale_disk"
    disk: str
    incarnation: Count
    journal_commits: Count

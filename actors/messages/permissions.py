"""Permissions: who may send which message to whom, checked before any handler sees a message.

A row names the roles that send a type and the roles that receive it. Where only a particular node
may send it, a rule says which: a ballot is used by its proposer alone, a View is requested by the
coordinator that it names, a command by the gateway that waits for its result. Messages that no row
permits are dropped and counted. The table trusts the name on an envelope, which the broker verifies
where each node is a user of its own (`docs/decisions/0029-broker-users.md`).

Local calls and notices are in no row: they never cross the broker.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

from actors.effects import Envelope
from actors.messages import (
    Accept,
    Accepted,
    AcceptedRange,
    AnyMessage,
    AuditPage,
    AuditRead,
    Census,
    ChangeAnswer,
    ChangeMember,
    Chosen,
    ChunkData,
    ChunkGet,
    ChunkHold,
    ChunkKeep,
    ChunkMissing,
    ChunkPut,
    ChunkRefused,
    ChunkStored,
    Decided,
    Diverged,
    Fenced,
    Founded,
    HoldsGenesis,
    Inquiry,
    JoinRequest,
    LeaderBeat,
    LearnerProgress,
    LeaseAsk,
    LeaseGrant,
    LeaseGranted,
    LeaseHeartbeat,
    LogPage,
    LogRead,
    NodeHeartbeat,
    Prepare,
    Present,
    Promise,
    ProposeGenesis,
    ProposeValue,
    PullChosen,
    PullDecided,
    ReadReply,
    ReadRequest,
    Redirect,
    Reject,
    Result,
    SnapshotPage,
    SnapshotPull,
    StaleDisk,
    Submit,
    Superseded,
    Truncate,
    TxnDecision,
    TxnInquiry,
    TxnPrepare,
    TxnProgress,
    TxnState,
    TxnVote,
)
from actors.options import role_of
from actors.paxos.ballot import Ballot, proposer_on
from actors.paxos.membership import Membership
from actors.values import CloseSession, View

FOUNDER = "acceptor-1"
"""The node that mints a cluster's id."""

UNKNOWN = "unknown"
"""The role of a well-formed name that can be no member's, because its number is too high. It may
ask which cluster lives here, and halts on the answer.
"""

_NAME_CHARS_MAX = 64
_DISK_CHARS_MAX = 64

Rule = Callable[[Envelope, str], bool]
"""Whether the sender of an envelope may send its message to the node of that name."""


class Permission(NamedTuple):
    """A row. With `founding_disk`, only members that still have the disk that the genesis names may
    send the type; `elsewhere` is the rule on other disks, if it differs.
    """

    senders: frozenset[str]
    receivers: frozenset[str]
    rule: Rule | None = None
    founding_disk: bool = False
    elsewhere: Rule | None = None


def role_in(name: str) -> str:
    """The role that a node's name starts with; empty if it is no node's name."""
    # Names of unbounded length must reach neither the cache nor the conversion to a number.
    return _role_in(name) if len(name) <= _NAME_CHARS_MAX else ""


@lru_cache(maxsize=1024)
def _role_in(name: str) -> str:
    try:
        return role_of(name)
    except ValueError:
        return ""


# -- rules ---------------------------------------------------------------------------------------


def _is_founder(envelope: Envelope, receiver: str) -> bool:
    return envelope.sender == FOUNDER


def _is_in_its_genesis(envelope: Envelope, receiver: str) -> bool:
    """An acceptor reports only a genesis that names it, unless the acceptors have changed. It may
    be on another disk since then.
    """
    message: Any = envelope.message
    named = any(member.name == envelope.sender for member in message.genesis.members)
    return named or message.version > 0


def _is_founder_in_its_genesis(envelope: Envelope, receiver: str) -> bool:
    """The founder proposes only a genesis that names it on this disk."""
    message: Any = envelope.message
    named = {member.name: member.disk for member in message.genesis.members}
    own = named.get(envelope.sender) == envelope.disk
    return own and _is_founder(envelope, receiver)


def _reports_itself(envelope: Envelope, receiver: str) -> bool:
    message: Any = envelope.message
    return _reports(envelope) and _is_own(message.ballot, envelope.sender)


def _reports_itself_elsewhere(envelope: Envelope, receiver: str) -> bool:
    message: Any = envelope.message
    return _reports(envelope) and _is_own(message.ballot, _named_by_disk(envelope))


def _reports(envelope: Envelope) -> bool:
    """The role is the sender's; only replicas report the view, and only learners the members."""
    message: Any = envelope.message
    role, view = message.role, message.view
    if role != role_in(envelope.sender):
        return False
    if view is not None and (role not in ("learner", "store") or not _is_well_formed(view)):
        return False
    if message.membership is not None:
        return role == "learner" and _are_acceptors(message.membership)
    return True


def _is_own(ballot: Ballot | None, proposer: str) -> bool:
    """Whether a reported ballot is an acceptor's promise, or the own one of a proposer."""
    is_promise = role_in(proposer.partition("/")[0]) != "proposer"
    return ballot is None or is_promise or ballot.proposer == proposer


def _named_by_disk(envelope: Envelope) -> str:
    """What stands in the ballots of a proposer on another disk than the founding one: a disk that
    lost its rounds must use no ballot of the disk that had them.
    """
    return proposer_on(envelope.sender, envelope.disk[:_DISK_CHARS_MAX], is_founding=False)


def _owns_ballot(envelope: Envelope, receiver: str) -> bool:
    message: Any = envelope.message
    own: bool = message.ballot.proposer == envelope.sender
    return own


def _owns_ballot_elsewhere(envelope: Envelope, receiver: str) -> bool:
    message: Any = envelope.message
    own: bool = message.ballot.proposer == _named_by_disk(envelope)
    return own


def _proposes(envelope: Envelope, receiver: str) -> bool:
    """The ballot is the sender's own, and the node that the votes go to is a learner."""
    return _owns_ballot(envelope, receiver) and _asks_a_learner(envelope)


def _proposes_elsewhere(envelope: Envelope, receiver: str) -> bool:
    return _owns_ballot_elsewhere(envelope, receiver) and _asks_a_learner(envelope)


def _asks_a_learner(envelope: Envelope) -> bool:
    message: Any = envelope.message
    return not message.learner or role_in(message.learner) == "learner"


def _submits(envelope: Envelope, receiver: str) -> bool:
    """The ballot is the receiver's; the session is the sender's, which waits for the result."""
    message: Any = envelope.message
    command, sender = message.command, envelope.sender
    operation = command.operation
    return (
        message.ballot.node == receiver
        and command.reply_to == sender
        and _gateway_of(command.session) == sender
        and (not isinstance(operation, CloseSession) or _gateway_of(operation.target) == sender)
    )


def _gateway_of(session: str) -> str:
    return session.partition(".")[0]


def _asks_for_itself(envelope: Envelope, receiver: str) -> bool:
    """A View names the running start of its sender as coordinator; an Abort names none."""
    message: Any = envelope.message
    return not isinstance(message.value, View) or _is_named_by(message.value, envelope)


def _coordinates(envelope: Envelope, receiver: str) -> bool:
    message: Any = envelope.message
    return _is_named_by(message.view, envelope)


def _reports_a_view(envelope: Envelope, receiver: str) -> bool:
    message: Any = envelope.message
    membership = message.membership
    return _is_well_formed(message.view) and (membership is None or _are_acceptors(membership))


def _is_named_by(view: View, envelope: Envelope) -> bool:
    named = (view.coordinator, view.coordinator_disk, view.coordinator_incarnation)
    return named == envelope[1:4] and _is_well_formed(view)


def _is_well_formed(view: View) -> bool:
    """Whether the view names nodes of the right roles, for messages will be sent to them."""
    for store in view.stores:
        if role_in(store.name) != "store":
            return False
    return role_in(view.coordinator) == "learner"


def _are_acceptors(membership: Membership) -> bool:
    """Whether the membership has active configurations and all are of acceptors."""
    return len(membership.active) > 0 and all(
        role_in(acceptor.name) == "acceptor"
        for configuration in membership.active
        for acceptor in configuration.acceptors
    )


# -- the table -----------------------------------------------------------------------------------

_PROPOSER = frozenset(("proposer",))
_ACCEPTOR = frozenset(("acceptor",))
_LEARNER = frozenset(("learner",))
_STORE = frozenset(("store",))
_GATEWAY = frozenset(("gateway",))
_MEMBER = _PROPOSER | _ACCEPTOR | _LEARNER | _STORE
_ANY = _MEMBER | _GATEWAY
_RECEIVES_HEARTBEATS = _ANY - _ACCEPTOR

PERMISSIONS: dict[type[AnyMessage], Permission] = {
    Census: Permission(_ACCEPTOR, _MEMBER, _is_founder),
    Present: Permission(_MEMBER, _ACCEPTOR),
    ProposeGenesis: Permission(_ACCEPTOR, _ACCEPTOR, _is_founder_in_its_genesis),
    HoldsGenesis: Permission(_ACCEPTOR, _ACCEPTOR),
    Inquiry: Permission(_ANY | {UNKNOWN}, _ACCEPTOR),
    Founded: Permission(_ACCEPTOR, _ANY, _is_in_its_genesis),
    NodeHeartbeat: Permission(
        _ANY, _RECEIVES_HEARTBEATS, _reports_itself, elsewhere=_reports_itself_elsewhere
    ),
    # It halts its receiver, so neither gateways nor disks that came later may send it.
    StaleDisk: Permission(_MEMBER - _ACCEPTOR, _ANY, founding_disk=True),
    Prepare: Permission(_PROPOSER, _ACCEPTOR, _owns_ballot, elsewhere=_owns_ballot_elsewhere),
    Promise: Permission(_ACCEPTOR, _PROPOSER),
    Accept: Permission(_PROPOSER, _ACCEPTOR | _LEARNER, _proposes, elsewhere=_proposes_elsewhere),
    Accepted: Permission(_ACCEPTOR, _LEARNER),
    Reject: Permission(_ACCEPTOR, _PROPOSER),
    LeaseHeartbeat: Permission(
        _PROPOSER, _ACCEPTOR, _owns_ballot, elsewhere=_owns_ballot_elsewhere
    ),
    LeaseGranted: Permission(_ACCEPTOR, _PROPOSER),
    LeaderBeat: Permission(
        _PROPOSER, _RECEIVES_HEARTBEATS, _owns_ballot, elsewhere=_owns_ballot_elsewhere
    ),
    LearnerProgress: Permission(_LEARNER, _PROPOSER, _reports_a_view),
    PullChosen: Permission(_LEARNER, _ACCEPTOR | _LEARNER),
    Chosen: Permission(_LEARNER, _LEARNER),
    AcceptedRange: Permission(_ACCEPTOR, _LEARNER),
    ProposeValue: Permission(_LEARNER, _PROPOSER, _asks_for_itself),
    Truncate: Permission(_LEARNER, _ACCEPTOR | _LEARNER),
    TxnPrepare: Permission(_LEARNER, _STORE),
    TxnVote: Permission(_STORE, _LEARNER),
    TxnProgress: Permission(_STORE, _LEARNER),
    TxnDecision: Permission(_LEARNER, _LEARNER | _STORE),
    TxnInquiry: Permission(_LEARNER, _STORE, _coordinates),
    TxnState: Permission(_STORE, _LEARNER),
    Fenced: Permission(_STORE, _LEARNER),
    PullDecided: Permission(_LEARNER | _STORE, _LEARNER),
    Decided: Permission(_LEARNER, _LEARNER | _STORE),
    Submit: Permission(_GATEWAY, _PROPOSER, _submits),
    Redirect: Permission(_PROPOSER, _GATEWAY, _owns_ballot, elsewhere=_owns_ballot_elsewhere),
    Result: Permission(_LEARNER, _GATEWAY),
    LeaseAsk: Permission(_STORE, _PROPOSER),
    LeaseGrant: Permission(_PROPOSER, _STORE),
    ReadRequest: Permission(_GATEWAY, _STORE),
    ReadReply: Permission(_STORE, _GATEWAY),
    ChunkPut: Permission(_GATEWAY, _STORE),
    ChunkStored: Permission(_STORE, _GATEWAY),
    ChunkRefused: Permission(_STORE, _GATEWAY),
    ChunkGet: Permission(_GATEWAY | _STORE, _STORE),
    ChunkData: Permission(_STORE, _GATEWAY | _STORE),
    ChunkMissing: Permission(_STORE, _GATEWAY | _STORE),
    ChunkHold: Permission(_GATEWAY, _STORE),
    ChunkKeep: Permission(_GATEWAY, _STORE),
    SnapshotPull: Permission(_LEARNER | _STORE | _GATEWAY, _LEARNER | _STORE),
    SnapshotPage: Permission(_LEARNER | _STORE, _LEARNER | _STORE | _GATEWAY),
    JoinRequest: Permission(_STORE, _LEARNER),
    Diverged: Permission(_LEARNER, _LEARNER | _STORE),
    LogRead: Permission(_GATEWAY, _LEARNER),
    LogPage: Permission(_LEARNER, _GATEWAY),
    AuditRead: Permission(_GATEWAY | _LEARNER, _LEARNER),
    AuditPage: Permission(_LEARNER, _GATEWAY | _LEARNER),
    ChangeMember: Permission(_GATEWAY, _PROPOSER),
    ChangeAnswer: Permission(_PROPOSER, _GATEWAY),
    # It halts its receiver, as StaleDisk does.
    Superseded: Permission(_LEARNER, _ACCEPTOR, founding_disk=True),
}
"""Every type of message that crosses the broker."""

FOUNDING: frozenset[type[AnyMessage]] = frozenset(
    (Census, Present, ProposeGenesis, HoldsGenesis, Inquiry, Founded)
)
"""The types that nodes send before they know their cluster, and the disks in it."""


@cache
def permitted(
    sender_role: str, receiver_role: str, on_founding_disk: bool
) -> dict[type[AnyMessage], Rule | None]:
    """The types that a sender may send to a receiver of these roles, with their rules."""
    return {
        kind: row.rule if on_founding_disk else row.elsewhere or row.rule
        for kind, row in PERMISSIONS.items()
        if sender_role in row.senders
        and receiver_role in row.receivers
        and (on_founding_disk or not row.founding_disk)
    }

"""Where messages are sent: to one node, or to a group, by their type.

From this and the table of permissions follows to which nodes and groups a role speaks at all. A
broker with a user for each node lets it publish to those and to no others.
"""

from functools import cache

from actors.effects import Group
from actors.messages import (
    Accept,
    Accepted,
    AnyMessage,
    Inquiry,
    JoinRequest,
    LeaderBeat,
    LeaseHeartbeat,
    NodeHeartbeat,
    Prepare,
    PullChosen,
    Truncate,
    TxnDecision,
    TxnPrepare,
)
from actors.messages.permissions import PERMISSIONS

SENT_TO_GROUPS: dict[type[AnyMessage], tuple[str, ...]] = {
    Inquiry: (Group.ACCEPTORS,),
    NodeHeartbeat: (Group.HEARTBEATS,),
    Prepare: (Group.ACCEPTORS,),
    LeaseHeartbeat: (Group.ACCEPTORS,),
    LeaderBeat: (Group.HEARTBEATS,),
    Accept: (Group.PHASE_2,),
    Accepted: (Group.LEARNERS,),
    PullChosen: (Group.ACCEPTORS,),
    Truncate: (Group.ACCEPTORS, Group.LEARNERS),
    TxnPrepare: (Group.STORES,),
    TxnDecision: (Group.STORES,),
    JoinRequest: (Group.LEARNERS,),
}
"""The types that go to groups, and to which."""

SENT_TO_GROUPS_ONLY: frozenset[type[AnyMessage]] = frozenset(
    (Inquiry, NodeHeartbeat, LeaseHeartbeat, LeaderBeat)
)
"""Those of them that never go to a single node."""


@cache
def roles_reached_by(role: str) -> frozenset[str]:
    """The roles to single nodes of which a node of `role` sends messages."""
    return frozenset(
        receiver
        for kind, row in PERMISSIONS.items()
        if role in row.senders and kind not in SENT_TO_GROUPS_ONLY
        for receiver in row.receivers
    )


@cache
def groups_reached_by(role: str) -> frozenset[str]:
    """The groups to which a node of `role` sends messages."""
    return frozenset(
        group
        for kind, groups in SENT_TO_GROUPS.items()
        if role in PERMISSIONS[kind].senders
        for group in groups
    )

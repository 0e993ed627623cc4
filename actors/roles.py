"""The actor class of each role."""

from actors.gateway.gateway import Gateway
from actors.learner.learner import Learner
from actors.node import Node
from actors.options import MEMBER_NUMBER_MAX, Identity, Options, may_be_added
from actors.paxos.acceptor import Acceptor
from actors.paxos.proposer import Proposer
from actors.store.store import Store

_ACTORS: dict[str, type[Node]] = {
    "proposer": Proposer,
    "acceptor": Acceptor,
    "learner": Learner,
    "store": Store,
    "gateway": Gateway,
}


def build_actor(identity: Identity, options: Options) -> Node:
    """The actor for `identity`. A name that the settings do not have may be added to the cluster
    later. Raises `ValueError` if it can't.
    """
    role, name = identity.role, identity.name
    if role != "gateway" and name not in options.names(role) and not may_be_added(name):
        raise ValueError(
            f"{name} is not a member: the settings have {', '.join(options.names(role))}, and what "
            f"is added has a number up to {MEMBER_NUMBER_MAX}"
        )
    return _ACTORS[role](identity, options)

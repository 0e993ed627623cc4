"""The actor class of each role."""

from actors.gateway.gateway import Gateway
from actors.learner.learner import Learner
from actors.node import Node
from actors.options import Identity, Options
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
    """The actor for `identity`. Raises `ValueError` if the options have no such member."""
    role = identity.role
    if role != "gateway" and identity.name not in options.names(role):
        raise ValueError(
            f"{identity.name} is not a member: the settings have {', '.join(options.names(role))}"
        )
    return _ACTORS[role](identity, options)

"""Almost valid messages reach every role: no node fails, hangs, or stops another."""

import json
import time
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from actors.effects import Envelope
from actors.errors import InvariantViolation
from actors.messages import MESSAGES
from actors.messages.permissions import PERMISSIONS, role_in
from chaos.simulator.world import World
from tests.fuzz.hostile import messages
from tests.worlds import founded, put

RECEIVERS = ("proposer-1", "proposer-2", "acceptor-1", "learner-1", "learner-2", "store-1")
MEMBERS = (*RECEIVERS, "acceptor-2", "store-2", "gateway-1")
STRANGERS = ("proposer-9", "acceptor-9", "store-9", "learner-9", "gateway-9", "nobody", "")

SLOWEST_S = 1.0
"""Far more than any turn takes, and far less than one that iterates over all possible slots."""

unhurried = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def read(document: Any) -> Any:
    """The message, or `None` if it is none."""
    try:
        (message,) = MESSAGES.validate_json(json.dumps([document]))
    except ValidationError:
        return None
    return message


def envelope(world: World, sender: str, message: Any) -> Envelope:
    """The message under the name of a member, from its own disk, or of a stranger."""
    machine = world.machines.get(sender)
    disk, start = (
        ("disk-x", 1) if machine is None else (machine.disk.identity, machine.disk.incarnation)
    )
    return Envelope(world.actor("acceptor-1").cluster, sender, disk, start, message)


@unhurried
@given(st.data())
def test_no_message_of_a_member_fails_or_holds_up_a_node(data: st.DataObject) -> None:
    """A node may halt because a message contradicts what it knows: Paxos does not tolerate members
    that lie. It may not fail in any other way, nor be busy for long.
    """
    world = founded()
    world.done(put("a", b"1"))
    for document in data.draw(st.lists(messages(), min_size=1, max_size=20)):
        message = read(document)
        if message is None:
            continue
        permitted = PERMISSIONS[type(message)].senders
        sender = data.draw(st.sampled_from([n for n in MEMBERS if role_in(n) in permitted]))
        for receiver in RECEIVERS:
            machine = world.machines[receiver]
            began = time.process_time()
            try:
                machine.actor.receive(envelope(world, sender, message), machine.now_ms)
                machine.actor.settle(machine.now_ms)
            except InvariantViolation:
                world = founded()
            assert time.process_time() - began < SLOWEST_S, (receiver, sender, document)


@unhurried
@given(st.lists(st.tuples(st.sampled_from(STRANGERS), messages()), min_size=1, max_size=40))
def test_no_messages_of_strangers_change_what_the_cluster_does(sent: list[tuple[str, Any]]) -> None:
    world = founded()
    world.done(put("a", b"1"))
    for sender, document in sent:
        message = read(document)
        if message is not None:
            for machine in world.machines.values():
                machine.arrive((envelope(world, sender, message),))
    world.run(2_000)

    world.done(put("b", b"2"))
    world.settled()
    assert not [name for name, machine in world.machines.items() if machine.actor is None]
    assert world.read("a").reply.status == world.read("b").reply.status == "found"

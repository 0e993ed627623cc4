"""Simulated clusters that tests drive by hand, without a storm."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from actors.calls import ChangeBegun, MemberChange
from actors.effects import Effects, Envelope, Send
from actors.messages import Action
from actors.options import Options
from actors.paxos.membership import Configuration, Key, Membership
from actors.values import Batch, FoundingMember, Inline, PutFile
from chaos.simulator.machine import Machine
from chaos.simulator.network import Conditions
from chaos.simulator.parcels import Envelopes
from chaos.simulator.world import World


def founding_acceptors(count: int) -> tuple[FoundingMember, ...]:
    """acceptor-1 on disk-1, and so on."""
    return tuple(
        FoundingMember(name=f"acceptor-{number}", disk=f"disk-{number}")
        for number in range(1, count + 1)
    )


FIVE_ACCEPTORS = Membership(
    active=(Configuration(version=0, named_slot=0, first_slot=1, acceptors=founding_acceptors(5)),)
)


def voter(number: int, disk: str = "") -> Key:
    """An acceptor, on the disk of `FIVE_ACCEPTORS` unless another one is named."""
    return f"acceptor-{number}", disk or f"disk-{number}"


def put(path: str, data: bytes, **more: Any) -> PutFile:
    """A write of inline contents."""
    digest = hashlib.sha256(data).hexdigest()
    return PutFile(path=path, content=Inline(sha256=digest, data=data), **more)


def founded(seed: int = 1, gateways: int = 1, options: Options | None = None) -> World:
    """A cluster that takes writes, and whose hops take one millisecond."""
    world = World(seed, options, gateways)
    world.network.conditions = Conditions(least_us=1_000, most_us=1_000)
    world.start()
    for number in range(1, gateways + 1):
        world.ready(f"gateway-{number}")
    return world


@contextmanager
def intercepted(world: World, passes: Callable[[str, str, Any], bool]) -> Iterator[None]:
    """Within the block only messages are published for which `passes(sender, to, message)`."""
    network = world.network

    def publish(sender: str, to: str, parcel: Envelopes) -> None:
        rest = tuple(envelope for envelope in parcel if passes(sender, to, envelope.message))
        if rest:
            type(network).publish(network, sender, to, rest)

    with patch.object(network, "publish", publish):
        yield


def started() -> World:
    """A cluster with one file, which is in all journals; hops take their usual time."""
    world = World(3)
    world.start()
    world.ready()
    world.done(put("before", b"1"))
    world.settled()
    world.run(1_000)  # Until the journals have what is applied, too.
    return world


def asked_to(world: World, action: Action, name: str) -> Any:
    """The leader's answer to a request to change a member."""
    return world.answer(
        world.call(lambda token: MemberChange(token=token, action=action, name=name))
    )


def begun_to(world: World, action: Action, name: str) -> ChangeBegun:
    """Ask until the leader begins, as the command does."""
    answer = asked_to(world, action, name)
    for _ in range(40):
        if isinstance(answer, ChangeBegun):
            break
        world.run(500)
        answer = asked_to(world, action, name)
    assert isinstance(answer, ChangeBegun), answer
    return answer


def leader_of(world: World) -> Machine:
    """The one proposer that leads."""
    (leader,) = [m for m in world.up("proposer") if m.actor.holds_lease]
    return leader


def hand(world: World, receiver: str, sender: str, message: Any, late_ms: int = 0) -> Effects:
    """What `receiver` does with a message; the world does not carry its effects out."""
    machine, other = world.machines[receiver], world.machines[sender]
    envelope = Envelope(
        machine.actor.cluster, sender, other.disk.identity, other.disk.incarnation, message
    )
    effects: Effects = machine.actor.receive(envelope, machine.now_ms + late_ms)
    return effects


def sent(effects: Effects) -> list[Any]:
    """The messages that leave."""
    return [send.message for send in effects.sends if isinstance(send, Send)]


def types(effects: Effects) -> list[str]:
    """The types of the messages that leave."""
    return [message.type for message in sent(effects)]


def batch(elapsed_ms: int) -> Batch:
    """A batch without commands, unlike those of other moments."""
    return Batch(elapsed_ms=elapsed_ms, commands=())


def swept(store: Any, at_ms: int) -> set[str]:
    """The chunks that `store` holds at `at_ms` of its clock, after all its sweeps until then."""
    while store.now < at_ms:
        store.turn.now = min(at_ms, store.now + 30_000)
        store.contents.sweep()
    held: set[str] = store.chunks.held
    return held

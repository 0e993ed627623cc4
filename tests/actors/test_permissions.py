"""The table of who may send what, walked: every type, from every role, to every role."""

import pickle
from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from actors.calls import Call
from actors.disk_events import Notice
from actors.effects import NOTHING, Envelope
from actors.messages import (
    MESSAGES,
    Accept,
    Founded,
    Inquiry,
    NodeHeartbeat,
    ProposeGenesis,
    ProposeValue,
    StaleDisk,
    Submit,
    TxnInquiry,
)
from actors.messages import Message as AnyOfThem
from actors.messages.permissions import FOUNDING, PERMISSIONS, UNKNOWN, role_in
from actors.options import ROLES
from actors.paxos.ballot import Ballot
from actors.roles import _ACTORS
from actors.values import CloseSession, FoundingMember, View
from chaos.simulator.world import World
from tests.broker.samples import GENESIS, SAMPLES
from tests.worlds import founded, put

MEMBERS = ("proposer-1", "acceptor-1", "learner-1", "store-1", "gateway-1")
RECEIVERS = ("proposer-2", "acceptor-2", "learner-2", "store-2", "gateway-2")
NO_MEMBERS = (
    "acceptor-65",
    "learner-77",
    "store-04",
    "gateway-0",
    "gateway-01",
    "gateway-x",
    "gateway-\u0661",
    "gateway-" + "9" * 5_000,
    "Gateway-1",
    "stranger",
    "@acceptors",
    "",
)
DROPS = ("dropped_not_permitted", "dropped_unknown_sender", "dropped_from_itself")


@pytest.fixture(scope="module")
def world() -> World:
    cluster = founded(21, gateways=2)
    cluster.done(put("a", b"1"))
    cluster.settled()
    cluster.run(5_000)
    return cluster


def types() -> list[type[Any]]:
    """Every type that crosses the broker, as the codec knows them."""
    union, _ = get_args(AnyOfThem)
    return list(get_args(union))


def suited(world: World, sample: Any, sender: str, receiver: str) -> Any:
    """The sample as the right node of the sender's role would send it."""
    who = world.machines[sender].disk
    message = sample
    if hasattr(message, "ballot"):
        owner = receiver if isinstance(message, Submit) else sender
        message = message.model_copy(update={"ballot": Ballot(7, owner)})
    if isinstance(message, Submit):
        own = {"session": f"{sender}.s", "reply_to": sender}
        message = message.model_copy(update={"command": message.command.model_copy(update=own)})
    if isinstance(message, NodeHeartbeat):
        message = message.model_copy(update={"role": role_in(sender), "view": None})
    if isinstance(message, TxnInquiry):
        message = message.model_copy(update={"view": view_of(world, sender)})
    if isinstance(message, ProposeGenesis | Founded):
        members = (FoundingMember(name=sender, disk=who.identity),)
        message = message.model_copy(
            update={"genesis": GENESIS.model_copy(update={"members": members})}
        )
    return message


def view_of(world: World, sender: str) -> View:
    """The view with that incarnation of that learner as coordinator."""
    disk = world.machines[sender].disk
    view: View = world.actor("store-1").state.view
    return view.model_copy(
        update={
            "coordinator": sender,
            "coordinator_disk": disk.identity,
            "coordinator_incarnation": disk.incarnation,
        }
    )


def enveloped(world: World, sender: str, message: Any) -> Envelope:
    """An envelope under `sender`'s name; of a member with its own disk and incarnation."""
    machine = world.machines.get(sender)
    disk = (machine.disk.identity, machine.disk.incarnation) if machine else ("disk-x", 1)
    return Envelope(world.actor("acceptor-1").cluster, sender, *disk, message)


def memory_of(actor: Any) -> bytes:
    """All that an actor knows, except its counters and the parts of the table that it has looked
    up.
    """
    turn = actor.turn
    kept = turn.counters, actor.counters, actor._routes
    turn.counters = actor.counters = Counter()
    actor._routes = {}
    memory = pickle.dumps(actor)
    turn.counters, actor.counters, actor._routes = kept
    return memory


def is_admitted(actor: Any, envelope: Envelope) -> bool:
    """Whether a handler would receive the message; none does."""
    if envelope.message.__class__ in FOUNDING:
        return bool(actor._may_found(envelope))
    return actor._admit(envelope) is not None


def walk() -> Iterator[tuple[Any, str, str]]:
    """Every sample, from a node of every role, to another one of every role."""
    for sample in SAMPLES:
        for sender in MEMBERS:
            for receiver in RECEIVERS:
                yield sample, sender, receiver


def test_every_type_that_crosses_the_broker_has_a_row_and_no_other_has() -> None:
    assert set(PERMISSIONS) == set(types())
    assert {type(sample) for sample in SAMPLES} == set(types())
    assert MESSAGES.validate_python(SAMPLES) == SAMPLES


def test_a_role_has_handlers_for_exactly_the_messages_it_may_receive() -> None:
    common = {NodeHeartbeat, StaleDisk}
    for role, actor in _ACTORS.items():
        may_receive = {
            kind
            for kind, row in PERMISSIONS.items()
            if role in row.receivers and kind not in FOUNDING
        }
        assert may_receive - common == set(actor.handlers), role
        assert PERMISSIONS.keys() >= FOUNDING


def test_messages_that_the_table_permits_are_admitted(world: World) -> None:
    opened = 0
    for sample, sender, receiver in walk():
        row = PERMISSIONS[type(sample)]
        if role_in(sender) in row.senders and role_in(receiver) in row.receivers:
            envelope = enveloped(world, sender, suited(world, sample, sender, receiver))
            assert is_admitted(world.actor(receiver), envelope), (sender, receiver, sample)
            opened += 1
    assert opened == sum(
        len(row.senders & set(ROLES)) * len(row.receivers) for row in PERMISSIONS.values()
    )


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_messages_that_the_table_forbids_are_counted_and_change_nothing(
    world: World, receiver: str
) -> None:
    """Given messages of all types, when they come from senders that no row names, then nothing
    happens.
    """
    actor, now = world.actor(receiver), world.machines[receiver].now_ms
    # From here on the receiver counts as awake.
    actor.receive(enveloped(world, "stranger", SAMPLES[-1]), now)
    before = memory_of(actor)
    forbidden = 0
    for sample in SAMPLES:
        row = PERMISSIONS[type(sample)]
        for sender in (*MEMBERS, *NO_MEMBERS, receiver):
            role = role_in(sender)
            is_known = sender in world.machines
            if role not in ROLES or not is_known:
                role = UNKNOWN if role else ""
            if role in row.senders and role_in(receiver) in row.receivers and sender != receiver:
                continue
            message = suited(world, sample, sender, receiver) if is_known else sample
            counted = sum(actor.counters[drop] for drop in DROPS)

            effects = actor.receive(enveloped(world, sender, message), now)

            assert effects == NOTHING, (sender, message)
            assert sum(actor.counters[drop] for drop in DROPS) == counted + 1, (sender, message)
            forbidden += 1
    assert memory_of(actor) == before
    assert forbidden > 10 * len(SAMPLES)


@pytest.mark.parametrize("name", ["acceptor-9", "acceptor-65"])
def test_a_node_that_is_no_member_may_ask_which_cluster_this_is(world: World, name: str) -> None:
    """Given an acceptor that the genesis does not name, then it gets an answer: it may be added, or
    its number is too high, and the answer makes it halt.
    """
    now = world.machines["acceptor-2"].now_ms
    question = enveloped(world, name, Inquiry(cluster=""))

    effects = world.actor("acceptor-2").receive(question, now)

    assert [(send.to, type(send.message)) for send in effects.sends] == [(name, Founded)]


# -- a particular node, not any of its role -------------------------------------------------------


def wrong_ones(world: World) -> Iterator[tuple[str, str, Any]]:
    """A message from the right role to the right role, but of the wrong node."""
    for sample in SAMPLES:
        message: Any = sample
        if type(message).__name__ in (
            "Prepare",
            "Accept",
            "LeaseHeartbeat",
            "LeaderBeat",
            "Redirect",
        ):
            receiver = next(
                r for r in RECEIVERS if role_in(r) in PERMISSIONS[type(sample)].receivers
            )
            yield (
                "proposer-1",
                receiver,
                message.model_copy(update={"ballot": Ballot(9, "proposer-3")}),
            )
    (submit,) = (sample for sample in SAMPLES if isinstance(sample, Submit))
    right = suited(world, submit, "gateway-1", "proposer-2")
    for wrong in (
        {"reply_to": "gateway-2"},
        {"reply_to": "@heartbeats"},
        {"session": "gateway-2.s"},
        {"operation": CLOSES_ANOTHERS},
    ):
        command = right.command.model_copy(update=wrong)
        yield "gateway-1", "proposer-2", right.model_copy(update={"command": command})
    anothers = right.model_copy(update={"ballot": Ballot(9, "proposer-3")})
    yield "gateway-1", "proposer-2", anothers
    (accept,) = (sample for sample in SAMPLES if isinstance(sample, Accept))
    for learner in ("gateway-1", "@heartbeats", "learner-01"):
        own = {"ballot": Ballot(9, "proposer-1"), "learner": learner}
        yield "proposer-1", "acceptor-2", accept.model_copy(update=own)
    of_another = view_of(world, "learner-2")
    former = view_of(world, "learner-1").model_copy(update={"coordinator_incarnation": 0})
    for view in (of_another, former):
        yield "learner-1", "store-2", TxnInquiry(view=view, decided=1)
        yield "learner-1", "proposer-2", ProposeValue(value=view)
    misled = view_of(world, "learner-1")
    misled = misled.model_copy(
        update={"stores": (misled.stores[0].model_copy(update={"name": "gateway-1"}),)}
    )
    yield "learner-1", "proposer-2", ProposeValue(value=misled)
    for role, more in (
        ("learner", {}),
        ("acceptor", {}),
        ("proposer", {"ballot": Ballot(9, "proposer-3")}),
        ("proposer", {"view": view_of(world, "learner-1")}),
    ):
        sender = "proposer-1" if more else "store-1"
        yield sender, "learner-2", NodeHeartbeat(role=role, journal_commits=10**6, **more)
    for name in ("acceptor-3",):
        for sample in SAMPLES:
            if type(sample).__name__ in ("Census", "ProposeGenesis"):
                yield name, "acceptor-2", suited(world, sample, name, "acceptor-2")
    yield "acceptor-1", "acceptor-2", Founded(genesis=GENESIS)


CLOSES_ANOTHERS = CloseSession(target="gateway-2.s")


def test_no_node_may_send_under_anothers_name(world: World) -> None:
    """Given a ballot, a View, a session or a role of another node, then the message is dropped."""
    tried = 0
    for sender, receiver, message in wrong_ones(world):
        actor = world.actor(receiver)
        counted = actor.counters["dropped_not_permitted"]
        effects = actor.receive(enveloped(world, sender, message), world.machines[receiver].now_ms)
        assert effects == NOTHING, (sender, receiver, message)
        assert actor.counters["dropped_not_permitted"] == counted + 1, (sender, receiver, message)
        tried += 1
    assert tried == 5 + 5 + 3 + 4 + 1 + 4 + 2 + 1


# -- what never crosses the broker ----------------------------------------------------------------


def test_calls_and_notices_are_no_messages() -> None:
    """A node accepts those from its own runtime only, which is the only one that can make them."""
    local = [*Call.__subclasses__(), *Notice.__subclasses__()]
    assert len(local) > 10
    kinds = {kind.model_fields["type"].default for kind in types()}
    assert not kinds & {kind.model_fields["type"].default for kind in local}
    for kind in local:
        assert not issubclass(kind, tuple(types()))

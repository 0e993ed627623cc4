"""Stories of forged, mistaken and invented senders, whose messages must have no effect."""

from typing import Any

import pytest

from actors.effects import Envelope
from actors.messages import (
    AcceptedRange,
    Chosen,
    Founded,
    LeaseGranted,
    NodeHeartbeat,
    Prepare,
    Promise,
    StaleDisk,
    Submit,
)
from actors.paxos.ballot import Ballot
from actors.paxos.phases import Electing
from actors.values import AcceptedValue, Batch, Command, DeleteFile, FoundingMember, SlotValue
from chaos.simulator.disk import Disk
from chaos.simulator.world import World
from tests.worlds import founded, hand, leader_of, put, sent, types


def said(world: World, sender: str, message: Any, disk: str = "disk-x", start: int = 1) -> Envelope:
    """A message under any name, from any disk."""
    return Envelope(world.actor("acceptor-1").cluster, sender, disk, start, message)


def tell(world: World, receiver: str, envelope: Envelope) -> None:
    """The message comes, and the receiver's effects are carried out."""
    world.machines[receiver].arrive((envelope,))


def deletion(world: World, path: str) -> tuple[int, Batch]:
    """The next slot of the log, and a batch that deletes a file there."""
    command = Command(
        session=world.actor("gateway-1").session,
        sequence=999,
        acknowledged=-1,
        reply_to="gateway-1",
        operation=DeleteFile(path=path),
    )
    return world.actor("learner-1").chosen_through + 1, Batch(commands=(command,))


def with_a_file(seed: int = 31) -> World:
    world = founded(seed)
    world.done(put("a", b"1"))
    world.settled()
    return world


# -- votes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["gateway", "acceptor"])
def test_votes_of_nodes_outside_the_genesis_make_no_quorum(role: str) -> None:
    """Given three invented nodes that claim to have accepted a deletion, then it is not chosen."""
    world = with_a_file()
    slot, batch = deletion(world, "a")
    vote = AcceptedValue(slot=slot, ballot=Ballot(99, "proposer-1"), value=batch)
    for number in (7, 8, 9):
        answer = AcceptedRange(entries=(vote,), truncated_below=1)
        tell(world, "learner-1", said(world, f"{role}-{number}", answer))
    world.run(3_000)

    assert world.actor("learner-1").chosen_through == slot - 1
    assert world.read("a").reply.status == "found"


@pytest.mark.parametrize(
    "sender", ["gateway-1", "store-1", "acceptor-1", "proposer-1", "learner-65"]
)
def test_a_report_of_a_chosen_value_counts_only_from_a_learner(sender: str) -> None:
    """Given a deletion that a node of another role reports as chosen, then the file stays."""
    world = with_a_file()
    slot, batch = deletion(world, "a")
    disk = world.machines[sender].disk if sender in world.machines else Disk("disk-x")
    forged = Chosen(entries=(SlotValue(slot=slot, value=batch),))
    tell(world, "learner-1", said(world, sender, forged, disk.identity, disk.incarnation))
    world.run(3_000)

    assert world.actor("learner-1").chosen_through == slot - 1
    assert world.read("a").reply.status == "found"


def test_promises_of_stores_elect_no_leader() -> None:
    world = with_a_file()
    name = next(m.name for m in world.up("proposer") if m is not leader_of(world))
    candidate = world.actor(name)
    candidate._campaign()
    promise = Promise(
        ballot=candidate.phase.ballot,
        first_slot=candidate.phase.promises.first_slot,
        next_slot=None,
        accepted=(),
        truncated_below=1,
    )
    for store in world.options.names("store"):
        hand(world, name, store, promise)

    assert isinstance(candidate.phase, Electing)
    assert candidate.phase.promises.by_acceptor == {}


def test_leases_granted_by_learners_and_stores_do_not_count() -> None:
    """Given a leader that no acceptor answers any more, then answers of other roles don't keep it
    leading.
    """
    world = with_a_file()
    leader = leader_of(world)
    others = (*world.options.names("store"), *world.options.names("learner"))
    acceptors = world.options.names("acceptor")
    world.network.cut |= {(acceptor, leader.name) for acceptor in acceptors}
    for _ in range(20):
        world.run(100)
        if not hasattr(leader.actor.phase, "heartbeat_number"):
            break
        number = leader.actor.phase.heartbeat_number
        granted = LeaseGranted(ballot=leader.actor.phase.ballot, number=number)
        for other in others:
            hand(world, leader.name, other, granted)

    assert not leader.actor.holds_lease
    assert leader.actor.counters["stepped_down"] == 1


def test_a_ballot_is_used_by_its_owner_alone() -> None:
    """Given a proposer that asks for promises under another's ballot, then no acceptor answers."""
    world = with_a_file()
    acceptor = world.actor("acceptor-3")
    before = acceptor.promised
    theirs = Prepare(ballot=Ballot(before.round + 1, "proposer-5"), first_slot=1)
    world.run(3_000)
    leader_of(world).actor._step_down("a test")
    world.crash(*world.options.names("proposer")[:3])
    world.run(2 * world.options.lease_ms)

    assert types(hand(world, "acceptor-3", "proposer-4", theirs)) == []
    assert acceptor.promised.proposer != "proposer-5"


def test_a_store_that_claims_to_be_a_learner_is_not_believed() -> None:
    """Given a heartbeat of a store that claims to be a learner far ahead, then no leader believes
    it.
    """
    world = with_a_file()
    leader = leader_of(world)
    leader.actor.phase.undecided[10] = 3
    claim = NodeHeartbeat(role="learner", journal_commits=10**6, applied=100, chosen_through=100)

    hand(world, leader.name, "store-1", claim)

    assert leader.actor.phase.undecided == {10: 3}


# -- halting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "disk"),
    [
        ("stranger", "disk-x"),
        ("gateway-1", ""),
        ("gateway-5", "disk-x"),
        ("proposer-1", "disk-x"),
        ("store-2", "disk-x"),
        ("acceptor-2", ""),
        ("learner-9", "disk-x"),
    ],
)
def test_a_notice_from_outside_the_genesis_halts_no_node(sender: str, disk: str) -> None:
    """Given a report that a disk is an older copy, when it comes from a gateway, or from a node
    that receives no heartbeats, or from a disk that the genesis does not name, then its receiver
    goes on.
    """
    world = with_a_file()
    receiver = world.actor("acceptor-3")
    own = receiver.identity
    report = StaleDisk(disk=own.disk, incarnation=own.incarnation + 1, journal_commits=10**6)
    known = world.machines[sender].disk if not disk else Disk(disk)
    start = max(1, known.incarnation)

    effects = receiver.receive(
        said(world, sender, report, known.identity, start), world.machines["acceptor-3"].now_ms
    )

    assert effects.halt is None
    assert hand(world, "acceptor-3", "store-2", report).halt is not None


def test_a_founded_node_ignores_answers_about_another_cluster() -> None:
    """Given answers of another cluster's acceptors to a founding that has long ended."""
    world = with_a_file()
    store = world.actor("store-1")
    own = store.identity
    disks = {f"acceptor-{number}": f"disk-{number}" for number in range(1, 6)}
    members = tuple(FoundingMember(name=name, disk=disk) for name, disk in disks.items())
    theirs = store.genesis.model_copy(update={"cluster": "another", "members": members})
    for name, disk in disks.items():
        answer = Founded(genesis=theirs, asker_disk=own.disk, asker_incarnation=own.incarnation)
        tell(world, "store-1", said(world, name, answer, disk))
    world.run(3_000)

    assert not world.halted
    world.done(put("b", b"2"))


# -- where answers go -----------------------------------------------------------------------------


def test_results_are_sent_to_gateways_only() -> None:
    """Given commands in the log that name arbitrary receivers of their results, when the slot is
    decided, then they are done, and only the gateway receives a result.
    """
    world = with_a_file()
    learner = world.actor("learner-1")
    slot, batch = deletion(world, "a")
    (command,) = batch.commands
    anywhere = ("gateway-1", "learner-2", "@heartbeats", "x" * 300, "")
    commands = tuple(command.model_copy(update={"reply_to": to}) for to in anywhere)
    learner.log.choose(slot, Batch(commands=commands), Ballot(1, "proposer-1"))
    assert learner.log.extend_prefix() == slot
    outcomes = learner.decide(slot, ())
    learner.out.sends.clear()

    learner.send_results(slot, outcomes)

    assert [send.to for send in learner.out.sends] == ["gateway-1"]
    assert learner.counters["results_for_nobody"] == 4


def test_a_gateway_submits_in_its_own_name() -> None:
    """Given a command whose result is to go elsewhere, then no proposer accepts or refuses it."""
    world = with_a_file()
    leader = leader_of(world)
    _, batch = deletion(world, "a")
    for reply_to in ("gateway-2", "learner-1", "@heartbeats"):
        command = batch.commands[0].model_copy(update={"reply_to": reply_to})
        for ballot in (leader.actor.phase.ballot, Ballot(1, leader.name)):
            effects = hand(world, leader.name, "gateway-1", Submit(ballot=ballot, command=command))
            assert sent(effects) == []
    assert not leader.actor.phase.queue


# -- names and disks ------------------------------------------------------------------------------


def test_a_gateways_name_is_bound_to_one_disk_while_that_lives() -> None:
    """Given a gateway and another process under its name, then messages of the other are dropped
    until the first has been silent for three heartbeats; after that, the first one's are.
    """
    world = with_a_file()
    store = world.actor("store-1")
    beat = NodeHeartbeat(role="gateway", journal_commits=1)
    twin = said(world, "gateway-1", beat, "disk-twin")
    world.run(3_000)

    def is_admitted(envelope: Envelope) -> bool:
        dropped = store.counters["dropped_foreign_disk"]
        store.receive(envelope, world.machines["store-1"].now_ms)
        return bool(store.counters["dropped_foreign_disk"] == dropped)

    assert not is_admitted(twin)
    former = world.machines["gateway-1"].disk
    world.crash("gateway-1")
    world.run(2 * world.options.heartbeat_ms)
    assert not is_admitted(twin)
    world.run(2 * world.options.heartbeat_ms)
    assert is_admitted(twin)
    late = beat.model_copy(update={"journal_commits": 10**6})
    assert not is_admitted(said(world, "gateway-1", late, former.identity, former.incarnation))


def test_a_gateway_that_lost_its_disk_is_back_within_seconds() -> None:
    world = with_a_file()
    world.run(3_000)
    world.crash("gateway-1")
    world.machines["gateway-1"].disk = Disk("disk-empty")

    world.start("gateway-1")
    world.ready(within_ms=5 * world.options.heartbeat_ms)

    world.done(put("b", b"2"))


@pytest.mark.parametrize(
    "receiver", ["proposer-2", "acceptor-2", "learner-1", "store-1", "gateway-1"]
)
def test_invented_names_and_disks_fill_no_node(receiver: str) -> None:
    """Given heartbeats of thousands of gateways, and of one store on thousands of disks, and again
    when the first of them have long been silent, then a node's data on them is bounded, and the
    live gateway keeps its place.
    """
    world = with_a_file()
    world.run(5_000)
    actor = world.actor(receiver)

    def kept() -> int:
        tables = [*tables_of(actor), *tables_of(actor._peers), *actor._peers._disks.values()]
        for part in ("failure_detector", "replicas"):
            tables += tables_of(getattr(actor, part)) if hasattr(actor, part) else []
        return sum(map(len, tables))

    before = kept()
    known = actor._peers._gateways.get("gateway-1")
    for first in (2, 10_000):
        now = world.machines[receiver].now_ms
        for number in range(first, first + 3_000):
            gateway = NodeHeartbeat(role="gateway", journal_commits=number)
            store = NodeHeartbeat(role="store", journal_commits=number, durable=number)
            for name in (f"gateway-{number}", f"gateway-{'9' * 40}{number}", f"stranger-{number}"):
                actor.receive(said(world, name, gateway, f"disk-{number}"), now)
            actor.receive(said(world, "store-2", store, f"disk-{number}"), now)
        assert kept() - before < 256 * 8
        assert actor._peers._gateways.get("gateway-1") is known
        world.run(10_000)

    world.done(put("b", b"2"))
    world.settled()
    assert not world.halted


def tables_of(part: Any) -> list[Any]:
    names = getattr(type(part), "__slots__", ()) or vars(part)
    values = [getattr(part, name) for name in names]
    return [value for value in values if isinstance(value, dict | set | list)]


# -- and everything that is right -----------------------------------------------------------------


def test_a_cluster_in_trouble_drops_no_message_of_its_nodes() -> None:
    """Given an election, a takeover, a lost disk and a restart of everything, then the table has
    dropped no message.
    """
    world = with_a_file()
    world.crash(leader_of(world).name)
    world.done(put("b", b"2" * 100_000), retry=True)
    world.crash("learner-1", "store-2")
    world.machines["store-2"].disk = Disk("disk-empty")
    world.done(put("b", b"3"), retry=True)
    world.start()
    world.run(10_000)
    counted = [dropped_of(world)]
    world.crash(*world.names)
    world.start()
    world.ready()
    world.done(put("c", b"4"), retry=True)
    world.settled()
    counted.append(dropped_of(world))

    assert counted == [{}, {}]
    assert {m.name for m in world.up("store")} == set(world.options.names("store"))


def dropped_of(world: World) -> dict[str, int]:
    names = ("dropped_not_permitted", "dropped_unknown_sender", "dropped_foreign_disk")
    found = {name: sum(m.actor.counters[name] for m in world.machines.values()) for name in names}
    return {name: count for name, count in found.items() if count}

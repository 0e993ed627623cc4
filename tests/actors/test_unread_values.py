"""What looks like a batch and is none: acceptors vote for it, and to its readers it is a no-op.

No correct proposer proposes it. If one does, no acceptor may fail to start, no candidate may fail
to lead, and no learner may wait for ever (docs/decisions/0033-votes-for-bytes.md).
"""

import json
from typing import Any

import pytest

from actors.effects import Envelope, Record
from actors.errors import InvariantViolation, JournalUnreadable
from actors.messages import Accept, PullChosen
from actors.paxos.acceptor import Acceptor
from actors.paxos.ballot import Ballot
from actors.paxos.phases import Leading
from actors.paxos.votes import accepted_of
from actors.unread import HEAD, UnreadBatch
from actors.values import NOOP, AcceptedValue, Batch
from chaos.simulator.world import World
from tests.worlds import founded, hand, intercepted, leader_of, put, sent

GARBAGE = UnreadBatch(text=b'{"kind":"batch","elapsed_ms":1,"garbage":[1,{"more":"\\"}]}"}]}')
ACCEPTORS = [f"acceptor-{number}" for number in range(1, 6)]
NEW = Ballot(50, "proposer-5")


def propose_garbage(world: World) -> int:
    """The leader proposes it in its next slot, as a correct one never does."""
    phase = leader_of(world).actor.phase
    assert isinstance(phase, Leading)
    phase.waiting_values.append(GARBAGE)  # type: ignore[arg-type]
    slot = phase.next_slot
    world.run_until(lambda: phase.next_slot > slot, 5_000, 1, "the proposal")
    return slot


def votes(world: World, slot: int) -> dict[str, Any]:
    """What the acceptors hold for a slot."""
    held = {machine.name: machine.actor.accepted.get(slot) for machine in world.up("acceptor")}
    return {name: accepted.value for name, accepted in held.items() if accepted is not None}


def learned(world: World, slot: int) -> list[Any]:
    """What all learners take as the value of a slot."""
    return [learner.actor.log[slot].value for learner in world.up("learner")]


def restored(world: World, name: str) -> Acceptor | str:
    """An acceptor that starts with what is on the disk of that one, or why it can't."""
    machine = world.machines[name]
    acceptor = Acceptor(machine.actor.identity, machine.actor.options)
    records = [Record(key, value) for key, value in machine.disk.records.items()]
    try:
        acceptor.restore(records, machine.now_ms)
    except JournalUnreadable as error:
        return str(error)
    return acceptor


def test_an_acceptor_starts_again_with_a_vote_that_it_cannot_read() -> None:
    world = founded()
    slot = propose_garbage(world)
    world.done(put("after", b"1"))
    row = world.machines["acceptor-1"].disk.records[f"accepted/{slot:016x}"]
    assert row.endswith(b'"value":' + GARBAGE.text + b"}")

    again = restored(world, "acceptor-1")
    assert isinstance(again, Acceptor), again
    assert again.accepted == world.actor("acceptor-1").accepted
    assert again.accepted[slot].value == GARBAGE
    assert again._remake_row(f"accepted/{slot:016x}").to_json() == row  # type: ignore[union-attr]


def test_a_row_is_read_whichever_disk_its_ballot_names() -> None:
    vote = AcceptedValue(slot=7, ballot=Ballot(3, "proposer-2/0b5e"), value=GARBAGE)
    assert accepted_of(Record("accepted/7", vote.to_json())) == vote


def test_garbage_that_is_chosen_is_a_no_op_to_all_and_writes_go_on() -> None:
    world = founded()
    slot = propose_garbage(world)
    world.done(put("after", b"1"))
    world.settled()

    assert votes(world, slot) == dict.fromkeys(ACCEPTORS, GARBAGE)
    assert learned(world, slot) == [NOOP, NOOP]
    hashes = {node.actor.state.state_hash for node in world.up("learner", "store")}
    assert len(hashes) == 1


def vote_for_garbage(world: World, *acceptors: str) -> tuple[int, Ballot]:
    """Only these acceptors receive the leader's garbage, no learner does, and the leader dies."""
    leader = leader_of(world)
    machine, ballot = world.machines[leader.name], leader.actor.phase.ballot
    with intercepted(world, lambda sender, to, message: not isinstance(message, Accept)):
        slot = propose_garbage(world)
        world.run(50)
    accept = Accept(ballot=ballot, slot=slot, value=GARBAGE)
    disk = machine.disk
    envelope = Envelope(leader.actor.cluster, leader.name, disk.identity, disk.incarnation, accept)
    for name in acceptors:
        world.network.publish(leader.name, name, (envelope,))
    world.run_until(lambda: len(votes(world, slot)) == len(acceptors), 100, 1, "the votes")
    world.crash(leader.name)
    return slot, ballot


def test_a_new_leader_proposes_garbage_as_it_came() -> None:
    """Given garbage that one acceptor of five has, when the leader dies and two other acceptors are
    away, then the next leader can't tell whether it was chosen, and proposes the same bytes.
    """
    world = founded()
    slot, ballot = vote_for_garbage(world, "acceptor-1")
    world.crash("acceptor-4", "acceptor-5")
    world.done(put("after", b"1"))
    assert votes(world, slot) == dict.fromkeys(ACCEPTORS[:3], GARBAGE)
    assert all(world.actor(name).accepted[slot].ballot > ballot for name in ACCEPTORS[:3])

    world.start()
    world.settled()
    assert learned(world, slot) == [NOOP, NOOP]


def test_learners_pull_garbage_as_a_no_op() -> None:
    """Given garbage that was chosen while no learner received it, when the leader has died, then
    the next one leaves it alone, and learners pull it from the acceptors.
    """
    world = founded()
    slot, ballot = vote_for_garbage(world, *ACCEPTORS)
    world.done(put("after", b"1"))
    world.settled()
    assert {world.actor(name).accepted[slot].ballot for name in ACCEPTORS} == {ballot}
    assert learned(world, slot) == [NOOP, NOOP]
    (page,) = sent(
        hand(world, "acceptor-1", "learner-1", PullChosen(first_slot=slot, last_slot=slot))
    )
    assert [entry.value for entry in page.entries] == [GARBAGE]


def test_a_batch_is_one_value_however_its_json_is_written() -> None:
    """Given a batch that was accepted, when it comes again under its ballot with other white space,
    then that is no second value; another batch is one, and so is garbage.
    """
    world = founded()
    batch = Batch(elapsed_ms=7, commands=())
    spaced = json.dumps(json.loads(batch.to_json())).replace('{"kind": "batch", ', HEAD.decode())
    texts = (batch, batch, UnreadBatch(text=spaced.encode()))
    late_ms = 10 * world.options.lease_ms
    for value in texts:
        accept = Accept(ballot=NEW, slot=900, value=value)
        (vote,) = sent(hand(world, "acceptor-1", "proposer-5", accept, late_ms))
        assert vote.type == "paxos.accepted"
    for other in (Batch(elapsed_ms=8, commands=()), GARBAGE, NOOP):
        accept = Accept(ballot=NEW, slot=900, value=other)
        with pytest.raises(InvariantViolation, match="two values for slot 900"):
            hand(world, "acceptor-1", "proposer-5", accept, late_ms)


def test_garbage_of_one_ballot_is_not_another_garbage() -> None:
    world = founded()
    late_ms = 10 * world.options.lease_ms
    accept = Accept(ballot=NEW, slot=900, value=GARBAGE)
    for _ in range(2):
        assert hand(world, "acceptor-1", "proposer-5", accept, late_ms).sends
    other = accept.model_copy(update={"value": UnreadBatch(text=b'{"kind":"batch","more":2}')})
    with pytest.raises(InvariantViolation, match="two values for slot 900"):
        hand(world, "acceptor-1", "proposer-5", other, late_ms)


def test_an_acceptor_keeps_of_a_batch_its_text_alone() -> None:
    world = founded()
    batch = Batch(elapsed_ms=7, commands=())
    accept = Accept(ballot=NEW, slot=900, value=batch)
    hand(world, "acceptor-1", "proposer-5", accept, 10 * world.options.lease_ms)
    accepted = AcceptedValue(slot=900, ballot=NEW, value=UnreadBatch(text=batch.to_json()))
    assert world.actor("acceptor-1").accepted[900] == accepted

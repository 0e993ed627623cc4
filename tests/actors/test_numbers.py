"""No message carries a number or a name that breaks the node that reads it or passes it on."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from actors.errors import InvariantViolation
from actors.messages import (
    MESSAGES,
    Accept,
    Accepted,
    AcceptedRange,
    LeaderBeat,
    LearnerProgress,
    Prepare,
    ProposeValue,
    PullChosen,
    Result,
    Truncate,
)
from actors.numbers import COUNT_MAX, GAP_SLOTS_MAX
from actors.paxos.ballot import Ballot
from actors.paxos.phase_one import AcceptorPromise, Promises
from actors.paxos.phases import Electing, Following
from actors.paxos.votes import reported
from actors.state.namespace import Namespace
from actors.values import (
    ALWAYS,
    Abort,
    AcceptedValue,
    AnyOperation,
    Batch,
    Check,
    Command,
    Constants,
    CopyEntry,
    DeleteFile,
    MakeDirectory,
    MoveEntry,
    OpenSession,
    Outcome,
    RemoveDirectory,
    Transaction,
)
from broker.codec import encode
from broker.transport import Parcel
from chaos.simulator.world import World
from tests.worlds import batch, founded, hand, leader_of, put, sent

CHECKED_AT_THE_DOOR = {"modified_ms"}
"""Numbers that are only shown, never computed with: values stored before the check stay readable.
"""


def unbounded(node: Any, name: str = "") -> set[str]:
    """The names of the whole numbers in a JSON schema that have no limit."""
    found: set[str] = set()
    if isinstance(node, dict):
        if node.get("type") == "integer" and not {"maximum", "const"} & node.keys():
            found.add(name)
        for key, value in node.items():
            structural = key in ("properties", "$defs", "anyOf", "items", "prefixItems")
            found |= unbounded(value, name if structural else key)
    elif isinstance(node, list):
        for value in node:
            found |= unbounded(value, name)
    return found


def test_every_whole_number_of_every_message_has_a_limit() -> None:
    assert unbounded(MESSAGES.json_schema()) == CHECKED_AT_THE_DOOR
    assert unbounded({"properties": {"x": {"type": "integer"}}}) == {"x"}


@pytest.mark.parametrize("number", [-1, COUNT_MAX + 1, 10**19, 10**30])
def test_a_slot_out_of_bounds_is_no_message(number: int) -> None:
    message = {"type": "paxos.accepted", "ballot": [1, "proposer-1"], "slot": number}

    with pytest.raises(ValidationError):
        MESSAGES.validate_json(json.dumps([message]))


def test_the_greatest_numbers_can_be_encoded() -> None:
    """Given the greatest slot and ballot that are read, then they fit into headers and keys."""
    ballot = Ballot(COUNT_MAX, "proposer-1")
    accepted = Accepted(ballot=ballot, slot=COUNT_MAX)

    (encoded,) = encode(Parcel("c", "acceptor-1", "d", 1, (accepted,)))

    assert encoded.properties.headers["slot"] == COUNT_MAX
    assert len(f"{COUNT_MAX:016x}") == 16


def test_a_long_name_of_a_request_fits_into_its_property() -> None:
    """Given a request's id of many bytes, then the message with it can be sent."""
    outcome = Outcome(status="done", slot=1, index=0)
    result = Result(session="é" * 128, sequence=1, outcome=outcome)

    (encoded,) = encode(Parcel("c", "learner-1", "d", 1, (result,)))

    assert len(encoded.properties.correlation_id.encode()) <= 255


@pytest.mark.parametrize(
    "fields", [{"session": "s" * 129}, {"reply_to": "g" * 65}, {"acknowledged": -2}]
)
def test_a_command_with_an_absurd_name_is_refused(fields: dict[str, Any]) -> None:
    good = Command(
        session="s", sequence=1, acknowledged=0, reply_to="gateway-1", operation=OpenSession()
    ).model_dump()

    with pytest.raises(ValidationError):
        Command.model_validate({**good, **fields})


@pytest.mark.parametrize(
    "path", ["/x", "a//b", "a/", "/", ".", "a/../b", "a/.", "x" * 4097, "/".join(["x"] * 2500)]
)
def test_a_command_for_an_invalid_path_is_never_sent_to_a_leader(path: str) -> None:
    """Given any operation on a path that the tree can't hold, then its message is invalid, also
    deep in a transaction; the same operation on a valid name is accepted.
    """

    def operations(path: str) -> list[AnyOperation]:
        steps = (
            put(path, b"1"),
            DeleteFile(path=path),
            MakeDirectory(path=path),
            RemoveDirectory(path=path),
            MoveEntry(source=path, target="b"),
            CopyEntry(source="b", target=path),
            Check(path=path, when=ALWAYS),
        )
        whole = [Transaction(steps=(MakeDirectory(path="b"), step)) for step in steps]
        return [*(step for step in steps if not isinstance(step, Check)), *whole]

    def message(operation: AnyOperation) -> bytes:
        about = {"session": "s", "sequence": 1, "acknowledged": 0, "reply_to": "gateway-1"}
        command = {**about, "operation": operation.model_dump(mode="json")}
        submit = {"type": "client.submit", "ballot": [1, "proposer-1"], "command": command}
        return json.dumps([submit]).encode()

    for operation in operations(path):
        with pytest.raises(ValidationError, match="is no path"):
            MESSAGES.validate_json(message(operation))
    for operation in operations("a/é ..b"):
        assert MESSAGES.validate_json(message(operation))


def test_a_directory_is_listed_whatever_paths_an_earlier_version_took() -> None:
    """Given a file at a path with a leading slash, which no parent holds, then the others are
    listed, and it can be read and removed.
    """
    state = Namespace(Constants())
    steps: tuple[AnyOperation, ...] = (
        OpenSession(),
        put("/x", b"1"),
        put("y", b"2"),
        DeleteFile(path="/x"),
    )

    for slot, operation in enumerate(steps, 1):
        command = Command(
            session="s", sequence=slot - 1, acknowledged=-1, reply_to="g", operation=operation
        )
        (outcome,) = state.apply(slot, Batch(commands=(command,)), ())
        assert outcome.status == "done"
        entries, more = state.tree.list_directory("", "", 1)
        assert ([entry.path for entry in entries], more) == (["y"] if slot > 2 else [], False)


def test_an_acceptor_iterates_over_its_values_and_not_over_all_slots() -> None:
    """Given one value in a far slot, then a promise, a page and a truncation cost only the number
    of values.
    """
    world = founded()
    acceptor = world.actor("acceptor-1")
    leader = leader_of(world)
    far, ballot = COUNT_MAX - 1, leader.actor.phase.ballot
    known = sorted(acceptor.accepted)
    hand(world, "acceptor-1", leader.name, Accept(ballot=ballot, slot=far, value=batch(1)))

    (page,) = sent(hand(world, "acceptor-1", "learner-1", PullChosen(first_slot=1, last_slot=far)))
    assert [entry.slot for entry in page.entries] == [*known, far]
    world.crash(*world.options.names("proposer"))
    higher = Ballot(ballot.round + 1, "proposer-5")
    (promise,) = sent(
        hand(world, "acceptor-1", "proposer-5", Prepare(ballot=higher, first_slot=1), 10_000)
    )
    assert [entry.slot for entry in promise.accepted] == [*known, far]
    hand(world, "acceptor-1", "learner-1", Truncate(below=far))
    assert sorted(acceptor.accepted) == acceptor._slots == [far]


# -- numbers within the limits that are no numbers of this log ------------------------------------


def with_a_far_value(far: int, seed: int = 1) -> tuple[World, Batch]:
    """A cluster with a file, and a far value at one acceptor, under a real ballot."""
    world = founded(seed)
    world.done(put("a", b"1"))
    world.settled()
    forged, ballot = batch(1), leader_of(world).actor.phase.ballot
    accept = Accept(ballot=ballot, slot=far, value=forged)
    hand(world, "acceptor-1", ballot.proposer, accept)
    return world, forged


@pytest.mark.parametrize("far", [10**15, COUNT_MAX, GAP_SLOTS_MAX + 100])
def test_a_new_leader_fills_no_gap_of_10_to_the_15(far: int) -> None:
    """Given a far value at an acceptor whose promise counts, when another proposer is elected, then
    it proposes nothing in between, and writes go on at the end of the log.
    """
    world, _ = with_a_far_value(far)
    ended = world.actor("learner-1").chosen_through
    former = leader_of(world)
    world.crash("acceptor-5", "acceptor-4")  # The acceptor that has it is needed for each quorum.
    world.crash(former.name)

    world.done(put("a", b"2"))

    leader = leader_of(world)
    assert leader.name != former.name
    assert leader.actor.phase.far_slot == far
    assert leader.actor.counters["gaps_filled"] < 10
    assert leader.actor.phase.next_slot < ended + 10
    assert world.actor("acceptor-1").accepted[far].slot == far
    world.settled()


def test_a_far_value_that_phase_1_found_is_proposed_once_the_log_comes_near() -> None:
    """Given a value behind a long gap, then the leader leaves that slot alone, and steps down when
    the log comes near; the next one, whose phase 1 reaches it, proposes that value and no other.
    """
    world, forged = with_a_far_value(far := GAP_SLOTS_MAX + 100)
    world.crash("acceptor-5", "acceptor-4", leader_of(world).name)
    world.done(put("a", b"2"))
    leader = leader_of(world)
    phase = leader.actor.phase
    assert (phase.far_slot, far in phase.in_flight) == (far, False)
    with pytest.raises(InvariantViolation, match="without the value"):
        leader.actor._propose(phase, far, batch(2))

    phase.next_slot = far - 100
    leader.actor._on_propose_value("learner-1", ProposeValue(value=batch_of_nothing()))

    assert isinstance(leader.actor.phase, Following)
    assert far - 100 not in phase.in_flight
    electing = Electing(Ballot(phase.ballot.round + 1, leader.name), Promises(1))
    for name in ("acceptor-1", "acceptor-2", "acceptor-3"):
        acceptor = world.actor(name)
        votes = {slot: reported(accepted) for slot, accepted in acceptor.accepted.items()}
        answer = AcceptorPromise(acceptor.truncated_below, None, votes)
        answer.accepted[far - 101] = AcceptedValue(
            slot=far - 101, ballot=phase.ballot, value=batch(3)
        )
        electing.promises.by_acceptor[name, world.machines[name].disk.identity] = answer
    leader.actor._lead(electing)
    leader.actor.chosen_through = far - 1  # Its window reaches the slot.
    leader.actor._advance(leader.actor.phase)
    leading: Any = leader.actor.phase
    assert (leading.reproposed[far], leading.far_slot) == (forged, None)
    leader.actor._take()


def batch_of_nothing() -> Abort:
    return Abort(slot=1, commands=(), epoch=0, reason="")


def test_no_wrong_number_keeps_a_learner_from_taking_over() -> None:
    """Given a learner that received far slots in each kind of message, when the coordinator dies,
    then the learner pulls them for a while, takes over, and writes go on.
    """
    world = founded()
    world.done(put("a", b"1"))
    world.settled()
    leader = leader_of(world)
    ballot = leader.actor.phase.ballot
    view = world.actor("learner-2").view
    coordinator = view.coordinator
    other = next(name for name in world.options.names("learner") if name != coordinator)
    learner = world.actor(other)
    far = 10**15
    beat = LeaderBeat(
        ballot=ballot, ready=True, chosen_through=far, lease_left_ms=0, read_leases_ms={}
    )
    hand(world, other, leader.name, Accept(ballot=ballot, slot=far, value=batch(1)))
    hand(world, other, "acceptor-1", Accepted(ballot=ballot, slot=far + 1))
    assert learner.log.reported_through < far
    assert far not in learner.log._open
    hand(world, other, leader.name, beat)
    hand(world, other, "acceptor-1", AcceptedRange(entries=(), truncated_below=2))
    assert learner.log.reported_through == far
    world.crash(coordinator)

    world.run(30_000)
    world.done(put("a", b"2"))

    assert learner.counters["reports_discarded"] > 0
    assert learner.coordinator is not None


def test_a_leader_ignores_wrong_progress_and_learns_what_was_chosen() -> None:
    """Given a report of slots that were never proposed, then it counts neither for the leader nor
    for one that is elected after it had come.
    """
    world = founded()
    world.done(put("a", b"1"))
    leader = leader_of(world)
    view = world.actor("learner-1").view
    wrong = LearnerProgress(chosen_through=10**15, decided=10**15, view=view)
    for name in world.options.names("proposer"):
        hand(world, name, "learner-1", wrong)
    assert leader.actor.chosen_through < 100

    for number in range(2 * world.options.window_slots):
        world.done(put("a", b"%d" % number))
    world.crash(leader.name)
    for number in range(2 * world.options.window_slots):
        world.done(put("b", b"%d" % number))

    assert leader_of(world).actor.counters["progress_doubted"] == 1
    assert leader_of(world).actor.chosen_through < 200


@pytest.mark.parametrize("acceptors", [1, 5])
def test_the_highest_possible_ballot_does_not_end_elections(acceptors: int) -> None:
    """Given acceptors that are asked to promise the last of all ballots, and one that has promised
    it, then the next leader is elected under a ballot that others can still exceed.
    """
    world = founded()
    last, former = Ballot(COUNT_MAX, "proposer-5"), leader_of(world)
    for name in world.options.names("acceptor")[:acceptors]:
        answers = sent(hand(world, name, "proposer-5", Prepare(ballot=last, first_slot=1), 10_000))
        assert [answer.type for answer in answers] == ["paxos.reject"]
    world.actor("acceptor-1").promised = last  # As a former version did.
    beat = LeaderBeat(ballot=last, ready=True, chosen_through=0, lease_left_ms=0, read_leases_ms={})
    hearers = [
        name for role in ("proposer", "learner", "store") for name in world.options.names(role)
    ]
    for name in {*hearers, "gateway-1"} - {"proposer-5"}:
        hand(world, name, "proposer-5", beat)
    proposers = [world.actor(name) for name in world.options.names("proposer")]
    assert max(proposer._highest_ballot.round for proposer in proposers) < 100
    world.crash(former.name, last.proposer)

    for number in range(2 * world.options.window_slots):
        world.done(put("a", b"%d" % number))

    assert 1 < leader_of(world).actor.phase.ballot.round < 100
    assert world.read("a").reply.status == "found"

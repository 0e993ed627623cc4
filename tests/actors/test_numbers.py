"""No message carries a number or a name that breaks the node that reads it or passes it on."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from actors.ballot import Ballot
from actors.messages import MESSAGES, Accept, Accepted, Prepare, PullChosen, Result, Truncate
from actors.namespace import Namespace
from actors.numbers import COUNT_MAX
from actors.values import (
    ALWAYS,
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
from tests.worlds import batch, founded, hand, leader_of, put, sent

CHECKED_AT_THE_DOOR = {"modified_ms"}
"""Shown, and never computed with: what is stored from before it was checked stays readable."""


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


def test_the_greatest_numbers_can_be_passed_on() -> None:
    """Given the greatest slot and ballot that are read, then they fit into headers and keys."""
    ballot = Ballot(COUNT_MAX, "proposer-1")
    accepted = Accepted(ballot=ballot, slot=COUNT_MAX)

    (encoded,) = encode(Parcel("c", "acceptor-1", "d", 1, (accepted,)))

    assert encoded.properties.headers["slot"] == COUNT_MAX
    assert len(f"{COUNT_MAX:016x}") == 16


def test_a_long_name_of_a_request_fits_into_its_property() -> None:
    """Given a request's id of many bytes, then the message about it can be sent."""
    outcome = Outcome(status="done", slot=1, index=0)
    result = Result(session="é" * 128, sequence=1, outcome=outcome)

    (encoded,) = encode(Parcel("c", "learner-1", "d", 1, (result,)))

    assert len(encoded.properties.correlation_id.encode()) <= 255


@pytest.mark.parametrize(
    "fields", [{"session": "s" * 129}, {"reply_to": "g" * 65}, {"acknowledged": -2}]
)
def test_a_command_with_an_absurd_name_is_none(fields: dict[str, Any]) -> None:
    good = Command(
        session="s", sequence=1, acknowledged=0, reply_to="gateway-1", operation=OpenSession()
    ).model_dump()

    with pytest.raises(ValidationError):
        Command.model_validate({**good, **fields})


@pytest.mark.parametrize(
    "path", ["/x", "a//b", "a/", "/", ".", "a/../b", "a/.", "x" * 4097, "/".join(["x"] * 2500)]
)
def test_a_command_about_what_is_no_path_never_gets_to_a_leader(path: str) -> None:
    """Given any operation on a path that the tree can't hold, then its message is none, also deep
    in a transaction; the same operation on a name is one.
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
    """Given a file at a path with a slash before it, which no parent holds, then the others are
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


def test_an_acceptor_goes_over_what_it_has_and_not_over_all_slots_between() -> None:
    """Given one value in a slot that is far away, then a promise, a page and a truncation take as
    long as there are values.
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

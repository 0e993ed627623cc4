"""The log as a learner reports it: newest first, with epochs, ballots and outcomes."""

from actors.calls import NotDone, ReadLog
from actors.effects import Send
from actors.gateway.gateway import Gateway
from actors.learner.chosen_log import ChosenSlot
from actors.learner.learner import Learner
from actors.learner.log_pages import page_of
from actors.messages import LogPage, LogRead
from actors.options import Identity, Options
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.roles import build_actor
from actors.values import (
    ALPHA,
    NOOP,
    Abort,
    AnyValue,
    Batch,
    Command,
    DeleteFile,
    MoveEntry,
    Refusal,
    StoreMember,
    View,
)
from tests.worlds import FIVE_ACCEPTORS, voter

BALLOT = Ballot(2, "proposer-1")


def identity(name: str) -> Identity:
    return Identity(name=name, disk="d", incarnation=1, journal_commits=0, fresh_id="ab" * 16)


def view(epoch: int) -> View:
    return View(
        epoch=epoch,
        coordinator="learner-1",
        coordinator_disk="d",
        coordinator_incarnation=1,
        stores=(StoreMember(name="store-1", disk="d", added_slot=0),),
    )


def batch(*operations: object) -> Batch:
    commands = tuple(
        Command.model_validate(
            {
                "session": "s",
                "sequence": number,
                "acknowledged": 0,
                "reply_to": "gateway-1",
                "operation": operation,
            }
        )
        for number, operation in enumerate(operations)
    )
    return Batch(commands=commands)


def learner_with(*values: AnyValue) -> Learner:
    """A learner whose log is `values` from slot 5 on; the last one is not decided."""
    learner = build_actor(identity("learner-1"), Options())
    assert isinstance(learner, Learner)
    learner.log.begin(FIVE_ACCEPTORS, ALPHA)
    learner.log.first_kept = 5
    for slot, value in enumerate(values, start=5):
        learner.log.known[slot] = ChosenSlot(value, BALLOT, ())
        learner.log.chosen_through = slot
    learner.log.known[learner.log.chosen_through].aborted = None
    learner.learned.view = view(2)
    return learner


def test_the_newest_slots_come_first_with_the_epoch_in_force() -> None:
    abort = Abort(slot=5, commands=(1,), epoch=0, reason="late")
    # The second View(2) took no effect, so below it the epoch is still 2.
    learner = learner_with(
        batch(DeleteFile(path="a"), MoveEntry(source="a", target="b")),
        abort,
        view(1),
        view(2),
        view(1),
        NOOP,
        batch(DeleteFile(path="c")),
    )
    learner.log.known[5].aborted = (Refusal(index=1, reason="late"),)
    learner.log.known[6].ballot = NO_BALLOT

    page = page_of(learner.learned, LogRead(number=7, before=0, limit=100, commands_max=0))

    assert (page.number, page.first_kept) == (7, 5)
    shown = [(entry.slot, entry.kind, entry.epoch) for entry in page.entries]
    assert shown == [
        (11, "batch", 2),
        (10, "noop", 2),
        (9, "view", 2),
        (8, "view", 2),
        (7, "view", 1),
        (6, "abort", 0),
        (5, "batch", 0),
    ]
    newest, oldest = page.entries[0], page.entries[-1]
    assert (newest.aborted, oldest.aborted) == (None, (1,))
    assert (newest.ballot, page.entries[5].ballot) == (BALLOT, None)
    assert [(c.request, c.operation, c.path) for c in oldest.commands] == [
        ("s-0", "delete_file", "a"),
        ("s-1", "move", "a → b"),
    ]
    assert page.entries[5].text == "abort 1 commands of slot 5: late"


def test_a_page_in_the_middle_has_its_own_epoch() -> None:
    learner = learner_with(NOOP, view(1), NOOP, view(2), NOOP)

    page = page_of(learner.learned, LogRead(number=1, before=8, limit=2, commands_max=0))

    assert [(entry.slot, entry.epoch) for entry in page.entries] == [(7, 1), (6, 1)]


def test_a_client_asks_the_next_learner_and_gives_up_in_the_end() -> None:
    gateway = build_actor(identity("gateway-1"), Options())
    assert isinstance(gateway, Gateway)
    gateway.log_reads.begin(ReadLog(token=3, before=0, limit=10))
    asked = []
    for now in range(0, 5_000, 500):
        gateway.turn.now = now
        gateway.log_reads.tick()
        asked += [send.to for send in gateway.out.sends]
        gateway.out.sends.clear()

    assert {"learner-1", "learner-2"} == set(asked)
    (answer,) = gateway.out.answers
    assert answer.token == 3
    assert answer.value == NotDone(
        "no learner sent its log (learner-1: no answer; learner-2: no answer)",
        "a read changes nothing",
    )
    assert not gateway.log_reads.busy


def test_the_first_answer_counts() -> None:
    gateway = build_actor(identity("gateway-1"), Options())
    assert isinstance(gateway, Gateway)
    gateway.log_reads.begin(ReadLog(token=3, before=0, limit=10))
    (asked,) = gateway.out.sends
    assert isinstance(asked, Send)
    assert isinstance(asked.message, LogRead)
    page = LogPage(number=asked.message.number, entries=(), decided=4, first_kept=1)
    for _ in range(2):
        gateway.log_reads.on_page("learner-1", page)

    assert [answer.value for answer in gateway.out.answers] == [page]


def test_the_votes_for_a_slot_are_kept_also_those_after_the_quorum() -> None:
    learner = learner_with(NOOP)
    other = Ballot(1, "proposer-2")
    learner.log.record_value(6, BALLOT, NOOP)
    for number in (4, 1, 1, 2, 5):
        learner.log.record_vote(6, BALLOT, voter(number))
    learner.log.record_vote(6, other, voter(3))
    learner.log.extend_prefix()

    page = page_of(learner.learned, LogRead(number=1, before=0, limit=1, commands_max=0))

    (entry,) = page.entries
    assert entry.slot == 6
    assert entry.accepted_by == ("acceptor-1", "acceptor-2", "acceptor-4", "acceptor-5")


def test_a_page_has_no_more_commands_than_requested() -> None:
    learner = learner_with(batch(*(DeleteFile(path=f"{n}") for n in range(3))))

    page = page_of(learner.learned, LogRead(number=1, before=0, limit=1, commands_max=2))

    (entry,) = page.entries
    assert ([command.path for command in entry.commands], entry.commands_count) == (["0", "1"], 3)


def test_the_coordinator_is_asked_first_as_it_receives_the_votes() -> None:
    gateway = build_actor(identity("gateway-1"), Options())
    assert isinstance(gateway, Gateway)
    gateway.cluster_state.view = view(3).model_copy(update={"coordinator": "learner-2"})
    for token in (1, 2):
        gateway.log_reads.begin(ReadLog(token=token, before=0, limit=10))

    assert [send.to for send in gateway.out.sends] == ["learner-2", "learner-2"]

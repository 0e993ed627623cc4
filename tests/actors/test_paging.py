"""Answers are cut by their bytes: no list of the largest items outgrows a message."""

from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.learner.log_pages import page_of
from actors.messages import LogRead, ReadReply, ReadRequest
from actors.options import Options
from actors.paging import COMMAND_BYTES_MAX, MESSAGE_BYTES_MAX, PAGE_BYTES, Page
from actors.state.namespace import Namespace
from actors.store.changes import Changes
from actors.store.reads import answer_changes, answer_read
from actors.values import (
    ALWAYS,
    Batch,
    Chunked,
    Command,
    Constants,
    MoveEntry,
    OpenSession,
    Outcome,
    Precondition,
    PutFile,
)
from tests.actors.test_log_pages import batch, learner_with
from tests.worlds import founded, leader_of, put

LONG = '"' * 255
"""The longest name, and the longest as JSON, too."""

DEEP = "/".join([LONG] * 15)


def command(sequence: int, operation: Any) -> Command:
    return Command(
        session="s", sequence=sequence, acknowledged=-1, reply_to="gateway-1", operation=operation
    )


def largest_put(path: str) -> PutFile:
    """A file whose fields are all as long as a gateway accepts."""
    return PutFile(
        path=path,
        content=Chunked(size=1, sha256="a" * 64, chunks=("a" * 64,) * 128),
        content_type="x" * 255,
        meta=tuple((f"{number:x}", "") for number in range(700)),
    )


@settings(report_multiple_bugs=False)
@given(st.lists(st.integers(0, 40), min_size=1), st.integers(1, 60))
def test_a_page_ends_with_the_item_that_fills_it(sizes: list[int], bytes_max: int) -> None:
    """Given items of any sizes, then pages hold all of them in order, and without its last item
    no page is above its limit.
    """
    pages: list[list[int]] = []
    rest = sizes
    while rest:
        page = Page(bytes_max)
        taken: list[int] = []
        while len(taken) < len(rest) and page.takes(rest[len(taken)]):
            taken.append(rest[len(taken)])
        assert taken, "a page without an item would be asked for again and again"
        pages.append(taken)
        rest = rest[len(taken) :]

    assert [size for taken in pages for size in taken] == sizes
    assert all(sum(taken[:-1]) <= bytes_max for taken in pages)
    assert all(sum(taken) > bytes_max for taken in pages[:-1])


def test_a_listing_of_the_largest_entries_is_sent_in_pages() -> None:
    """Given a directory whose listing outgrows a message, then a reader that continues after the
    last name of each page gets every entry.
    """
    state = Namespace(Constants())
    paths = [f"{DEEP}/{number:04}" for number in range(800)]
    for sequence, operation in enumerate((OpenSession(), *map(largest_put, paths))):
        (outcome,) = state.apply(
            state.applied + 1, Batch(commands=(command(sequence, operation),)), ()
        )
        assert outcome.status == "done"
    listed = [entry for path, entry in state.entries.items() if path.startswith(f"{DEEP}/")]
    assert sum(len(entry.to_json()) for entry in listed) > MESSAGE_BYTES_MAX

    pages = list(_pages_of(state, 1_000))

    found = [entry.path for page in pages for entry in page.children]
    assert found == paths
    assert max(len(page.to_json()) for page in pages) < PAGE_BYTES + 64 * 1024
    assert [page.more for page in pages] == [True] * (len(pages) - 1) + [False]
    assert [len(page.children) for page in _pages_of(state, 7)][:-1] == [7] * (800 // 7)


def _pages_of(state: Namespace, limit: int) -> Iterable[ReadReply]:
    after, more = "", True
    while more:
        page = answer_read(
            state, ReadRequest(number=1, what="list", path=DEEP, after=after, limit=limit)
        )
        yield page
        after, more = page.children[-1].path.rpartition("/")[2], page.more


def test_the_longest_changes_are_sent_in_pages_of_whole_slots() -> None:
    changes = Changes()
    move = MoveEntry(source=f"{DEEP}/a", target=f"{DEEP}/b")
    for slot in range(1, 301):
        commands = tuple(command(slot * 10 + n, move) for n in range(slot % 7))
        outcomes = [Outcome(status="done", slot=slot, index=n) for n in range(slot % 7)]
        changes.note(slot, Batch(commands=commands), outcomes)

    received: list[tuple[int, int]] = []
    through = 0
    while through < 300:
        page = answer_changes(
            Namespace(),
            changes,
            ReadRequest(number=1, what="changes", at_least=through + 1, limit=1_000),
        )
        assert (page.status, page.applied > through) == ("found", True)
        assert len(page.to_json()) < PAGE_BYTES + 8 * 16 * 1024
        received += [(change.slot, change.ordinal) for change in page.changes]
        through = page.applied

    assert received == [(slot, n) for slot in range(1, 301) for n in range(slot % 7)]


def test_long_names_are_kept_for_fewer_changes() -> None:
    """Given a bound on the names, then the oldest slots are dropped, and requests for them are
    refused.
    """
    move = MoveEntry(source=f"{DEEP}/a", target=f"{DEEP}/b")
    each = len(move.source) + len(move.target)
    changes = Changes(kept_bytes=3 * each)
    for slot in range(1, 11):
        done = Outcome(status="done", slot=slot, index=0)
        changes.note(slot, Batch(commands=(command(slot, move),)), [done])

    rows, through = changes.since(7, 1_000)
    assert (changes.first, [row.slot for row in rows], through) == (8, [8, 9, 10], 10)
    asked = ReadRequest(number=1, what="changes", at_least=7)
    assert answer_changes(Namespace(), changes, asked).status == "forgotten"


def test_long_commands_fill_several_slots() -> None:
    """Given a busy leader, when commands are long even without contents, then none of its slots
    takes more than a batch may, and a command too long for any message is dropped.
    """
    options = Options(batch_bytes=64 * 1024)
    world = founded(options=options)
    tags = tuple(f"{number}-0" for number in range(2_000))
    longs = [
        put(f"f{number}", b"", when=Precondition(if_none_match=tags), meta=(("m", "x" * 9_000),))
        for number in range(30)
    ]
    tokens = [world.write(operation) for operation in longs]
    world.run(2_000)

    assert [world.answer(token).outcome.status for token in tokens] == ["done"] * 30
    batches = [
        known.value
        for known in world.actor("learner-1").log.known.values()
        if isinstance(known.value, Batch)
    ]
    sizes = [len(batch.to_json()) for batch in batches]
    assert max(sizes) <= options.batch_bytes + 256
    assert max(len(batch.commands) for batch in batches) > 1

    leader = leader_of(world)
    world.write(put("f", b"", meta=(("m", "x" * COMMAND_BYTES_MAX),), when=ALWAYS))
    world.run(1_000)
    assert leader.actor.counters["too_large"] >= 1
    world.done(put("g", b""))


def test_the_log_of_the_longest_commands_is_sent_in_pages() -> None:
    """Given slots full of long moves, then a reader that continues below each page's last slot sees
    each.
    """
    move = MoveEntry(source=f"{DEEP}/a", target=f"{DEEP}/b")
    learner = learner_with(*(batch(*[move] * 100) for _ in range(12)))
    slots: list[int] = []
    before = 0
    while before != 5:
        page = page_of(learner.learned, LogRead(number=1, before=before, limit=500, commands_max=0))
        assert page.entries
        assert len(page.to_json()) < 2 * PAGE_BYTES
        slots += [entry.slot for entry in page.entries]
        before = slots[-1]

    assert slots == list(range(16, 4, -1))

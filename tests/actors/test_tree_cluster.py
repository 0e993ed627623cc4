"""Moves, copies and transactions on a whole cluster, and the changes that a watcher receives."""

import hashlib
from typing import Any

from actors.calls import Read, ReadDone, Upload, Uploaded
from actors.messages import ReadReply, ReadRequest, TxnDecision
from actors.options import Options
from actors.store.changes import Changes
from actors.store.chunks import READING_GRACE_MS
from actors.store.reads import touches
from actors.values import (
    NOOP,
    Check,
    Chunked,
    Command,
    CopyEntry,
    DeleteFile,
    FileEntry,
    MoveEntry,
    Precondition,
    PutFile,
    Transaction,
)
from chaos.simulator.world import World
from tests.worlds import founded, intercepted, put


def test_a_tree_moves_at_once_and_its_contents_stay_where_they_are() -> None:
    cluster = founded()
    for number in range(10):
        cluster.done(put(f"a/{number}", b"%d" % number))
    blobs = {name: set(m.disk.blobs) for name, m in cluster.machines.items()}

    moved = cluster.done(MoveEntry(source="a", target="b/c"))
    cluster.settled()

    assert moved.outcome.status == "done"
    assert cluster.read("a").reply.status == "absent"
    assert len(cluster.read("b/c", "list").reply.children) == 10
    assert {name: set(m.disk.blobs) for name, m in cluster.machines.items()} == blobs


def test_a_copy_outlives_its_source_also_after_a_restart() -> None:
    """Given the source is gone and the grace time is over, then the shared chunk is still there."""
    cluster = founded(options=Options(chunk_grace_ms=60_000))
    cluster.done(put("a", b"shared"))
    cluster.done(CopyEntry(source="a", target="b"))
    cluster.done(DeleteFile(path="a"))
    cluster.done(put("x", b"only here"))
    cluster.done(DeleteFile(path="x"))
    cluster.settled()
    cluster.crash("store-2")
    cluster.start("store-2")

    cluster.run(READING_GRACE_MS + 3 * cluster.options.chunk_grace_ms)

    name, gone = (hashlib.sha256(data).hexdigest() for data in (b"shared", b"only here"))
    for store in cluster.options.names("store"):
        assert name in cluster.machines[store].disk.blobs
        assert gone not in cluster.machines[store].disk.blobs


def test_a_transaction_brings_contents_that_a_store_lacks_and_happens_whole() -> None:
    cluster = founded()
    data = b"c" * 100_000
    name = hashlib.sha256(data).hexdigest()
    uploaded = cluster.call(
        lambda token: Upload(token=token, sha256=name, manifest=False, data=data)
    )
    assert isinstance(cluster.answer(uploaded), Uploaded)
    cluster.actor("store-2").chunks.remove(name)
    cluster.machines["store-2"].disk.blobs.clear()
    large = PutFile(path="a", content=Chunked(size=len(data), sha256=name, chunks=(name,)))

    cluster.done(Transaction(steps=(put("b", b"small"), large, MoveEntry(source="b", target="c"))))
    cluster.settled()

    assert cluster.machines["store-2"].disk.blobs[name] == data
    assert sorted(cluster.actor("store-2").state.entries) == ["a", "c"]
    assert hashlib.sha256(b"small").hexdigest() in cluster.machines["store-3"].disk.blobs


def test_contents_on_no_store_abort_the_whole_transaction() -> None:
    cluster = founded()
    nowhere = "0" * 64
    lost = PutFile(path="b", content=Chunked(size=1, sha256=nowhere, chunks=(nowhere,)))

    answer = cluster.done(Transaction(steps=(put("a", b"1"), lost)))

    assert answer.outcome.status == "aborted"
    cluster.settled()
    assert cluster.actor("store-1").state.entries == {}


def test_of_two_transactions_on_the_same_state_one_wins_whole() -> None:
    cluster = founded(gateways=2)
    first = cluster.done(put("a", b"1"))
    when = Precondition(if_match=(first.outcome.etag,))
    tokens = [
        cluster.write(
            Transaction(
                steps=(
                    put(f"log/{number}", b"mine"),
                    Check(path="a", when=when),
                    put("a", b"%d" % number),
                )
            ),
            gateway=f"gateway-{number}",
        )
        for number in (1, 2)
    ]

    outcomes = [cluster.answer(token).outcome for token in tokens]

    assert sorted(outcome.status for outcome in outcomes) == ["done", "precondition_failed"]
    loser = next(outcome for outcome in outcomes if outcome.status != "done")
    assert loser.step == 1
    assert len(cluster.read("log", "list").reply.children) == 1


def test_a_read_of_either_end_waits_for_a_move_that_is_prepared() -> None:
    """Given stores that voted on a move and get no decision, then neither path can be read."""
    cluster = founded()
    cluster.done(put("a/f", b"1"))
    cluster.settled()
    held: list[Any] = []

    def passes(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, TxnDecision):
            held.append(message)
        return not isinstance(message, TxnDecision)

    with intercepted(cluster, passes):
        write = cluster.write(MoveEntry(source="a", target="b/c"))
        cluster.run_until(lambda: bool(held), 5_000)
        reads = {path: begin_read(cluster, path) for path in ("a/f", "b/c/f", "b", "elsewhere")}
        cluster.run(100)

        assert {path for path, token in reads.items() if token in cluster.answers} == {"elsewhere"}
    assert cluster.answer(write).outcome.status == "done"
    status = {path: cluster.answer(token).reply.status for path, token in reads.items()}
    assert status == {"a/f": "absent", "b/c/f": "found", "b": "found", "elsewhere": "absent"}


def test_a_command_touches_both_ends_of_its_moves_and_the_targets_of_its_copies() -> None:
    operation = Transaction(
        steps=(
            MoveEntry(source="m/s", target="m/t"),
            CopyEntry(source="c/s", target="c/t"),
            Check(path="k", when=Precondition()),
        )
    )
    command = Command(
        session="s", sequence=1, acknowledged=0, reply_to="gateway-1", operation=operation
    )

    def touched(path: str) -> bool:
        return touches(command, ReadRequest(number=0, what="entry", path=path))

    assert [p for p in ("m", "m/s", "m/s/x", "m/t/x", "c/t", "c/s", "k", "m/u") if touched(p)] == [
        "m",
        "m/s",
        "m/s/x",
        "m/t/x",
        "c/t",
    ]


# -- watching -------------------------------------------------------------------------------------


def begin_read(cluster: World, path: str) -> int:
    request = ReadRequest(number=0, what="entry", path=path)
    return cluster.call(lambda token: Read(token=token, request=request))


def changes(cluster: World, at_least: int, limit: int = 1000) -> ReadReply:
    request = ReadRequest(
        number=0, what="changes", at_least=at_least, limit=limit, consistency="stale"
    )
    answer = cluster.answer(cluster.call(lambda token: Read(token=token, request=request)))
    assert isinstance(answer, ReadDone)
    return answer.reply


def test_a_watcher_receives_the_changes_in_order_and_nothing_else() -> None:
    cluster = founded()
    cluster.done(put("a", b"1"))
    refused = cluster.done(put("a", b"2", when=Precondition(if_none_match=("*",))))
    cluster.done(Transaction(steps=(MoveEntry(source="a", target="b"), put("a", b"3"))))
    cluster.settled()

    reply = changes(cluster, 1)

    assert refused.outcome.status == "precondition_failed"
    assert [(c.kind, c.source, c.path, c.ordinal) for c in reply.changes] == [
        ("put", None, "a", 0),
        ("move", "a", "b", 0),
        ("put", None, "a", 1),
    ]
    assert reply.applied == cluster.actor("store-1").state.applied


def test_a_watcher_waits_at_the_store_and_receives_the_next_change_at_once() -> None:
    cluster = founded()
    cluster.settled()
    applied = cluster.actor("store-1").state.applied
    request = ReadRequest(number=0, what="changes", at_least=applied + 1)
    token = cluster.call(lambda token: Read(token=token, request=request))
    cluster.run(500)
    assert token not in cluster.answers

    cluster.done(put("a", b"1"))

    reply = cluster.answer(token, within_ms=50).reply
    assert [change.path for change in reply.changes] == ["a"]
    entry = cluster.read("a").reply.entry
    assert isinstance(entry, FileEntry)
    assert (reply.changes[0].slot, reply.changes[0].index) == (entry.slot, entry.index)


def test_a_watcher_that_waits_in_vain_receives_the_applied_slot() -> None:
    cluster = founded()
    cluster.settled()
    applied = cluster.actor("store-1").state.applied

    reply = changes(cluster, applied + 1)

    assert (reply.status, reply.changes, reply.applied) == ("found", (), applied)


def test_a_restarted_store_reports_earlier_changes_as_forgotten() -> None:
    cluster = founded()
    cluster.done(put("a", b"1"))
    cluster.settled()
    cluster.run(2_000)
    cluster.crash(*cluster.options.names("store"))
    cluster.start(*cluster.options.names("store"))
    cluster.ready()

    assert changes(cluster, 1).status == "forgotten"


def test_changes_are_bounded_and_sent_in_pages_without_gaps() -> None:
    cluster = founded()
    store = cluster.actor("store-1")
    for number in range(12):
        cluster.done(put(f"f/{number}", b"x"))
    cluster.settled()
    rows = store.held.changes.since(0, 1000)[0]
    short = Changes(kept=5)
    assert len(rows) == 12

    page, through = store.held.changes.since(0, 5)
    rest, last = store.held.changes.since(through, 1000)
    assert [row.path for row in page + rest] == [f"f/{number}" for number in range(12)]
    assert last == store.state.applied

    for slot in range(1, 21):
        short.note(slot, NOOP, [])
    assert (short.first, short.last) == (1, 20)
    short.note(23, NOOP, [])
    assert (short.first, short.last) == (23, 23)

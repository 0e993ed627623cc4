"""Two-phase commit at its edges: a dead store, a restarted coordinator, missing contents."""

import hashlib

import pytest

from actors.calls import GiveUp, NotDone, Read, Unknown, Upload, Uploaded, WriteDecided
from actors.messages import ReadRequest, TxnDecision, TxnPrepare, TxnVote
from actors.options import Options
from actors.paxos.votes import learned
from actors.values import Batch, Chunked, IdempotencyKey, Precondition, PutFile
from tests.worlds import founded, intercepted, put


def test_a_write_takes_six_hops_to_its_result() -> None:
    """Given a network of one millisecond a hop, then the client waits for six hops."""
    cluster = founded()
    cluster.run(1_000)
    began = cluster.now

    cluster.done(put("a", b"1"))

    assert cluster.now - began == 6


def test_a_write_aborts_while_a_store_is_away_and_never_happens_later() -> None:
    cluster = founded()
    cluster.done(put("a", b"1"))
    cluster.crash("store-2")

    answer = cluster.answer(cluster.write(put("a", b"2")))

    assert isinstance(answer, WriteDecided)
    assert answer.outcome.status == "aborted"
    cluster.start("store-2")
    cluster.settled()
    entry = cluster.read("a").reply.entry
    assert entry is not None
    assert entry.kind == "file"
    assert entry.version == 1
    cluster.done(put("a", b"3"), retry=True)


def test_the_retry_after_an_abort_is_a_new_sequence() -> None:
    cluster = founded()
    cluster.crash("store-2")
    token = cluster.write(put("a", b"2"), retry=True)
    cluster.run_until(lambda: cluster.actor("gateway-1").counters["retried_aborts"] > 0, 10_000)
    cluster.start("store-2")

    answer = cluster.answer(token)

    assert isinstance(answer, WriteDecided)
    assert (answer.outcome.status, answer.retried) == ("done", True)


def test_a_restarted_coordinator_terminates_slots_left_in_doubt() -> None:
    """Given all votes were cast and the coordinator died before any answer, then it commits."""
    cluster = founded()
    cluster.done(put("a", b"0"))
    votes: list[str] = []

    def passes(sender: str, to: str, message: object) -> bool:
        if isinstance(message, TxnVote):
            votes.append(sender)
        return (sender, to) != ("store-3", "learner-1")

    with intercepted(cluster, passes):
        token = cluster.write(put("a", b"1"))
        cluster.run_until(lambda: len(votes) == 3, 5_000, 1)
        cluster.crash("learner-1")
    cluster.start("learner-1")

    answer = cluster.answer(token)

    assert isinstance(answer, WriteDecided)
    assert answer.outcome.status == "done"
    assert cluster.actor("learner-1").view.epoch == 1
    assert {cluster.actor(f"store-{n}").fence for n in (1, 2, 3)} == {1}


def test_a_store_that_answered_a_new_epoch_refuses_the_old_coordinator() -> None:
    cluster = founded()
    cluster.done(put("a", b"0"))
    cluster.crash("learner-1")
    cluster.start("learner-1")
    cluster.run_until(lambda: cluster.actor("store-1").fence == 1, 20_000)
    store = cluster.actor("store-1")
    batch = learned(next(iter(cluster.actor("acceptor-1").accepted.values())).value)
    assert isinstance(batch, Batch)

    effects = store._on_prepare("learner-1", TxnPrepare(epoch=0, slot=99, batch=batch))

    assert effects is None
    assert [send.message.type for send in store._take().sends] == ["txn.fenced"]


def test_lost_decisions_only_cost_time() -> None:
    cluster = founded()
    lost: list[object] = []

    def passes(sender: str, to: str, message: object) -> bool:
        if isinstance(message, TxnDecision):
            lost.append(message)
        return not isinstance(message, TxnDecision)

    with intercepted(cluster, passes):
        for number in range(10):
            cluster.done(put("a", b"%d" % number))
        cluster.settled()

    assert lost
    assert cluster.actor("store-3").state.entries["a"].version == 10


def test_lost_reports_of_decisions_only_cost_time() -> None:
    """Given a leader that missed the report of its last slot, of four commands, then one more
    command does not wait for three others for ever.
    """
    cluster = founded()
    cluster.done(put("a", b"0"))
    cluster.run(3_000)  # Both learners have reported all that they know.
    leader = next(m.actor for m in cluster.up("proposer") if m.actor.holds_lease)
    assert not leader.phase.undecided
    leader.phase.undecided[leader.chosen_through] = 4

    token = cluster.write(put("a", b"1"))
    cluster.run(3_000)

    assert not leader.phase.queue
    assert isinstance(cluster.answer(token), WriteDecided)


@pytest.mark.parametrize("name", ["learner-2", "store-3"])
def test_a_replica_that_was_away_catches_up_page_by_page(name: str) -> None:
    """Given a log of many pages, then a page that has come makes the learner pull the next one."""
    cluster = founded(options=Options(page_bytes=1))
    cluster.crash(name)
    for number in range(60):
        cluster.done(put("a", b"%d" % number))
    cluster.machines[name].forget_queue()

    cluster.start(name)
    cluster.run(4_000)

    applied = {cluster.actor(replica).state.applied for replica in ("learner-1", name)}
    assert len(applied) == 1


def test_a_retry_with_the_same_key_returns_the_first_result() -> None:
    cluster = founded(gateways=2)
    key = IdempotencyKey(key="k", fingerprint="f")

    first = cluster.done(put("a", b"1"), key=key)
    cluster.crash("gateway-1")
    again = cluster.done(put("a", b"1"), key=key, gateway="gateway-2")
    other = cluster.done(
        put("a", b"2"), key=IdempotencyKey(key="k", fingerprint="g"), gateway="gateway-2"
    )

    assert again.outcome == first.outcome
    assert other.outcome.status == "key_reused"
    cluster.settled()
    assert cluster.actor("store-1").state.entries["a"].version == 1


def test_without_a_quorum_a_write_that_was_never_sent_is_unavailable() -> None:
    cluster = founded()
    cluster.crash("acceptor-1", "acceptor-2", "acceptor-3")
    cluster.run(5_000)
    began = cluster.now

    answer = cluster.answer(cluster.write(put("a", b"1")))

    assert isinstance(answer, NotDone)
    assert cluster.now - began <= 6_000
    cluster.start("acceptor-1")
    cluster.ready()
    cluster.done(put("a", b"2"))
    cluster.settled()
    assert cluster.actor("store-1").state.entries["a"].version == 1


def test_a_write_that_a_dead_leader_may_have_proposed_is_unknown_and_then_resolved() -> None:
    cluster = founded()
    cluster.crash("acceptor-1", "acceptor-2", "acceptor-3")

    answer = cluster.answer(cluster.write(put("a", b"1")))

    assert isinstance(answer, Unknown)
    cluster.start("acceptor-1")
    cluster.run_until(lambda: "a" in cluster.actor("store-1").state.entries, 20_000)
    session, _, sequence = answer.request.rpartition("-")
    outcome = cluster.actor("store-1").state.sessions.by_name[session].results[int(sequence)]
    assert outcome.status == "done"


def test_a_caller_that_gives_up_is_answered_the_request_id_also_without_any_timer() -> None:
    cluster = founded()
    with intercepted(cluster, lambda sender, to, message: False):
        write = cluster.write(put("a", b"1"))

        given_up = cluster.call(lambda token: GiveUp(token=token, write=write))

        answer = cluster.answer(given_up, within_ms=1)
    assert isinstance(answer, Unknown)
    assert answer.request == f"{cluster.actor('gateway-1').session}-1"
    cluster.run_until(lambda: answer.request in cluster.actor("gateway-1").writes.resolved, 20_000)
    assert write not in cluster.answers


def test_an_unknown_requests_outcome_can_be_read_later_also_at_a_restarted_gateway() -> None:
    cluster = founded()
    cluster.crash("acceptor-1", "acceptor-2", "acceptor-3")
    unknown = cluster.answer(cluster.write(put("a", b"1"), retry=True))
    assert isinstance(unknown, Unknown)
    cluster.start("acceptor-1", "acceptor-2")
    cluster.ready()
    session, _, sequence = unknown.request.rpartition("-")
    request = ReadRequest(number=0, what="result", session=session, sequence=int(sequence))

    for number in range(20):
        cluster.done(put("b", b"%d" % number), retry=True)
    before = cluster.answer(cluster.call(lambda token: Read(token=token, request=request)))
    cluster.crash("gateway-1")
    cluster.start("gateway-1")
    cluster.ready()
    after = cluster.answer(cluster.call(lambda token: Read(token=token, request=request)))

    assert before.reply.outcome.status == "done"
    assert after.reply.outcome == before.reply.outcome
    entry = cluster.read("a").reply.entry
    assert entry is not None
    assert entry.slot == before.reply.outcome.slot


def test_a_store_that_lacks_contents_pulls_them_from_a_peer() -> None:
    cluster = founded()
    data = b"c" * 100_000
    name = hashlib.sha256(data).hexdigest()
    uploaded = cluster.call(
        lambda token: Upload(token=token, sha256=name, manifest=False, data=data)
    )
    assert isinstance(cluster.answer(uploaded), Uploaded)
    store = cluster.actor("store-2")
    store.chunks.remove(name)
    cluster.machines["store-2"].disk.blobs.clear()
    content = Chunked(size=len(data), sha256=name, chunks=(name,))

    cluster.done(PutFile(path="a", content=content))
    cluster.settled()

    assert cluster.machines["store-2"].disk.blobs[name] == data


def test_contents_that_no_store_holds_abort_the_write() -> None:
    cluster = founded()
    nowhere = "0" * 64
    content = Chunked(size=1, sha256=nowhere, chunks=(nowhere,))

    answer = cluster.done(PutFile(path="a", content=content))

    assert answer.outcome.status == "aborted"
    cluster.done(put("a", b"1"), retry=True)


def test_compare_and_set_lets_one_of_two_win() -> None:
    cluster = founded(gateways=2)
    first = cluster.done(put("a", b"1"))
    when = Precondition(if_match=(first.outcome.etag,))
    tokens = [cluster.write(put("a", b"%d" % n, when=when), gateway=f"gateway-{n}") for n in (1, 2)]

    statuses = sorted(cluster.answer(token).outcome.status for token in tokens)

    assert statuses == ["done", "precondition_failed"]

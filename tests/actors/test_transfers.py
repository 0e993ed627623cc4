"""Chunks between a gateway and the stores: where one is found, and which stores an upload waits
for.
"""

import hashlib
import itertools
from collections import Counter
from typing import Any

import pytest

from actors.calls import Absent, Fetch, FetchedChunk, NotDone, Upload, Uploaded
from actors.effects import Effects
from actors.messages import ChunkGet, ChunkMissing, ChunkPut, ChunkRefused, ChunkStored
from chaos.simulator.disk import Disk
from chaos.simulator.world import World
from tests.worlds import founded, hand, intercepted, put

STORES = ("store-1", "store-2", "store-3")
CREDITS = 4


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def begin_upload(world: World, data: bytes) -> int:
    name = name_of(data)
    return world.call(lambda token: Upload(token=token, sha256=name, manifest=False, data=data))


def begin_fetch(world: World, data: bytes) -> int:
    return world.call(lambda token: Fetch(token=token, sha256=name_of(data)))


def answers(effects: Effects) -> list[Any]:
    return [answer.value for answer in effects.answers]


def blobs(world: World, store: str) -> Any:
    return world.machines[store].disk.blobs


def set_room(world: World, store: str, is_low: bool) -> None:
    world.machines[store].is_low_on_space = is_low
    world.machines[store].report_space()
    world.run(100)


class Sends:
    """Passes on what nodes send, counts it, and can lose some of it."""

    def __init__(self, *kinds: type) -> None:
        self.kinds = kinds
        self.loses: set[str] = set()
        """The receivers that get no such message."""
        self.sent: list[tuple[int, str]] = []
        """When each was sent, and to whom."""

    @property
    def counts(self) -> Counter[str]:
        return Counter(to for _, to in self.sent)

    def passes_in(self, world: World) -> Any:
        def passes(sender: str, to: str, message: Any) -> bool:
            if not isinstance(message, self.kinds):
                return True
            self.sent.append((world.now, to))
            return to not in self.loses

        return intercepted(world, passes)


# -- down -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("holder", STORES)
def test_a_chunk_that_one_store_holds_costs_at_most_one_request_to_each(
    first: int, holder: str
) -> None:
    """Given a chunk that the other stores have lost, whichever store is asked first."""
    world = founded()
    assert isinstance(world.answer(begin_upload(world, b"data")), Uploaded)
    world.run(3_000)
    for store in set(STORES) - {holder}:
        world.actor(store).chunks.remove(name_of(b"data"))
    world.actor("gateway-1").cluster_state._next_store = first

    gets = Sends(ChunkGet)
    with gets.passes_in(world):
        answer = world.answer(begin_fetch(world, b"data"))

    assert answer == FetchedChunk(b"data")
    assert gets.counts[holder] == 1
    assert max(gets.counts.values()) == 1, gets.counts


@pytest.mark.parametrize("first", range(6))
def test_a_chunk_that_the_whole_view_lacks_is_absent_after_one_round(first: int) -> None:
    world = founded()
    world.actor("gateway-1").cluster_state._next_store = first
    gets = Sends(ChunkGet)
    with gets.passes_in(world):
        assert world.answer(begin_fetch(world, b"nowhere")) == Absent()

    assert gets.counts == dict.fromkeys(STORES, 1)


def test_stores_that_all_refuse_are_asked_in_rounds_with_pauses_between() -> None:
    """Given bytes that are damaged at one store and missing at the others, then each round asks
    each store once, and the answer gives each store's reason.
    """
    world = founded()
    assert isinstance(world.answer(begin_upload(world, b"data")), Uploaded)
    world.run(3_000)
    for store in ("store-1", "store-3"):
        world.actor(store).chunks.remove(name_of(b"data"))
    blobs(world, "store-2")[name_of(b"data")] = b"damaged"
    gets = Sends(ChunkGet)
    with gets.passes_in(world):
        answer = world.answer(begin_fetch(world, b"data"))

    assert isinstance(answer, NotDone)
    assert answer.fact == "a read changes nothing"
    for said in (
        "store-1: it lacks the chunk",
        "store-2: it sent damaged bytes",
        "store-3: it lacks the chunk",
    ):
        assert said in answer.reason
    rounds = [gets.sent[at : at + 3] for at in range(0, len(gets.sent), 3)]
    assert 5 <= len(rounds) <= 15
    assert all({to for _, to in asked} == set(STORES) for asked in rounds[:-1])
    pauses = [after[0][0] - before[-1][0] for before, after in itertools.pairwise(rounds)]
    assert min(pauses) >= 250
    assert max(pauses) >= 2_000


def _missing(world: World, store: str, data: bytes) -> list[Any]:
    return answers(hand(world, "gateway-1", store, ChunkMissing(sha256=name_of(data))))


@pytest.mark.parametrize("change", [{"disk": "another"}, {"added_slot": 9}])
def test_a_chunk_missing_on_a_former_disk_may_be_on_the_next_one(change: dict[str, Any]) -> None:
    """Given a store that lacked a chunk, when the view names it on another disk, or has added it
    again since, then the chunk is not absent just because the others lack it too.
    """
    world = founded()
    gateway = world.actor("gateway-1")
    gets = Sends(ChunkGet)
    gets.loses = set(STORES)
    with gets.passes_in(world):
        begin_fetch(world, b"data")
        world.run(10)
    assert _missing(world, "store-1", b"data") == []

    first, *others = gateway.cluster_state.members
    stores = (first.model_copy(update=change), *others)
    gateway.cluster_state.view = gateway.genesis.view.model_copy(
        update={"epoch": 1, "stores": stores}
    )

    assert _missing(world, "store-2", b"data") == []
    assert _missing(world, "store-3", b"data") == []


def test_answers_of_a_disk_outside_the_view_do_not_count_for_the_members() -> None:
    """Given a store that came back with an empty disk, which no reported View names yet."""
    world = founded()
    gets = Sends(ChunkGet)
    gets.loses = set(STORES)
    with gets.passes_in(world):
        begin_fetch(world, b"data")
        world.run(10)
    former, world.machines["store-1"].disk = world.machines["store-1"].disk, Disk("disk-empty")

    assert [_missing(world, store, b"data") for store in STORES] == [[], [], []]

    world.machines["store-1"].disk = former
    assert _missing(world, "store-1", b"data") == [Absent()]


def test_a_caller_that_joins_a_fetch_has_its_own_deadline() -> None:
    world = founded()
    gets = Sends(ChunkGet)
    gets.loses = set(STORES)
    with gets.passes_in(world):
        first = begin_fetch(world, b"data")
        world.run(14_000)
        second = begin_fetch(world, b"data")
        assert isinstance(world.answer(first), NotDone)
        world.run(10_000)
        assert second not in world.answers
        assert isinstance(world.answer(second), NotDone)
    assert not world.actor("gateway-1").transfers.busy


# -- up -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refuses", STORES)
@pytest.mark.parametrize("ended_by", ["refusal", "deadline"])
def test_uploads_that_failed_leave_no_credit_behind(refuses: str, ended_by: str) -> None:
    """Given uploads that ended while their chunks to another store were lost, then later ones are
    stored.
    """
    world = founded()
    world.done(put("before", b"1"))
    set_room(world, refuses, ended_by == "refusal")
    puts = Sends(ChunkPut)
    puts.loses = set(STORES) - {refuses}
    with puts.passes_in(world):
        tokens = [begin_upload(world, b"chunk %d" % number) for number in range(CREDITS)]
        failed = [world.answer(token) for token in tokens]
    assert all(isinstance(answer, NotDone) for answer in failed)
    assert {answer.no_room for answer in failed} == {ended_by == "refusal"}
    set_room(world, refuses, False)

    tokens = [begin_upload(world, b"another chunk %d" % number) for number in range(CREDITS)]

    assert [world.answer(token) for token in tokens] == [Uploaded()] * CREDITS
    assert world.actor("gateway-1").transfers._uploads == {}


def test_chunks_of_failed_uploads_queued_at_a_silent_store_stay_bounded() -> None:
    """Given a store that is down, in a view that can't change, when upload after upload is refused
    elsewhere, then its queue holds no more chunks than it has credits for; once it is back, all
    goes on.
    """
    world = founded()
    world.done(put("before", b"1"))
    world.crash("learner-1", "learner-2", "store-2")
    set_room(world, "store-1", True)
    puts = Sends(ChunkPut)
    with puts.passes_in(world):
        for number in range(5 * CREDITS):
            answer = world.answer(begin_upload(world, b"chunk %d" % number))
            assert isinstance(answer, NotDone)
            assert answer.no_room
            world.run(2_000)
    assert puts.counts["store-1"] == 5 * CREDITS
    assert puts.counts["store-2"] == CREDITS

    set_room(world, "store-1", False)
    waits = begin_upload(world, b"one more")
    refusal = world.answer(waits)
    assert isinstance(refusal, NotDone)
    assert refusal.reason == "store-2 still owed answers for earlier chunks in 20 s"
    world.start("store-2")
    assert isinstance(world.answer(begin_upload(world, b"one more")), Uploaded)
    assert world.actor("gateway-1").transfers._uploads == {}


def test_a_chunk_that_is_uploaded_again_is_not_sent_twice_to_a_store_that_owes_an_answer() -> None:
    """Given an upload that another store refused, when it is tried again, then the copy in transit
    counts, and the store's late answer is enough.
    """
    world = founded()
    set_room(world, "store-1", True)
    sends = Sends(ChunkPut, ChunkStored)
    sends.loses = {"gateway-1"}
    with sends.passes_in(world):
        assert isinstance(world.answer(begin_upload(world, b"data")), NotDone)
        set_room(world, "store-1", False)
        begin_upload(world, b"data")
        world.run(1_000)

    assert [sends.counts[store] for store in STORES] == [2, 1, 1]
    stored = ChunkStored(sha256=name_of(b"data"))
    answered = [answers(hand(world, "gateway-1", store, stored)) for store in STORES]
    assert answered == [[], [], [Uploaded()]]
    assert world.actor("gateway-1").transfers._uploads == {}


def test_an_upload_waits_for_the_disk_that_the_view_names() -> None:
    """Given a store on an empty disk in the place of the one in the view, then its answers do not
    count until a View names that disk, and it is not sent the chunk over and over.
    """
    world = founded()
    world.done(put("before", b"1"))
    learners = ("learner-1", "learner-2")
    world.crash(*learners, "store-3")
    world.machines["store-3"].disk = Disk("disk-empty")
    world.start("store-3")
    world.run(3_000)

    puts = Sends(ChunkPut)
    with puts.passes_in(world):
        answer = world.answer(begin_upload(world, b"data"))

    assert isinstance(answer, NotDone)
    assert answer.reason == "store-3 did not confirm a chunk in 20 s"
    assert name_of(b"data") in blobs(world, "store-3")
    assert puts.counts["store-3"] <= 6
    world.start(*learners)
    gateway = world.actor("gateway-1")
    world.run_until(
        lambda: any(member.disk == "disk-empty" for member in gateway.cluster_state.members), 60_000
    )
    assert isinstance(world.answer(begin_upload(world, b"data")), Uploaded)


def test_a_store_that_joins_during_an_upload_has_the_chunk_when_it_is_done() -> None:
    """Given an upload that waits for one store, when a View adds another, then the upload waits for
    that one, too: the store that was there first may leave.
    """
    world = founded()
    world.done(put("before", b"1"))
    world.crash("store-3")
    gateway = world.actor("gateway-1")
    world.run_until(lambda: "store-3" not in gateway.cluster_state.stores, 20_000)
    puts = Sends(ChunkPut)
    puts.loses = {"store-2"}
    with puts.passes_in(world):
        token = begin_upload(world, b"data")
        world.start("store-3")
        world.run_until(lambda: "store-3" in gateway.cluster_state.stores, 15_000)
        assert token not in world.answers

    assert isinstance(world.answer(token), Uploaded)
    assert name_of(b"data") in blobs(world, "store-3")


def test_a_store_that_leaves_during_an_upload_is_not_waited_for() -> None:
    world = founded()
    world.done(put("before", b"1"))
    world.crash("store-3")
    began = world.now
    assert isinstance(world.answer(begin_upload(world, b"data")), Uploaded)

    assert world.now - began < 15_000
    assert "store-3" not in world.actor("gateway-1").cluster_state.stores
    assert world.actor("gateway-1").transfers._uploads == {}


def test_a_refusal_of_a_disk_that_the_view_does_not_name_ends_no_upload() -> None:
    """Given a store that was dropped and whose disk is full, then its refusal does not count."""
    world = founded()
    world.crash("store-3")
    gateway = world.actor("gateway-1")
    world.run_until(lambda: "store-3" not in gateway.cluster_state.stores, 20_000)
    puts = Sends(ChunkPut)
    puts.loses = {"store-2"}
    with puts.passes_in(world):
        token = begin_upload(world, b"data")
        world.run(100)
    refusal = ChunkRefused(sha256=name_of(b"data"), reason="no room")
    effects = hand(world, "gateway-1", "store-3", refusal)

    assert answers(effects) == []
    assert isinstance(world.answer(token), Uploaded)


def test_a_lost_chunk_is_sent_again_only_to_a_live_store() -> None:
    """Given two stores that get no chunk, one of them silent, then the chunk is not sent again to
    the silent one, whose queue may hold it.
    """
    world = founded()
    world.crash("learner-1", "learner-2", "store-3")
    world.run(100)
    puts = Sends(ChunkPut)
    puts.loses = {"store-2"}
    with puts.passes_in(world):
        answer = world.answer(begin_upload(world, b"data"))

    assert isinstance(answer, NotDone)
    assert answer.reason == "store-2, store-3 did not confirm a chunk in 20 s"
    assert puts.counts["store-3"] == 1
    assert 4 <= puts.counts["store-2"] <= 7

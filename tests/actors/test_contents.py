"""The chunks of a store: which it copies, which it keeps, and for how long it waits for one."""

import hashlib
import json
from collections import Counter
from typing import Any

import pytest

from actors.calls import Upload, Uploaded, WriteDecided
from actors.messages import (
    HOLD_MS_MAX,
    ChunkData,
    ChunkGet,
    ChunkHold,
    ChunkMissing,
    ChunkPut,
    TxnPrepare,
)
from actors.options import Options
from actors.store.chunks import READING_GRACE_MS, RELEASED_GRACE_MS, ChunkManifest, Chunks
from actors.values import Batch, Chunked, Command, DeleteFile, Indirect, Inline, PutFile
from chaos.simulator.world import World
from tests.worlds import founded, intercepted, put, swept


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def upload(world: World, data: bytes, manifest: bool = False) -> str:
    """Put a chunk on every store of the view."""
    name = name_of(data)
    uploaded = world.call(
        lambda token: Upload(token=token, sha256=name, manifest=manifest, data=data)
    )
    assert isinstance(world.answer(uploaded), Uploaded)
    return name


def without_store_3(options: Options | None = None) -> World:
    """A cluster whose view has dropped `store-3`, which is down."""
    world = founded(options=options)
    world.done(put("before", b"1"))
    world.crash("store-3")
    learner = world.actor("learner-1")
    world.run_until(lambda: learner.view.member("store-3") is None, 20_000)
    return world


def joined(world: World, store: str) -> None:
    learner = world.actor("learner-1")
    world.run_until(lambda: learner.view.member(store) is not None, 20_000)


def blobs(world: World, store: str) -> Any:
    return world.machines[store].disk.blobs


def cut_off_from_peers(world: World, store: str) -> None:
    world.network.cut |= {(peer, store) for peer in world.options.names("store")}


@pytest.fixture
def short_graces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.store.chunks.RELEASED_GRACE_MS", 200)
    monkeypatch.setattr("actors.store.chunks.READING_GRACE_MS", 500)
    monkeypatch.setattr("actors.store.contents.READING_GRACE_MS", 500)
    monkeypatch.setattr("actors.store.contents._SWEEP_MS", 100)


@pytest.mark.usefixtures("short_graces")
def test_a_store_does_not_wait_for_contents_deleted_while_it_copied() -> None:
    """Given a newcomer that lacks a chunk, when its file is deleted and the other stores delete the
    chunk, then the newcomer is whole without it, and is added.
    """
    world = without_store_3(Options(chunk_grace_ms=500))
    data = b"big" * 10_000
    chunk = upload(world, data)
    content = Chunked(size=len(data), sha256=chunk, chunks=(chunk,))
    world.done(PutFile(path="big", content=content))
    cut_off_from_peers(world, "store-3")
    world.start("store-3")
    store = world.actor("store-3")
    world.run_until(lambda: store.contents.missing == 1, 20_000)

    world.done(DeleteFile(path="big"))
    world.run_until(lambda: chunk not in blobs(world, "store-1") | blobs(world, "store-2"), 20_000)

    world.run(5_000)
    assert store.contents.missing == 0
    joined(world, "store-3")


def test_a_manifest_that_is_uploaded_again_has_its_missing_chunks_copied() -> None:
    """Given a newcomer that lacks a file of many chunks, when a client uploads its manifest, then
    the newcomer copies the chunks that it lists, too.
    """
    world = without_store_3()
    chunks = tuple(upload(world, b"part %d" % number) for number in range(3))
    listed = json.dumps(chunks).encode()
    manifest = upload(world, listed, manifest=True)
    content = Indirect(size=18, sha256="0" * 64, manifest=manifest)
    world.done(PutFile(path="big", content=content))
    cut_off_from_peers(world, "store-3")
    world.start("store-3")
    store = world.actor("store-3")
    world.run_until(lambda: store.contents.missing == 1, 20_000)

    store.contents.on_put("gateway-1", ChunkPut(sha256=manifest, manifest=True, data=listed))

    assert store.contents.missing == 3
    assert not store.rejoin.is_whole
    world.network.cut.clear()
    joined(world, "store-3")
    assert set(chunks) <= blobs(world, "store-3").keys()


def test_a_file_that_looks_like_a_manifest_hides_no_chunk() -> None:
    """Given a file whose only chunk is another file's manifest, then a newcomer copies the chunks
    that it lists as well, whichever file comes first.
    """
    world = without_store_3()
    chunks = tuple(upload(world, b"part %d" % number) for number in range(3))
    listed = json.dumps(chunks).encode()
    manifest = upload(world, listed, manifest=True)
    plain = Chunked(size=len(listed), sha256=manifest, chunks=(manifest,))
    world.done(PutFile(path="a", content=plain))
    world.done(PutFile(path="b", content=Indirect(size=18, sha256="0" * 64, manifest=manifest)))

    world.start("store-3")

    joined(world, "store-3")
    assert {manifest, *chunks} <= blobs(world, "store-3").keys()


def test_contents_on_no_store_that_answers_abort_the_write_and_hold_up_no_other() -> None:
    """Given a store that is away for long, when a write names contents that no other store holds,
    then that write is aborted soon, and the next ones are done.
    """
    world = without_store_3()
    nowhere = "0" * 64
    content = Chunked(size=1, sha256=nowhere, chunks=(nowhere,))

    token = world.write(PutFile(path="a", content=content))
    world.run(9_000)

    answer = world.answers.get(token)
    assert isinstance(answer, WriteDecided), "the write is held up"
    assert answer.outcome.status == "aborted"
    assert "contents are on no store that answers" in answer.outcome.detail
    world.done(put("b", b"2"))


def prepared_with(world: World, *names: str) -> int:
    """`store-3` prepares a slot whose commands name these chunks; the slot stays undecided."""
    store = world.actor("store-3")
    slot: int = store.state.applied + 1
    commands = tuple(
        Command(
            session="s",
            sequence=number,
            acknowledged=-1,
            reply_to="gateway-1",
            operation=PutFile(path=name, content=Chunked(size=1, sha256=name, chunks=(name,))),
        )
        for number, name in enumerate(names)
    )
    batch = Batch(commands=commands)
    store._on_prepare("learner-1", TxnPrepare(epoch=store.fence, slot=slot, batch=batch))
    return slot


def test_a_store_waits_for_contents_in_transit_beside_a_command_whose_contents_are_lost() -> None:
    """Given two commands of a slot that lack contents, when those of one are on no store, then the
    store votes once it has the other's, and refuses only the first.
    """
    world = founded()
    store = world.actor("store-3")
    hopeless, coming = "0" * 64, name_of(b"coming")
    slot = prepared_with(world, hopeless, coming)
    for peer in ("store-1", "store-2"):
        store.contents.on_missing(peer, ChunkMissing(sha256=hopeless))

    store._try_fetched()

    assert slot not in store.prepared
    store.contents.on_data(ChunkData(sha256=coming, data=b"coming"))
    store._try_fetched()
    assert [refusal.index for refusal in store.prepared[slot].refused] == [0]


def test_chunks_that_only_a_dead_store_may_have_hold_up_no_other_chunk() -> None:
    """Given many chunks that one peer lacks and the other never answers about, then the last chunk
    of the slot is requested all the same.
    """
    world = founded()
    store = world.actor("store-3")
    names = [name_of(b"%d" % number) for number in range(9)]
    prepared_with(world, *names)
    asked: set[str] = set()
    for _ in range(20):
        gets = [s.message for s in store._take().sends if isinstance(s.message, ChunkGet)]
        asked |= {get.sha256 for get in gets}
        for get in gets:
            store.contents.on_missing("store-1", ChunkMissing(sha256=get.sha256))
        store.turn.now += 1_000
        store.contents.pump()

    assert asked == set(names)
    assert all(store.contents.is_nowhere(name) for name in names)


def test_a_store_whose_refusal_was_overruled_copies_the_contents() -> None:
    """Given a slot that a store refused for want of contents, when a later View has taken its vote
    away and the slot is committed, then the store is not whole before it has them.
    """
    world = founded()
    world.done(put("before", b"1"))
    world.settled()
    store = world.actor("store-3")
    late = name_of(b"late")
    slot = prepared_with(world, late)
    for peer in ("store-1", "store-2"):
        store.contents.on_missing(peer, ChunkMissing(sha256=late))
    store._try_fetched()
    prepared = store.prepared[slot]
    assert prepared.refused
    store.state.sessions.known_or_new("s")

    store._apply(slot, prepared.batch, (), prepared)

    assert late in store.state.entries
    assert store.contents.missing == 1
    assert not store.rejoin.is_whole
    assert store.contents.on_data(ChunkData(sha256=late, data=b"late"))
    assert store.rejoin.is_whole


def test_contents_under_a_wrong_name_are_not_kept() -> None:
    """Given bytes from a peer, or in a command, that don't match their name."""
    world = founded()
    store = world.actor("store-3")
    name = name_of(b"these")
    prepared_with(world, name)

    assert not store.contents.on_data(ChunkData(sha256=name, data=b"others"))
    lie = put("a", b"").model_copy(update={"content": Inline(sha256=name, data=b"others")})
    command = Command(session="s", sequence=1, acknowledged=0, reply_to="g", operation=lie)
    store.contents.keep_inline(Batch(commands=(command,)).contents)

    assert name not in store.chunks.held
    assert not store.out.blobs


@pytest.mark.parametrize("restarts", [False, True])
def test_chunks_of_a_prepared_slot_are_kept_until_it_is_decided(restarts: bool) -> None:
    """Given a slot in doubt for longer than any grace, then its contents stay, also in a restart.

    The other stores may have committed it already.
    """
    world = founded()
    world.network.cut |= {(f"learner-{number}", "store-3") for number in (1, 2)}
    name = upload(world, b"data")
    slot = world.actor("store-3").state.applied + 1
    content = Chunked(size=4, sha256=name, chunks=(name,))
    world.write(PutFile(path="a", content=content))
    world.network.cut.clear()
    world.run_until(lambda: slot in world.actor("store-3").prepared, 2_000, 1)
    world.network.cut |= {(f"learner-{number}", "store-3") for number in (1, 2)}
    if restarts:
        world.crash("store-3")
        world.start("store-3")
    store = world.actor("store-3")
    assert slot in store.prepared

    assert name in swept(store, store.now + 2 * world.options.chunk_grace_ms)


def test_a_replaced_version_is_kept_for_its_readers_and_while_a_backup_runs() -> None:
    """Given a replaced file, then its contents stay for the grace, or while a backup runs."""
    world = founded()
    world.done(put("a", b"first"))
    world.done(put("a", b"second"))
    world.settled()
    store, first = world.actor("store-3"), name_of(b"first")
    replaced_at = world.machines["store-3"].now_ms

    def swept_after(grace_ms: int) -> bool:
        return first not in swept(store, replaced_at + grace_ms)

    assert not swept_after(RELEASED_GRACE_MS // 2)
    store.turn.now = replaced_at
    store.contents.on_hold(ChunkHold(for_ms=HOLD_MS_MAX))
    assert not swept_after(HOLD_MS_MAX - 1)
    assert swept_after(HOLD_MS_MAX + 1)
    assert name_of(b"second") in store.chunks.held


def test_the_chunks_that_a_manifest_lists_have_its_users() -> None:
    """Given a file of very many chunks, then each of them is kept for as long as the file is."""
    chunks = Chunks()
    names = tuple(name_of(b"%d" % number) for number in range(3))
    content = Indirect(size=3, sha256="0" * 64, manifest=name_of(b"list"))
    for name in (*names, content.manifest):
        chunks.add(name, 100)
    chunks.add_manifest(content.manifest, ChunkManifest(names=names))
    chunks.use(content)
    assert chunks.take_expired(10_000, 10) == []
    assert chunks.release(content, 10_000) == [content.manifest, *names]
    assert chunks.take_expired(10_000 + READING_GRACE_MS - 1, 10) == []
    assert chunks.take_expired(10_000 + READING_GRACE_MS, 10) == sorted((content.manifest, *names))


def test_a_peer_that_does_not_answer_slows_the_copying_of_a_store_only_once() -> None:
    """Given a newcomer that lacks many chunks, when one of its peers receives no request, then it
    is soon asked last, and the newcomer copies at the pace of the other peer.
    """
    world = without_store_3()
    chunks = tuple(upload(world, b"part %d" % number) for number in range(40))
    world.done(PutFile(path="big", content=Chunked(size=1, sha256="0" * 64, chunks=chunks)))
    asked: Counter[str] = Counter()

    def passes(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, ChunkGet):
            asked[to] += 1
        return not (isinstance(message, ChunkGet) and to == silent)

    silent = "store-2"
    with intercepted(world, passes):
        world.start("store-3")
        began = world.now
        joined(world, "store-3")

    assert world.now - began < 6_000
    assert 40 <= asked["store-1"] <= 48
    assert 1 <= asked["store-2"] <= 16, "those that were asked for before its silence was seen"


def test_a_chunk_that_no_peer_holds_is_requested_less_and_less_and_holds_up_no_other() -> None:
    """Given many chunks that all peers lack, and one that they hold, then that one comes at once,
    and each of the others is requested from each peer once a round.
    """
    world = founded()
    held = upload(world, b"held")
    store = world.actor("store-3")
    store.chunks.remove(held)
    lost = tuple(name_of(b"%d" % number) for number in range(20))
    asked: Counter[tuple[str, str]] = Counter()

    def passes(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, ChunkGet):
            asked[message.sha256, to] += 1
        return True

    with intercepted(world, passes):
        store.contents.copy(Chunked(size=1, sha256="0" * 64, chunks=(*lost, held)))
        store._arm("tick", 100, 200)
        store.contents.pump()
        world.machines["store-3"].report_space()  # A turn, which sends the requests by hand.
        world.run(1_000)
        assert store.contents.missing == len(lost)
        world.run(14_000)

    rounds = {asked[name, peer] for name in lost for peer in ("store-1", "store-2")}
    assert max(rounds) <= 8
    assert min(rounds) >= 5

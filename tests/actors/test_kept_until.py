"""The chunks that an upload or a download needs stay, however long it takes; see decision 15."""

import hashlib
import json
from typing import Any

import pytest

from actors.calls import Fetch, FetchedChunk, Holding, KeepChunks
from actors.messages import HOLD_MS_MAX, ChunkGet, ChunkKeep, ChunkPut, TxnPrepare
from actors.options import Options
from actors.store.chunks import READING_GRACE_MS, RELEASED_GRACE_MS, RENEWALS
from actors.values import Batch, Chunked, Command, DeleteFile, Indirect, PutFile
from chaos.simulator.world import World
from tests.actors.test_contents import blobs, name_of, upload
from tests.worlds import founded, intercepted, put, swept

GRACE_MS = 60_000
"""The grace of uploads in these tests; the uploads take several times as long."""


def keep(world: World, names: tuple[str, ...], for_ms: int) -> None:
    """Keeps chunks as a gateway's renewal does."""
    token = world.call(lambda token: KeepChunks(token=token, names=names, for_ms=for_ms))
    assert isinstance(world.answer(token), Holding)


def fetched(world: World, name: str) -> Any:
    return world.answer(world.call(lambda token: Fetch(token=token, sha256=name)))


def held_everywhere(world: World, *names: str) -> bool:
    return all(set(names) <= blobs(world, store).keys() for store in world.options.names("store"))


def held_nowhere_in_the_end(world: World, *names: str) -> bool:
    """Checks that chunks go once no request renews them; else having them would prove nothing."""
    stores = [world.actor(store) for store in world.options.names("store")]
    return not any(set(names) & swept(s, s.now + 2 * READING_GRACE_MS) for s in stores)


def held_nowhere(world: World, *names: str) -> bool:
    stores = world.options.names("store")
    return not any(set(names) & blobs(world, store).keys() for store in stores)


def chunked(*names: str) -> Chunked:
    return Chunked(size=1, sha256="0" * 64, chunks=names)


def file_of_many(world: World, count: int) -> tuple[Indirect, tuple[str, ...]]:
    """Contents with a manifest, which are on the stores, and the names of the chunks."""
    names = tuple(upload(world, b"part %d" % number) for number in range(count))
    manifest = upload(world, json.dumps(names).encode(), manifest=True)
    return Indirect(size=1, sha256="0" * 64, manifest=manifest), names


def test_an_upload_outlives_the_version_that_it_shares_chunks_with() -> None:
    """Given a chunk of a file that was uploaded long ago, when it is uploaded for another file and
    the first one is deleted, then it waits for its command as long as any upload does.
    """
    world = founded(options=Options(chunk_grace_ms=4 * RELEASED_GRACE_MS))
    name = upload(world, b"shared")
    world.done(PutFile(path="old", content=chunked(name)))
    world.run(5 * RELEASED_GRACE_MS)
    upload(world, b"shared")

    world.done(DeleteFile(path="old"))
    world.run(3 * RELEASED_GRACE_MS)

    assert held_everywhere(world, name)
    world.done(PutFile(path="new", content=chunked(name)))


def test_an_upload_may_take_longer_than_the_grace() -> None:
    """Given an upload of five graces, renewed as often as a gateway does, then all of its chunks
    are there for its command; those of one that is not renewed are deleted.
    """
    world = founded(options=Options(chunk_grace_ms=GRACE_MS))
    names = [upload(world, b"part 0")]
    left_alone = upload(world, b"given up")
    for number in range(1, 5 * RENEWALS):
        world.run(GRACE_MS // RENEWALS)
        keep(world, tuple(names), GRACE_MS)
        names.append(upload(world, b"part %d" % number))

    assert held_nowhere(world, left_alone)
    assert held_everywhere(world, *names)
    world.done(PutFile(path="big", content=chunked(*names)))


def test_a_slow_download_of_a_replaced_version_completes() -> None:
    """Given a file that is replaced while it is read, and a network that loses all but every fourth
    renewal, then each chunk is there when the reader comes to it, and gone some time after the end.
    """
    world = founded(options=Options(chunk_grace_ms=GRACE_MS))
    names = tuple(upload(world, b"chunk %d" % number) for number in range(2 * RENEWALS))
    world.done(PutFile(path="big", content=chunked(*names)))
    assert isinstance(fetched(world, names[0]), FetchedChunk)
    world.done(put("big", b"small"))
    renewals = 0

    def passes(sender: str, to: str, message: Any) -> bool:
        nonlocal renewals
        renewals += isinstance(message, ChunkKeep)
        return not isinstance(message, ChunkKeep) or renewals % RENEWALS == 0

    with intercepted(world, passes):
        for name in names[1:]:
            # A quarter of the time of each renewal, which is what `RENEWALS` means.
            world.run(READING_GRACE_MS // RENEWALS)
            keep(world, names, READING_GRACE_MS)
            assert isinstance(fetched(world, name), FetchedChunk)

    assert renewals >= 3 * len(names[1:])
    assert held_nowhere_in_the_end(world, *names)


def test_a_store_outside_the_view_receives_renewals_too() -> None:
    """Given a store that the view has dropped, when an upload renews its chunks, then that store
    keeps them as well: it may be in the view when the command comes.
    """
    world = founded(options=Options(chunk_grace_ms=GRACE_MS))
    name = upload(world, b"data")
    learners = world.options.names("learner")
    world.network.cut |= {(learner, "store-3") for learner in learners}
    world.network.cut |= {("store-3", learner) for learner in learners}
    world.write(put("a", b"1"))
    world.run_until(
        lambda: "store-3" not in world.actor("gateway-1").cluster_state.stores, GRACE_MS // 2
    )
    over = world.actor("store-3").chunks._kept_until[name]

    keep(world, (name,), READING_GRACE_MS)
    world.run(100)

    assert world.actor("store-3").chunks._kept_until[name] >= over + READING_GRACE_MS - GRACE_MS


def test_keeping_a_manifest_keeps_the_chunks_that_it_lists() -> None:
    """Given a file of many chunks that is replaced, then its reader renews only the manifest."""
    world = founded(options=Options(chunk_grace_ms=GRACE_MS))
    content, names = file_of_many(world, 5)
    world.done(PutFile(path="big", content=content))
    world.done(put("big", b"small"))

    for _ in range(2 * RENEWALS):
        world.run(READING_GRACE_MS // RENEWALS)
        keep(world, (content.manifest,), READING_GRACE_MS)

    assert held_everywhere(world, content.manifest, *names)
    assert held_nowhere_in_the_end(world, content.manifest, *names)


def test_an_uploaded_manifest_keeps_chunks_uploaded_long_before() -> None:
    """Given chunks whose time is nearly over when their manifest comes."""
    world = founded(options=Options(chunk_grace_ms=GRACE_MS))
    names = tuple(upload(world, b"part %d" % number) for number in range(3))
    world.run(GRACE_MS - 5_000)

    manifest = upload(world, json.dumps(names).encode(), manifest=True)
    world.run(GRACE_MS - 5_000)

    assert held_everywhere(world, manifest, *names)


@pytest.mark.parametrize(
    "again", ["uploaded", "uploaded_without_room", "read", "renewed", "read_as_list"]
)
def test_each_new_use_of_a_chunk_extends_its_time(again: str) -> None:
    """Given a chunk whose time is nearly over, when a request needs it, then it is kept longer."""
    world = founded()
    content, (name, *_) = file_of_many(world, 2)
    store = world.actor("store-3")
    over = store.chunks._kept_until[content.manifest]
    swept(store, over - 1)
    match again:
        case "uploaded" | "uploaded_without_room":
            # A held chunk needs no room, and the upload goes on.
            store.turn.disk_full = again != "uploaded"
            put_again = ChunkPut(sha256=name, manifest=False, data=b"part 0")
            store.contents.on_put("gateway-1", put_again)
        case "read":
            store.contents.on_get("gateway-1", ChunkGet(sha256=name))
        case "renewed":
            renewal = ChunkKeep(names=(name,), for_ms=READING_GRACE_MS)
            store.contents.on_keep(renewal)
        case _:
            store.contents.on_get("gateway-1", ChunkGet(sha256=content.manifest))

    assert name in swept(store, over + READING_GRACE_MS - 2)
    assert name not in swept(store, over + 2 * world.options.chunk_grace_ms)


def test_a_full_disk_keeps_chunks_in_demand_and_no_left_over_uploads() -> None:
    """Given chunks of unfinished uploads, one of them read, one renewed, and a deleted file, when
    the disk is full, then chunks that no client asks for go after a minute, and the rest after
    their readers' time. With room all of them are kept for an hour.
    """
    world = founded()
    left, read, renewed, named, used = (upload(world, b"%d" % number) for number in range(5))
    world.done(PutFile(path="named", content=chunked(named)))
    world.done(PutFile(path="used", content=chunked(used)))
    store, roomy = world.actor("store-3"), world.actor("store-2")
    for actor in (store, roomy):
        actor.contents.on_get("gateway-1", ChunkGet(sha256=read))
        actor.contents.on_keep(ChunkKeep(names=(renewed,), for_ms=READING_GRACE_MS))
    world.run(RELEASED_GRACE_MS)
    world.done(DeleteFile(path="named"))
    began_at = store.now

    assert {left, read, renewed, named} <= swept(roomy, roomy.now + 3 * READING_GRACE_MS)
    assert {left, named} <= swept(store, began_at + 2 * RELEASED_GRACE_MS)
    store.turn.disk_full = True
    kept = swept(store, store.now + 60_000)
    assert kept & {left, read, renewed, named, used} == {read, renewed, used}
    later = swept(store, began_at + 2 * READING_GRACE_MS)
    assert later & {left, read, renewed, named, used} == {used}
    # A deleted chunk can be uploaded again like any other.
    store.turn.disk_full = False
    store.contents.on_put("gateway-1", ChunkPut(sha256=left, manifest=False, data=b"0"))
    assert left in swept(store, store.now + 2 * RELEASED_GRACE_MS)


def test_reading_or_releasing_a_chunk_never_shortens_its_time() -> None:
    """Given an upload, which is kept for an hour, when the same chunk is read, renewed for a
    moment, and named by a version that is deleted, then it is kept for that hour all the same.
    """
    world = founded()
    name = upload(world, b"data")
    store = world.actor("store-3")
    over = store.chunks._kept_until[name]
    world.done(PutFile(path="a", content=chunked(name)))
    store.contents.on_get("gateway-1", ChunkGet(sha256=name))
    store.contents.on_keep(ChunkKeep(names=(name,), for_ms=1))
    world.done(DeleteFile(path="a"))
    world.settled()

    assert name in swept(store, over - 1)
    assert name not in swept(store, over)


def test_no_renewal_keeps_a_chunk_for_longer_than_an_upload_would() -> None:
    world = founded()
    name = upload(world, b"data")
    store = world.actor("store-3")
    began = store.now

    store.contents.on_keep(ChunkKeep(names=(name,), for_ms=1 << 50))

    grace_ms = world.options.chunk_grace_ms
    assert name in swept(store, began + grace_ms)
    assert name not in swept(store, began + grace_ms * 5 // 4)


def test_a_paused_store_handles_the_renewals_before_it_sweeps() -> None:
    """Given a store that is paused for longer than any chunk's time while a download renews its
    chunks, when it goes on, then its sweep, which is in its queue before the renewals, deletes
    nothing.
    """
    world = founded(options=Options(chunk_grace_ms=GRACE_MS))
    names = tuple(upload(world, b"chunk %d" % number) for number in range(2))
    keep(world, names, READING_GRACE_MS)
    paused = world.machines["store-3"]
    world.run(10_000)

    paused.pause((READING_GRACE_MS + GRACE_MS) * 1_000)
    for _ in range(RENEWALS):
        world.run(READING_GRACE_MS // RENEWALS)
        keep(world, names, READING_GRACE_MS)
    world.run_until(lambda: not paused.is_paused, 2 * GRACE_MS)
    world.run(1_000)

    store = world.actor("store-3")
    assert set(names) <= store.chunks.held
    assert store.chunks._kept_until[names[0]] > store.now
    assert held_nowhere_in_the_end(world, *names)


def test_a_restarted_store_keeps_all_chunks_for_the_longest_time() -> None:
    """Given short graces for uploads, when a store restarts, then chunks of a reader or a backup
    are not deleted, though the journal does not name these.
    """
    world = founded(options=Options(chunk_grace_ms=GRACE_MS))
    name = upload(world, b"data")

    world.crash("store-3")
    world.start("store-3")

    store = world.actor("store-3")
    began = store.now
    assert name in swept(store, began + max(READING_GRACE_MS, HOLD_MS_MAX) - 1)
    assert name not in swept(store, began + max(READING_GRACE_MS, HOLD_MS_MAX))


def test_inline_contents_of_a_waiting_prepare_are_there_once_the_rest_comes() -> None:
    """Given a prepare that waits for a chunk, when a sweep deletes the contents that came inside
    its other command, which nothing keeps, then the store votes yes once the chunk is there.
    """
    world = founded()
    store = world.actor("store-3")
    late = name_of(b"late")
    operations = (put("inline", b"inside"), PutFile(path="chunked", content=chunked(late)))
    commands = tuple(
        Command(
            session="s", sequence=number, acknowledged=-1, reply_to="gateway-1", operation=operation
        )
        for number, operation in enumerate(operations)
    )
    slot = store.state.applied + 1
    batch = Batch(commands=commands)
    store._on_prepare("learner-1", TxnPrepare(epoch=store.fence, slot=slot, batch=batch))
    store.contents.sweep()
    assert name_of(b"inside") not in store.chunks.held
    assert slot not in store.prepared

    store._on_chunk_put("gateway-1", ChunkPut(sha256=late, manifest=False, data=b"late"))

    assert slot in store.prepared
    assert not store.prepared[slot].refused
    assert {name_of(b"inside"), late} <= store.chunks.held


def test_many_readers_of_a_long_manifest_raise_its_chunks_times_rarely() -> None:
    """Given readers that ask for a manifest again and again, then not every read goes through the
    chunks that it lists: manifests are as long as files are large.
    """
    world = founded()
    content, (name, *_) = file_of_many(world, 2)
    store = world.actor("store-3")
    swept(store, store.now + world.options.chunk_grace_ms - 1)
    ends = set()
    for _ in range(1_000):
        store.turn.now += READING_GRACE_MS // 1_000
        store.contents.on_get("gateway-1", ChunkGet(sha256=content.manifest))
        ends.add(store.chunks._kept_until[name])

    assert len(ends) <= 10
    assert hashlib.sha256(b"part 0").hexdigest() == name

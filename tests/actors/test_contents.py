"""The chunks of a store: which it copies, which it keeps, and for how long it waits for one."""

import hashlib
import json
from typing import Any

import pytest

from actors.calls import Decided, Upload, Uploaded
from actors.messages import (
    ChunkPut,
)
from actors.values import Chunked, DeleteFile, Indirect, PutFile
from chaos.simulator.world import World
from tests.worlds import founded, put


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


def without_store_3() -> World:
    """A cluster whose view has dropped `store-3`, which is down."""
    world = founded()
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
    monkeypatch.setattr("actors.chunks.RELEASED_GRACE_MS", 200)
    monkeypatch.setattr("actors.chunks.READING_GRACE_MS", 500)
    monkeypatch.setattr("actors.contents.READING_GRACE_MS", 500)
    monkeypatch.setattr("actors.contents._SWEEP_MS", 100)


@pytest.mark.usefixtures("short_graces")
def test_a_store_does_not_wait_for_contents_that_went_away_while_it_copied() -> None:
    """Given a newcomer that lacks a chunk, when its file is deleted and the others let go of it,
    then the newcomer is whole without it, and is added.
    """
    world = without_store_3()
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

    joined(world, "store-3")
    assert store.contents.missing == 0


def test_a_manifest_that_is_uploaded_again_names_what_is_still_to_be_copied() -> None:
    """Given a newcomer that lacks a file of many chunks, when a client sends it the list of them,
    then it knows that it lacks the chunks, too.
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
    assert not store.joining.is_whole
    world.network.cut.clear()
    joined(world, "store-3")
    assert set(chunks) <= blobs(world, "store-3").keys()


def test_a_file_that_looks_like_a_list_of_chunks_hides_none() -> None:
    """Given a file whose only chunk is the list of another file's chunks, then a newcomer copies
    those as well, whichever of the two it comes to first.
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


def test_contents_that_nobody_has_who_answers_abort_the_write_and_hold_up_no_other() -> None:
    """Given a store that is away for long, when a write names contents that no other store holds,
    then that write is aborted soon, and the next ones happen.
    """
    world = without_store_3()
    nowhere = "0" * 64
    content = Chunked(size=1, sha256=nowhere, chunks=(nowhere,))

    answer = world.answer(world.write(PutFile(path="a", content=content)), within_ms=9_000)

    assert isinstance(answer, Decided)
    assert answer.outcome.status == "aborted"
    assert "contents are on no store that answers" in answer.outcome.detail
    world.done(put("b", b"2"))

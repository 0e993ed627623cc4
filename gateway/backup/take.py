"""Takes a backup of a running cluster into a folder (`gateway.backup.folder`).

The rows are one replica's state at one slot, so they are consistent whatever is written meanwhile,
and the slot is at or after that of every write acknowledged before the backup began. Chunks are
named by their contents, so they can be fetched later, one by one, from any store; the cluster keeps
those replaced in the meantime. Chunks in the folder are checked, not fetched again.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actors.messages import SnapshotRow
from actors.state.snapshots import digest_of
from actors.store.chunks import read_manifest
from actors.values import Indirect
from broker.keys import KeyRing
from gateway.backup.folder import BackupFolder, Contained, load_row
from gateway.backup.manifest import Manifest
from gateway.backup.rows_draft import RowsDraft
from gateway.backup.signatures import Signer
from gateway.cli.transfer import PARALLEL, Progress
from synod.client import AsyncClient
from synod.errors import Damaged, NotFound, SynodError

_RENEWALS = 4
"""How many times the hold is renewed within its duration."""

_COPIES_BEGUN_MOST = 20
_CHUNK_TRIES = 3


@dataclass(slots=True)
class Fetched:
    """The sizes of a backup's chunks, of all and of the fetched ones."""

    sizes: dict[str, int]
    fetched: int = 0
    fetched_bytes: int = 0


async def backup(
    synod: AsyncClient,
    path: Path,
    *,
    progress: Progress,
    parallel: int = PARALLEL,
    keys: KeyRing | None = None,
    signer: Signer | None = None,
) -> tuple[Manifest, Fetched]:
    """Make `path` a backup of the cluster behind `synod`, a new one or based on a former one.

    With `keys` it is encrypted, with a `signer` signed. Raises `SynodError`; then a former backup
    in `path` is still whole.
    """
    begun = await synod.begin_backup()
    folder = BackupFolder(path, keys)
    with folder.claim(begun["cluster"]):
        async with _held(synod, begun["hold_ms"]):
            contained, about_rows = await _copy_rows(synod, folder, begun["at_least"])
            chunks = await _copy_chunks(synod, folder, contained, progress, parallel)
        manifest = Manifest(
            cluster=begun["cluster"],
            taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
            slot=contained.state.applied,
            state_hash=contained.state.state_hash,
            **about_rows,
            files=len(contained.files),
            files_bytes=sum(file.content.size for file in contained.files),
            chunks=len(chunks.sizes),
            chunks_bytes=sum(chunks.sizes.values()),
            settings=begun["settings"],
        )
        manifest = await asyncio.to_thread(folder.finish, manifest, signer)
        await asyncio.to_thread(folder.prune, manifest, chunks.sizes)
    return manifest, chunks


@contextlib.asynccontextmanager
async def _held(synod: AsyncClient, hold_ms: int) -> AsyncIterator[None]:
    """While the block runs, the cluster deletes no chunk. Raises `SynodError`."""

    async def renew() -> None:
        async with synod.sibling() as mine:
            while True:
                await asyncio.sleep(hold_ms / 1000 / _RENEWALS)
                await mine.begin_backup()

    try:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(renew())
            yield
            renewing.cancel()
    except ExceptionGroup as failures:
        raise _first_of(failures) from failures


# -- rows -----------------------------------------------------------------------------------------


async def _copy_rows(
    synod: AsyncClient, folder: BackupFolder, at_least: int
) -> tuple[Contained, dict[str, Any]]:
    """One replica's whole state, from its first page to its last."""
    with folder.rows_draft() as draft:
        for _ in range(_COPIES_BEGUN_MOST):
            contained = await _copy_state(synod, draft, at_least)
            if contained is not None:
                break
        else:
            raise SynodError("no replica kept its state long enough to copy it")
        contained.state.restored()
        return contained, await asyncio.to_thread(_keep_rows, folder, draft, contained)


def _keep_rows(folder: BackupFolder, draft: RowsDraft, contained: Contained) -> dict[str, Any]:
    return {
        "rows_file": folder.keep_rows(draft, contained.state.applied),
        "rows": draft.rows,
        "rows_bytes": draft.size,
        "rows_sha256": draft.sha256,
    }


async def _copy_state(synod: AsyncClient, draft: RowsDraft, at_least: int) -> Contained | None:
    """All pages of one snapshot; `None` if it was gone before the last one."""
    draft.restart()
    contained = Contained()
    place: dict[str, str | int] = {"source": "", "slot": 0, "page": 0}
    while True:
        answer = await synod.backup_rows(at_least=at_least, **place)
        if place["page"] and any(answer[name] != place[name] for name in place):
            return None
        rows = [SnapshotRow(key=key, value=value) for key, value in answer["rows"]]
        if digest_of(rows) != answer["digest"]:
            raise Damaged("a page of the state does not match its digest; try again")
        for row in rows:
            line = json.dumps([row.key, row.value]).encode() + b"\n"
            draft.write(line)
            load_row(contained.state, line)
        if not answer["rows_left"]:
            break
        place = {
            "source": answer["source"],
            "slot": answer["slot"],
            "page": answer["page"] + 1,
        }
    if contained.state.applied != answer["slot"] or contained.state.view is None:
        raise Damaged("the pages of the state are incomplete or inconsistent; try again")
    return contained


# -- chunks ---------------------------------------------------------------------------------------


async def _copy_chunks(
    synod: AsyncClient,
    folder: BackupFolder,
    contained: Contained,
    progress: Progress,
    parallel: int,
) -> Fetched:
    """Every chunk that the state names: checked if it is in the folder, else fetched."""
    done = Fetched({})
    contents = list(contained.contents())
    progress.expect(1, sum(content.size for content in contents))

    async def copy_listing(synod: AsyncClient, name: str) -> None:
        listing = read_manifest(await _copy_chunk(synod, folder, name, done))
        if listing is None:
            raise Damaged(f"the chunk {name} should list chunks and does not")
        contained.listings[name] = listing.names

    async def copy_piece(synod: AsyncClient, name: str) -> None:
        await _copy_chunk(synod, folder, name, done)
        progress.moved(done.sizes[name])

    listings = {content.manifest for content in contents if isinstance(content, Indirect)}
    await _each(synod, listings, copy_listing, parallel)
    pieces = (name for name in contained.chunk_names() if name not in listings)
    await _each(synod, pieces, copy_piece, parallel)
    return done


async def _each(
    synod: AsyncClient,
    names: Iterable[str],
    copy: Callable[[AsyncClient, str], Awaitable[None]],
    parallel: int,
) -> None:
    """Copy every chunk, some at a time. Raises the first error."""
    todo = iter(names)

    async def work() -> None:
        async with synod.sibling() as mine:
            for name in todo:
                await copy(mine, name)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(work())
    except ExceptionGroup as failures:
        raise _first_of(failures) from failures


async def _copy_chunk(synod: AsyncClient, folder: BackupFolder, name: str, done: Fetched) -> bytes:
    data = await asyncio.to_thread(folder.sound_chunk, name)
    if data is None:
        data = await _fetch(synod, name)
        await asyncio.to_thread(folder.keep_chunk, name, data)
        done.fetched += 1
        done.fetched_bytes += len(data)
    done.sizes[name] = len(data)
    return data


async def _fetch(synod: AsyncClient, name: str) -> bytes:
    for attempt in range(_CHUNK_TRIES):
        try:
            return await synod.chunk(name)
        except Damaged:
            if attempt == _CHUNK_TRIES - 1:
                raise
        except NotFound as error:
            raise SynodError(f"{error}; run the backup again to continue from here") from None
    raise AssertionError("unreachable")


def _first_of(failures: ExceptionGroup[Exception]) -> Exception:
    error: Exception = failures
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error

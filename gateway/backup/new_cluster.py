"""Makes the data folders of a new cluster from a state and its contents, while no node runs there.

The new cluster has an id of its own and new disks, so no node of the old one, and no message left
in a queue, is taken for a part of it. Its slots continue at the wall clock's milliseconds: above
the state's slot, and above every slot that the old cluster has reached since (unless it decided a
thousand slots a second all the time). So no version, ETag or result of the old cluster, also of
writes that are not in the state, is ever used again for something else.
"""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from actors.effects import Blob, Record
from actors.founding import FOUNDED, HELD
from actors.options import Options, role_of
from actors.paxos.acceptor import TRUNCATED
from actors.store.chunks import ChunkManifest
from actors.values import FoundingMember, Genesis, StoreMember, View
from broker.journal import Journal
from broker.journal_folder import make_folder, sync_folder
from gateway.backup.folder import LOST_AND_FOUND, BackupRefused, Contained, Moved
from gateway.http.metadata import mended

_STAGING = ".restoring"
_ROWS_PER_COMMIT = 500
_COMMIT_BYTES = 8 * 1024 * 1024

Create = Callable[[Path], Journal]
"""Makes the journal of the member that the folder is named after."""


def first_slot(state_slot: int, now_ms: int | None = None) -> int:
    """The slot after which the new cluster goes on; `now_ms` is Unix time."""
    wall_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    return max(state_slot, wall_ms)


def mend(contained: Contained) -> tuple[str, ...]:
    """Replace metadata that would be refused today; returns the paths of these files."""
    odd = []
    for entry in contained.files:
        right = mended(entry)
        if right is not entry:
            contained.state.entries[entry.path] = right
            odd.append(entry.path)
    return tuple(odd)


def end_logins(contained: Contained) -> None:
    """A session is of the cluster in which somebody logged in: since the state it may have been
    revoked, and whoever has the password or the token can begin another one.
    """
    policy = contained.state.policy
    for login in sorted(policy.logins):
        policy.remove("login", login, "restored")


def check_empty(data: Path, also: str = "") -> None:
    """Refuse a folder that holds more than an interrupted call has left, or the folder `also`.

    Raises `BackupRefused`.
    """
    others = sorted(
        found.name for found in os.scandir(data) if found.name != also and not _may_be_there(found)
    )
    if others:
        raise BackupRefused(
            f"{data} is not empty (it holds {others[0]!r}): a new cluster is made in a folder of "
            "its own, never over a cluster's data"
        )


def _may_be_there(found: "os.DirEntry[str]") -> bool:
    """Whether it is left from an interrupted call, or the root folder of a file system."""
    if not found.is_dir(follow_symlinks=False):
        return False
    if found.name != _STAGING:
        return found.name == LOST_AND_FOUND
    try:
        return all(role_of(name) for name in os.listdir(found.path))
    except ValueError:
        return False


def write_cluster(
    data: Path,
    options: Options,
    create: Create,
    contained: Contained,
    slot: int,
    read_chunk: Callable[[str], bytes],
    moved: Moved | None = None,
) -> Genesis:
    """Write a journal for each member below `data`, which becomes a cluster as of the end.

    After an interruption `data` holds no node yet, only files that the next call removes.
    `read_chunk` returns the checked contents of that name.
    """
    staging = data.absolute() / _STAGING
    if staging.exists():
        shutil.rmtree(staging)
    make_folder(staging)
    with contextlib.ExitStack() as journals_open:
        journals = {
            name: journals_open.enter_context(create(staging / name)) for name in options.members
        }
        genesis = _found(journals, options, contained, slot)
        for name, journal in journals.items():
            _write_rows(journal, _rows(name, genesis, contained, slot))
        stores = [journals[name] for name in options.names("store")]
        _write_contents(stores, read_chunk, contained, moved)
    # The folders get their names last: until then no node can be started.
    for name in options.members:
        (staging / name).rename(data / name)
    staging.rmdir()
    sync_folder(data)
    return genesis


def _found(
    journals: dict[str, Journal], options: Options, contained: Contained, slot: int
) -> Genesis:
    """The genesis of the new cluster; from here on the state's view names its disks.

    The view names an incarnation of the coordinator that never runs. The learner starts with a
    later one, so it does not continue this epoch but asks the log for a new View.
    """
    state = contained.state
    assert state.view is not None
    coordinator = options.names("learner")[0]
    named = journals[coordinator].identity
    view = View(
        epoch=state.view.epoch + 1,
        coordinator=coordinator,
        coordinator_disk=named.disk,
        coordinator_incarnation=named.incarnation,
        stores=tuple(
            StoreMember(name=name, disk=journals[name].identity.disk, added_slot=0)
            for name in options.names("store")
        ),
    )
    state.found_anew(slot, view)
    return Genesis(
        cluster=secrets.token_hex(16),
        constants=options.constants,
        members=tuple(
            FoundingMember(name=name, disk=journal.identity.disk)
            for name, journal in journals.items()
        ),
        view=view,
    )


def _rows(name: str, genesis: Genesis, contained: Contained, slot: int) -> Iterator[Record]:
    """The initial records of one member's journal."""
    role = role_of(name)
    if role == "acceptor":
        yield Record(HELD, genesis.to_json())
        # The log before the restored state no longer exists: no acceptor may vote on its slots.
        yield Record(TRUNCATED, b"%d" % (slot + 1))
    elif role in ("learner", "store"):
        for key, row in contained.state.rows():
            yield Record(key, row.to_json())
    if role == "store":
        for listing, names in contained.listings.items():
            yield Record(f"manifest/{listing}", ChunkManifest(names=names).to_json())
    yield Record(FOUNDED, genesis.to_json())


def _write_rows(journal: Journal, rows: Iterable[Record]) -> None:
    page: list[Record] = []
    for row in rows:
        page.append(row)
        if len(page) == _ROWS_PER_COMMIT:
            journal.commit(page)
            page.clear()
    journal.commit(page)


def _write_contents(
    stores: list[Journal],
    read_chunk: Callable[[str], bytes],
    contained: Contained,
    moved: Moved | None,
) -> None:
    """Copy every chunk into every store; each is read and checked again."""
    page: list[Blob] = []
    size = 0

    def flush() -> None:
        for store in stores:
            store.commit((), page)
        page.clear()

    for name in contained.chunk_names():
        data = read_chunk(name)
        page.append(Blob(name, data))
        size += len(data)
        if moved is not None:
            moved(len(data))
        if size >= _COMMIT_BYTES:
            flush()
            size = 0
    flush()

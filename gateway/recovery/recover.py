"""Founds a new cluster from the disks that are left of one that lost its acceptors for good.

First everything is looked at: which state is the most advanced one, what lies beyond it, whether
the stores agree, and whether all contents are there. Then the new cluster is made as a restore
makes one of a backup. The old folders are only read.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from actors.options import Options
from actors.paxos.membership import Key
from actors.recovery.judgement import Judgement, Unrecoverable, judge
from broker.journal import Journal
from broker.keys import KeyRing
from gateway.backup.folder import BackupRefused, Moved, alone_in
from gateway.backup.new_cluster import check_empty, end_logins, first_slot, mend, write_cluster
from gateway.recovery.contents import Collected, OldContents, collect
from gateway.recovery.folders import (
    OpenedNode,
    RecoveryRefused,
    check_outside,
    find,
    opened,
)

_NAMED_MOST = 5


@dataclass(slots=True)
class Look:
    """What the given folders hold, while their copies are open."""

    given: Sequence[Path]
    """The folders that were named."""
    nodes: list[OpenedNode]
    applied: dict[Key, int]
    """The slot of each node's own state."""
    judged: Judgement
    contents: OldContents
    collected: Collected


class Recovered(NamedTuple):
    """The initial state of the new cluster; see `gateway.backup.restore.Restored`."""

    cluster: str
    slot: int
    members: tuple[str, ...]
    mended: tuple[str, ...]


@contextlib.contextmanager
def looked_at(
    paths: Sequence[Path],
    *,
    scratch: Path | None = None,
    keys: KeyRing | None = None,
    moved: Moved | None = None,
) -> Iterator[Look]:
    """Look at everything in the folders `paths`; copies are kept below `scratch` meanwhile.

    `keys` open encrypted journals; `moved` is told of all contents that are read. Raises
    `RecoveryRefused`.
    """
    folders = find(paths)
    if not any(folder.node.startswith(("store-", "learner-")) for folder in folders):
        raise RecoveryRefused("no folder of a store is given, so there is nothing to recover")
    if scratch is not None:
        check_outside(scratch, paths)
    with (
        tempfile.TemporaryDirectory(prefix="synod-recover-", dir=scratch) as copies,
        opened(folders, Path(copies), keys) as nodes,
    ):
        applied = {(one.node.name, one.node.disk): one.node.applied for one in nodes}
        try:
            judged = judge([one.node for one in nodes])
        except Unrecoverable as error:
            raise RecoveryRefused(f"{error}") from None
        base_first = sorted(nodes, key=lambda one: one.node is not judged.base)
        contents = OldContents(base_first)
        yield Look(paths, nodes, applied, judged, contents, collect(judged, contents, moved))


def recover(
    look: Look,
    data: Path,
    options: Options,
    cluster_name: str,
    *,
    old_cluster_is_dead: bool,
    without_lost_files: bool = False,
    now_ms: int | None = None,
    keys: KeyRing | None = None,
    encrypted: bool = False,
    moved: Moved | None = None,
) -> Recovered:
    """Make the data folders of a new cluster below `data`, with a journal for each member.

    Raises `RecoveryRefused`, `BackupRefused` or `JournalError`: unless the caller says that the old
    cluster is dead; if files without contents would be left out, and the caller does not want that;
    if `data` is not empty.
    """
    _check_dead(look.judged, old_cluster_is_dead)
    lost = look.collected.lost
    if lost and not without_lost_files:
        names = ", ".join(repr(entry.path) for entry in lost[:_NAMED_MOST])
        raise RecoveryRefused(
            f"the contents of {len(lost)} files are in none of the folders, or damaged in all: "
            f"{names}{' …' if len(lost) > _NAMED_MOST else ''}. Give further stores' folders, or "
            "leave these files out with --without-lost-files"
        )
    check_outside(data, look.given)
    look.collected.leave_out_lost()
    contained = look.collected.contained
    slot = first_slot(look.judged.through, now_ms)
    odd = mend(contained)
    end_logins(contained)
    try:
        with alone_in(data):
            check_empty(data)

            def create(path: Path) -> Journal:
                return Journal.open(path, path.name, cluster_name, keys=keys, encrypted=encrypted)

            read = look.contents.read
            genesis = write_cluster(data, options, create, contained, slot, read, moved)
    except BackupRefused as error:
        raise RecoveryRefused(f"{error}") from None
    return Recovered(genesis.cluster, slot, options.members, odd)


def _check_dead(judged: Judgement, is_dead: bool) -> None:
    if is_dead:
        return
    if judged.has_quorum:
        names = ", ".join(name for name, _ in judged.acceptors)
        raise RecoveryRefused(
            f"a majority of the acceptors is here ({names}): with them the old cluster can run, "
            "and loses nothing. Start it. Only if that is impossible: --the-old-cluster-is-dead"
        )
    raise RecoveryRefused(
        "nothing here proves that the old cluster is dead: were a majority of its acceptors "
        "started anywhere, there would be two clusters, each with writes that the other lacks. If "
        "they are lost for good, and no node of it can start again: --the-old-cluster-is-dead"
    )

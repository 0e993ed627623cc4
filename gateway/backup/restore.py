"""Makes a new cluster's data folders from a backup, while no node runs on them."""

from pathlib import Path
from typing import NamedTuple

from actors.options import Options
from broker.journal import Journal
from broker.keys import KeyRing
from gateway.backup.folder import BackupFolder, Moved, alone_in
from gateway.backup.manifest import Manifest
from gateway.backup.new_cluster import check_empty, end_logins, first_slot, mend, write_cluster
from gateway.backup.signatures import Trust


class Restored(NamedTuple):
    """The initial state of a restored cluster.

    `mended` are the files with metadata that would be refused today; the new cluster keeps the
    metadata that the old one showed (`gateway.http.metadata.served`).
    """

    manifest: Manifest
    cluster: str
    slot: int
    members: tuple[str, ...]
    mended: tuple[str, ...] = ()


def restore(
    backup: Path,
    data: Path,
    options: Options,
    cluster_name: str,
    *,
    moved: Moved | None = None,
    now_ms: int | None = None,
    keys: KeyRing | None = None,
    trust: Trust | None = None,
    encrypted: bool = False,
) -> Restored:
    """Check all of `backup`, then write a journal for each member below `data`.

    `now_ms` is Unix time; `keys` open an encrypted backup and close `encrypted` journals; `trust`
    says whose backups are taken. Raises `BackupDamaged`, `BackupRefused`, `SignatureRefused` or
    `JournalError`. After an interruption `data` holds no node yet, only files that the next call
    removes.
    """
    folder = BackupFolder(backup, keys, trust)
    manifest, contained = folder.verify(moved)
    slot = first_slot(manifest.slot, now_ms)
    odd = mend(contained)
    end_logins(contained)
    with alone_in(data):
        check_empty(data)

        def create(path: Path) -> Journal:
            return Journal.open(path, path.name, cluster_name, keys=keys, encrypted=encrypted)

        genesis = write_cluster(data, options, create, contained, slot, folder.chunk, moved)
    return Restored(manifest, genesis.cluster, slot, options.members, odd)

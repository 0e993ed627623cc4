"""A backup of a small state, made by hand."""

import hashlib
import json
from pathlib import Path
from typing import Any

from actors.state.namespace import Namespace
from actors.values import AnyOperation, Batch, Command, Constants, OpenSession, StoreMember, View
from broker.keys import KeyRing
from gateway.backup.folder import BackupFolder
from gateway.backup.manifest import Manifest
from gateway.backup.signatures import Signer
from tests.worlds import put

DATA = (b"contents", b"others")
NAMES = tuple(hashlib.sha256(data).hexdigest() for data in DATA)


def former(*policy: AnyOperation) -> Namespace:
    """The state of the cluster that was backed up, at slot 4, or after these changes of the policy
    at the slots from 5 on.
    """
    state = Namespace(Constants())
    member = StoreMember(name="store-1", disk="former", added_slot=0)
    state.view = View(
        epoch=7,
        coordinator="learner-2",
        coordinator_disk="former",
        coordinator_incarnation=3,
        stores=(member,),
    )
    operations: tuple[AnyOperation, ...] = (
        OpenSession(),
        put("a", DATA[0]),
        put("b", DATA[0]),
        put("c", DATA[1]),
        *policy,
    )
    for sequence, operation in enumerate(operations):
        command = Command(
            session="s",
            sequence=sequence,
            acknowledged=-1,
            reply_to="gateway-1",
            operation=operation,
        )
        state.apply(sequence + 1, Batch(commands=(command,)), ())
    return state


def make_backup(
    path: Path,
    state: Namespace | None = None,
    *,
    keys: KeyRing | None = None,
    signer: Signer | None = None,
    **changes: Any,
) -> Manifest:
    """Make `path` a backup of `former()`, or of a `state` with the same contents, whose manifest
    says `changes` instead of what is true.
    """
    state, folder = former() if state is None else state, BackupFolder(path, keys)
    with folder.claim("former"):
        with folder.rows_draft() as draft:
            for key, row in state.rows():
                draft.write(json.dumps([key, row.to_json().decode()]).encode() + b"\n")
            name = folder.keep_rows(draft, state.applied)
        for chunk, data in zip(NAMES, DATA, strict=True):
            folder.keep_chunk(chunk, data)
        manifest = Manifest(
            cluster="former",
            taken_at="2026-01-01T00:00:00+00:00",
            slot=state.applied,
            state_hash=state.state_hash,
            rows_file=name,
            rows=draft.rows,
            rows_bytes=draft.size,
            rows_sha256=draft.sha256,
            files=3,
            files_bytes=sum(len(DATA[n]) for n in (0, 0, 1)),
            chunks=2,
            chunks_bytes=sum(len(data) for data in DATA),
            settings={},
        )
        made = folder.finish(manifest.model_copy(update=changes), signer)
        folder.prune(made, NAMES)
    return made

"""The folder of a backup: its contents, how it is written, and how it is checked.

    manifest.json              written last; names and hashes the file of rows, and itself
    rows-<slot>-<hash>.jsonl   the replicated state at that slot, a row a line: [key, value]
    chunks/<ab>/<sha256>       the contents that the rows name; a file's name is its hash

In an encrypted backup (`gateway.backup.vault`) rows and chunks have the same places, but a chunk's
file is named by a keyed hash of that name.

Everything depends on the manifest: the rows by their SHA-256, the chunks by the names in the rows.
So a folder is a backup if and only if it has a valid manifest. A newer backup into the same folder
adds files, then replaces the former manifest, then removes the files that only that one needed;
whenever it is interrupted, one whole backup is left.

The folder may have been on other machines, so nothing in it is trusted: no link is followed, only
regular files are read, no further than the manifest says, and only files that a backup writes are
removed. Only its owner may read it.
"""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from actors.effects import Record
from actors.errors import JournalUnreadable
from actors.state.namespace import Namespace
from actors.store.chunks import read_manifest
from actors.values import CHUNK_BYTES, Chunked, DirectoryEntry, FileEntry, Indirect
from broker.journal_folder import (
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    JournalError,
    make_folder,
    restrict_permissions,
    sync_folder,
)
from broker.keys import KeyRing, KeysRefused
from gateway.backup.manifest import ROWS_NAME, Manifest
from gateway.backup.rows_draft import ROWS_LABEL, RowsDraft
from gateway.backup.signatures import Signer, Trust
from gateway.backup.vault import SEGMENT_BYTES, Vault, sealed_size
from synod.errors import SynodError
from synod.paths import InvalidPath, checked_path, parent

MANIFEST_NAME = "manifest.json"
CHUNKS_NAME = "chunks"

LOST_AND_FOUND = "lost+found"
"""The folder at the root of a separate file system."""

_NAMED_MOST = 20
_MANIFEST_BYTES_MAX = 1024 * 1024
_ROW_BYTES_MAX = 64 * 1024 * 1024
"""A row is a path, or a session with its results; an endless line must not fill the memory."""
_FORMER_ROWS_NAME = re.compile(r"rows(-[0-9]+-[0-9a-f]+)?\.jsonl(\.part)?")
_CHUNK_NAME = re.compile(r"[0-9a-f]{64}")
_PART = ".part"

Moved = Callable[[int], None]
"""Receives how many more bytes were read."""


class BackupRefused(SynodError):
    """This folder can't hold this backup, or the backup can't be restored there."""


class BackupDamaged(SynodError):
    """The backup is damaged; `parts` names every damaged file, and why."""

    def __init__(self, folder: Path, parts: list[str]) -> None:
        self.parts = parts
        shown = "; ".join(parts[:_NAMED_MOST])
        more = f"; and {len(parts) - _NAMED_MOST} more" if len(parts) > _NAMED_MOST else ""
        super().__init__(f"{folder} is not a whole backup: {shown}{more}")


class Contained:
    """The state in a backup, and the chunks that its files need."""

    def __init__(self) -> None:
        self.state = Namespace()
        self.listings: dict[str, tuple[str, ...]] = {}
        """The manifests of files, each with the chunks that it lists."""

    def chunk_names(self) -> Iterator[str]:
        """Every chunk once; those that list others come before the listed ones."""
        seen: set[str] = set()
        for content in self.contents():
            for name in self.names_of(content):
                if name not in seen:
                    seen.add(name)
                    yield name

    def contents(self) -> Iterator[Chunked | Indirect]:
        """The contents of all files, equal contents once."""
        unique: dict[tuple[str, ...], Chunked | Indirect] = {}
        for entry in self.state.entries.values():
            if isinstance(entry, FileEntry):
                content = entry.content
                key = content.chunks if isinstance(content, Chunked) else (content.manifest, "")
                unique.setdefault(key, content)
        return iter(unique.values())

    def names_of(self, content: Chunked | Indirect) -> tuple[str, ...]:
        """The chunks of one file, with its list of chunks if there is one."""
        if isinstance(content, Chunked):
            return content.chunks
        return (content.manifest, *self.listings.get(content.manifest, ()))

    @property
    def files(self) -> list[FileEntry]:
        """All files."""
        return [entry for entry in self.state.entries.values() if isinstance(entry, FileEntry)]


class BackupFolder:
    """One folder. `claim` it to write a backup; `read` and `verify` an existing one.

    `keys` open and make encrypted backups; with `trust` only backups that it accepts are read.
    """

    def __init__(self, path: Path, keys: KeyRing | None = None, trust: Trust | None = None) -> None:
        self.path = path
        self._keys = keys
        self._trust = trust
        self._vault: Vault | None = None
        self._touched: set[Path] = set()

    # -- reading ---------------------------------------------------------------------------------

    def manifest(self) -> Manifest:
        """The manifest, if it may be trusted and opened; what is read next is what it is of.

        Raises `BackupDamaged`, `SignatureRefused`, or `BackupRefused` without the right key.
        """
        manifest = self._manifest()
        if self._trust is not None:
            self._trust.check(manifest, self.path)
        self._vault = self._opened_vault(manifest)
        return manifest

    def _opened_vault(self, manifest: Manifest) -> Vault | None:
        if manifest.sealed is None:
            return None
        if self._keys is None:
            raise BackupRefused(
                f"{self.path} is encrypted: name the key with --key-file or --key-command "
                "(key_file, key_command)"
            )
        try:
            vault = Vault.of(manifest.sealed, self._keys, str(self.path))
        except KeysRefused as error:
            raise BackupRefused(f"{error}") from None
        except ValueError as error:
            raise BackupDamaged(self.path, [f"{MANIFEST_NAME}: {error}"]) from None
        if not vault.made(manifest):
            reason = f"{MANIFEST_NAME}: it was changed by somebody without the key"
            raise BackupDamaged(self.path, [reason])
        return vault

    def _manifest(self) -> Manifest:
        try:
            return Manifest.load(self._read(MANIFEST_NAME, _MANIFEST_BYTES_MAX))
        except FileNotFoundError:
            reason = f"{MANIFEST_NAME} is missing: it is written last, so none was finished"
            raise BackupDamaged(self.path, [reason]) from None
        except OSError as error:
            raise BackupDamaged(self.path, [f"{MANIFEST_NAME}: {error.strerror}"]) from None
        except ValueError as error:
            raise BackupDamaged(self.path, [f"{MANIFEST_NAME}: {error}"]) from None

    def rows(self, manifest: Manifest) -> Contained:
        """The state, if the file of rows is whole. Raises `BackupDamaged`."""
        name = manifest.rows_file
        contained = Contained()
        rows = 0
        try:
            with self._opened(name) as file:
                rows = _check_rows(*self._plain(file), manifest)
                file.seek(0)
                plain, _ = self._plain(file)
                while line := plain.readline(_ROW_BYTES_MAX):
                    load_row(contained.state, line)
            _check_tree(contained)
        except OSError as error:
            raise BackupDamaged(self.path, [f"{name}: {error.strerror}"]) from None
        except ValueError as error:
            raise BackupDamaged(self.path, [f"{name}: {error}"]) from None
        state = contained.state
        state.restored()
        held = (rows, state.applied, state.state_hash, len(contained.files))
        said = (manifest.rows, manifest.slot, manifest.state_hash, manifest.files)
        if held != said or state.view is None:
            raise BackupDamaged(self.path, [f"{name}: it holds {held}, the manifest says {said}"])
        return contained

    def verify(self, moved: Moved | None = None) -> tuple[Manifest, Contained]:
        """Read all of it. Raises `BackupDamaged` naming every part that is damaged."""
        manifest = self.manifest()
        contained = self.rows(manifest)
        damaged: list[str] = []
        count = total = 0
        for content in contained.contents():
            if isinstance(content, Indirect) and content.manifest not in contained.listings:
                listing, reason = self._look(content.manifest)
                found = None if listing is None else read_manifest(listing)
                if found is not None:
                    contained.listings[content.manifest] = found.names
                elif not reason:
                    damaged.append(f"{self.place(content.manifest)}: it is no list of chunks")
        for name in contained.chunk_names():
            data, reason = self._look(name)
            if data is None:
                damaged.append(f"{self.place(name)}: {reason}")
            else:
                count += 1
                total += len(data)
                if moved is not None:
                    moved(len(data))
        if not damaged and (count, total) != (manifest.chunks, manifest.chunks_bytes):
            damaged.append(
                f"{CHUNKS_NAME}: {count} chunks of {total} bytes are needed; the manifest says "
                f"{manifest.chunks} of {manifest.chunks_bytes}"
            )
        if damaged:
            raise BackupDamaged(self.path, damaged)
        return manifest, contained

    def chunk(self, name: str) -> bytes:
        """The chunk of that name. Raises `BackupDamaged`."""
        data, reason = self._look(name)
        if data is None:
            raise BackupDamaged(self.path, [f"{self.place(name)}: {reason}"])
        return data

    def sound_chunk(self, name: str) -> bytes | None:
        """The chunk of that name, if it is present and undamaged."""
        return self._look(name)[0]

    def _look(self, name: str) -> tuple[bytes | None, str]:
        if not _CHUNK_NAME.fullmatch(name):
            return None, "that is no name of a chunk"
        try:
            data = self._chunk(name)
        except FileNotFoundError:
            return None, "it is missing"
        except OSError as error:
            return None, error.strerror or str(error)
        except ValueError as error:
            return None, f"{error}"
        if hashlib.sha256(data).hexdigest() != name:
            return None, "its bytes are not those that its name says"
        return data, ""

    def place(self, name: str) -> str:
        """The place of a chunk in this folder."""
        return chunk_place(name if self._vault is None else self._vault.place_name(name))

    def _chunk(self, name: str) -> bytes:
        """Raises `OSError` or `ValueError`."""
        if self._vault is None:
            return self._read(self.place(name), CHUNK_BYTES)
        with self._opened(self.place(name)) as file:
            if os.fstat(file.fileno()).st_size > sealed_size(CHUNK_BYTES):
                raise ValueError(f"it has more than {CHUNK_BYTES} bytes")
            return self._vault.reader(file, f"chunk {name}").readall()

    def _plain(self, file: BinaryIO) -> tuple[BinaryIO, int]:
        """The decrypted rows and their size. Raises `ValueError`, also while they are read."""
        if self._vault is None:
            return file, os.fstat(file.fileno()).st_size
        reader = self._vault.reader(file, ROWS_LABEL)
        return cast("BinaryIO", io.BufferedReader(reader, SEGMENT_BYTES)), reader.size

    def _read(self, place: str, most: int) -> bytes:
        """Raises `OSError`, or `ValueError` for more than `most` bytes."""
        with self._opened(place) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise ValueError(f"it has more than {most} bytes")
        return data

    def _opened(self, place: str) -> BinaryIO:
        """A regular file of the folder, to be read. Raises `OSError`."""
        self._check_above(place)
        # Opening a pipe without a writer must not block.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            file = os.fdopen(os.open(self.path / place, flags), "rb")
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "it is a symbolic link", place) from None
            raise
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise OSError(errno.EINVAL, "it is no regular file", place)
        return file

    def _check_above(self, place: str) -> None:
        """Raises `OSError` unless all folders of a place are folders in this one."""
        for above in list(Path(place).parents)[-2::-1]:
            status = os.stat(self.path / above, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                reason = f"{above} is no folder of its own but a link or a file"
                raise OSError(errno.ENOTDIR, reason, place)

    # -- writing ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def claim(self, cluster: str) -> Iterator[None]:
        """Lock the folder for a backup of `cluster`: an encrypted one if there are keys.

        Raises `BackupRefused`.
        """
        with alone_in(self.path):
            self._check_owner(cluster)
            if self._vault is None and self._keys is not None:
                self._vault = Vault.new()
            yield

    def _check_owner(self, cluster: str) -> None:
        kinds = {found.name: found for found in os.scandir(self.path)}
        names = set(kinds)
        if MANIFEST_NAME in names:
            former = self.manifest()
            if former.cluster != cluster:
                raise BackupRefused(
                    f"{self.path} holds a backup of cluster {former.cluster}, and this is cluster "
                    f"{cluster}: take another folder"
                )
        foreign = sorted(name for name, found in kinds.items() if not _is_own(found))
        if foreign:
            raise BackupRefused(
                f"{self.path} holds {foreign[0]!r}, which is no part of a backup: take an empty "
                "folder"
            )
        restrict_permissions(self.path)

    @contextlib.contextmanager
    def replacing(self, name: str) -> Iterator[BinaryIO]:
        """A file that appears whole under `name` when the block ends well, or not at all."""
        place = self.path / name
        draft = place.with_name(place.name + _PART)
        self._make_above(name)
        with _drafted(draft) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
        self._touched.update((place.parent, place.parent.parent))

    def _make_above(self, place: str) -> None:
        for above in list(Path(place).parents)[-2::-1]:
            with contextlib.suppress(FileExistsError):
                (self.path / above).mkdir(mode=PRIVATE_FOLDER)
                (self.path / above).chmod(PRIVATE_FOLDER)
        self._check_above(place)

    @contextlib.contextmanager
    def rows_draft(self) -> Iterator[RowsDraft]:
        """The file for rows while their slot and hash are unknown."""
        with _drafted(self.path / f"rows.jsonl{_PART}") as file:
            yield RowsDraft(file, self._vault)

    def keep_rows(self, draft: RowsDraft, slot: int) -> str:
        """Make the draft durable under its final name, and return the name."""
        draft.finish()
        name = f"rows-{slot}-{draft.sha256[:12]}.jsonl"
        os.replace(self.path / f"rows.jsonl{_PART}", self.path / name)
        return name

    def keep_chunk(self, name: str, data: bytes) -> None:
        """Write a chunk."""
        with self.replacing(self.place(name)) as file:
            if self._vault is None:
                file.write(data)
            else:
                sealed = self._vault.writer(file, f"chunk {name}")
                sealed.write(data)
                sealed.finish()

    def finish(self, manifest: Manifest, signer: Signer | None = None) -> Manifest:
        """Finish the backup: make the names of all files durable, then the manifest, which is
        returned as it was written.
        """
        if self._vault is not None or signer is not None:
            manifest = manifest.model_copy(update={"format": "synod-backup-2"})
        if self._vault is not None:
            assert self._keys is not None
            manifest = self._vault.seal_manifest(manifest, self._keys)
        if signer is not None:
            manifest = signer.sign(manifest)
        for folder in sorted(self._touched | {self.path}):
            sync_folder(folder)
        self._write_manifest(manifest)
        return manifest

    def rewrap(self) -> Manifest:
        """Wrap the data key by the first of the keys; nothing else changes, so the signature holds.

        Raises `BackupRefused` or `BackupDamaged`.
        """
        with alone_in(self.path):
            manifest = self.manifest()
            if self._vault is None:
                raise BackupRefused(f"{self.path} is not encrypted, so it has no key")
            assert self._keys is not None
            manifest = self._vault.seal_manifest(manifest, self._keys)
            self._write_manifest(manifest)
        return manifest

    def _write_manifest(self, manifest: Manifest) -> None:
        with self.replacing(MANIFEST_NAME) as file:
            file.write(manifest.dump())
        sync_folder(self.path)

    def prune(self, manifest: Manifest, needed: Iterable[str]) -> None:
        """Remove the files that only former backups needed, and no others."""
        keep = {Path(self.place(name)).name for name in needed}
        for found in list(os.scandir(self.path)):
            former = found.name != manifest.rows_file and _FORMER_ROWS_NAME.fullmatch(found.name)
            if former and _is_file(found):
                Path(found.path).unlink()
        for folder in self._chunk_folders():
            for found in list(os.scandir(folder.path)):
                bare = found.name.removesuffix(_PART)
                own = _CHUNK_NAME.fullmatch(bare) and bare.startswith(folder.name)
                if _is_file(found) and own and found.name not in keep:
                    Path(found.path).unlink()

    def _chunk_folders(self) -> Iterator["os.DirEntry[str]"]:
        chunks = self.path / CHUNKS_NAME
        if chunks.is_dir() and not chunks.is_symlink():
            yield from (
                found
                for found in list(os.scandir(chunks))
                if re.fullmatch(r"[0-9a-f]{2}", found.name) and found.is_dir(follow_symlinks=False)
            )


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder if it is missing, and lock it for this process. Raises `BackupRefused`."""
    try:
        make_folder(folder.absolute())
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except NotADirectoryError:
        raise BackupRefused(f"{folder} is not a folder") from None
    except JournalError as error:
        raise BackupRefused(f"{error}") from None
    try:
        fcntl.flock(folder_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BackupRefused(f"{folder} is in use by another backup or restore") from None
    finally:
        os.close(folder_fd)


@contextlib.contextmanager
def _drafted(path: Path) -> Iterator[BinaryIO]:
    """A new file, in place of one that an interrupted backup may have left."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, PRIVATE_FILE), "w+b") as file:
        os.fchmod(file.fileno(), PRIVATE_FILE)
        yield file


def chunk_place(name: str) -> str:
    """The place of a chunk in the folder of a backup."""
    return f"{CHUNKS_NAME}/{name[:2]}/{name}"


def load_row(state: Namespace, line: bytes) -> None:
    """Add one line of the file of rows to the state. Raises `ValueError`."""
    try:
        key, value = json.loads(line)
        if not state.restore(Record(key, value.encode())):
            raise ValueError(f"there are no rows like {key!r}")
    except (JournalUnreadable, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(f"a row can't be read: {error}") from None


def _check_rows(file: BinaryIO, size: int, manifest: Manifest) -> int:
    """The number of rows. Raises `ValueError` unless the manifest matches."""
    if size != manifest.rows_bytes:
        raise ValueError(f"it has {size} bytes; the manifest says {manifest.rows_bytes}")
    digest = hashlib.sha256()
    rows = left = 0
    left = size
    while left and (line := file.readline(min(left, _ROW_BYTES_MAX))):
        digest.update(line)
        left -= len(line)
        rows += 1
        if len(line) == _ROW_BYTES_MAX:
            raise ValueError(f"a row has more than {_ROW_BYTES_MAX} bytes")
    if digest.hexdigest() != manifest.rows_sha256:
        raise ValueError(
            f"its SHA-256 is {digest.hexdigest()}; the manifest says {manifest.rows_sha256}"
        )
    return rows


def _check_tree(contained: Contained) -> None:
    """Raises `ValueError` unless every name could have been written by a client."""
    entries = contained.state.entries
    for path, entry in entries.items():
        try:
            checked_path(path)
        except InvalidPath as error:
            raise ValueError(f"it names {path[:100]!a}: {error}") from None
        above = parent(path)
        if not path or entry.path != path:
            raise ValueError(f"the entry {path[:100]!a} is of {entry.path[:100]!a}")
        if above and not isinstance(entries.get(above), DirectoryEntry):
            raise ValueError(f"{path[:100]!a} is in no directory")


def _is_file(found: "os.DirEntry[str]") -> bool:
    return found.is_file(follow_symlinks=False)


def _is_own(found: "os.DirEntry[str]") -> bool:
    if found.name in (CHUNKS_NAME, LOST_AND_FOUND):
        return found.is_dir(follow_symlinks=False)
    bare = found.name.removesuffix(_PART)
    return _is_file(found) and (bare == MANIFEST_NAME or bool(ROWS_NAME.fullmatch(bare)))

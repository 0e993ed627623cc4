"""Clients with large files: they upload and download many chunks while others replace them.

An upload sends every chunk to the stores and then the command with their names; a download reads
the entry and then its chunks one by one. Files share some chunks. Between two chunks a client may
pause for longer than stores keep unused chunks, and the chunks that it needs must still be there.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from actors.calls import Absent, Fetch, FetchedChunk, KeepChunks, Upload, Uploaded
from actors.store.chunks import read_manifest
from actors.values import Chunked, DeleteFile, FileEntry, Indirect, PutFile
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.schedule import US_PER_MS
from chaos.simulator.violation import Violation
from chaos.simulator.workload import LARGE_PATHS, Process, UploadedChunks, Workload
from chaos.simulator.world import World
from gateway.http.chunk_keeping import DOWNLOAD_SCHEDULE, RenewalSchedule, upload_schedule

_CHUNKS = (2, 2, 3, 4, 6, 10, 20)
_SHARED_CHUNKS = 8
"""How many chunks many files share."""
_TRIES = 3
_THINK_MS = (200, 2_500)
_PAUSES_MAX = 3
"""All pauses of one transfer last at most as long as so many of the longest, so that runs end."""


@dataclass(slots=True)
class ChunkTransfer:
    """The chunks of one upload or download: the first of `todo` next, `width` of them at once.

    A slow client may still pause before chunks, for `pause_left_ms` in all.
    """

    todo: deque[str]
    since_us: int
    pause_left_ms: int
    schedule: RenewalSchedule
    width: int = 1
    under_way: int = 0
    tries: int = _TRIES
    got: dict[str, bytes] = field(default_factory=dict)
    over: bool = False
    needed: dict[str, None] = field(default_factory=dict)
    """The chunks that the client asks the stores to keep until its request is answered."""


class LargeFiles:
    """All clients of a run that upload and download large files."""

    def __init__(
        self,
        world: World,
        workload: Workload,
        log: ReferenceLog,
        clients: int,
        pause_ms_max: int,
    ) -> None:
        self._world = world
        self._workload = workload
        self._log = log
        self._pause_ms_max = pause_ms_max
        self._rng = world.stream("large files")
        self.checked_from_us = 0
        """Requests that began earlier may lose chunks: the network may have lost their renewals."""
        self.deleted_us: dict[tuple[str, str], int] = {}
        """When a store deleted a chunk, by the identity of its disk and the chunk's name."""
        self._requests: dict[int, ChunkTransfer] = {}
        """The current or last transfer of each client."""
        workload.on_lost = self._on_lost
        for _ in range(clients):
            process = workload.join()
            process.act = self._act
            process.think_ms = _THINK_MS

    # -- the loop of a client --------------------------------------------------------------------

    def _act(self, process: Process) -> None:
        rng = self._rng
        path = rng.choice(LARGE_PATHS)
        draw = rng.random()
        if draw < 0.5:
            self.upload(process, path)
        elif draw < 0.9:
            self.download(process, path)
        else:
            process.doing = "large delete"
            process.record.invoke("delete", path)
            self._workload.submit(process, DeleteFile(path=path), {path: None})

    def _next(self, process: Process, transfer: ChunkTransfer, step: Callable[[str], None]) -> None:
        """Begin the next chunks, at once or after a pause."""
        while transfer.todo and transfer.under_way < transfer.width and not transfer.over:
            transfer.under_way += 1
            name = transfer.todo.popleft()
            pause_us = self._draw_pause_ms(transfer) * US_PER_MS
            begins_us = self._world.now_us + pause_us
            process.busy_since_us = max(process.busy_since_us or 0, begins_us)
            if pause_us:
                self._workload.counts["pauses of large files"] += 1
                self._world.schedule.after_us(
                    pause_us,
                    lambda _, name=name: step(name),  # type: ignore[misc]
                )
            else:
                step(name)

    def _keep(self, process: Process, transfer: ChunkTransfer, names: Iterable[str]) -> None:
        """Ask the stores to keep these chunks, too; the first one begins the renewals."""
        if transfer.over:
            return  # A late answer; the client's next transfer has renewals of its own.
        begins = not transfer.needed
        transfer.needed.update(dict.fromkeys(names))
        if begins and transfer.needed:
            self._requests[process.number] = transfer
            every_us = transfer.schedule.every_ms * US_PER_MS
            self._world.schedule.after_us(every_us, self._renew, (process, transfer))

    def _renew(self, request: tuple[Process, ChunkTransfer]) -> None:
        """Renew the chunks' time, as the gateway does while a request is under way."""
        process, transfer = request
        is_over = process.busy_since_us is None or self._requests[process.number] is not transfer
        if not is_over:
            names, for_ms = tuple(transfer.needed), transfer.schedule.for_ms
            self._workload.call_gateway(
                process.gateway,
                lambda token: KeepChunks(token=token, names=names, for_ms=for_ms),
                lambda answer: None,
            )
            every_us = transfer.schedule.every_ms * US_PER_MS
            self._world.schedule.after_us(every_us, self._renew, request)

    def _begin(
        self, names: Iterable[str], schedule: RenewalSchedule, width: int = 1
    ) -> ChunkTransfer:
        pauses_ms = _PAUSES_MAX * self._pause_ms_max
        todo = deque(dict.fromkeys(names))
        return ChunkTransfer(todo, self._world.now_us, pauses_ms, schedule, width)

    def _draw_pause_ms(self, transfer: ChunkTransfer) -> int:
        if not transfer.pause_left_ms or self._rng.random() < 0.5:
            return 0
        most_ms = min(self._pause_ms_max, transfer.pause_left_ms)
        pause_ms = self._rng.randint(most_ms // 10, most_ms)
        transfer.pause_left_ms -= pause_ms
        return pause_ms

    def _end(self, process: Process, transfer: ChunkTransfer, result: str) -> None:
        if not transfer.over:
            transfer.over = True
            self._workload.end(process, result)

    # -- uploads ---------------------------------------------------------------------------------

    def upload(self, process: Process, path: str) -> None:
        """Send the chunks of a new version of `path`, then the command that names them."""
        process.doing = "upload"
        value = self._workload.new_value()
        chunks = self._draw_chunks(value)
        content = self._content(value, chunks)
        bodies = {_name(chunk): chunk for chunk in chunks}
        if isinstance(content, Indirect):
            bodies[content.manifest] = _manifest(chunks)
        transfer = self._begin(
            bodies, upload_schedule(self._world.options.chunk_grace_ms), self._rng.choice((1, 4))
        )

        def send(name: str) -> None:
            is_manifest = name == getattr(content, "manifest", None)
            self._workload.call(
                process,
                lambda token: Upload(
                    token=token, sha256=name, manifest=is_manifest, data=bodies[name]
                ),
                lambda answer: sent(name, answer),
            )

        def sent(name: str, answer: Any) -> None:
            transfer.under_way -= 1
            if not isinstance(answer, Uploaded):
                transfer.tries -= 1
                transfer.todo.appendleft(name)
                if transfer.tries == 0 or process.stopped:
                    self._workload.outcomes.refused.add(value)
                    self._end(process, transfer, "failed")
                    return
            else:
                self._keep(process, transfer, (name,))
            if transfer.todo:
                self._next(process, transfer, send)
            elif not transfer.under_way and not transfer.over:
                self._write(process, path, value, content, tuple(bodies), transfer)

        self._next(process, transfer, send)

    def _draw_chunks(self, value: str) -> list[bytes]:
        """Draw chunks; the first is unique to the version, so that no two versions are equal."""
        rng = self._rng
        chunks = [f"{value}/0".encode()]
        for number in range(1, rng.choice(_CHUNKS)):
            if rng.random() < 0.4:
                chunks.append(f"shared/{rng.randrange(_SHARED_CHUNKS)}".encode())
            else:
                chunks.append(f"{value}/{number}".encode())
        return chunks

    def _content(self, value: str, chunks: list[bytes]) -> Chunked | Indirect:
        whole = b"".join(chunks)
        digest = hashlib.sha256(whole).hexdigest()
        self._workload.digests[digest] = value
        if self._rng.random() < 0.25:
            manifest = _name(_manifest(chunks))
            return Indirect(size=len(whole), sha256=digest, manifest=manifest)
        return Chunked(size=len(whole), sha256=digest, chunks=tuple(map(_name, chunks)))

    def _write(
        self,
        process: Process,
        path: str,
        value: str,
        content: Chunked | Indirect,
        names: tuple[str, ...],
        transfer: ChunkTransfer,
    ) -> None:
        process.record.invoke("write", path, value)
        operation = PutFile(path=path, content=content)
        uploaded = UploadedChunks(
            names, transfer.since_us, lambda slot: self._check_held(slot, names)
        )
        self._workload.submit(process, operation, {path: value}, uploaded=uploaded)

    def _check_held(self, slot: int, names: tuple[str, ...]) -> None:
        """`acknowledged_contents_are_held` by every store of the view that votes on the slot.

        A store that has applied later slots may have deleted the version and its chunks already.
        """
        self._workload.counts["large files written"] += 1
        view = self._log.view
        for store in view.stores if view is not None else ():
            machine = self._world.machines[store.name]
            disk = machine.disk
            if disk.identity != store.disk or store.added_slot is None or store.added_slot >= slot:
                continue
            if not machine.is_up or machine.actor.state.applied > slot:
                continue
            lacking = [n for n in names if n not in disk.blobs and n not in disk.ever_rotten]
            if lacking:
                raise Violation(
                    "acknowledged_contents_are_held",
                    f"slot {slot} was acknowledged, and {store.name} of the view lacks "
                    f"{len(lacking)} of its {len(names)} chunks: {lacking[0]}",
                )

    def chunk_changed(self, disk: str, name: str, stored: bool) -> None:
        """A store has committed a chunk, or has deleted a sound one."""
        if stored:
            self.deleted_us.pop((disk, name), None)
        else:
            self.deleted_us[(disk, name)] = self._world.now_us

    def _on_lost(self, what: str, names: tuple[str, ...], since_us: int) -> None:
        """`contents_are_kept`: no store deletes a chunk while a client uploads or downloads it.

        It does not count chunks that were on a lost disk or rotted on every store, nor those that
        no request in time asked to keep; `kept_chunks_stay` is about requests that were in time.
        """
        self._workload.counts["chunks lost to a client"] += 1
        for machine in self._world.machines.values():
            for name in names:
                at_us = self.deleted_us.get((machine.disk.identity, name), -1)
                if at_us < since_us:
                    continue
                if since_us >= self.checked_from_us:
                    after_ms = (at_us - since_us) // US_PER_MS
                    raise Violation(
                        "contents_are_kept",
                        f"{what}: {machine.name} deleted {name} {after_ms} ms after a client had "
                        "begun to need it",
                    )
                self._workload.counts["chunks deleted under a client"] += 1
                return

    # -- downloads -------------------------------------------------------------------------------

    def download(self, process: Process, path: str) -> None:
        """Read the entry of `path`, then all its chunks, also if the file is replaced meanwhile."""
        process.doing = "download"
        process.record.invoke("read", path)
        self._workload.read_into(
            process,
            path,
            on_failure=lambda: self._workload.end(process, "failed"),
            on_entry=lambda entry: self.fetch(process, path, entry),
        )

    def fetch(self, process: Process, path: str, entry: Any) -> None:
        """Fetch every chunk of the version that was read."""
        if not isinstance(entry, FileEntry):
            self._workload.end(process, "absent")
            return
        content = entry.content
        listed = [content.manifest] if isinstance(content, Indirect) else list(content.chunks)
        transfer = self._begin(listed, DOWNLOAD_SCHEDULE)
        self._keep(process, transfer, listed)

        def get(name: str) -> None:
            self._workload.call(
                process,
                lambda token: Fetch(token=token, sha256=name),
                lambda answer: got(name, answer),
            )

        def got(name: str, answer: Any) -> None:
            nonlocal listed
            transfer.under_way -= 1
            match answer:
                case FetchedChunk(data=data):
                    transfer.got[name] = data
                    if listed == [name] and isinstance(content, Indirect):
                        manifest = read_manifest(data)
                        assert manifest is not None, f"{name} is no manifest: {data[:80]!r}"
                        listed = list(manifest.names)
                        transfer.todo.extend(n for n in dict.fromkeys(listed))
                case Absent():
                    what = f"a chunk of {path!r}, which is being downloaded"
                    self._on_lost(what, (name,), transfer.since_us)
                    self._end(process, transfer, "lost")
                case _:
                    transfer.tries -= 1
                    transfer.todo.appendleft(name)
                    if transfer.tries == 0 or process.stopped:
                        self._end(process, transfer, "failed")
            if transfer.todo:
                self._next(process, transfer, get)
            elif not transfer.over:
                self._check_bytes(path, content, [transfer.got[n] for n in listed])
                self._end(process, transfer, "ok")

        self._next(process, transfer, get)

    def _check_bytes(self, path: str, content: Any, chunks: list[bytes]) -> None:
        """`contents_are_whole`: the bytes are those of the version that was read."""
        whole = b"".join(chunks)
        self._workload.counts["large files read"] += 1
        found = (len(whole), hashlib.sha256(whole).hexdigest())
        if found != (content.size, content.sha256):
            raise Violation(
                "contents_are_whole",
                f"{path!r}: downloaded {found}, and the version is "
                f"{(content.size, content.sha256)}",
            )


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _manifest(chunks: list[bytes]) -> bytes:
    return json.dumps([_name(chunk) for chunk in chunks]).encode()

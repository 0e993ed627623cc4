"""The clients: processes that read, write, delete, move and compare-and-set through the gateways.

A history (`chaos.checker.history`) records their operations and outcomes. Every value is unique, so
that a read shows which write it saw. A process does one operation at a time; after an unknown
outcome it goes on under a new number.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, get_args

from actors.calls import (
    Absent,
    Fetch,
    FetchedChunk,
    NotDone,
    Read,
    ReadDone,
    Unknown,
    Upload,
    Uploaded,
    Write,
    WriteDecided,
)
from actors.messages import ReadRequest
from actors.values import (
    AnyOperation,
    AnyStep,
    Check,
    Chunked,
    DeleteFile,
    FileEntry,
    IdempotencyKey,
    Inline,
    MoveEntry,
    Outcome,
    Precondition,
    PutFile,
    Status,
    Transaction,
)
from chaos.checker.history import HistoryRecorder, RecordedClient
from chaos.simulator.schedule import US_PER_MS
from chaos.simulator.violation import Violation
from chaos.simulator.world import NodeDied, World

PATHS = ("a", "b", "d/c", "d/e", "d/f/g", "h")
LARGE_PATHS = ("large/a", "large/b", "large/c")
"""The paths of the files of `chaos.simulator.large_files`."""
_THINK_MS = (20, 900)
_PATIENCE_MS = 90_000
_STATUSES = frozenset(get_args(Status))
_CHUNKS_LOST = "contents are on no store"
"""Part of the reason of an abort because of chunks that no store has."""


@dataclass(slots=True)
class KnownVersion:
    """The newest version of a path that any client knows: its tag, its value and its slot."""

    etag: str | None
    value: str | None
    slot: int


@dataclass(slots=True)
class Process:
    """One client, which goes through one gateway at a time."""

    number: int
    record: RecordedClient
    gateway: str
    busy_since_us: int | None = None
    """When the operation that is under way began; `None` if none is."""
    doing: str = ""
    stopped: bool = False
    act: "Callable[[Process], None] | None" = None
    """Begins its next operation; `None` stands for one of the usual operations."""
    think_ms: tuple[int, int] = _THINK_MS


@dataclass(slots=True)
class Acknowledged:
    """A write that a client knows to be done, and the place of its command in the log."""

    request: str
    operation: AnyOperation
    slot: int
    index: int


@dataclass(frozen=True, slots=True)
class UploadedChunks:
    """Chunks that a client uploaded for a command, from `since_us` on."""

    names: tuple[str, ...]
    since_us: int
    check_held: Callable[[int], None] = lambda slot: None
    """Checks that the stores have the chunks, once the command is done in a slot."""


@dataclass(slots=True)
class PendingWrite:
    """A command under way, and the value of every path once it is done."""

    process: Process
    operation: AnyOperation
    changes: dict[str, str | None]
    expected: str | None
    """The value that a `cas` expects."""
    tries_left: int
    uploaded: UploadedChunks | None = None
    doubtful: bool = False
    """Whether an earlier try under the same key may have happened, or still may."""


@dataclass(slots=True)
class ClientOutcomes:
    """The outcomes that the final verdict checks in addition to the history."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """Values of writes that certainly did not happen."""
    unknown: list[tuple[str, str]] = field(default_factory=list)
    """Requests of unknown outcome, each with its gateway."""


class Workload:
    """All processes of a run."""

    def __init__(self, world: World, processes: int, gateways: int) -> None:
        self._world = world
        self._rng = world.stream("workload")
        self._values = 0
        self._waiting: dict[int, Callable[[Any], None]] = {}
        self._names = [f"gateway-{n}" for n in range(1, gateways + 1)]
        self.digests: dict[str, str] = {}
        self._moved: set[str | None] = set()
        """Values of files that were moved, and that may return to a path that they left."""
        self.recorder = HistoryRecorder(lambda: world.now_us * 1_000)
        self.known = {path: KnownVersion(None, None, 0) for path in (*PATHS, *LARGE_PATHS)}
        self.outcomes = ClientOutcomes()
        self.counts: Counter[str] = Counter()
        self.processes: list[Process] = []
        for _ in range(processes):
            self.join()
        self.on_lost: Callable[[str, tuple[str, ...], int], None] = lambda what, names, since: None
        """Called for chunks that no store has, with the moment since which a client needs them."""
        world.on_answer = self._on_answer

    def join(self) -> Process:
        """Add a process, which uses the next gateway in turn."""
        number = len(self.processes)
        process = Process(number, self.recorder.client(), self._names[number % len(self._names)])
        self.processes.append(process)
        return process

    @property
    def acknowledged(self) -> int:
        """How many operations ended with a definite success."""
        return self.counts["acknowledged"]

    @property
    def idle(self) -> bool:
        """Whether no process has an operation under way."""
        return all(process.busy_since_us is None for process in self.processes)

    # -- the loop of a process -------------------------------------------------------------------

    def begin(self) -> None:
        """Let every process begin operations."""
        for process in self.processes:
            process.stopped = False
            self.think(process)

    def stop(self) -> None:
        """Let no process begin another operation."""
        for process in self.processes:
            process.stopped = True

    def think(self, process: Process) -> None:
        """Begin the next operation after a pause."""
        least, most = process.think_ms
        delay_us = self._rng.randint(least * US_PER_MS, most * US_PER_MS)
        self._world.schedule.after_us(delay_us, self._act, process)

    def _act(self, process: Process) -> None:
        if process.stopped or process.busy_since_us is not None:
            return
        rng = self._rng
        if rng.random() < 0.05:
            process.gateway = rng.choice(self._names)
        process.busy_since_us = self._world.now_us
        if process.act is not None:
            process.act(process)
            return
        path = rng.choice(PATHS)
        draw = rng.random()
        if draw < 0.40:
            self._read(process, path)
        elif draw < 0.65:
            self._write(process, path)
        elif draw < 0.82:
            self._compare_and_set(process, path)
        elif draw < 0.90:
            self._delete(process, path)
        elif draw < 0.95:
            self._move(process, path)
        else:
            self._transact(process, path)

    def end(self, process: Process, result: str) -> None:
        """Count the result of an operation, and let the process begin another after a pause."""
        self.counts[result] += 1
        self.counts[f"{process.doing} {result}"] += 1
        process.busy_since_us = None
        self.think(process)

    # -- calls -----------------------------------------------------------------------------------

    def call(
        self, process: Process, make: Callable[[int], Any], then: Callable[[Any], None]
    ) -> None:
        """Make a call to the process's gateway; `then` gets the answer."""
        self.call_gateway(process.gateway, make, then)

    def call_gateway(
        self, gateway: str, make: Callable[[int], Any], then: Callable[[Any], None]
    ) -> None:
        """Make a call to a gateway; `then` gets the answer."""
        token = self._world.call(make, gateway)
        if token in self._world.answers:
            then(self._world.answers.pop(token))
        else:
            self._waiting[token] = then

    def _on_answer(self, token: int, value: Any) -> None:
        then = self._waiting.pop(token, None)
        if then is not None:
            self._world.answers.pop(token, None)
            then(value)

    def overdue(self) -> list[Process]:
        """The processes whose operation has taken longer than any call may take."""
        limit_us = self._world.now_us - _PATIENCE_MS * US_PER_MS
        return [p for p in self.processes if p.busy_since_us and p.busy_since_us < limit_us]

    # -- reads -----------------------------------------------------------------------------------

    def _read(self, process: Process, path: str) -> None:
        if self._rng.random() < 0.15:
            self._read_stale(process, path)
            return
        process.doing = "read"
        process.record.invoke("read", path)
        self.read_into(process, path, lambda: self.end(process, "failed"))

    def read_last(self, process: Process, path: str) -> None:
        """Let a process that has stopped read once more; the read must succeed."""

        def failed() -> None:
            raise Violation("every_request_is_answered", f"the last read of {path!r} failed")

        process.doing = "last read"
        process.busy_since_us = self._world.now_us
        process.record.invoke("read", path)
        self.read_into(process, path, failed)

    def read_into(
        self,
        process: Process,
        path: str,
        on_failure: Callable[[], None],
        on_entry: Callable[[Any], None] | None = None,
    ) -> None:
        """Carry out a linearizable read that `process` has begun."""
        request = ReadRequest(number=0, what="entry", path=path)
        floor = self.known[path].slot

        def then(answer: Any) -> None:
            if not isinstance(answer, ReadDone):
                process.record.fail("not read")
                on_failure()
                return
            self._check_fresh(path, floor, answer)
            entry = answer.reply.entry
            value = self.value_of(entry)
            process.record.ok(value)
            self._learn(path, entry, value, answer.reply.applied)
            self.counts["acknowledged"] += 1
            if on_entry is not None:
                on_entry(entry)
            elif isinstance(entry, FileEntry) and self._rng.random() < 0.1:
                self._fetch(process, path, entry)
            else:
                self.end(process, "ok")

        self.call(process, lambda token: Read(token=token, request=request), then)

    def _check_fresh(self, path: str, floor: int, answer: ReadDone) -> None:
        """`reads_are_fresh`: a read sees what any client knew of the path before it began."""
        if answer.reply.applied < floor:
            raise Violation(
                "reads_are_fresh",
                f"{answer.store} served {path!r} as of slot {answer.reply.applied}, but a client "
                f"knew of slot {floor} before the read began",
            )

    def value_of(self, entry: Any) -> str | None:
        """The value that an entry stands for; `None` for no entry."""
        if entry is None:
            return None
        if not isinstance(entry, FileEntry):
            raise Violation("reads_are_fresh", f"a directory has replaced a file: {entry!r}")
        value = self.digests.get(entry.content.sha256)
        if value is None:
            raise Violation("no_value_from_nowhere", f"no client wrote what was read: {entry!r}")
        return value

    def _learn(self, path: str, entry: Any, value: str | None, applied: int) -> None:
        known = self.known[path]
        slot = entry.slot if isinstance(entry, FileEntry) else known.slot
        if slot >= known.slot:
            etag = entry.etag if isinstance(entry, FileEntry) else None
            self.known[path] = KnownVersion(etag, value, slot)

    def _read_stale(self, process: Process, path: str) -> None:
        process.doing = "stale read"
        floor = self.known[path].slot if self._rng.random() < 0.5 else 0
        request = ReadRequest(
            number=0, what="entry", path=path, consistency="stale", at_least=floor
        )

        def then(answer: Any) -> None:
            if isinstance(answer, ReadDone):
                self._check_fresh(path, floor, answer)
                self.value_of(answer.reply.entry)
            self.end(process, "ok" if isinstance(answer, ReadDone) else "failed")

        self.call(process, lambda token: Read(token=token, request=request), then)

    def _fetch(self, process: Process, path: str, entry: FileEntry) -> None:
        """Fetch a chunk of the contents: every chunk of an acknowledged version must be there."""
        process.doing = "fetch"
        chunks = getattr(entry.content, "chunks", ())
        if not chunks:
            self.end(process, "ok")
            return
        name = chunks[self._rng.randrange(len(chunks))]

        def then(answer: Any) -> None:
            match answer:
                case FetchedChunk(data=data):
                    if hashlib.sha256(data).hexdigest() != name:
                        raise Violation("contents_are_whole", f"{path!r}: {name} is damaged")
                case Absent():
                    raise Violation("contents_are_whole", f"{path!r}: no store has {name}")
            self.end(process, "ok" if isinstance(answer, FetchedChunk) else "failed")

        self.call(process, lambda token: Fetch(token=token, sha256=name), then)

    # -- writes ----------------------------------------------------------------------------------

    def new_value(self) -> str:
        """A value that no client has written yet."""
        self._values += 1
        return f"v{self._values}"

    def _content(self, value: str) -> Inline:
        data = value.encode()
        digest = hashlib.sha256(data).hexdigest()
        self.digests[digest] = value
        return Inline(sha256=digest, data=data)

    def _write(self, process: Process, path: str) -> None:
        process.doing = "write"
        value = self.new_value()
        process.record.invoke("write", path, value)
        if self._rng.random() < 0.1:
            self._upload(process, path, value)
            return
        self.submit(process, PutFile(path=path, content=self._content(value)), {path: value})

    def _upload(self, process: Process, path: str, value: str) -> None:
        """Write a file of two chunks, which the stores get before the command."""
        parts = [value.encode() + b"/first", value.encode() + b"/second"]
        names = tuple(hashlib.sha256(part).hexdigest() for part in parts)
        whole = hashlib.sha256(b"".join(parts)).hexdigest()
        self.digests[whole] = value
        content = Chunked(size=sum(map(len, parts)), sha256=whole, chunks=names)
        todo = list(zip(names, parts, strict=True))
        chunks = UploadedChunks(names, self._world.now_us)

        def on_answer(answer: Any) -> None:
            if not isinstance(answer, Uploaded):
                process.record.fail("not uploaded")
                self.outcomes.refused.add(value)
                self.end(process, "failed")
            elif todo:
                upload()
            else:
                operation = PutFile(path=path, content=content)
                self.submit(process, operation, {path: value}, uploaded=chunks)

        def upload() -> None:
            name, data = todo.pop(0)
            self.call(
                process,
                lambda token: Upload(token=token, sha256=name, manifest=False, data=data),
                on_answer,
            )

        upload()

    def _compare_and_set(self, process: Process, path: str) -> None:
        process.doing = "cas"
        known = self.known[path]
        value = self.new_value()
        process.record.invoke("cas", path, [known.value, value])
        operation = PutFile(path=path, content=self._content(value), when=_only_if(known.etag))
        self.submit(process, operation, {path: value}, expected=known.value)

    def _delete(self, process: Process, path: str) -> None:
        known = self.known[path]
        if known.etag is not None and self._rng.random() < 0.5:
            process.doing = "cas"
            process.record.invoke("cas", path, [known.value, None])
            when = _only_if(known.etag)
        else:
            process.doing = "delete"
            process.record.invoke("delete", path)
            when = Precondition()
        expected = known.value if process.doing == "cas" else None
        self.submit(process, DeleteFile(path=path, when=when), {path: None}, expected)

    def _move(self, process: Process, path: str) -> None:
        """Move a known version to another path, whether or not a file is there."""
        known = self.known[path]
        if known.etag is None:
            self._write(process, path)
            return
        process.doing = "move"
        target = self._rng.choice([other for other in PATHS if other != path])
        self._moved.add(known.value)
        record = [["cas", path, [known.value, None]], ["write", target, known.value]]
        process.record.invoke("txn", None, record)
        operation = MoveEntry(source=path, target=target, overwrite=True, when=_only_if(known.etag))
        self.submit(process, operation, {path: None, target: known.value})

    def _transact(self, process: Process, path: str) -> None:
        """Write two files in one transaction, if the first one still is the known version."""
        process.doing = "transaction"
        known = self.known[path]
        other = self._rng.choice([name for name in PATHS if name != path])
        values = {path: self.new_value(), other: self.new_value()}
        record = [["cas", path, [known.value, values[path]]], ["write", other, values[other]]]
        process.record.invoke("txn", None, record)
        puts = [PutFile(path=name, content=self._content(value)) for name, value in values.items()]
        steps: tuple[AnyStep, ...] = (Check(path=path, when=_only_if(known.etag)), *puts)
        self.submit(process, Transaction(steps=steps), dict(values))

    def submit(
        self,
        process: Process,
        operation: AnyOperation,
        changes: dict[str, str | None],
        expected: str | None = None,
        uploaded: UploadedChunks | None = None,
    ) -> None:
        """Send a command; `changes` is the value of every path once it is done."""
        key = None
        if self._rng.random() < 0.2:
            name = f"key-{self._rng.getrandbits(48):012x}"
            key = IdempotencyKey(key=name, fingerprint=name)
        retry = self._rng.random() < 0.5
        tries = 2 if key is not None else 1
        pending = PendingWrite(process, operation, changes, expected, tries, uploaded)

        def send() -> None:
            pending.tries_left -= 1
            self.call(
                process,
                lambda token: Write(
                    token=token, operation=operation, idempotency=key, retry_aborted=retry
                ),
                then,
            )

        def then(answer: Any) -> None:
            match answer:
                case WriteDecided(request=request, outcome=outcome) if outcome.status == "done":
                    self._on_done(pending, request, outcome)
                case WriteDecided(outcome=outcome) if not pending.doubtful:
                    if uploaded is not None and _CHUNKS_LOST in outcome.detail:
                        what = f"chunks that {outcome} names"
                        self.on_lost(what, uploaded.names, uploaded.since_us)
                    self._on_refused(pending, outcome.status)
                case NotDone(reason=reason) if not pending.doubtful:
                    self._on_refused(pending, reason)
                case _:
                    if isinstance(answer, Unknown) and answer.request:
                        self.outcomes.unknown.append((answer.request, process.gateway))
                    pending.doubtful = True
                    if pending.tries_left > 0 and not isinstance(answer, NodeDied):
                        # The same key makes sure that it is done once, also if the first try was.
                        send()
                        return
                    process.record.unknown()
                    self.end(process, "unknown")

        send()

    def _on_done(self, pending: PendingWrite, request: str, outcome: Outcome) -> None:
        """The write is done, by this try or by an earlier one under the same key."""
        process = pending.process
        process.record.ok()
        self.counts["acknowledged"] += 1
        self.outcomes.acknowledged.append(
            Acknowledged(request, pending.operation, outcome.slot, outcome.index)
        )
        for path, value in pending.changes.items():
            if outcome.slot > self.known[path].slot:
                etag = outcome.etag if value is not None else None
                self.known[path] = KnownVersion(etag, value, outcome.slot)
        if pending.uploaded is not None:
            pending.uploaded.check_held(outcome.slot)
        self.end(process, "ok")

    def _on_refused(self, pending: PendingWrite, why: str) -> None:
        """The write did not happen and never will."""
        process = pending.process
        if why == "not_found" and process.doing == "delete":
            process.record.ok()
            self.counts["acknowledged"] += 1
        elif why == "precondition_failed" and process.doing == "cas":
            # A value that was moved may have returned with another tag.
            process.record.fail("another tag" if pending.expected in self._moved else None)
            self.counts["acknowledged"] += 1
        else:
            process.record.fail(why)
        self.outcomes.refused.update(
            value for value in pending.changes.values() if value and value not in self._moved
        )
        self.end(process, why if why in _STATUSES else "failed")


def _only_if(etag: str | None) -> Precondition:
    """The condition that the path still holds version `etag`, or with `None` that it holds none."""
    if etag is None:
        return Precondition(if_none_match=("*",))
    return Precondition(if_match=(etag,))

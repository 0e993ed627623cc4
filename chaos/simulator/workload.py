"""The clients: processes that read, write, delete and compare-and-set through the gateways.

What they ask and what they are told is recorded as a history (`chaos.checker.history`). Every value
is unique, so that a read tells which write it saw. A process does one thing at a time; after an
unknown outcome it goes on under a new number.
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
from chaos.simulator.violation import Violation
from chaos.simulator.world import US, CallLost, World

PATHS = ("a", "b", "d/c", "d/e", "d/f/g", "h")
LARGE_PATHS = ("large/a", "large/b", "large/c")
"""Where `chaos.simulator.large_files` has its files."""
_THINK_MS = (20, 900)
_PATIENCE_MS = 90_000
_STATUSES = frozenset(get_args(Status))
_NOWHERE = "contents are on no store"
"""Part of the reason of an abort whose cause are chunks that no store answers for."""


@dataclass(slots=True)
class Known:
    """What some client was told of a path: its tag, its value, and the slot that made it so."""

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
    """Since when it has waited for an answer."""
    doing: str = ""
    stopped: bool = False
    act: "Callable[[Process], None] | None" = None
    """What it does after it has thought; nothing special: one of the usual operations."""
    think_ms: tuple[int, int] = _THINK_MS


@dataclass(slots=True)
class Acknowledged:
    """A write that somebody was told of: which command of the log did it."""

    request: str
    operation: AnyOperation
    slot: int
    index: int


@dataclass(frozen=True, slots=True)
class Carried:
    """Chunks that were uploaded for a command, from `since_us` on; `held` checks who has them."""

    names: tuple[str, ...]
    since_us: int
    held: Callable[[int], None] = lambda slot: None


@dataclass(slots=True)
class Writing:
    """A command under way, with what every path holds once it is done."""

    process: Process
    operation: AnyOperation
    changes: dict[str, str | None]
    expected: str | None
    """By a `cas`."""
    tries_left: int
    carried: Carried | None = None
    doubtful: bool = False
    """An earlier try under the same key may have happened or may happen still."""


@dataclass(slots=True)
class Told:
    """What the verdict at the end rests on, beside the history."""

    acknowledged: list[Acknowledged] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """Values of writes that certainly did not happen."""
    unknown: list[tuple[str, str]] = field(default_factory=list)
    """Requests whose outcome was unknown, and through which gateway."""


class Workload:
    """All processes of a run."""

    def __init__(self, world: World, processes: int, gateways: int) -> None:
        self._world = world
        self._chance = world.stream("workload")
        self._values = 0
        self._waiting: dict[int, Callable[[Any], None]] = {}
        self._names = [f"gateway-{n}" for n in range(1, gateways + 1)]
        self.digests: dict[str, str] = {}
        self._moved: set[str | None] = set()
        """Values that may come back to a path that they left."""
        self.recorder = HistoryRecorder(lambda: world.now_us * 1_000)
        self.known = {path: Known(None, None, 0) for path in (*PATHS, *LARGE_PATHS)}
        self.told = Told()
        self.counts: Counter[str] = Counter()
        self.processes: list[Process] = []
        for _ in range(processes):
            self.join()
        self.on_lost: Callable[[str, tuple[str, ...], int], None] = lambda what, names, since: None
        """Chunks that a client needs, at least since that moment, are gone."""
        world.on_answer = self._on_answer

    def join(self) -> Process:
        """One more process, which goes through the next gateway in turn."""
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
        """Whether no process waits for anything."""
        return all(process.busy_since_us is None for process in self.processes)

    # -- the rhythm ------------------------------------------------------------------------------

    def begin(self) -> None:
        """Every process starts to work."""
        for process in self.processes:
            process.stopped = False
            self.think(process)

    def stop(self) -> None:
        """No process begins anything new."""
        for process in self.processes:
            process.stopped = True

    def think(self, process: Process) -> None:
        """Do the next thing after a while."""
        least, most = process.think_ms
        delay_us = self._chance.randint(least * US, most * US)
        self._world.after_us(delay_us, self._act, process)

    def _act(self, process: Process) -> None:
        if process.stopped or process.busy_since_us is not None:
            return
        chance = self._chance
        if chance.random() < 0.05:
            process.gateway = chance.choice(self._names)
        process.busy_since_us = self._world.now_us
        if process.act is not None:
            process.act(process)
            return
        path = chance.choice(PATHS)
        dice = chance.random()
        if dice < 0.40:
            self._read(process, path)
        elif dice < 0.65:
            self._write(process, path)
        elif dice < 0.82:
            self._compare_and_set(process, path)
        elif dice < 0.90:
            self._delete(process, path)
        elif dice < 0.95:
            self._move(process, path)
        else:
            self._transact(process, path)

    def end(self, process: Process, result: str) -> None:
        """What the process did has ended so; it thinks about the next thing."""
        self.counts[result] += 1
        self.counts[f"{process.doing} {result}"] += 1
        process.busy_since_us = None
        self.think(process)

    # -- calls -----------------------------------------------------------------------------------

    def call(
        self, process: Process, make: Callable[[int], Any], then: Callable[[Any], None]
    ) -> None:
        """Have the process's gateway do something."""
        self.ask(process.gateway, make, then)

    def ask(self, gateway: str, make: Callable[[int], Any], then: Callable[[Any], None]) -> None:
        """Have a gateway do something."""
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
        """Processes that have waited longer than any call may take."""
        limit_us = self._world.now_us - _PATIENCE_MS * US
        return [p for p in self.processes if p.busy_since_us and p.busy_since_us < limit_us]

    # -- reads -----------------------------------------------------------------------------------

    def _read(self, process: Process, path: str) -> None:
        if self._chance.random() < 0.15:
            self._read_stale(process, path)
            return
        process.doing = "read"
        process.record.invoke("read", path)
        self.read_into(process, path, lambda: self.end(process, "failed"))

    def read_last(self, process: Process, path: str) -> None:
        """One read of a process that has stopped; it has to succeed."""

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
        otherwise: Callable[[], None],
        go_on: Callable[[Any], None] | None = None,
    ) -> None:
        """A linearizable read that `process` has begun; it may `go_on` with the entry."""
        request = ReadRequest(number=0, what="entry", path=path)
        floor = self.known[path].slot

        def then(answer: Any) -> None:
            if not isinstance(answer, ReadDone):
                process.record.fail("not read")
                otherwise()
                return
            self._check_fresh(path, floor, answer)
            entry = answer.reply.entry
            value = self.value_of(entry)
            process.record.ok(value)
            self._learn(path, entry, value, answer.reply.applied)
            self.counts["acknowledged"] += 1
            if go_on is not None:
                go_on(entry)
            elif isinstance(entry, FileEntry) and self._chance.random() < 0.1:
                self._fetch(process, path, entry)
            else:
                self.end(process, "ok")

        self.call(process, lambda token: Read(token=token, request=request), then)

    def _check_fresh(self, path: str, floor: int, answer: ReadDone) -> None:
        """`reads_are_fresh`: what anybody knew of the path before the read began is in it."""
        if answer.reply.applied < floor:
            raise Violation(
                "reads_are_fresh",
                f"{answer.store} served {path!r} as of slot {answer.reply.applied}, but somebody "
                f"knew of slot {floor} before the read began",
            )

    def value_of(self, entry: Any) -> str | None:
        """The value that an entry stands for; `None` for no entry."""
        if entry is None:
            return None
        if not isinstance(entry, FileEntry):
            raise Violation("reads_are_fresh", f"a directory stands where a file was: {entry!r}")
        value = self.digests.get(entry.content.sha256)
        if value is None:
            raise Violation("no_value_from_nowhere", f"nobody wrote what was read: {entry!r}")
        return value

    def _learn(self, path: str, entry: Any, value: str | None, applied: int) -> None:
        known = self.known[path]
        slot = entry.slot if isinstance(entry, FileEntry) else known.slot
        if slot >= known.slot:
            etag = entry.etag if isinstance(entry, FileEntry) else None
            self.known[path] = Known(etag, value, slot)

    def _read_stale(self, process: Process, path: str) -> None:
        process.doing = "stale read"
        floor = self.known[path].slot if self._chance.random() < 0.5 else 0
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
        """Read the contents, too: every byte of an acknowledged version is somewhere."""
        process.doing = "fetch"
        chunks = getattr(entry.content, "chunks", ())
        if not chunks:
            self.end(process, "ok")
            return
        name = chunks[self._chance.randrange(len(chunks))]

        def then(answer: Any) -> None:
            match answer:
                case FetchedChunk(data=data):
                    if hashlib.sha256(data).hexdigest() != name:
                        raise Violation("contents_are_whole", f"{path!r}: {name} is damaged")
                case Absent():
                    raise Violation("contents_are_whole", f"{path!r}: {name} is nowhere")
            self.end(process, "ok" if isinstance(answer, FetchedChunk) else "failed")

        self.call(process, lambda token: Fetch(token=token, sha256=name), then)

    # -- writes ----------------------------------------------------------------------------------

    def new_value(self) -> str:
        """A value that nobody has written yet."""
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
        if self._chance.random() < 0.1:
            self._upload(process, path, value)
            return
        self.submit(process, PutFile(path=path, content=self._content(value)), {path: value})

    def _upload(self, process: Process, path: str, value: str) -> None:
        """A file of two chunks, sent to the stores before the command."""
        parts = [value.encode() + b"/first", value.encode() + b"/second"]
        names = tuple(hashlib.sha256(part).hexdigest() for part in parts)
        whole = hashlib.sha256(b"".join(parts)).hexdigest()
        self.digests[whole] = value
        content = Chunked(size=sum(map(len, parts)), sha256=whole, chunks=names)
        todo = list(zip(names, parts, strict=True))
        carried = Carried(names, self._world.now_us)

        def uploaded(answer: Any) -> None:
            if not isinstance(answer, Uploaded):
                process.record.fail("not uploaded")
                self.told.refused.add(value)
                self.end(process, "failed")
            elif todo:
                upload()
            else:
                operation = PutFile(path=path, content=content)
                self.submit(process, operation, {path: value}, carried=carried)

        def upload() -> None:
            name, data = todo.pop(0)
            self.call(
                process,
                lambda token: Upload(token=token, sha256=name, manifest=False, data=data),
                uploaded,
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
        if known.etag is not None and self._chance.random() < 0.5:
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
        """A known version moves to another path, whatever is there."""
        known = self.known[path]
        if known.etag is None:
            self._write(process, path)
            return
        process.doing = "move"
        target = self._chance.choice([other for other in PATHS if other != path])
        self._moved.add(known.value)
        record = [["cas", path, [known.value, None]], ["write", target, known.value]]
        process.record.invoke("txn", None, record)
        operation = MoveEntry(source=path, target=target, overwrite=True, when=_only_if(known.etag))
        self.submit(process, operation, {path: None, target: known.value})

    def _transact(self, process: Process, path: str) -> None:
        """Two files at once, if the first one is still what it was."""
        process.doing = "transaction"
        known = self.known[path]
        other = self._chance.choice([name for name in PATHS if name != path])
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
        carried: Carried | None = None,
    ) -> None:
        """Send a command; `changes` is what every path holds once it is done."""
        key = None
        if self._chance.random() < 0.2:
            name = f"key-{self._chance.getrandbits(48):012x}"
            key = IdempotencyKey(key=name, fingerprint=name)
        retry = self._chance.random() < 0.5
        tries = 2 if key is not None else 1
        writing = Writing(process, operation, changes, expected, tries, carried)

        def send() -> None:
            writing.tries_left -= 1
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
                    self._on_done(writing, request, outcome)
                case WriteDecided(outcome=outcome) if not writing.doubtful:
                    if carried is not None and _NOWHERE in outcome.detail:
                        what = f"chunks that {outcome} names"
                        self.on_lost(what, carried.names, carried.since_us)
                    self._on_refused(writing, outcome.status)
                case NotDone(reason=reason) if not writing.doubtful:
                    self._on_refused(writing, reason)
                case _:
                    if isinstance(answer, Unknown) and answer.request:
                        self.told.unknown.append((answer.request, process.gateway))
                    writing.doubtful = True
                    if writing.tries_left > 0 and not isinstance(answer, CallLost):
                        # The same key again: whatever became of the first try, it is done once.
                        send()
                        return
                    process.record.unknown()
                    self.end(process, "unknown")

        send()

    def _on_done(self, writing: Writing, request: str, outcome: Outcome) -> None:
        """It happened; by now, or by an earlier try under the same key."""
        process = writing.process
        process.record.ok()
        self.counts["acknowledged"] += 1
        self.told.acknowledged.append(
            Acknowledged(request, writing.operation, outcome.slot, outcome.index)
        )
        for path, value in writing.changes.items():
            if outcome.slot > self.known[path].slot:
                etag = outcome.etag if value is not None else None
                self.known[path] = Known(etag, value, outcome.slot)
        if writing.carried is not None:
            writing.carried.held(outcome.slot)
        self.end(process, "ok")

    def _on_refused(self, writing: Writing, why: str) -> None:
        """It did not happen and never will."""
        process = writing.process
        if why == "not_found" and process.doing == "delete":
            process.record.ok()
            self.counts["acknowledged"] += 1
        elif why == "precondition_failed" and process.doing == "cas":
            # A value that was moved may have come back under another tag.
            process.record.fail("another tag" if writing.expected in self._moved else None)
            self.counts["acknowledged"] += 1
        else:
            process.record.fail(why)
        self.told.refused.update(
            value for value in writing.changes.values() if value and value not in self._moved
        )
        self.end(process, why if why in _STATUSES else "failed")


def _only_if(etag: str | None) -> Precondition:
    """The version is still `etag`, or there is none."""
    if etag is None:
        return Precondition(if_none_match=("*",))
    return Precondition(if_match=(etag,))

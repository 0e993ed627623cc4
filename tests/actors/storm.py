"""A random bad minute: clients write and read while nodes die and messages get lost.

The judgement is simple and strict, because every path is only ever replaced: its version counter
must equal the acknowledged writes plus the unknown ones that turn out to have happened, and a read
must not return an older version than any that was acknowledged or read before it began.
"""

import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from actors.calls import Decided, Read, ReadDone, Unavailable, Unknown
from actors.messages import ReadRequest
from actors.options import Options
from actors.values import FileEntry, Inline, PutFile
from tests.actors.virtual import VirtualCluster

PATHS = ("p/0", "p/1", "p/2", "q")


def put(path: str, data: bytes, **more: Any) -> PutFile:
    """A write of inline contents."""
    digest = hashlib.sha256(data).hexdigest()
    return PutFile(path=path, content=Inline(sha256=digest, data=data), **more)


@dataclass
class Storm:
    """One run. `seen` is the highest version of each path that any client was told of."""

    seed: int
    duration_ms: int = 30_000
    clients: int = 6
    disk_loss: float = 0.2
    counts: Counter[str] = field(default_factory=Counter)
    acknowledged: Counter[str] = field(default_factory=Counter)
    unknown: list[tuple[str, str]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    _writes: dict[int, str] = field(default_factory=dict)
    _reads: dict[int, tuple[str, int]] = field(default_factory=dict)
    _down: dict[str, int] = field(default_factory=dict)

    def run(self) -> Counter[str]:
        """Storm, then calm, then the verdict; the counts tell what happened."""
        chance = self._chance = random.Random(self.seed)
        # A short log sends whoever was away for long to a snapshot.
        options = Options(log_bytes=chance.choice((0, 100_000, 16_000_000)), sync_ms=3_000)
        cluster = self.cluster = VirtualCluster(self.seed, options, gateways=2)
        cluster.start()
        cluster.ready("gateway-1")
        cluster.ready("gateway-2")
        cluster.loss = chance.choice((0, 0.01, 0.05))
        cluster.doubling = chance.choice((0, 0.05))
        cluster.delay_ms = chance.choice(((1, 3), (1, 30), (1, 80)))
        cluster.crash_rate = chance.choice((0, 0.0002, 0.001))
        cluster.on_crash = lambda name: self._note_down(name, chance)
        end = cluster.now + self.duration_ms
        while cluster.now < end:
            cluster.run(chance.randint(5, 50))
            self._restart_due()
            self._collect()
            while len(self._writes) + len(self._reads) < self.clients:
                self._begin(chance)
            if chance.random() < 0.01 and not self._down:
                self._kill(chance)
        cluster.loss = cluster.doubling = cluster.crash_rate = 0
        for name in list(self._down):
            del self._down[name]
            cluster.start(name)
        cluster.run_until(self._idle, 60_000, step_ms=100)
        cluster.settled()
        self._judge()
        return self.counts

    # -- what happens ----------------------------------------------------------------------------

    def _begin(self, chance: random.Random) -> None:
        gateway = chance.choice(("gateway-1", "gateway-2"))
        path = chance.choice(PATHS)
        if chance.random() < 0.4:
            request = ReadRequest(number=0, what="entry", path=path)
            known = self.seen[path]
            token = self.cluster.call(lambda token: Read(token=token, request=request), gateway)
            self._reads[token] = (path, known)
        else:
            data = b"%d" % chance.getrandbits(64)
            retry = chance.random() < 0.5
            token = self.cluster.write(put(path, data), gateway=gateway, retry=retry)
            self._writes[token] = path

    def _collect(self) -> None:
        answers = self.cluster.answers
        for token in [t for t in self._writes if t in answers]:
            self._on_written(self._writes.pop(token), answers.pop(token))
        for token in [t for t in self._reads if t in answers]:
            self._on_read(*self._reads.pop(token), answers.pop(token))

    def _on_written(self, path: str, answer: Any) -> None:
        match answer:
            case Decided(outcome=outcome) if outcome.status == "done":
                self.acknowledged[path] += 1
                self.counts["done"] += 1
                version = self._version_written(path, outcome.slot, outcome.index)
                self.seen[path] = max(self.seen[path], version)
            case Decided(outcome=outcome):
                self.counts[outcome.status] += 1
            case Unknown(request=request):
                self.unknown.append((path, request))
                self.counts["unknown"] += 1
            case Unavailable():
                self.counts["unavailable"] += 1
            case _:
                raise AssertionError(answer)

    def _version_written(self, path: str, slot: int, index: int) -> int:
        """The version that the write at `(slot, index)` made, where a learner still knows it."""
        for name in self.cluster.options.names("learner"):
            if name in self.cluster.running:
                entry = self.cluster.actor(name).state.entries.get(path)
                if isinstance(entry, FileEntry) and (entry.slot, entry.index) == (slot, index):
                    return entry.version
        return 0

    def _on_read(self, path: str, known: int, answer: Any) -> None:
        if not isinstance(answer, ReadDone):
            self.counts["unread"] += 1
            return
        self.counts["read"] += 1
        entry = answer.reply.entry
        version = entry.version if isinstance(entry, FileEntry) else 0
        assert version >= known, (
            f"{answer.store} returned version {version} of {path}, but version {known} was known "
            "before the read began"
        )
        self.seen[path] = max(self.seen[path], version)

    def _kill(self, chance: random.Random) -> None:
        cluster = self.cluster
        names = cluster.options.names
        leaders = [
            name
            for name in names("proposer")
            if name in cluster.running and type(cluster.actor(name).phase).__name__ == "Leading"
        ]
        victims = chance.choice(
            (
                leaders,
                chance.sample(names("acceptor"), 2),
                chance.sample(names("acceptor"), 3),
                ["learner-1"],
                ["learner-2"],
                [chance.choice(names("store"))],
            )
        )
        self.counts["kills"] += len(victims)
        cluster.crash(*victims)
        for name in victims:
            self._note_down(name, chance)

    def _note_down(self, name: str, chance: random.Random) -> None:
        self.counts["crashes"] += 1
        self._down[name] = self.cluster.now + chance.randint(300, 5_000)

    def _restart_due(self) -> None:
        for name in [n for n, at in self._down.items() if at <= self.cluster.now]:
            del self._down[name]
            self._maybe_lose_disk(name)
            self.cluster.start(name)

    def _maybe_lose_disk(self, name: str) -> None:
        """A store or learner comes back with an empty disk, if enough others hold everything."""
        if not name.startswith(("store", "learner")) or self._chance.random() > self.disk_loss:
            return
        whole = [
            other
            for other in self.cluster.options.names("store")
            if other != name
            and other in self.cluster.running
            and self.cluster.actor(other)._started
            and self.cluster.actor(other).joining.is_whole
            and self.cluster.actor(other).joining.membership is not None
        ]
        if len(whole) >= 2:
            self.counts["disks_lost"] += 1
            del self.cluster.disks[name]

    def _idle(self) -> bool:
        self._collect()
        return not (self._writes or self._reads)

    # -- the verdict -----------------------------------------------------------------------------

    def _judge(self) -> None:
        cluster = self.cluster
        assert not cluster.halted, cluster.halted
        state = cluster.actor("store-1").state
        happened: Counter[str] = Counter()
        for path, request in self.unknown:
            gateway = cluster.actor(request.partition(".")[0])
            assert request in gateway.resolved, f"nobody knows what became of {request}"
            if gateway.resolved[request].status == "done":
                happened[path] += 1
        for path in PATHS:
            entry = state.entries.get(path)
            version = entry.version if isinstance(entry, FileEntry) else 0
            assert version == self.acknowledged[path] + happened[path], (
                f"{path} has {version} versions, but {self.acknowledged[path]} writes were "
                f"acknowledged and {happened[path]} of the unknown ones happened"
            )
        for name in cluster.options.names("store"):
            assert not cluster.actor(name).prepared, f"{name} is in doubt after healing"
        for name in cluster.options.names("proposer"):
            counters = cluster.actor(name).counters
            self.counts["elections"] += counters["elections"]
            self.counts["gaps_filled"] += counters["gaps_filled"]
        self.counts["epochs"] += cluster.actor("learner-1").view.epoch
        for name in (*cluster.options.names("learner"), *cluster.options.names("store")):
            self.counts["snapshots"] += cluster.actor(name).counters["snapshots_installed"]

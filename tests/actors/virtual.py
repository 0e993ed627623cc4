"""A whole cluster in one thread on virtual time, drawn from one seed.

It runs the production actors with the runtime's turn: all of a step's records are kept before
its messages leave. Messages may be lost, doubled and delayed; a crash loses what was not kept.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from actors.calls import Decided, Read, ReadDone, Survey, Unavailable, Unknown, Write
from actors.effects import (
    BLOB_ROW,
    CancelTimer,
    Effects,
    Envelope,
    Group,
    Record,
    Send,
    SendBlob,
    SetTimer,
    TimerKey,
)
from actors.messages import ChunkData, ChunkMissing, ReadRequest
from actors.node import Node
from actors.options import Identity, Options
from actors.roles import build_actor
from actors.values import AnyOperation, IdempotencyKey


@dataclass
class Disk:
    """A node's journal, as the runtime keeps it."""

    identity: str
    records: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    incarnation: int = 0
    commits: int = 0


@dataclass
class Running:
    """A started process."""

    actor: Node
    generations: dict[TimerKey, int] = field(default_factory=dict)


class VirtualCluster:
    """Nodes, their disks, and a broker that may be unkind."""

    def __init__(self, seed: int, options: Options | None = None, gateways: int = 1) -> None:
        self.random = random.Random(seed)
        self.options = options or Options()
        self.now = 1_000
        self.loss = 0.0
        self.doubling = 0.0
        self.delay_ms = (1, 5)
        self.crash_rate = 0.0
        """How often a turn ends in a crash: before its commit, after it, or between two sends."""
        self.on_crash: Callable[[str], None] = lambda name: None
        self.cut: Callable[[str, str], bool] = lambda sender, to: False
        self.disks: dict[str, Disk] = {}
        self.running: dict[str, Running] = {}
        self.halted: dict[str, str] = {}
        self.answers: dict[int, Any] = {}
        self.deliveries = 0
        self.watch: Callable[[str, str, Any], None] = lambda sender, to, message: None
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order: Iterator[int] = count()
        self._tokens: Iterator[int] = count(1)
        self.names = (
            *self.options.members,
            *(f"gateway-{n}" for n in range(1, gateways + 1)),
        )

    # -- processes -------------------------------------------------------------------------------

    def start(self, *names: str) -> None:
        """Start processes on their disks; a new disk is minted where there is none."""
        for name in names or self.names:
            disk = self.disks.setdefault(name, Disk(identity=f"disk-{self.random.getrandbits(64)}"))
            disk.incarnation += 1
            identity = Identity(
                name=name,
                disk=disk.identity,
                incarnation=disk.incarnation,
                journal_commits=disk.commits,
                fresh_id=f"{self.random.getrandbits(128):032x}",
                wall_offset_ms=1_700_000_000_000,
            )
            actor = build_actor(identity, self.options)
            self.running[name] = Running(actor)
            records = [
                *(Record(BLOB_ROW + name, b"") for name in sorted(disk.blobs)),
                *(Record(key, disk.records[key]) for key in sorted(disk.records)),
            ]
            self._carry_out(name, actor.restore(records, self.now))

    def crash(self, *names: str) -> None:
        """Processes vanish; what they kept stays."""
        for name in names:
            del self.running[name]

    def actor(self, name: str) -> Any:
        """A running node's actor."""
        return self.running[name].actor

    # -- doors -----------------------------------------------------------------------------------

    def call(self, make: Callable[[int], Any], gateway: str = "gateway-1") -> int:
        """Hand a call to a gateway; the token names its answer."""
        token = next(self._tokens)
        actor = self.running[gateway].actor
        me = Envelope(actor.cluster, gateway, actor.identity.disk, 0, make(token))
        self._turn(gateway, lambda: actor.receive(me, self.now))
        return token

    def write(
        self,
        operation: AnyOperation,
        gateway: str = "gateway-1",
        retry: bool = False,
        key: IdempotencyKey | None = None,
    ) -> int:
        """Begin a write."""
        return self.call(
            lambda token: Write(
                token=token, operation=operation, retry_aborted=retry, idempotency=key
            ),
            gateway,
        )

    def answer(self, token: int, within_ms: int = 30_000) -> Any:
        """Run until the call is answered."""
        self.run_until(lambda: token in self.answers, within_ms)
        return self.answers[token]

    def done(self, operation: AnyOperation, **more: Any) -> Decided:
        """Write and wait for a decided outcome."""
        answer = self.answer(self.write(operation, **more))
        assert isinstance(answer, Decided), answer
        return answer

    def read(self, path: str, what: Any = "entry", gateway: str = "gateway-1") -> ReadDone:
        """A linearizable read."""
        request = ReadRequest(number=0, what=what, path=path)
        answer = self.answer(self.call(lambda token: Read(token=token, request=request), gateway))
        assert isinstance(answer, ReadDone), answer
        return answer

    def ready(self, gateway: str = "gateway-1") -> None:
        """Wait until a write could start."""

        def is_ready() -> bool:
            token = self.call(lambda token: Survey(token=token), gateway)
            return bool(self.answers.pop(token).ready)

        self.run_until(is_ready, 60_000, step_ms=50)

    def settled(self) -> None:
        """Wait until all stores and learners have applied the same slots and none is in doubt."""

        def equal() -> bool:
            states = [
                running.actor.state  # type: ignore[attr-defined]
                for name, running in self.running.items()
                if name.startswith(("store", "learner"))
            ]
            in_doubt = any(
                running.actor._vitals().in_doubt > 0 for running in self.running.values()
            )
            return not in_doubt and len({(s.applied, s.state_hash) for s in states}) == 1

        self.run_until(equal, 60_000, step_ms=50)

    # -- time ------------------------------------------------------------------------------------

    def run(self, duration_ms: int) -> None:
        """Let time pass."""
        end = self.now + duration_ms
        while self._events and self._events[0][0] <= end:
            self._step()
        self.now = end

    def run_until(
        self, condition: Callable[[], bool], within_ms: int, step_ms: int | None = None
    ) -> None:
        """Let time pass until `condition` holds. Raises `AssertionError` if it never does."""
        end = self.now + within_ms
        while not condition():
            if step_ms is not None:
                self.run(step_ms)
            elif self._events:
                self._step()
            if self.now > end or not (self._events or step_ms):
                raise AssertionError(f"not so within {within_ms} ms; halted: {self.halted}")

    def _step(self) -> None:
        at, _, action = heapq.heappop(self._events)
        self.now = max(self.now, at)
        action()

    def _at(self, delay_ms: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_ms, next(self._order), action))

    # -- turns -----------------------------------------------------------------------------------

    def _turn(self, name: str, step: Callable[[], Effects]) -> None:
        """One message or timer, then settle, then one commit, then the rest."""
        running = self.running[name]
        first = step()
        second = running.actor.settle(self.now)
        both = Effects(
            first.records + second.records,
            first.blobs + second.blobs,
            first.sends + second.sends,
            first.timers + second.timers,
            first.answers + second.answers,
            first.halt or second.halt,
        )
        self._carry_out(name, both)

    def _carry_out(self, name: str, effects: Effects) -> None:
        disk, running = self.disks[name], self.running[name]
        if effects.halt:
            self.halted[name] = effects.halt
            del self.running[name]
            return
        dies = self.random.random() < self.crash_rate and name.rpartition("-")[0] != "gateway"
        sends = effects.sends
        if dies:
            if self.random.random() < 0.3:
                self._die(name)  # Before the commit: it never was.
                return
            sends = sends[: self.random.randint(0, len(sends))]
        if effects.records or effects.blobs:
            disk.commits += 1
        for record in effects.records:
            if record.value is None:
                disk.records.pop(record.key, None)
            else:
                disk.records[record.key] = record.value
        for blob in effects.blobs:
            if blob.data is None:
                disk.blobs.pop(blob.sha256, None)
            else:
                disk.blobs[blob.sha256] = blob.data
        for send in sends:
            self._send(name, running, send)
        if dies:
            self._die(name)
            return
        for timer in effects.timers:
            generation = running.generations.get(timer.key, 0) + 1
            running.generations[timer.key] = generation
            if isinstance(timer, SetTimer):
                delay = self.random.randint(timer.least_ms, timer.most_ms)
                self._at(delay, self._expiry(name, running, timer.key, generation))
            else:
                assert isinstance(timer, CancelTimer)
        for answer in effects.answers:
            self.answers[answer.token] = answer.value

    def _die(self, name: str) -> None:
        self.crash(name)
        self.on_crash(name)

    def _expiry(
        self, name: str, running: Running, key: TimerKey, generation: int
    ) -> Callable[[], None]:
        def fire() -> None:
            if self.running.get(name) is running and running.generations[key] == generation:
                self._turn(name, lambda: running.actor.expire(key, self.now))

        return fire

    def _send(self, name: str, running: Running, send: Send | SendBlob) -> None:
        if isinstance(send, SendBlob):
            data = self.disks[name].blobs.get(send.sha256)
            message: Any = (
                ChunkMissing(sha256=send.sha256)
                if data is None
                else ChunkData(sha256=send.sha256, data=data)
            )
        else:
            message = send.message
        identity = running.actor.identity
        envelope = Envelope(
            running.actor.cluster, name, identity.disk, identity.incarnation, message
        )
        for to in self._receivers(send.to):
            self.watch(name, to, message)
            if self.cut(name, to) or self.random.random() < self.loss:
                continue
            copies = 2 if self.random.random() < self.doubling else 1
            for _ in range(copies):
                self._at(self.random.randint(*self.delay_ms), self._delivery(to, envelope))

    def _delivery(self, to: str, envelope: Envelope) -> Callable[[], None]:
        def deliver() -> None:
            running = self.running.get(to)
            if running is not None:
                self.deliveries += 1
                self._turn(to, lambda: running.actor.receive(envelope, self.now))

        return deliver

    def _receivers(self, to: str) -> tuple[str, ...]:
        roles = {
            Group.ACCEPTORS: ("acceptor",),
            Group.LEARNERS: ("learner",),
            Group.STORES: ("store",),
            Group.HEARTBEATS: ("proposer", "learner", "store", "gateway"),
        }.get(to)
        if roles is None:
            return (to,)
        return tuple(name for name in self.names if name.rpartition("-")[0] in roles)


__all__ = ["Decided", "Unavailable", "Unknown", "VirtualCluster"]

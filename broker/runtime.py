"""The runtime of one node: it runs its actor's turns and carries out their effects.

A turn processes the messages in the inbox, makes their effects durable in one commit, and only then
sends anything::

    drain -> receive* -> expire* -> settle -> commit -> sends -> timers -> answers -> acknowledge

If the actor raises, nothing of its turn was committed or sent: the actor is rebuilt from its
journal, and the turn's messages are tried again one by one (design 2).

While the broker takes no messages (its memory or disk alarm), the actor gets none from the broker,
as if the process were paused: it would only misread the silence of the other nodes, which can't
send either, and its own messages would be lost. Local calls and notices are still processed.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from actors.calls import Call
from actors.disk_events import BlobRotten, Notice
from actors.effects import (
    BLOB_ROW,
    Actor,
    Answer,
    Blob,
    Effects,
    Envelope,
    Record,
    Send,
    SendBlob,
    SetTimer,
)
from actors.errors import InvariantViolation, JournalUnreadable
from actors.messages import AnyMessage, ChunkData, ChunkMissing, ChunkPut
from actors.numbers import Milliseconds
from actors.options import Identity
from broker.inbox import Inbox, TurnInput
from broker.journal import Journal
from broker.journal_folder import JournalCorrupt, JournalError, JournalFull
from broker.local_calls import CallOutcomeUnknown, Calls
from broker.maintenance import Maintenance, MaintenanceOptions
from broker.observer import Interceptor, Observer
from broker.timers import TimerTable
from broker.transport import Delivery, Parcel, Receipt, TimerMessage, Transport

log = logging.getLogger("synod.runtime")

T = TypeVar("T")

OVERDUE_CHECK_S = 0.5
HELD_FLUSH_S = 0.02
DISK_FULL_RETRY_S = 1.0
WRITE_TIMEOUT_S = 1.0
"""How long a node with an active interceptor waits for the socket to take what it sent."""


def now_ms() -> Milliseconds:
    """The node's monotonic clock, which also runs while the machine is suspended, as leases do."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class HostedActor(Actor, Protocol):
    """An actor that knows its cluster's id, for the envelopes of its messages."""

    @property
    def cluster(self) -> str:
        """The cluster's id; empty until the node knows it."""
        ...


class NodeHalted(RuntimeError):
    """The node halted; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class HostOptions:
    """How a node is run. `commit_in_thread` is for many nodes on one event loop."""

    drain_messages_max: int = 512
    drain_bytes_max: int = 4 * 1024 * 1024
    blob_bytes_staged_max: int = 4 * 1024 * 1024
    calls_max: int = 10_000
    commit_in_thread: bool = False
    maintenance: MaintenanceOptions = field(default_factory=MaintenanceOptions)
    first_connection_timeout_s: float = 5.0


@dataclass(slots=True)
class _TurnOutput:
    """The effects of all steps of one turn."""

    records: list[Record] = field(default_factory=list)
    blobs: list[Blob] = field(default_factory=list)
    sends: list[Send | SendBlob] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    halt: str | None = None


class NodeHost:
    """Runs one actor with its journal and its transport, until cancelled or halted."""

    def __init__(
        self,
        name: str,
        make_actor: Callable[[Identity], HostedActor],
        journal: Journal,
        transport: Transport,
        *,
        options: HostOptions | None = None,
        observer: Observer | None = None,
        interceptor: Interceptor | None = None,
        clock: Callable[[], Milliseconds] = now_ms,
        random_int: Callable[[int, int], int] = random.randint,
    ) -> None:
        self.name = name
        self.halted = ""
        """Why the node halted; empty unless it did."""
        self._make_actor = make_actor
        self._journal = journal
        self._transport = transport
        self._options = options or HostOptions()
        self._observer = observer or Observer()
        self._interceptor = interceptor
        self._clock = clock
        self._random_int = random_int
        self._identity = self._new_identity()
        self._actor = make_actor(self._identity)
        self._calls = Calls(name, self._options.calls_max, self._take_calls)
        self._inbox = Inbox(self._options.drain_messages_max, self._options.drain_bytes_max)
        self._timers = TimerTable()
        self._maintenance = Maintenance(journal, self._options.maintenance, self._notify)
        self._work = asyncio.Event()
        self._timers_held = asyncio.Event()
        self._connected = asyncio.Event()
        self._ready = asyncio.Event()

    # -- public -----------------------------------------------------------------------------------

    @property
    def identity(self) -> Identity:
        """The identity of the running incarnation."""
        return self._identity

    @property
    def actor(self) -> HostedActor:
        """The running actor, for inspection; a rebuild replaces it."""
        return self._actor

    @property
    def transport(self) -> Transport:
        """The node's connection."""
        return self._transport

    @property
    def inbox_messages(self) -> int:
        """How many messages wait for a turn."""
        return len(self._inbox)

    @property
    def timers_armed(self) -> int:
        """How many timers are armed."""
        return len(self._timers)

    async def ready(self) -> None:
        """Wait until the actor has been restored and processes messages."""
        await self._ready.wait()

    async def call(self, make: Callable[[int], Call], timeout_s: float | None = None) -> Any:
        """Give the actor the call that `make` creates for a token; return its answer.

        Raises `CallRefused`, `CallOutcomeUnknown` or `NodeHalted`, and `TimeoutError` if no answer
        comes within `timeout_s`. Neither a timeout nor cancelling the caller withdraws the call.
        """
        if self.halted:
            raise NodeHalted(self.halted)
        return await self._calls.run(make, timeout_s)

    async def run(self) -> None:
        """Run the node. Raises `NodeHalted`, `TransportRefused` or a `JournalError`."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    self._transport.run(self._deliver, self._on_session, self._on_unblocked)
                )
                group.create_task(self._run_timers())
                group.create_task(self._take_turns())
                group.create_task(self._maintenance.run())
        except BaseExceptionGroup as failures:
            raise _first_failure(failures) from failures
        finally:
            self._calls.fail_all_but((), NodeHalted(self.halted or f"{self.name} was stopped"))

    # -- inbox ------------------------------------------------------------------------------------

    def _take_calls(self, calls: list[Call]) -> None:
        self._inbox.local.extend(calls)
        self._work.set()

    def _notify(self, notice: Notice) -> None:
        self._inbox.local.append(notice)
        self._work.set()

    def _deliver(self, delivery: Delivery) -> None:
        self._inbox.put(delivery)
        self._work.set()

    def _on_session(self) -> None:
        self._inbox.forget_deliveries()
        self._timers.rearm(self._clock())
        self._timers_held.set()
        self._connected.set()

    def _on_unblocked(self) -> None:
        self._timers.resume(self._clock())
        self._timers_held.set()
        self._work.set()

    @property
    def _has_work(self) -> bool:
        waiting = self._inbox.local if self._transport.health.blocked else self._inbox
        return bool(waiting) or self._timers.has_immediate

    def _envelope_of_call(self, call: Call | Notice) -> Envelope:
        identity = self._identity
        return Envelope(self._actor.cluster, self.name, identity.disk, identity.incarnation, call)

    # -- turns ------------------------------------------------------------------------------------

    async def _take_turns(self) -> None:
        # Without a connection the actor's first messages would be lost, which costs a timeout.
        try:
            async with asyncio.timeout(self._options.first_connection_timeout_s):
                await self._connected.wait()
        except TimeoutError:
            log.warning("%s starts without a connection to the broker", self.name)
        try:
            try:
                await self._restore()
            except JournalFull as error:
                await self._wait_for_disk_space(error)
            self._ready.set()
            while True:
                await self._work.wait()
                self._work.clear()
                while self._has_work:
                    await self._turn()
                    if self._has_work:
                        # Let other tasks of this event loop run.
                        await asyncio.sleep(0)
        except InvariantViolation as violation:
            self._halt(f"an invariant is violated: {violation}")
        except JournalUnreadable as error:
            self._halt(f"this version can't read the journal {self._journal.path}: {error}")
        except JournalCorrupt as error:
            self._halt(str(error))

    async def _turn(self) -> None:
        started = time.perf_counter()
        batch = self._inbox.drain(self._envelope_of_call, local_only=self._transport.health.blocked)
        try:
            await self._try_turn(batch)
        except JournalFull as error:
            await self._wait_for_disk_space(error)
            self._inbox.put_back(batch)
        self._observer.turn_finished(len(batch.items), time.perf_counter() - started)

    async def _try_turn(self, batch: TurnInput) -> None:
        try:
            outcome = await self._step(batch.items)
        except InvariantViolation:
            raise
        except Exception as error:
            log.exception("%s: the actor failed in a turn", self.name)
            await self._rebuild(error, keep=batch.items)
            await self._retry_one_by_one(batch.items)
            outcome = _TurnOutput()
        await self._carry_out(outcome, batch.receipts)

    async def _step(self, items: Iterable[Envelope | TimerMessage]) -> _TurnOutput:
        """Have the actor process `items`, and settle. Raises whatever the actor raises."""
        outcome = _TurnOutput()
        actor, clock, observer, interceptor = (
            self._actor,
            self._clock,
            self._observer,
            self._active_interceptor,
        )
        for item in items:
            if isinstance(item, TimerMessage):
                self._on_timer_message(item, outcome)
                continue
            message = item.message
            if isinstance(message, BlobRotten) and await self._is_repaired(message.sha256, outcome):
                continue
            if interceptor:
                await interceptor.receiving(message)
            self._collect(actor.receive(item, clock()), outcome)
            if interceptor:
                await interceptor.received(message)
            observer.received(item.sender, message)
            self._expire_immediate(outcome)
        self._expire_immediate(outcome)
        self._collect(actor.settle(clock()), outcome)
        return outcome

    def _on_timer_message(self, timer_message: TimerMessage, outcome: _TurnOutput) -> None:
        identity = self._identity
        if (timer_message.disk, timer_message.incarnation) != (identity.disk, identity.incarnation):
            return
        for key, generation in timer_message.timers:
            now = self._clock()
            late_ms = self._timers.arrived(key, generation, now)
            if late_ms is not None:
                self._observer.timer_expired(key, late_ms)
                self._collect(self._actor.expire(key, now), outcome)

    async def _is_repaired(self, sha256: str, outcome: _TurnOutput) -> bool:
        """Whether the blob was replaced or removed since it was found rotten.

        The scrub and each reader report the same rot. If the actor were notified again after it got
        a sound copy, it would discard that one, too.
        """
        if any(blob.sha256 == sha256 for blob in outcome.blobs):
            return True
        sound, _ = await self._in_journal(self._journal.is_sound, sha256)
        return sound

    def _expire_immediate(self, outcome: _TurnOutput) -> None:
        # Bounded: a timer without a delay that keeps setting itself waits for the next turn.
        for _ in range(100):
            key = self._timers.take_immediate()
            if key is None:
                return
            self._collect(self._actor.expire(key, self._clock()), outcome)

    def _collect(self, effects: Effects, outcome: _TurnOutput) -> None:
        outcome.records.extend(effects.records)
        outcome.blobs.extend(effects.blobs)
        outcome.sends.extend(effects.sends)
        outcome.answers.extend(effects.answers)
        outcome.halt = outcome.halt or effects.halt
        for timer in effects.timers:
            # Only noted: their messages leave after the sends, and a rebuild drops them.
            if isinstance(timer, SetTimer):
                delay_ms = self._random_int(timer.least_ms, timer.most_ms)
                self._timers.set(timer.key, delay_ms, self._clock())
            else:
                self._timers.cancel(timer.key)

    async def _carry_out(
        self, outcome: _TurnOutput, receipts: dict[str, Receipt] | None = None
    ) -> None:
        if outcome.records or outcome.blobs:
            await self._commit(outcome.records, outcome.blobs)
        if outcome.sends:
            await self._send(outcome.sends)
        self._publish_timers()
        for receipt in (receipts or {}).values():
            self._transport.acknowledge(receipt)
        # The transport sends what is staged in order, acknowledgements last.
        await self._transport.flush()
        for answer in outcome.answers:
            self._calls.answer(answer.token, answer.value)
        if self._timers.held:
            self._timers_held.set()
        if self._timers.has_immediate:
            self._work.set()
        if outcome.halt is not None:
            self._halt(outcome.halt)

    async def _commit(self, records: list[Record], blobs: list[Blob]) -> None:
        started = time.perf_counter()
        await self._in_journal(self._journal.commit, records, blobs)
        self._observer.committed(len(records) + len(blobs), time.perf_counter() - started)
        if blobs:
            self._maintenance.check_free_space()

    async def _in_journal(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run disk I/O of the journal, in a thread if the options say so."""
        if self._options.commit_in_thread:
            return await asyncio.to_thread(work, *arguments)
        return work(*arguments)

    # -- sending ----------------------------------------------------------------------------------

    async def _send(self, sends: list[Send | SendBlob]) -> None:
        if interceptor := self._active_interceptor:
            await self._send_one_by_one(sends, interceptor)
            return
        by_destination: dict[str, list[AnyMessage]] = {}
        blob_bytes = 0
        for send in sends:
            message = await self._message_of(send)
            self._observer.sent(send.to, message)
            by_destination.setdefault(send.to, []).append(message)
            if isinstance(message, ChunkData | ChunkPut):
                blob_bytes += len(message.data)
                if blob_bytes > self._options.blob_bytes_staged_max:
                    self._publish(by_destination)
                    await self._transport.flush()
                    by_destination, blob_bytes = {}, 0
        self._publish(by_destination)

    async def _send_one_by_one(
        self, sends: list[Send | SendBlob], interceptor: Interceptor
    ) -> None:
        for send in sends:
            message = await self._message_of(send)
            for to in interceptor.recipients(send.to, message):
                await interceptor.sending(to, message)
                self._observer.sent(to, message)
                self._publish({to: [message]})
                await self._transport.flush()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WRITE_TIMEOUT_S):
                        # There is no event for it.
                        while self._transport.unsent_bytes:  # noqa: ASYNC110
                            await asyncio.sleep(0)
                await interceptor.sent(to, message)

    @property
    def _active_interceptor(self) -> Interceptor | None:
        return None if self._interceptor is None or self._interceptor.idle else self._interceptor

    async def _message_of(self, send: Send | SendBlob) -> AnyMessage:
        if isinstance(send, Send):
            return send.message
        try:
            data = await self._in_journal(self._journal.read_blob, send.sha256)
        except JournalCorrupt as error:
            # Never send wrong bytes: the requester finds a sound copy elsewhere.
            log.error("%s: %s", self.name, error)
            self._notify(BlobRotten(sha256=send.sha256))
            data = None
        if data is None:
            return ChunkMissing(sha256=send.sha256)
        return ChunkData(sha256=send.sha256, data=data)

    def _publish(self, by_destination: dict[str, list[AnyMessage]]) -> None:
        for to, messages in by_destination.items():
            self._transport.publish(to, self._parcel(tuple(messages)))

    def _parcel(self, messages: tuple[AnyMessage, ...]) -> Parcel:
        # The cluster's id is read after the turn, because founding may have set it in this turn.
        identity = self._identity
        return Parcel(self._actor.cluster, self.name, identity.disk, identity.incarnation, messages)

    # -- timers -----------------------------------------------------------------------------------

    def _publish_timers(self) -> None:
        identity = self._identity
        for publication in self._timers.publications(self._clock()):
            timer_message = TimerMessage(identity.disk, identity.incarnation, publication.timers)
            if not self._transport.delay(publication.delay_ms, timer_message):
                self._timers.not_sent(publication)

    async def _run_timers(self) -> None:
        """Send the timer messages that were held back, and resend lost ones."""
        checked_ms = 0
        while True:
            try:
                async with asyncio.timeout(OVERDUE_CHECK_S):
                    await self._timers_held.wait()
                self._timers_held.clear()
                await asyncio.sleep(HELD_FLUSH_S)
            except TimeoutError:
                pass
            now = self._clock()
            health = self._transport.health
            may_check = health.connected and not health.blocked
            if may_check and now - checked_ms >= OVERDUE_CHECK_S * 1000:
                checked_ms = now
                lost = self._timers.lost
                self._timers.resend_overdue(now)
                if self._timers.lost > lost:
                    self._observer.timers_lost(self._timers.lost - lost)
            if self._timers.held:
                self._publish_timers()
                await self._transport.flush()
            if self._timers.held:
                self._timers_held.set()

    # -- failures ---------------------------------------------------------------------------------

    def _new_identity(self) -> Identity:
        disk, incarnation, journal_commits = self._journal.identity
        return Identity(
            name=self.name,
            disk=disk,
            incarnation=incarnation,
            journal_commits=journal_commits,
            fresh_id=secrets.token_hex(16),
        )

    async def _restore(self) -> None:
        outcome = _TurnOutput()
        rows = itertools.chain(
            (Record(BLOB_ROW + name, b"") for name in self._journal.blob_names()),
            self._journal.records(),
        )
        self._collect(self._actor.restore(rows, self._clock()), outcome)
        self._expire_immediate(outcome)
        self._collect(self._actor.settle(self._clock()), outcome)
        await self._carry_out(outcome)

    async def _rebuild(self, error: Exception, keep: Iterable[Envelope | TimerMessage]) -> None:
        """Begin a new incarnation; fail the calls that the actor has processed, but not `keep`."""
        reason = f"{type(error).__name__}: {error}"
        self._timers.clear()
        self._fail_calls(f"{self.name} was rebuilt from its journal after {reason}", keep)
        self._journal.reincarnate()
        self._identity = self._new_identity()
        self._actor = self._make_actor(self._identity)
        self._maintenance.report_again()
        self._observer.rebuilt(reason)
        try:
            await self._restore()
        except (InvariantViolation, JournalUnreadable, JournalError, NodeHalted):
            raise
        except Exception as failure:
            raise InvariantViolation(
                f"the actor of {self.name} can't be rebuilt from its journal: {failure!r}"
            ) from failure

    async def _wait_for_disk_space(self, error: JournalFull) -> None:
        """Nothing of the turn was kept or sent. Stay silent until there is space, then rebuild.

        Pending local calls fail with an unknown outcome.
        """
        log.critical("%s is silent until its disk has space: %s", self.name, error)
        self._observer.stalled(str(error))
        self._fail_calls(f"{self.name} found its disk full: {error}")
        while True:
            await asyncio.sleep(DISK_FULL_RETRY_S)
            # A rebuild and its first messages often fit on a full disk. Without space for the next
            # turn as well, other nodes would take this one for alive.
            if not await self._in_journal(self._journal.has_space, self._space_needed_bytes):
                continue
            with contextlib.suppress(JournalFull):
                await self._rebuild(error, keep=())
                log.warning("%s resumes: its disk has space", self.name)
                return

    @property
    def _space_needed_bytes(self) -> int:
        """What the commit of one turn may need: its messages, and as much again for pages."""
        return 2 * self._options.drain_bytes_max

    async def _retry_one_by_one(self, items: list[Envelope | TimerMessage]) -> None:
        for index, item in enumerate(items):
            # The timers of these messages ended with the former incarnation.
            if isinstance(item, TimerMessage):
                continue
            if isinstance(item.message, Call | Notice):
                item = self._envelope_of_call(item.message)
            try:
                outcome = await self._step([item])
            except InvariantViolation:
                raise
            except Exception as error:
                kind: str = item.message.type  # type: ignore[attr-defined]
                log.exception("%s: a %s goes to quarantine", self.name, kind)
                self._reject(item, f"{type(error).__name__}: {error}")
                await self._rebuild(error, keep=items[index + 1 :])
            else:
                await self._carry_out(outcome)

    def _reject(self, envelope: Envelope, reason: str) -> None:
        self._observer.quarantined(reason)
        cluster, sender, disk, incarnation, message = envelope
        if isinstance(message, Call):
            self._calls.fail(
                message.token, CallOutcomeUnknown(f"{self.name} failed on it: {reason}")
            )
        elif not isinstance(message, Notice):
            parcel = Parcel(cluster, sender, disk, incarnation, (message,))
            self._transport.quarantine(parcel, f"{self.name}: {reason}")

    def _fail_calls(self, reason: str, keep: Iterable[Envelope | TimerMessage] = ()) -> None:
        """Fail the calls that the actor has processed, but not those in `keep` or in the inbox."""
        self._calls.release()
        kept = {call.token for call in self._inbox.local if isinstance(call, Call)}
        kept.update(token for item in keep if (token := _token_of(item)) is not None)
        self._calls.fail_all_but(kept, CallOutcomeUnknown(reason))

    def _halt(self, reason: str) -> None:
        self.halted = reason
        log.critical("%s halts: %s", self.name, reason)
        self._observer.halted(reason)
        raise NodeHalted(f"{self.name} halts: {reason}")


def _token_of(item: Envelope | TimerMessage) -> int | None:
    if isinstance(item, Envelope) and isinstance(item.message, Call):
        return item.message.token
    return None


def _first_failure(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that ended the node; the other tasks were cancelled because of it."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

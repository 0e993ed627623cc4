"""A small actor for the tests of the runtime: the message's text selects what it does."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from actors.calls import Survey
from actors.effects import (
    Answer,
    CancelTimer,
    Effects,
    Envelope,
    Outbox,
    Record,
    Send,
    SetTimer,
    TimerKey,
)
from actors.errors import InvariantViolation
from actors.messages import AnyMessage, ChunkRefused
from actors.numbers import Milliseconds
from actors.options import Identity

Behaviour = Callable[["Puppet", Envelope], None]


def note(text: str) -> ChunkRefused:
    """A message that carries a text and means nothing else."""
    return ChunkRefused(sha256="", reason=text)


@dataclass
class Puppet:
    """Keeps its messages in `seen`; `on` has the behaviour for each text."""

    identity: Identity
    on: dict[str, Behaviour]
    cluster: str = "cluster-id"
    restored: list[Record] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    timer_expired: list[TimerKey] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    settled: int = 0
    out: Outbox = field(default_factory=Outbox)

    def restore(self, records: Iterable[Record], now: Milliseconds) -> Effects:
        self.restored = list(records)
        if behaviour := self.on.get("restore"):
            behaviour(self, Envelope("", "", "", 0, note("")))
        return self.out.take()

    def receive(self, envelope: Envelope, now: Milliseconds) -> Effects:
        message = envelope.message
        self.envelopes.append(envelope)
        text: str = message.type  # type: ignore[attr-defined]
        if isinstance(message, ChunkRefused):
            text = message.reason
        self.seen.append(text)
        if isinstance(message, Survey) and "call.survey" not in self.on:
            self.out.answers.append(Answer(message.token, list(self.seen)))
        verb = text.partition(" ")[0]
        if behaviour := self.on.get(verb):
            behaviour(self, envelope)
        return self.out.take()

    def expire(self, timer: TimerKey, now: Milliseconds) -> Effects:
        self.timer_expired.append(timer)
        if behaviour := self.on.get("expire"):
            behaviour(self, Envelope("", "", "", 0, note(timer.name)))
        return self.out.take()

    def settle(self, now: Milliseconds) -> Effects:
        self.settled += 1
        if behaviour := self.on.get("settle"):
            behaviour(self, Envelope("", "", "", 0, note("")))
        return self.out.take()

    # -- for behaviours ---------------------------------------------------------------------------

    def send(self, to: str, message: AnyMessage | str) -> None:
        self.out.sends.append(Send(to, note(message) if isinstance(message, str) else message))

    def keep(self, key: str, value: bytes) -> None:
        self.out.records.append(Record(key, value))

    def set_timer(self, name: str, least_ms: int, most_ms: int | None = None) -> None:
        most = least_ms if most_ms is None else most_ms
        self.out.timers.append(SetTimer(TimerKey(name), least_ms, most))

    def cancel_timer(self, name: str) -> None:
        self.out.timers.append(CancelTimer(TimerKey(name)))


def fail(puppet: Puppet, envelope: Envelope) -> None:
    raise ValueError("the actor's own mistake")


def violate(puppet: Puppet, envelope: Envelope) -> None:
    raise InvariantViolation("two values for slot 7")

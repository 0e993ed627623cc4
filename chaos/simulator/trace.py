"""Traces of a run: every message for programs, and the last events for people."""

import json
from collections import deque
from typing import IO, Any, Protocol

from chaos.simulator.parcels import Envelopes

_FREQUENT = frozenset(("node.heartbeat", "leader.beat"))
"""Left out of the last events: they would displace everything else."""
_LINES_MAX = 48


class TraceSink(Protocol):
    """Receives every parcel that is sent, and every event that is no message."""

    def parcel(
        self,
        at_us: int,
        arrives_us: int | None,
        sender: str,
        receiver: str,
        parcel: Envelopes,
        *,
        duplicate: bool,
    ) -> None:
        """A parcel was sent; `arrives_us` is `None` if it is lost."""

    def event(self, at_us: int, text: str) -> None:
        """Something happened that is no message, such as a crash."""


class TraceWriter:
    """Writes every message of a run as a line of JSON, for a sequence diagram.

    A message that goes to several nodes has a line for each; `arrives_ms` is `null` if it is lost.
    What is no message (a crash, the end of the storm) has a line with `event`.
    """

    def __init__(self, to: IO[str]) -> None:
        self._to = to

    def parcel(
        self,
        at_us: int,
        arrives_us: int | None,
        sender: str,
        receiver: str,
        parcel: Envelopes,
        *,
        duplicate: bool,
    ) -> None:
        """Write a line for each message of the parcel."""
        for envelope in parcel:
            message: Any = envelope.message
            line = {
                "time_ms": at_us / 1_000,
                "arrives_ms": None if arrives_us is None else arrives_us / 1_000,
                "sender": sender,
                "receiver": receiver,
                "type": message.type,
                **_headers(message),
                "lost": arrives_us is None,
                "duplicated": duplicate,
                "message": message.model_dump(mode="json", exclude={"type"}),
            }
            self._to.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")

    def event(self, at_us: int, text: str) -> None:
        """Write a line with the text."""
        line = {"time_ms": at_us / 1_000, "event": text}
        self._to.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


class RecentEvents:
    """Keeps the last messages and events of a run, for the report of a failure."""

    def __init__(self, kept: int = 4_000) -> None:
        self._kept: deque[tuple[int, int | None, str, str, Any, bool]] = deque(maxlen=kept)

    def parcel(
        self,
        at_us: int,
        arrives_us: int | None,
        sender: str,
        receiver: str,
        parcel: Envelopes,
        *,
        duplicate: bool,
    ) -> None:
        """Keep each message of the parcel."""
        for envelope in parcel:
            message: Any = envelope.message
            if message.type not in _FREQUENT:
                self._kept.append((at_us, arrives_us, sender, receiver, message, duplicate))

    def event(self, at_us: int, text: str) -> None:
        """Keep the text."""
        self._kept.append((at_us, None, "", "", text, False))

    def lines(self, most: int = _LINES_MAX) -> list[str]:
        """The last events, a line each; one message to several nodes is one line."""
        lines: list[tuple[Any, str, list[str]]] = []
        for at_us, arrives_us, sender, receiver, what, duplicate in self._kept:
            moment = f"{at_us / 1e6:9.3f} s"
            if not sender:
                lines.append((None, f"{moment}  * {what}", []))
                continue
            fate = " (lost)" if arrives_us is None else " (again)" if duplicate else ""
            key = (at_us, sender, id(what))
            if lines and lines[-1][0] == key:
                lines[-1][2].append(receiver + fate)
            else:
                lines.append((key, f"{moment}  {sender}: {_phrase(what)} → ", [receiver + fate]))
        return [text + ", ".join(receivers) for _, text, receivers in lines[-most:]]


def _headers(message: Any) -> dict[str, Any]:
    """Slot, ballot, epoch and request, where the message has them."""
    ballot = getattr(message, "ballot", None)
    epoch = getattr(message, "epoch", None)
    if epoch is None:
        epoch = getattr(getattr(message, "view", None), "epoch", None)
    return {
        "slot": getattr(message, "slot", None),
        "ballot": None if ballot is None else str(ballot),
        "epoch": epoch,
        "request": getattr(message, "request", None),
    }


def _phrase(message: Any) -> str:
    """A message in a few words."""
    words = [message.type]
    words += [f"{key} {value}" for key, value in _headers(message).items() if value is not None]
    for name in (
        "status",
        "applied",
        "chosen_through",
        "decided",
        "first_slot",
        "promised",
        "aborted",
    ):
        value = getattr(message, name, None)
        if value not in (None, ()):
            words.append(f"{name} {value}")
    inner = getattr(message, "value", None)
    if inner is not None:
        words.append(f"[{inner.kind}]")
    return " ".join(words)

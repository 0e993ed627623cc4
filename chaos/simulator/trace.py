"""What happened, for people (a story of the last events) and for programs (a trace of all)."""

import json
from collections import deque
from typing import IO, Any

from chaos.simulator.interfaces import Parcel

_NOISE = frozenset(("node.heartbeat", "leader.beat"))
_LINES_MAX = 48


class TraceWriter:
    """Writes every message of a run as a line of JSON, for a sequence diagram.

    A message that goes to several nodes has a line for each; `arrives_ms` is `null` if it is lost.
    What is no message (a node dies, the storm ends) has a line with `event`.
    """

    def __init__(self, to: IO[str]) -> None:
        self._to = to

    def parcel(
        self,
        at_us: int,
        arrives_us: int | None,
        sender: str,
        receiver: str,
        parcel: Parcel,
        *,
        duplicate: bool,
    ) -> None:
        """A parcel leaves; it has one message or several."""
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
        """Something happened that is no message."""
        line = {"time_ms": at_us / 1_000, "event": text}
        self._to.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


class Story:
    """Keeps the last messages and events, and tells them."""

    def __init__(self, kept: int = 4_000) -> None:
        self._kept: deque[tuple[int, int | None, str, str, Any, bool]] = deque(maxlen=kept)

    def parcel(
        self,
        at_us: int,
        arrives_us: int | None,
        sender: str,
        receiver: str,
        parcel: Parcel,
        *,
        duplicate: bool,
    ) -> None:
        """A parcel leaves."""
        for envelope in parcel:
            message: Any = envelope.message
            if message.type not in _NOISE:
                self._kept.append((at_us, arrives_us, sender, receiver, message, duplicate))

    def event(self, at_us: int, text: str) -> None:
        """Something happened that is no message."""
        self._kept.append((at_us, None, "", "", text, False))

    def lines(self, most: int = _LINES_MAX) -> list[str]:
        """The last events, a line each; one message to several nodes is one line."""
        told: list[tuple[Any, str, list[str]]] = []
        for at_us, arrives_us, sender, receiver, what, duplicate in self._kept:
            moment = f"{at_us / 1e6:9.3f} s"
            if not sender:
                told.append((None, f"{moment}  * {what}", []))
                continue
            fate = " (lost)" if arrives_us is None else " (again)" if duplicate else ""
            key = (at_us, sender, id(what))
            if told and told[-1][0] == key:
                told[-1][2].append(receiver + fate)
            else:
                told.append((key, f"{moment}  {sender}: {_phrase(what)} → ", [receiver + fate]))
        return [text + ", ".join(receivers) for _, text, receivers in told[-most:]]


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
    for name in ("status", "applied", "scanned", "decided", "first_slot", "promised", "aborted"):
        value = getattr(message, name, None)
        if value not in (None, ()):
            words.append(f"{name} {value}")
    inner = getattr(message, "value", None)
    if inner is not None:
        words.append(f"[{inner.kind}]")
    return " ".join(words)

"""Trace records of what one node received, sent and committed, in readable form.

A `Recorder` receives events from the node's runtime and returns records once a second. It is best
effort and bounded: excess records are dropped and counted, and the node never waits for it.

Whether a slot is recorded depends on its number alone, so all nodes choose the same slots without
communication: each records the multiples of a power of two, chosen so that about
`SAMPLED_SLOTS_PER_S` a second remain. On a quiet cluster that is every slot.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from actors.effects import TimerKey
from actors.messages import AnyMessage, SnapshotRow, TokenInfo, UserInfo
from actors.numbers import Milliseconds
from actors.state.policy_rows import POLICY_ROWS
from actors.unread import UnreadBatch
from actors.values import AcceptedValue, Batch, Command, Outcome, View

TraceRecord = dict[str, Any]
"""A record as JSON; see `docs/api.md`, "Traces"."""

Mode = Literal["off", "sampled", "all"]

SAMPLED_SLOTS_PER_S = 4.0
SAMPLED_REQUESTS = 8
"""How many requests of a sampled slot have their own messages recorded on a busy cluster."""

PENDING_RECORDS_MAX = 1024
SUBMITS_KEPT = 1024
TEXT_MAX = 300
LISTED_MAX = 12
"""How many items of a list inside a message are shown; of a longer list also their number."""

_NOT_SHOWN: dict[type, frozenset[str]] = {
    TokenInfo: frozenset(("sha256",)),
    UserInfo: frozenset(("password", "password_set")),
}
"""Fields that are for gateways alone: passwords can be guessed from their hashes."""

_SLOTTED = frozenset(
    (
        "paxos.accept",
        "paxos.accepted",
        "txn.prepare",
        "txn.vote",
        "txn.progress",
        "txn.decision",
    )
)
_RARE = frozenset(
    (
        "client.redirect",
        "log.propose",
        "node.stale_disk",
        "paxos.prepare",
        "paxos.promise",
        "paxos.reject",
        "replica.diverged",
        "snapshot.pull",
        "txn.fenced",
        "txn.inquiry",
        "txn.state",
        "view.join",
    )
)
"""The messages of elections, aborts and new views: always recorded."""


@dataclass(slots=True)
class TraceSwitch:
    """Controls what the recorders of a process record; `all_until_us` is a wall-clock time."""

    mode: Mode = "sampled"
    all_until_us: int = 0

    def current(self, now_us: int) -> Mode:
        """The effective mode."""
        return "all" if self.mode == "all" or now_us < self.all_until_us else self.mode


class _Observed(NamedTuple):
    """An observed event, kept undescribed until the next `take`, off the node's path."""

    time_us: int
    kind: Literal["sent", "received", "committed", "timer"]
    peer: str
    message: AnyMessage | None
    slot: int | None
    duration_us: int | None = None
    timer: str = ""


class Recorder:
    """Receives one node's events, as `broker.observer.Observer`. Called on the node's path."""

    def __init__(
        self,
        node: str,
        switch: TraceSwitch,
        wall_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.node = node
        self.recorded = 0
        """Records made so far."""
        self.dropped = 0
        """Records that were dropped, here or when they were published."""
        self._switch = switch
        self._wall_us = wall_us
        self._pending: list[_Observed] = []
        self._submits: OrderedDict[str, list[_Observed]] = OrderedDict()
        self._turn_slots: list[int] = []
        self._mask = 0
        self._mode: Mode = switch.current(wall_us())
        self._highest_slot = 0
        self._counted_slot = 0
        self._counted_us = wall_us()

    # -- events from the runtime -----------------------------------------------------------------

    def received(self, sender: str, message: AnyMessage) -> None:
        """The actor received a message."""
        kind: str = message.type  # type: ignore[attr-defined]
        if self._observe("received", sender, kind, message) and kind in (
            "paxos.accept",
            "txn.prepare",
        ):
            self._turn_slots.append(message.slot)  # type: ignore[attr-defined]

    def sent(self, to: str, message: AnyMessage) -> None:
        """The transport received a message to send."""
        kind: str = message.type  # type: ignore[attr-defined]
        self._observe("sent", to, kind, message)

    def committed(self, rows: int, seconds: float) -> None:
        """A commit took `seconds`; it made this turn's slots durable."""
        if self._turn_slots or self._mode == "all":
            duration_us = round(seconds * 1e6)
            for slot in dict.fromkeys(self._turn_slots) or (None,):
                observed = _Observed(
                    self._wall_us(), "committed", "", None, slot, duration_us, f"{rows}"
                )
                self._keep(observed)

    def turn_finished(self) -> None:
        """The turn ended."""
        self._turn_slots.clear()

    def timer_expired(self, timer: TimerKey, late_ms: Milliseconds) -> None:
        """A timer expired."""
        if self._mode == "all":
            name = f"{timer.name} {timer.subject}".strip()
            late_us = max(0, late_ms) * 1000
            self._keep(_Observed(self._wall_us(), "timer", "", None, None, late_us, name))

    # -- what is recorded ------------------------------------------------------------------------

    def _observe(
        self, kind: Literal["sent", "received"], peer: str, what: str, message: AnyMessage
    ) -> bool:
        mode = self._mode
        if mode == "off":
            return False
        slot: int | None = None
        if what in _SLOTTED:
            slot = message.slot  # type: ignore[attr-defined]
        elif what == "client.result":
            outcome: Outcome = message.outcome  # type: ignore[attr-defined]
            if self._mask and outcome.index >= SAMPLED_REQUESTS and mode != "all":
                return False
            slot = outcome.slot
        elif what == "client.submit":
            self._keep_submit(kind, peer, message)
            return False
        elif what not in _RARE and (mode != "all" or what.startswith("call.")):
            return False
        if slot is not None:
            if not self._highest_slot:
                # A node that starts may hear of a high slot at once: not a measure of the pace.
                self._counted_slot = slot - 1
            if slot > self._highest_slot:
                self._highest_slot = slot
            if slot & self._mask and mode != "all":
                return False
            self._release_submits(what, message)
        self._keep(_Observed(self._wall_us(), kind, peer, message, slot))
        return True

    def _keep(self, observed: _Observed) -> None:
        if len(self._pending) < PENDING_RECORDS_MAX:
            self._pending.append(observed)
        else:
            self.dropped += 1

    def _keep_submit(
        self, kind: Literal["sent", "received"], peer: str, message: AnyMessage
    ) -> None:
        """Keep a command without a slot until its slot is known, unless everything is recorded."""
        observed = _Observed(self._wall_us(), kind, peer, message, None)
        if not self._mask or self._mode == "all":
            self._keep(observed)
            return
        self._submits.setdefault(message.request, []).append(observed)  # type: ignore[attr-defined]
        if len(self._submits) > SUBMITS_KEPT:
            self._submits.popitem(last=False)

    def _release_submits(self, what: str, message: AnyMessage) -> None:
        if not self._submits:
            return
        if what == "paxos.accept":
            value = message.value  # type: ignore[attr-defined]
            commands = value.commands if isinstance(value, Batch) else ()
            requests = [command.request for command in commands[:SAMPLED_REQUESTS]]
        elif what == "client.result":
            requests = [message.request]  # type: ignore[attr-defined]
        else:
            return
        for request in requests:
            for observed in self._submits.pop(request, ()):
                self._keep(observed)

    # -- records ---------------------------------------------------------------------------------

    def take(self) -> list[TraceRecord]:
        """All records since the last call; adapts the sampling to the pace of the log."""
        self._adapt()
        pending, self._pending = self._pending, []
        self.recorded += len(pending)
        return [self._record(observed) for observed in pending]

    def _adapt(self) -> None:
        now_us = self._wall_us()
        self._mode = self._switch.current(now_us)
        elapsed_s = (now_us - self._counted_us) / 1e6
        if elapsed_s <= 0:
            return
        pace = (self._highest_slot - self._counted_slot) / max(elapsed_s, 0.25)
        self._counted_slot, self._counted_us = self._highest_slot, now_us
        while pace / (self._mask + 1) > SAMPLED_SLOTS_PER_S:
            self._mask = self._mask * 2 + 1
        if self._mask and pace / (self._mask + 1) < SAMPLED_SLOTS_PER_S / 4:
            self._mask //= 2

    def _record(self, observed: _Observed) -> TraceRecord:
        message: Any = observed.message
        record: TraceRecord = {
            "time_us": observed.time_us,
            "node": self.node,
            "kind": observed.kind,
            "type": observed.timer if observed.kind == "timer" else "journal.commit",
            "from": None,
            "to": None,
            "slot": observed.slot,
            "ballot": None,
            "epoch": None,
            "message_id": None,
            "summary": "",
            "duration_us": observed.duration_us,
            "content": {},
        }
        if observed.kind == "committed":
            record["summary"] = f"{observed.timer} rows are durable"
            record["content"] = {"rows": int(observed.timer)}
        elif observed.kind == "timer":
            record["summary"] = f"the timer {observed.timer} came back"
        else:
            sender, to = (
                (self.node, observed.peer)
                if observed.kind == "sent"
                else (observed.peer, self.node)
            )
            # A receiver knows only its own name; the sender's record has the group.
            record |= describe(observed.kind, sender, to, message)
        return record


def describe(kind: str, sender: str, to: str, message: Any) -> TraceRecord:
    """The members of a record that come from its message."""
    ballot = getattr(message, "ballot", None)
    slot = getattr(message, "slot", None)
    epoch = getattr(message, "epoch", None)
    request = getattr(message, "request", None)
    if message.type == "client.result":
        slot = message.outcome.slot
    mark = request if request is not None else slot
    ballot_text = None if ballot is None else f"{ballot.round}.{ballot.proposer}"
    about = [sender, message.type, mark, ballot_text if ballot_text else epoch]
    # The number distinguishes a heartbeat or a read from the one before.
    about.append(getattr(message, "number", None))
    return {
        "type": message.type,
        "from": sender,
        "to": to,
        "slot": slot,
        "ballot": ballot_text,
        "epoch": epoch,
        "message_id": "/".join(str(part) for part in about if part is not None),
        "summary": summary_of(message),
        # The sender's record has the contents of the message.
        "content": plain(message) if kind == "sent" else {},
        **requests_of(kind, message),
    }


def requests_of(kind: str, message: Any) -> dict[str, Any]:
    """The requests, and the earlier slot, that a message is about, as members of a record."""
    value = getattr(message, "value", None) or getattr(message, "batch", None)
    found: dict[str, Any] = {}
    if isinstance(value, Batch) and kind == "sent":
        # Only in one record, because a slot may hold hundreds.
        found["requests"] = [command.request for command in value.commands]
    elif message.type in ("client.submit", "client.result", "client.redirect"):
        found["requests"] = [message.request]
    if getattr(value, "kind", "") == "abort":
        found["about_slot"] = value.slot  # type: ignore[union-attr]
    return found


def plain(value: Any) -> Any:
    """`value` as JSON without the bytes of any contents, and without hashes of secrets."""
    match value:
        case bytes():
            return {"bytes": len(value)}
        case str() if len(value) > TEXT_MAX:
            return value[:TEXT_MAX] + "…"
        case Command():
            return command_of(value)
        case Batch():
            return {"kind": "batch", "commands": _listed(value.commands)}
        case View():
            stores = [store.name for store in value.stores]
            return {
                "kind": "view",
                "epoch": value.epoch,
                "coordinator": value.coordinator,
                "stores": stores,
            }
        case AcceptedValue():
            return {"slot": value.slot, "ballot": _ballot(value.ballot), "kind": value.value.kind}
        case tuple() if hasattr(value, "proposer"):
            return _ballot(value)
        case tuple() | list():
            return _listed(value)
        case SnapshotRow(key=key) if key.partition("/")[0] in POLICY_ROWS:
            return {"key": key}
        case _ if hasattr(type(value), "model_fields"):
            hidden = _NOT_SHOWN.get(type(value), frozenset())
            names = [n for n in type(value).model_fields if n != "type" and n not in hidden]
            return {name: plain(getattr(value, name)) for name in names}
        case _:
            return value


def command_of(command: Command) -> dict[str, Any]:
    """A command in readable form: its request, operation, path and size."""
    operation: Any = command.operation
    shown = {"request": command.request, "operation": operation.kind}
    for name in ("path", "source", "target", "destination"):
        if hasattr(operation, name):
            shown[name] = getattr(operation, name)
    content = getattr(operation, "content", None)
    if content is not None:
        shown["bytes"] = len(content.data) if content.kind == "inline" else content.size
    return shown


def _ballot(ballot: Any) -> str:
    return f"{ballot.round}.{ballot.proposer}"


def _listed(items: Any) -> Any:
    shown = [plain(item) for item in items[:LISTED_MAX]]
    return shown if len(items) <= LISTED_MAX else [*shown, f"… {len(items)} in all"]


# -- summaries ------------------------------------------------------------------------------------


def summary_of(message: Any) -> str:
    """One line for people."""
    make = _SUMMARIES.get(message.type)
    return message.type.replace(".", " ") if make is None else make(message)


def value_text(value: Any) -> str:
    """A slot's value in a few words."""
    match value:
        case Batch():
            texts = [command_text(command) for command in value.commands[:2]]
            more = len(value.commands) - len(texts)
            return ", ".join(texts) + (f" and {more} more" if more else "")
        case UnreadBatch():
            return f"a batch ({len(value.text)} B)"
        case View():
            stores = ", ".join(store.name for store in value.stores)
            return f"view {value.epoch}: {value.coordinator} coordinates {stores}"
        case _ if value.kind == "abort":
            return f"abort {len(value.commands)} commands of slot {value.slot}: {value.reason}"
        case _:
            return str(value.kind)


def command_text(command: Command) -> str:
    """A command's operation in a few words."""
    shown = command_of(command)
    words = [str(shown["operation"]).replace("_", " ")]
    words += [str(shown[name]) for name in ("path", "source", "target") if name in shown]
    if "bytes" in shown:
        words.append(f"({shown['bytes']} B)")
    return " ".join(words)


_SUMMARIES: dict[str, Callable[[Any], str]] = {
    "client.submit": lambda m: f"please: {command_text(m.command)}",
    "client.redirect": lambda m: f"ballot {_ballot(m.ballot)} does not lead: {m.reason}",
    "client.result": lambda m: f"the outcome is {m.outcome.status}",
    "paxos.prepare": lambda m: f"prepare ballot {_ballot(m.ballot)} from slot {m.first_slot} on",
    "paxos.promise": lambda m: f"promised; {len(m.accepted)} slots in use from {m.first_slot} on",
    "paxos.reject": lambda m: (
        f"rejected: {_ballot(m.promised)} is promised"
        + (f", and a lease runs for {m.lease_left_ms} ms" if m.lease_left_ms else "")
    ),
    "paxos.accept": lambda m: f"accept slot {m.slot}: {value_text(m.value)}",
    "paxos.accepted": lambda m: f"slot {m.slot} is accepted and durable here",
    "log.propose": lambda m: f"propose for the log: {value_text(m.value)}",
    "txn.prepare": lambda m: f"prepare slot {m.slot}: {value_text(m.batch)}",
    "txn.vote": lambda m: (
        f"slot {m.slot}: no to {len(m.refused)} commands" if m.refused else f"slot {m.slot}: yes"
    ),
    "txn.progress": lambda m: f"slot {m.slot}: still fetching its contents",
    "txn.decision": lambda m: (
        f"slot {m.slot}: all but {len(m.aborted)} commit" if m.aborted else f"slot {m.slot}: commit"
    ),
    "txn.inquiry": lambda m: f"view {m.view.epoch}: asks for the slots held after {m.decided}",
    "txn.state": lambda m: f"applied {m.applied}, prepared {len(m.prepared)} more",
    "view.join": lambda m: f"has all up to slot {m.applied}; asks to join the view",
    "chunk.keep": lambda m: f"keep {len(m.names)} chunks for {m.for_ms} ms",
    "chunk.hold": lambda m: f"delete no chunk for {m.for_ms} ms: a backup runs",
    "snapshot.pull": lambda m: f"requests page {m.page} of a snapshot",
    "snapshot.page": lambda m: f"page {m.page} of the state at slot {m.slot}",
    "replica.diverged": lambda m: f"the receiver's state at slot {m.slot} differs from the others",
    "txn.fenced": lambda m: f"epoch {m.epoch} has taken over",
    "lease.heartbeat": lambda m: f"renew the lease ({m.number})",
    "lease.granted": lambda m: f"granted ({m.number})",
    "leader.beat": lambda m: f"leads; chosen through {m.chosen_through}",
    "node.heartbeat": lambda m: f"alive; applied {m.applied}, chosen through {m.chosen_through}",
    "learn.progress": lambda m: f"chosen through {m.chosen_through}, decided {m.decided}",
    "read.request": lambda m: f"read {m.what} {m.path}".strip(),
    "read.reply": lambda m: f"{m.status} at slot {m.applied}",
}

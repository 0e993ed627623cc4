"""Combines the records of many nodes into the trace of each request, and its stages.

Bounded in bytes, slots, records of a slot and requests; the oldest are dropped first. A record is
kept as JSON, which takes a third of the memory of a dictionary.
"""

import json
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic_core import to_json

from observability.events import TraceRecord

STAGES = ("queue", "journal", "quorum", "vote", "answer")
"""The stages of a write, in order; each ends where the next begins (`docs/tracing.md`)."""

_MEMBERS: dict[str, Any] = {
    "time_us": int,
    "node": str,
    "kind": str,
    "type": str,
    "slot": int | None,
}
"""The members of a record that are read here; any client of the broker may publish records."""

_SLOTS_KEPT = 1_000
_SLOTS_BYTES_MAX = 12 * 1024 * 1024
_RECORDS_OF_A_SLOT_MAX = 400
_REQUESTS_KEPT = 20_000
_LOOSE_BYTES_MAX = 4 * 1024 * 1024
_OTHERS_KEPT = 2_000
_SHOWN_MAX = 200
_LINE_BYTES = 48
"""The memory of a line besides its text: CPython's own 33 bytes, a place in a list, rounding."""

Key = TypeVar("Key", bound=Hashable)


class Span(NamedTuple):
    """When the gateway received a request and when it had answered, by its wall clock."""

    started_us: int
    ended_us: int | None


@dataclass(slots=True)
class _TraceGroup:
    """Records that belong together, with the members that are read most often."""

    lines: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    first_us: int = 0
    answered: set[str] = field(default_factory=set)
    """The requests whose results these records have."""

    def read(self) -> list[TraceRecord]:
        """The records, parsed again."""
        return [json.loads(line) for line in self.lines]


class _BoundedGroups(Generic[Key]):
    """Pages by key, bounded in number and bytes."""

    def __init__(self, groups_max: int, bytes_max: int) -> None:
        self._groups_max = groups_max
        self._bytes_max = bytes_max
        self._groups: OrderedDict[Key, _TraceGroup] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: Key | None) -> _TraceGroup | None:
        """The page, unless it was dropped."""
        return None if key is None else self._groups.get(key)

    def add(self, key: Key, record: TraceRecord) -> bool:
        """Add a record to its page; returns whether the page had space for it."""
        group = self._groups.setdefault(key, _TraceGroup(first_us=record["time_us"]))
        if len(group.lines) >= _RECORDS_OF_A_SLOT_MAX:
            return False
        line = _line(record)
        size_bytes = len(line) + _LINE_BYTES
        group.lines.append(line)
        group.size_bytes += size_bytes
        group.first_us = min(group.first_us, record["time_us"])
        if record["type"] == "client.result":
            group.answered.update(record.get("requests", ()))
        self.size_bytes += size_bytes
        while len(self._groups) > self._groups_max or self.size_bytes > self._bytes_max:
            _, oldest = self._groups.popitem(last=False)
            self.size_bytes -= oldest.size_bytes
        return True


class TraceCollector:
    """Collects records and answers questions about them."""

    def __init__(self, quorum: int, stores: tuple[str, ...] = ()) -> None:
        self._quorum = quorum
        self._stores = stores
        self._slots: _BoundedGroups[int] = _BoundedGroups(_SLOTS_KEPT, _SLOTS_BYTES_MAX)
        self._unslotted: _BoundedGroups[str] = _BoundedGroups(_REQUESTS_KEPT, _LOOSE_BYTES_MAX)
        """The records of requests without a slot."""
        self._requests: OrderedDict[str, list[int]] = OrderedDict()
        """The slots of each request; the last one has its result."""
        self._unassigned: deque[bytes] = deque(maxlen=_OTHERS_KEPT)
        self.dropped = 0
        """Records of one slot above the bound."""

    def add(self, records: Iterable[TraceRecord]) -> None:
        """Add records. Raises `KeyError`, `TypeError` or `ValueError` for a malformed one."""
        for record in records:
            if not _MEMBERS.keys() <= record.keys():
                raise ValueError(f"a record lacks {sorted(_MEMBERS.keys() - record.keys())}")
            if not all(isinstance(record[name], kind) for name, kind in _MEMBERS.items()):
                raise TypeError(f"a record has members of other types: {record}")
            slot = record["slot"]
            requests = record.get("requests", ())
            for request in requests:
                self._link_request(request, slot, record if slot is None else None)
            if slot is not None:
                self._add_to_slot(slot, record)
            elif not requests:
                self._unassigned.append(_line(record))
            if "about_slot" in record:
                self._add_to_slot(record["about_slot"], record)

    @property
    def size_bytes(self) -> int:
        """The memory of the records of slots and of requests."""
        return self._slots.size_bytes + self._unslotted.size_bytes

    def _link_request(self, request: str, slot: int | None, unslotted: TraceRecord | None) -> None:
        slots = self._requests.get(request)
        if slots is None:
            slots = self._requests[request] = []
            if len(self._requests) > _REQUESTS_KEPT:
                self._requests.popitem(last=False)
        if slot is not None:
            if slot in slots:
                slots.remove(slot)
            slots.append(slot)
        if unslotted is not None:
            self._unslotted.add(request, unslotted)

    def _add_to_slot(self, slot: int, record: TraceRecord) -> None:
        self.dropped += not self._slots.add(slot, record)

    # -- queries ---------------------------------------------------------------------------------

    def trace(self, request: str, span: Span | None) -> dict[str, Any] | None:
        """The trace of `request`, or `None` if it has no records."""
        slots = self._requests.get(request)
        if slots is None and span is None:
            return None
        slots = slots or []
        records: list[TraceRecord] = []
        for group in (self._unslotted.get(request), *map(self._slots.get, slots)):
            if group is not None:
                records += (record for record in group.read() if _concerns(record, request))
        records.sort(key=lambda record: record["time_us"])
        last = slots[-1] if slots else None
        marks = self._marks(last, records, span)
        stages = [
            {"name": name, "start_us": start, "end_us": end}
            for name, start, end in zip(STAGES, marks, marks[1:], strict=False)
        ]
        return {
            "request": request,
            "complete": len(stages) == len(STAGES),
            "traced": any(record["type"] == "paxos.accept" for record in records),
            "slot": last,
            "quorum": self._quorum,
            "stores": list(self._stores),
            "started_us": marks[0] if marks else None,
            "duration_us": marks[-1] - marks[0] if len(stages) == len(STAGES) else None,
            "stages": stages,
            "events": [_public(record) for record in records],
        }

    def recent(self) -> dict[str, Any]:
        """The newest requests, and the newest records that belong to none."""
        requests = []
        for request, slots in reversed(self._requests.items()):
            slot = slots[-1] if slots else None
            group = self._slots.get(slot) or self._unslotted.get(request)
            if group is None:
                continue
            requests.append(
                {
                    "request": request,
                    "slot": slot,
                    "time_us": group.first_us,
                    "complete": request in group.answered,
                }
            )
            if len(requests) == _SHOWN_MAX:
                break
        others = [json.loads(line) for line in list(self._unassigned)[-_SHOWN_MAX:]]
        return {"requests": requests, "events": [_public(record) for record in others]}

    def _marks(self, slot: int | None, records: list[TraceRecord], span: Span | None) -> list[int]:
        """The boundaries of the stages, as far as they are known."""
        of_slot = [record for record in records if record["slot"] == slot]

        def first(kind: str, what: str, among: list[TraceRecord]) -> int | None:
            times = (r["time_us"] for r in among if r["kind"] == kind and r["type"] == what)
            return next(times, None)

        results = [r for r in of_slot if r["type"] == "client.result"]
        borders = [
            span.started_us if span else first("sent", "client.submit", records),
            first("sent", "paxos.accept", of_slot),
            self._chosen_us(of_slot),
            first("sent", "txn.prepare", of_slot),
            first("sent", "client.result", results),
            span.ended_us if span else first("received", "client.result", results),
        ]
        marks: list[int] = []
        for border in borders:
            if border is None:
                break
            # Clocks of different machines differ, so a negative duration counts as 0.
            marks.append(max(border, marks[-1]) if marks else border)
        return marks

    def _chosen_us(self, of_slot: list[TraceRecord]) -> int | None:
        """When a quorum had accepted the slot under one ballot; votes of two ballots make none."""
        accepted: dict[str | None, dict[str, int]] = {}
        for record in of_slot:
            if record["kind"] == "sent" and record["type"] == "paxos.accepted":
                votes = accepted.setdefault(record.get("ballot"), {})
                votes.setdefault(record["node"], record["time_us"])
        times = [sorted(votes.values()) for votes in accepted.values()]
        chosen = [votes[self._quorum - 1] for votes in times if len(votes) >= self._quorum]
        return min(chosen, default=None)


def _line(record: TraceRecord) -> bytes:
    return to_json(record)


def _concerns(record: TraceRecord, request: str) -> bool:
    """Results and submits of other requests of the same slot are left out."""
    if record["type"] in ("client.submit", "client.result", "client.redirect"):
        return request in record["requests"]
    return True


def _public(record: TraceRecord) -> TraceRecord:
    return {name: value for name, value in record.items() if name not in ("requests", "about_slot")}

"""The records of many nodes put together: the life of one request, and its stages.

Bounded in slots, records of a slot and requests; the oldest go first.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from observability.events import Record

STAGES = ("queue", "journal", "quorum", "vote", "answer")
"""Of one write, in order; each ends where the next begins (`docs/tracing.md`)."""

_MEMBERS: dict[str, Any] = {
    "time_us": int,
    "node": str,
    "kind": str,
    "type": str,
    "slot": int | None,
}
"""What the book itself reads of a record; anybody with the broker's password may publish one."""

_SLOTS_KEPT = 1_000
_RECORDS_OF_A_SLOT_MAX = 400
_REQUESTS_KEPT = 20_000
_OTHERS_KEPT = 2_000
_SHOWN_MAX = 200


class Span(NamedTuple):
    """When the gateway took a request in and when it had answered, on its wall clock."""

    started_us: int
    ended_us: int | None


@dataclass(slots=True)
class _Request:
    """What is known of a request: the slots it was in, its result's last, and loose records."""

    slots: list[int] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


class TraceBook:
    """Collects records and answers questions about them."""

    def __init__(self, quorum: int) -> None:
        self._quorum = quorum
        self._slots: OrderedDict[int, list[Record]] = OrderedDict()
        self._requests: OrderedDict[str, _Request] = OrderedDict()
        self._others: deque[Record] = deque(maxlen=_OTHERS_KEPT)
        self.dropped = 0
        """Records of one slot above the bound."""

    def add(self, records: Iterable[Record]) -> None:
        """Take records in. Raises `KeyError`, `TypeError` or `ValueError` for what is none."""
        for record in records:
            if not _MEMBERS.keys() <= record.keys():
                raise ValueError(f"a record lacks {sorted(_MEMBERS.keys() - record.keys())}")
            if not all(isinstance(record[name], kind) for name, kind in _MEMBERS.items()):
                raise TypeError(f"a record has members of other types: {record}")
            slot = record["slot"]
            requests = record.get("requests", ())
            for request in requests:
                self._note(request, slot, record if slot is None else None)
            if slot is not None:
                self._file(slot, record)
            elif not requests:
                self._others.append(record)
            if "about_slot" in record:
                self._file(record["about_slot"], record)

    def _note(self, request: str, slot: int | None, loose: Record | None) -> None:
        known = self._requests.get(request)
        if known is None:
            known = self._requests[request] = _Request()
            if len(self._requests) > _REQUESTS_KEPT:
                self._requests.popitem(last=False)
        if slot is not None:
            if slot in known.slots:
                known.slots.remove(slot)
            known.slots.append(slot)
        if loose is not None and len(known.records) < _RECORDS_OF_A_SLOT_MAX:
            known.records.append(loose)

    def _file(self, slot: int, record: Record) -> None:
        records = self._slots.get(slot)
        if records is None:
            records = self._slots[slot] = []
            if len(self._slots) > _SLOTS_KEPT:
                self._slots.popitem(last=False)
        if len(records) < _RECORDS_OF_A_SLOT_MAX:
            records.append(record)
        else:
            self.dropped += 1

    # -- questions -------------------------------------------------------------------------------

    def trace(self, request: str, span: Span | None) -> dict[str, Any] | None:
        """The life of `request`, or `None` if nothing is known of it."""
        known = self._requests.get(request)
        if known is None and span is None:
            return None
        known = known or _Request()
        records = list(known.records)
        for slot in known.slots:
            records += (r for r in self._slots.get(slot, ()) if _concerns(r, request))
        records.sort(key=lambda record: record["time_us"])
        last = known.slots[-1] if known.slots else None
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
            "started_us": marks[0] if marks else None,
            "duration_us": marks[-1] - marks[0] if len(stages) == len(STAGES) else None,
            "stages": stages,
            "events": [_public(record) for record in records],
        }

    def recent(self) -> dict[str, Any]:
        """The newest requests, and the newest records that belong to none."""
        requests = []
        for request, known in reversed(self._requests.items()):
            slot = known.slots[-1] if known.slots else None
            records = known.records if slot is None else self._slots.get(slot, known.records)
            if not records:
                continue
            ended = any(
                record["type"] == "client.result" and request in record["requests"]
                for record in records
            )
            first = min(record["time_us"] for record in records)
            requests.append({"request": request, "slot": slot, "time_us": first, "complete": ended})
            if len(requests) == _SHOWN_MAX:
                break
        others = list(self._others)[-_SHOWN_MAX:]
        return {"requests": requests, "events": [_public(record) for record in others]}

    def _marks(self, slot: int | None, records: list[Record], span: Span | None) -> list[int]:
        """The borders of the stages, as far as they are known."""
        of_slot = [record for record in records if record["slot"] == slot]

        def first(kind: str, what: str, among: list[Record]) -> int | None:
            times = (r["time_us"] for r in among if r["kind"] == kind and r["type"] == what)
            return next(times, None)

        accepted: dict[str, int] = {}
        for record in of_slot:
            if record["kind"] == "sent" and record["type"] == "paxos.accepted":
                accepted.setdefault(record["node"], record["time_us"])
        votes = sorted(accepted.values())
        results = [r for r in of_slot if r["type"] == "client.result"]
        borders = [
            span.started_us if span else first("sent", "client.submit", records),
            first("sent", "paxos.accept", of_slot),
            votes[self._quorum - 1] if len(votes) >= self._quorum else None,
            first("sent", "txn.prepare", of_slot),
            first("sent", "client.result", results),
            span.ended_us if span else first("received", "client.result", results),
        ]
        marks: list[int] = []
        for border in borders:
            if border is None:
                break
            # Clocks of different machines differ; no stage lasts less than nothing.
            marks.append(max(border, marks[-1]) if marks else border)
        return marks


def _concerns(record: Record, request: str) -> bool:
    """Results and submits of other requests of the same slot are left out."""
    if record["type"] in ("client.submit", "client.result", "client.redirect"):
        return request in record["requests"]
    return True


def _public(record: Record) -> Record:
    return {name: value for name, value in record.items() if name not in ("requests", "about_slot")}

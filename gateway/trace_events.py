"""Publishes the recorders' records on the events exchange, and collects them for a gateway."""

import asyncio
import logging
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json

from broker.observer import Observer
from broker.topology import CONTROL_TRACE, trace_topic
from broker.transport import Transport
from observability.events import Mode, Recorder, TraceSwitch
from observability.traces import TraceCollector

_log = logging.getLogger("synod.tracing")

FLUSH_S = 1.0
RECORDS_IN_MESSAGE = 256
ALL_S_MAX = 600
_KIND = "trace.records"
_CONTROL_KIND = "trace.control"


class TraceCommand(BaseModel):
    """An order to all nodes to record everything for some `seconds`, or as `mode` says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seconds: int | None = Field(None, ge=0, le=ALL_S_MAX, strict=True)
    mode: Mode | None = None


class RecordingObserver(Observer):
    """Adapts a recorder to the `Observer` interface."""

    def __init__(self, recorder: Recorder) -> None:
        # Bound directly, because these are called for every message or turn.
        self.received = recorder.received  # type: ignore[method-assign]
        self.sent = recorder.sent  # type: ignore[method-assign]
        self.committed = recorder.committed  # type: ignore[method-assign]
        self.timer_expired = recorder.timer_expired  # type: ignore[method-assign]
        self._recorder = recorder

    def turn_finished(self, messages: int, seconds: float) -> None:
        """See `Observer`."""
        self._recorder.turn_finished()


class Tracing:
    """The trace recorders of one process, and a gateway's `collector` of all nodes' records."""

    def __init__(self, mode: Mode, collector: TraceCollector | None = None) -> None:
        self.switch = TraceSwitch(mode)
        self.collector = collector
        self._recorders: list[tuple[Recorder, Transport]] = []

    @property
    def dropped(self) -> int:
        """The number of lost records of this process."""
        lost = sum(recorder.dropped for recorder, _ in self._recorders)
        return lost + (self.collector.dropped if self.collector else 0)

    def observer(self, node: str, transport: Transport) -> RecordingObserver:
        """The observer for the runtime of `node`."""
        recorder = Recorder(node, self.switch)
        self._recorders.append((recorder, transport))
        transport.on_control(self._on_control)
        return RecordingObserver(recorder)

    def recorder(self, node: str) -> Recorder:
        """The recorder of `node`. Raises `KeyError`."""
        for recorder, _ in self._recorders:
            if recorder.node == node:
                return recorder
        raise KeyError(node)

    async def run(self) -> None:
        """Publish records until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            for recorder, transport in tuple(self._recorders):
                self._flush(recorder, transport)
                # The records of many nodes at once would hold up the nodes' turns.
                await asyncio.sleep(0)

    def flush(self) -> None:
        """Publish the recorded events; records that the broker can't take now are lost."""
        for recorder, transport in self._recorders:
            self._flush(recorder, transport)

    def _flush(self, recorder: Recorder, transport: Transport) -> None:
        records = recorder.take()
        for start in range(0, len(records), RECORDS_IN_MESSAGE):
            part = records[start : start + RECORDS_IN_MESSAGE]
            if not transport.emit(trace_topic(recorder.node), _KIND, to_json(part)):
                recorder.dropped += len(part)

    # -- a gateway's part ------------------------------------------------------------------------

    def on_event(self, topic: str, kind: str, body: bytes) -> None:
        """Receive an event and collect its records; a malformed event is logged and dropped."""
        if self.collector is None or kind != _KIND:
            return
        try:
            records: list[dict[str, Any]] = from_json(body)
            self.collector.add(records)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            _log.warning("records on %s can't be read: %r", topic, error)

    def command(self, order: TraceCommand, transport: Transport) -> bool:
        """Order all nodes what to record until they restart; whether the broker took it."""
        return transport.emit(CONTROL_TRACE, _CONTROL_KIND, order.model_dump_json().encode())

    def _on_control(self, kind: str, body: bytes) -> None:
        if kind != _CONTROL_KIND:
            return
        try:
            order = TraceCommand.model_validate_json(body)
        except ValidationError as error:
            _log.warning("a %s can't be read: %r", kind, error)
            return
        if order.mode is not None:
            self.switch.mode = order.mode
        if order.seconds is not None:
            self.switch.all_until_us = time.time_ns() // 1000 + order.seconds * 1_000_000

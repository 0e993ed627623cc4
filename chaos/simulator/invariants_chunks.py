"""Invariant of contents (design 8.4): a store keeps each chunk for as long as requests asked.

It is checked against the requests that the store has received and against its disk, in the step
that deletes a chunk. So it holds whatever the network does: a lost request obliges no store.
"""

import json
from collections.abc import Iterable
from typing import Any

from actors.effects import Blob, Envelope
from actors.messages import ChunkKeep, ChunkPut, ChunkStored
from chaos.simulator.machine import Machine
from chaos.simulator.violation import Violation

OBSERVED_MESSAGES = frozenset((ChunkPut, ChunkKeep))

_KEPT_MS_MAX = 600_000
"""Longer than this is not checked: a restart forgets the times, and keeps all for so long."""


class ChunkInvariants:
    """Checks what stores delete against the requests that they have received."""

    def __init__(self) -> None:
        self._machines: dict[str, Machine] = {}
        self._kept_until: dict[tuple[str, str], int] = {}
        """By disk and chunk: the end of the time to keep it, in run time of the store's clock."""
        self._put_until: dict[tuple[str, str], int] = {}
        """The same for puts that the store has not acknowledged yet."""
        self.kept = 0
        """How many requests have prolonged the time of a chunk that no version named."""

    def started(self, machine: Machine) -> None:
        """Know every machine, for the incarnation of its disk."""
        self._machines[machine.name] = machine

    def receiving(self, machine: Machine, envelope: Envelope) -> None:
        """A store is about to receive a put, or a request to keep chunks."""
        message: Any = envelope.message
        if machine.role != "store" or not machine.actor.is_started:
            return
        grace_ms = min(machine.actor.options.chunk_grace_ms, _KEPT_MS_MAX)
        disk = machine.disk
        if isinstance(message, ChunkPut):
            until_ms = machine.ran_ms + grace_ms
            self._put_until[(disk.identity, message.sha256)] = until_ms
            return
        if envelope.incarnation < self._machines[envelope.sender].disk.incarnation:
            return  # A store may drop the requests of a former start of the gateway.
        until_ms = machine.ran_ms + min(message.for_ms, _KEPT_MS_MAX)
        for name in message.names:
            self._keep(machine, name, until_ms)
            row = disk.records.get(f"manifest/{name}")
            for listed in json.loads(row)["names"] if row is not None else ():
                self._keep(machine, listed, until_ms)

    def _keep(self, machine: Machine, name: str, until_ms: int) -> None:
        # Both: the actor may have dropped it already, with the deletion on its way to the disk.
        if name in machine.actor.chunks.held and name in machine.disk.blobs:
            self._extend(machine, name, until_ms)
            self.kept += not machine.actor.chunks.is_used(name)

    def _extend(self, machine: Machine, name: str, until_ms: int) -> None:
        key = (machine.disk.identity, name)
        self._kept_until[key] = max(until_ms, self._kept_until.get(key, 0))

    def stored_sent(self, machine: Machine, message: ChunkStored) -> None:
        """The store acknowledges a put, and so keeps the chunk for the time of the put."""
        until_ms = self._put_until.pop((machine.disk.identity, message.sha256), None)
        if until_ms is not None:
            self._extend(machine, message.sha256, until_ms)

    def committed(self, machine: Machine, blobs: Iterable[Blob]) -> None:
        """`kept_chunks_stay`: no sound chunk is deleted before its time is over."""
        for name, data in blobs:
            if data is not None or name in machine.disk.ever_rotten:
                continue
            left_ms = self._kept_until.pop((machine.disk.identity, name), 0) - machine.ran_ms
            if left_ms > 0:
                raise Violation(
                    "kept_chunks_stay",
                    f"{machine.name} deletes {name}, which it was to keep for {left_ms} ms more",
                )

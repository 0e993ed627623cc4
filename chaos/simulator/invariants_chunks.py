"""Invariant of contents (design 8.4): what a store was asked to keep it keeps.

It rests on what a store was asked for and on its disk alone, at the step in which a chunk is
deleted. So it holds whatever the network does: who was not heard was promised nothing.
"""

import json
from collections.abc import Iterable
from typing import Any

from actors.effects import Blob, Envelope
from actors.messages import ChunkKeep, ChunkPut, ChunkStored
from chaos.simulator.machine import Machine
from chaos.simulator.violation import Violation

HEARD = frozenset((ChunkPut, ChunkKeep))

_KEPT_MS_MAX = 600_000
"""For longer nothing is promised here: a restart forgets until when, and keeps all for so long."""


class ChunkInvariants:
    """Looks at what stores hear of chunks, and at what they delete."""

    def __init__(self) -> None:
        self._kept_until: dict[tuple[str, str], int] = {}
        """By disk and chunk until when, as the store's machine runs, whatever its clock shows."""
        self._asked: dict[tuple[str, str], int] = {}
        """The same of puts that were not answered yet."""
        self.kept = 0
        """How many chunks were asked to be kept longer while no version named them."""

    def heard(self, machine: Machine, envelope: Envelope) -> None:
        """A store is about to take a message in."""
        message: Any = envelope.message
        if machine.role != "store" or not machine.actor.is_started:
            return
        grace_ms = min(machine.actor.options.chunk_grace_ms, _KEPT_MS_MAX)
        disk = machine.disk
        if isinstance(message, ChunkPut):
            until_ms = self._ran_ms(machine) + grace_ms
            self._asked[(disk.identity, message.sha256)] = until_ms
            return
        if envelope.incarnation < machine.world.machines[envelope.sender].disk.incarnation:
            return  # What a former start of the gateway said may be dropped.
        until_ms = self._ran_ms(machine) + min(message.for_ms, _KEPT_MS_MAX)
        for name in message.names:
            self._keep(machine, name, until_ms)
            row = disk.records.get(f"manifest/{name}")
            for listed in json.loads(row)["names"] if row is not None else ():
                self._keep(machine, listed, until_ms)

    def _keep(self, machine: Machine, name: str, until_ms: int) -> None:
        # Held by the actor and on the disk: a deletion may be on its way to the disk.
        if name in machine.actor.chunks.held and name in machine.disk.blobs:
            self._promise(machine, name, until_ms)
            self.kept += not machine.actor.chunks.is_used(name)

    def _promise(self, machine: Machine, name: str, until_ms: int) -> None:
        key = (machine.disk.identity, name)
        self._kept_until[key] = max(until_ms, self._kept_until.get(key, 0))

    def stored_told(self, machine: Machine, message: ChunkStored) -> None:
        """An uploader is told that the chunk is there: for as long as it was asked for."""
        until_ms = self._asked.pop((machine.disk.identity, message.sha256), None)
        if until_ms is not None:
            self._promise(machine, message.sha256, until_ms)

    def committed(self, machine: Machine, blobs: Iterable[Blob]) -> None:
        """`kept_chunks_stay`: a sound chunk is not deleted before its time is over."""
        for name, data in blobs:
            if data is not None or name in machine.disk.ever_rotten:
                continue
            left_ms = self._kept_until.pop((machine.disk.identity, name), 0) - self._ran_ms(machine)
            if left_ms > 0:
                raise Violation(
                    "kept_chunks_stay",
                    f"{machine.name} deletes {name}, which it was to keep for {left_ms} ms more",
                )

    def _ran_ms(self, machine: Machine) -> int:
        return machine.clock.ran_ms(machine.world.now_us)

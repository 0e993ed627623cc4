"""A liveness check of each gateway on its own, once all is healed.

A gateway that answers `NotDone` for ever violates no safety property, and the other gateways'
work hides it from every count. So each must write, read, upload and download within a bound.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.calls import Fetch, FetchedChunk, Read, ReadDone, Upload, Uploaded, Write, WriteDecided
from actors.messages import ReadRequest
from actors.values import Chunked, FileEntry, Inline, PutFile
from chaos.simulator.schedule import US_PER_MS
from chaos.simulator.violation import Violation
from chaos.simulator.workload import Workload
from chaos.simulator.world import World

_CHUNKS = 6
"""More than the chunks that a store accepts at once from a gateway."""
_RETRY_MS = 200

MakeCall = Callable[[int], Any]
Succeeded = Callable[[Any], bool]


@dataclass(slots=True)
class Probe:
    """The calls to one gateway, each of which is retried until it succeeds."""

    gateway: str
    steps: list[tuple[str, MakeCall, Succeeded]]
    step: int = 0
    last_answer: Any = None

    @property
    def is_done(self) -> bool:
        """Whether every step has succeeded."""
        return self.step == len(self.steps)


@dataclass(slots=True)
class ServiceCheck:
    """One probe of each gateway, all at the same time."""

    world: World
    workload: Workload
    probes: list[Probe] = field(default_factory=list)

    def begin(self, name: str, gateways: int) -> None:
        """Start the probes; their files have `name` in their paths."""
        for number in range(1, gateways + 1):
            gateway = f"gateway-{number}"
            probe = Probe(gateway, self._steps(f"{name} of {gateway}"))
            self.probes.append(probe)
            self._try(probe)

    @property
    def is_done(self) -> bool:
        """Whether all probes have succeeded."""
        return all(probe.is_done for probe in self.probes)

    def raise_if_unfinished(self) -> None:
        """`serves_after_healing`: by now all probes must have succeeded."""
        for probe in self.probes:
            if not probe.is_done:
                raise Violation(
                    "serves_after_healing",
                    f"{probe.gateway} has not managed to {probe.steps[probe.step][0]}; its "
                    f"last answer: {probe.last_answer!r}",
                )

    def _try(self, probe: Probe) -> None:
        if probe.is_done:
            return
        step = probe.step
        _, make_call, succeeded = probe.steps[step]

        def then(answer: Any) -> None:
            probe.last_answer = answer
            if succeeded(answer):
                probe.step += 1
                self._try(probe)
            else:
                self.world.schedule.after_us(_RETRY_MS * US_PER_MS, lambda _: self._try(probe))

        self.workload.call_gateway(probe.gateway, make_call, then)

    def _steps(self, name: str) -> list[tuple[str, MakeCall, Succeeded]]:
        """Write and read a small file; upload and download a large one."""
        data = name.encode()
        small, large = f"service/small {name}", f"service/large {name}"
        digest = self._expect(name, data)
        chunks = [f"{name}/{number}".encode() for number in range(_CHUNKS)]
        names = tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
        whole = b"".join(chunks)
        content = Chunked(size=len(whole), sha256=self._expect(f"{name}/", whole), chunks=names)
        steps = [
            ("write", *_put(PutFile(path=small, content=Inline(sha256=digest, data=data)))),
            ("read", *_read(small, digest)),
        ]
        steps += [("upload", *_upload(*pair)) for pair in zip(names, chunks, strict=True)]
        steps.append(("write what it has uploaded", *_put(PutFile(path=large, content=content))))
        steps.append(("read what it has uploaded", *_read(large, content.sha256)))
        steps += [("download", *_fetch(*pair)) for pair in zip(names, chunks, strict=True)]
        return steps

    def _expect(self, value: str, data: bytes) -> str:
        """Register a value that reads may return; the digest of its content."""
        digest = hashlib.sha256(data).hexdigest()
        self.workload.digests[digest] = value
        return digest


def _put(operation: PutFile) -> tuple[MakeCall, Succeeded]:
    def succeeded(answer: Any) -> bool:
        return isinstance(answer, WriteDecided) and answer.outcome.status == "done"

    return lambda token: Write(token=token, operation=operation), succeeded


def _read(path: str, digest: str) -> tuple[MakeCall, Succeeded]:
    request = ReadRequest(number=0, what="entry", path=path)

    def succeeded(answer: Any) -> bool:
        entry = answer.reply.entry if isinstance(answer, ReadDone) else None
        return isinstance(entry, FileEntry) and entry.content.sha256 == digest

    return lambda token: Read(token=token, request=request), succeeded


def _upload(name: str, data: bytes) -> tuple[MakeCall, Succeeded]:
    return (
        lambda token: Upload(token=token, sha256=name, manifest=False, data=data),
        lambda answer: isinstance(answer, Uploaded),
    )


def _fetch(name: str, data: bytes) -> tuple[MakeCall, Succeeded]:
    return (
        lambda token: Fetch(token=token, sha256=name),
        lambda answer: isinstance(answer, FetchedChunk) and answer.data == data,
    )

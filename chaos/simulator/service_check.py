"""What a cluster is there for, asked of every gateway once all is healed.

A gateway that answers `Unavailable` for ever breaks no rule of safety, and the others' work hides
it from every count. So each of them must write, read, upload and download within a bound.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.calls import Fetch, FetchedChunk, Read, ReadDone, Upload, Uploaded, Write, WriteDecided
from actors.messages import ReadRequest
from actors.values import Chunked, FileEntry, Inline, PutFile
from chaos.simulator.violation import Violation
from chaos.simulator.workload import Workload
from chaos.simulator.world import US, World

_CHUNKS = 6
"""More than the chunks that a store takes at once from a gateway."""
_AGAIN_MS = 200

Make = Callable[[int], Any]
Fits = Callable[[Any], bool]


@dataclass(slots=True)
class Errand:
    """What one gateway is asked for: steps, each of which is tried again until it succeeds."""

    gateway: str
    steps: list[tuple[str, Make, Fits]]
    step: int = 0
    last: Any = None
    """The last answer."""

    @property
    def is_done(self) -> bool:
        """Whether every step has succeeded."""
        return self.step == len(self.steps)


@dataclass(slots=True)
class Service:
    """One errand to each gateway, all at the same time."""

    world: World
    workload: Workload
    errands: list[Errand] = field(default_factory=list)

    def begin(self, name: str, gateways: int) -> None:
        """Send them off; `name` tells these errands' files from those of others."""
        for number in range(1, gateways + 1):
            gateway = f"gateway-{number}"
            errand = Errand(gateway, self._steps(f"{name} of {gateway}"))
            self.errands.append(errand)
            self._try(errand)

    @property
    def is_done(self) -> bool:
        """Whether all errands have succeeded."""
        return all(errand.is_done for errand in self.errands)

    def check(self) -> None:
        """`serves_after_healing`: by now all must have succeeded."""
        for errand in self.errands:
            if not errand.is_done:
                raise Violation(
                    "serves_after_healing",
                    f"{errand.gateway} has not managed to {errand.steps[errand.step][0]}; its "
                    f"last answer: {errand.last!r}",
                )

    def _try(self, errand: Errand) -> None:
        if errand.is_done:
            return
        step = errand.step
        _, make, fits = errand.steps[step]

        def then(answer: Any) -> None:
            errand.last = answer
            if fits(answer):
                errand.step += 1
                self._try(errand)
            else:
                self.world.after_us(_AGAIN_MS * US, lambda _: self._try(errand))

        self.workload.ask(errand.gateway, make, then)

    def _steps(self, name: str) -> list[tuple[str, Make, Fits]]:
        """Write and read a small file; upload and download a large one."""
        data = name.encode()
        small, large = f"service/small {name}", f"service/large {name}"
        digest = self._note(name, data)
        chunks = [f"{name}/{number}".encode() for number in range(_CHUNKS)]
        names = tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks)
        whole = b"".join(chunks)
        content = Chunked(size=len(whole), sha256=self._note(f"{name}/", whole), chunks=names)
        steps = [
            ("write", *_put(PutFile(path=small, content=Inline(sha256=digest, data=data)))),
            ("read", *_read(small, digest)),
        ]
        steps += [("upload", *_upload(*pair)) for pair in zip(names, chunks, strict=True)]
        steps.append(("write what it has uploaded", *_put(PutFile(path=large, content=content))))
        steps.append(("read what it has uploaded", *_read(large, content.sha256)))
        steps += [("download", *_fetch(*pair)) for pair in zip(names, chunks, strict=True)]
        return steps

    def _note(self, value: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.workload.digests[digest] = value
        return digest


def _put(operation: PutFile) -> tuple[Make, Fits]:
    def fits(answer: Any) -> bool:
        return isinstance(answer, WriteDecided) and answer.outcome.status == "done"

    return lambda token: Write(token=token, operation=operation), fits


def _read(path: str, digest: str) -> tuple[Make, Fits]:
    request = ReadRequest(number=0, what="entry", path=path)

    def fits(answer: Any) -> bool:
        entry = answer.reply.entry if isinstance(answer, ReadDone) else None
        return isinstance(entry, FileEntry) and entry.content.sha256 == digest

    return lambda token: Read(token=token, request=request), fits


def _upload(name: str, data: bytes) -> tuple[Make, Fits]:
    return (
        lambda token: Upload(token=token, sha256=name, manifest=False, data=data),
        lambda answer: isinstance(answer, Uploaded),
    )


def _fetch(name: str, data: bytes) -> tuple[Make, Fits]:
    return (
        lambda token: Fetch(token=token, sha256=name),
        lambda answer: isinstance(answer, FetchedChunk) and answer.data == data,
    )

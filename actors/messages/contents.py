"""Chunks of contents, which travel on the bulk lane (design 4.9)."""

from typing import Annotated, Literal

from pydantic import Field

from actors.numbers import Count
from actors.values import Frozen

HOLD_MS_MAX = 120_000
"""The longest that one `ChunkHold` lasts; to hold for longer, a gateway sends it again in time."""

KEEP_NAMES_MAX = 512
"""How many chunks one `ChunkKeep` may name: some 35 KB, so that it delays no message behind it."""


class ChunkPut(Frozen):
    """A chunk for a store; on the broker `data` is the raw body. A `manifest` lists chunk names."""

    type: Literal["chunk.put"] = "chunk.put"
    sha256: str
    manifest: bool
    data: bytes


class ChunkStored(Frozen):
    """The chunk is durable at the sender, which returns one credit."""

    type: Literal["chunk.stored"] = "chunk.stored"
    sha256: str


class ChunkRefused(Frozen):
    """The chunk was not stored: its SHA-256 is not its name, or there is no room."""

    type: Literal["chunk.refused"] = "chunk.refused"
    sha256: str
    reason: str


class ChunkGet(Frozen):
    """A request for this chunk."""

    type: Literal["chunk.get"] = "chunk.get"
    sha256: str


class ChunkData(Frozen):
    """A chunk on its way to a reader or to a store that lacks it; sent by the runtime."""

    type: Literal["chunk.data"] = "chunk.data"
    sha256: str
    data: bytes


class ChunkMissing(Frozen):
    """The sender does not hold this chunk."""

    type: Literal["chunk.missing"] = "chunk.missing"
    sha256: str


class ChunkHold(Frozen):
    """A store is to delete no chunk for the next `for_ms`, `HOLD_MS_MAX` at most."""

    type: Literal["chunk.hold"] = "chunk.hold"
    for_ms: Count


class ChunkKeep(Frozen):
    """A store is to keep these chunks, and the chunks that they list, for the next `for_ms`.

    A gateway sends it again in time while a request runs; a store keeps them no longer for it than
    for a `ChunkPut`, a `ChunkGet` or a `ChunkHold`.
    """

    type: Literal["chunk.keep"] = "chunk.keep"
    names: Annotated[tuple[str, ...], Field(max_length=KEEP_NAMES_MAX)]
    for_ms: Count

"""Notices of the disk, from a node's runtime to its own actor.

A notice never crosses the broker: the runtime delivers it in an `Envelope` from the node itself.
"""

from typing import Literal

from actors.values import Frozen


class Notice(Frozen):
    """Any notice."""


class DiskSpace(Notice):
    """Whether the journal's disk has less room left than the reserve."""

    type: Literal["disk.space"] = "disk.space"
    low: bool
    free_bytes: int


class BlobRotten(Notice):
    """The bytes of a blob no longer match its name, their SHA-256.

    The runtime checks them again when it delivers the notice, and delivers none for a blob that
    this turn or an earlier one has replaced.
    """

    type: Literal["disk.blob_rotten"] = "disk.blob_rotten"
    sha256: str


class RowRotten(Notice):
    """A row of the journal is not what was committed; the actor still has it in memory."""

    type: Literal["disk.row_rotten"] = "disk.row_rotten"
    key: str

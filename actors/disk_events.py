"""What a node's runtime tells its own actor of the disk beneath it.

A notice never crosses the broker: the runtime hands it over in an `Envelope` from the node itself.
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
    """The bytes of a blob are not what its name says any more.

    The runtime checks that once more when it hands the notice over: a blob that this turn or an
    earlier one has replaced is not told of.
    """

    type: Literal["disk.blob_rotten"] = "disk.blob_rotten"
    sha256: str


class RowRotten(Notice):
    """A row of the journal is not what was committed; the actor's memory still has it."""

    type: Literal["disk.row_rotten"] = "disk.row_rotten"
    key: str

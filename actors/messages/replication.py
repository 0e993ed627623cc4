"""Snapshots, joining a view, and what replicas find out about each other (design 4)."""

from typing import Literal

from actors.numbers import Count
from actors.values import Frozen


class SnapshotPull(Frozen):
    """Send me page `page` of your snapshot at `slot`; slot 0 asks for a new one, at its page 0."""

    type: Literal["snapshot.pull"] = "snapshot.pull"
    slot: Count
    page: Count


class SnapshotRow(Frozen):
    """A row of the replicated state, as a replica's journal keeps it; `value` is JSON."""

    key: str
    value: str


class SnapshotPage(Frozen):
    """Page `page` of the state at `slot`; `digest` is the SHA-256 over its rows.

    The page after which no rows are left is the last one.
    """

    type: Literal["snapshot.page"] = "snapshot.page"
    slot: Count
    page: Count
    rows_left: Count
    rows: tuple[SnapshotRow, ...]
    digest: str


class JoinRequest(Frozen):
    """A store outside the view lacks nothing up to `applied` and asks to be added."""

    type: Literal["view.join"] = "view.join"
    applied: Count
    state_hash: str


class Diverged(Frozen):
    """The receiver reported the state `reported` at `slot`, where the others have `state_hash`.

    It must copy theirs.
    """

    type: Literal["replica.diverged"] = "replica.diverged"
    slot: Count
    state_hash: str
    reported: str

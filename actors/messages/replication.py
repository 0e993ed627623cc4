"""Snapshots, joining a view, and the comparison of replicas (design 4)."""

from typing import Literal

from actors.numbers import Count
from actors.values import Frozen


class SnapshotPull(Frozen):
    """A request for a page of the snapshot at `slot`; slot 0 asks for page 0 of a new one."""

    type: Literal["snapshot.pull"] = "snapshot.pull"
    slot: Count
    page: Count


class SnapshotRow(Frozen):
    """A row of the replicated state, as a replica's journal keeps it; `value` is JSON."""

    key: str
    value: str


class SnapshotPage(Frozen):
    """Page `page` of the state at `slot`; `digest` is the SHA-256 of its rows.

    The last page has no `rows_left`.
    """

    type: Literal["snapshot.page"] = "snapshot.page"
    slot: Count
    page: Count
    rows_left: Count
    rows: tuple[SnapshotRow, ...]
    digest: str


class JoinRequest(Frozen):
    """A store outside the view, which lacks nothing up to `applied`, asks to be added."""

    type: Literal["view.join"] = "view.join"
    applied: Count
    state_hash: str


class Diverged(Frozen):
    """The receiver reported the state `reported` at `slot`, where the other replicas have
    `state_hash`. It must copy theirs.
    """

    type: Literal["replica.diverged"] = "replica.diverged"
    slot: Count
    state_hash: str
    reported: str

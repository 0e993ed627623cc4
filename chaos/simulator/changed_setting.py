"""A setting whose value differs from the cluster's."""

from dataclasses import dataclass
from typing import Any

from actors.options import Options

REPLICATED = frozenset(
    (
        "proposers",
        "acceptors",
        "learners",
        "stores",
        "lease_ms",
        "lease_margin_ms",
        "session_expiry_ms",
        "idempotency_expiry_ms",
        "min_stores",
        "rowa",
        "chunk_grace_ms",
        "slot_steps",
        "slot_bytes",
        "path_depth",
        "tree_entries",
        "tree_bytes",
        "audit",
        "alpha",
    )
)
"""What a cluster is founded with. Listed here on its own: a list of the actors would share their
mistakes."""


@dataclass(frozen=True, slots=True)
class ChangedSetting:
    """One setting of a node has another value than the cluster's."""

    name: str
    value: Any
    cluster_value: Any
    options: Options
    """The cluster's options with this change."""

    @property
    def must_be_refused(self) -> bool:
        """Whether a node must not act with it."""
        return self.name in REPLICATED

"""One setting with another value than the cluster has, for nodes that are started again with it."""

import random
from dataclasses import dataclass, fields, replace
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
    )
)
"""What a cluster is founded with."""

VALUES: dict[str, tuple[Any, ...]] = {
    "proposers": (1, 4, 6),
    "acceptors": (3, 5, 7, 9),
    "learners": (2, 3, 4),
    "stores": (1, 2, 4, 6),
    "heartbeat_ms": (300, 1_000, 5_000),
    "leader_heartbeat_ms": (100, 450),
    "lease_ms": (800, 3_000),
    "lease_margin_ms": (0, 20, 500),
    "window_slots": (1, 2, 64),
    "batch_commands": (1, 3, 4_096),
    "batch_bytes": (600, 20_000, 8 * 1024 * 1024),
    "sync_ms": (200, 1_000, 30_000),
    "request_deadline_ms": (3_000, 30_000),
    "session_expiry_ms": (5_000, 60_000, 48 * 3_600_000),
    "idempotency_expiry_ms": (1_000, 20_000, 48 * 3_600_000),
    "min_stores": (1, 2, 3),
    "rowa": ("available", "strict"),
    "slot_steps": (1, 50, 1_000_000),
    "slot_bytes": (500, 5_000, 64 * 1024 * 1024),
    "path_depth": (1, 2, 500),
    "tree_entries": (3, 10, 10_000_000),
    "tree_bytes": (500, 5_000, 8 * 1024 * 1024 * 1024),
    "chunk_grace_ms": (60_000, 24 * 3_600_000),
    "log_bytes": (0, 50_000, 64 * 1024 * 1024),
    "copy_bytes_per_s": (20_000, 1024 * 1024 * 1024),
    "page_bytes": (400, 4_000, 4 * 1024 * 1024),
}
"""For each setting the values to try."""

WAYS = ("one node", "one node", "a role", "all, one by one", "all at once")
"""Which nodes are started with it."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One setting has another value than the cluster's `ours`."""

    name: str
    value: Any
    ours: Any
    options: Options

    @property
    def must_be_refused(self) -> bool:
        """Whether a node may not act with it."""
        return self.name in REPLICATED


def draw_change(options: Options, dice: random.Random) -> Changed:
    """Another value of one setting, such that the options are still valid."""
    while True:
        name = dice.choice([one.name for one in fields(Options)])
        value = dice.choice(VALUES[name])
        ours = getattr(options, name)
        if value == ours:
            continue
        try:
            return Changed(name, value, ours, replace(options, **{name: value}))
        except ValueError:
            continue  # No node would start with them, whatever its cluster has.

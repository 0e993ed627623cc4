"""Nodes that are started again with another value of one setting (design 8.1).

What a quorum, a lease or a replica's state is computed from is replicated: a node whose settings
say otherwise must refuse to start, and say why. Any other setting may differ from node to node,
and then all rules hold. Which is which is written down here on its own: a judge that asked the
actors would share their mistakes.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from actors.options import Options
from chaos.simulator.violation import Violation

if TYPE_CHECKING:
    from chaos.simulator.machine import Machine
    from chaos.simulator.world import World

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


class SettingsInvariants:
    """Judges nodes that were started with a changed setting, and counts what became of them."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()

    def started(self, machine: "Machine") -> None:
        """Count those that may act with it."""
        changed = _changed(machine)
        if not changed.must_be_refused:
            self.counters["settings.borne"] += 1
            self.counters[f"settings.borne {changed.name}"] += 1

    def stepped(self, machine: "Machine") -> None:
        """`changed_settings_are_refused`: a node that knows its cluster does not act with them."""
        changed = _changed(machine)
        if changed.must_be_refused and machine.actor.is_started:
            raise Violation(
                "changed_settings_are_refused",
                f"{machine.name} acts with {changed.name} {changed.value!r}; the cluster has "
                f"{changed.ours!r}",
            )

    def halted(self, machine: "Machine", reason: str) -> None:
        """`refusals_say_why`: a refusal names the setting, its value and the cluster's."""
        changed = _changed(machine)
        if not changed.must_be_refused:
            raise Violation(
                "nobody_halts",
                f"{machine.name} halts with {changed.name} {changed.value!r}: {reason}",
            )
        # A node that its settings do not know at all has no cluster to compare them with yet.
        is_no_member = machine.role != "gateway" and machine.name not in changed.options.members
        for part in (changed.name, str(changed.value), str(changed.ours)):
            if part not in reason and not is_no_member:
                raise Violation(
                    "refusals_say_why",
                    f"{machine.name} refuses {changed.name} {changed.value!r} where the cluster "
                    f"has {changed.ours!r}, without naming {part}: {reason}",
                )
        self.counters["settings.refused"] += 1
        self.counters[f"settings.refused {changed.name}"] += 1


def _changed(machine: "Machine") -> Changed:
    assert machine.changed is not None, f"{machine.name} has the cluster's settings"
    return machine.changed


def restart_with(
    world: "World",
    machines: list["Machine"],
    changed: Changed | None,
    spacing_ms: int,
    later: Callable[[int, Callable[[], object]], object],
) -> None:
    """Stop each node and start it again with the setting, `spacing_ms` after the one before.

    `None` puts the cluster's own value back.
    """
    for number, machine in enumerate(machines):

        def restart(machine: "Machine" = machine) -> None:
            if machine.is_up:
                machine.crash()
            machine.changed = changed
            world.start(machine.name)

        later(number * spacing_ms, restart)

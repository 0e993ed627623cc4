"""Nodes that restart with another value of one setting (design 8.1)."""

import random
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from actors.options import Options
from chaos.simulator.changed_setting import ChangedSetting
from chaos.simulator.machine import Machine
from chaos.simulator.world import World

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
    "alpha": (8, 16, 256),
    "chunk_grace_ms": (60_000, 24 * 3_600_000),
    "audit": (False,),
    "audit_bytes": (0, 20_000, 512 * 1024 * 1024),
    "log_bytes": (0, 50_000, 64 * 1024 * 1024),
    "copy_bytes_per_s": (20_000, 1024 * 1024 * 1024),
    "page_bytes": (400, 4_000, 4 * 1024 * 1024),
}
"""For each setting the values to try."""

ROLLOUTS = ("one node", "one node", "a role", "all, one by one", "all at once")
"""Which nodes start with the changed setting."""


def draw_change(options: Options, rng: random.Random) -> ChangedSetting:
    """Change one setting to another value with which the options are valid."""
    while True:
        name = rng.choice([one.name for one in fields(Options)])
        value = rng.choice(VALUES[name])
        cluster_value = getattr(options, name)
        if value == cluster_value:
            continue
        try:
            changed = replace(options, **{name: value})
        except ValueError:
            continue  # No node would start with these options, whatever its cluster has.
        return ChangedSetting(name, value, cluster_value, changed)


def restart_with(
    world: World,
    machines: list[Machine],
    changed: ChangedSetting | None,
    spacing_ms: int,
    later: Callable[[int, Callable[[], object]], object],
) -> None:
    """Restart each node with the changed setting, `spacing_ms` after the one before.

    `None` restores the cluster's value.
    """
    for number, machine in enumerate(machines):

        def restart(machine: Machine = machine) -> None:
            if machine.is_up:
                machine.crash()
            machine.changed_setting = changed
            world.restart(machine)

        later(number * spacing_ms, restart)

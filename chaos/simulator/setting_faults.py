"""Nodes that are started again with another value of one setting (design 8.1).

What a quorum, a lease or a replica's state is computed from is replicated: a node whose settings
say otherwise must refuse to start, and say why. Any other setting may differ from node to node,
and then all rules hold. Which is which is written down here on its own: a judge that asked the
actors would share their mistakes.
"""

from collections import Counter
from collections.abc import Callable

from chaos.simulator.changed_setting import Changed
from chaos.simulator.machine import Machine
from chaos.simulator.violation import Violation
from chaos.simulator.world import World


class SettingsInvariants:
    """Judges nodes that were started with a changed setting, and counts what became of them."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()

    def started(self, machine: Machine) -> None:
        """Count those that may act with it."""
        changed = _changed(machine)
        if not changed.must_be_refused:
            self.counters["settings.borne"] += 1
            self.counters[f"settings.borne {changed.name}"] += 1

    def stepped(self, machine: Machine) -> None:
        """`changed_settings_are_refused`: a node that knows its cluster does not act with them."""
        changed = _changed(machine)
        if changed.must_be_refused and machine.actor.is_started:
            raise Violation(
                "changed_settings_are_refused",
                f"{machine.name} acts with {changed.name} {changed.value!r}; the cluster has "
                f"{changed.ours!r}",
            )

    def halted(self, machine: Machine, reason: str) -> None:
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


def _changed(machine: Machine) -> Changed:
    assert machine.changed is not None, f"{machine.name} has the cluster's settings"
    return machine.changed


def restart_with(
    world: World,
    machines: list[Machine],
    changed: Changed | None,
    spacing_ms: int,
    later: Callable[[int, Callable[[], object]], object],
) -> None:
    """Stop each node and start it again with the setting, `spacing_ms` after the one before.

    `None` puts the cluster's own value back.
    """
    for number, machine in enumerate(machines):

        def restart(machine: Machine = machine) -> None:
            if machine.is_up:
                machine.crash()
            machine.changed = changed
            world.start(machine.name)

        later(number * spacing_ms, restart)

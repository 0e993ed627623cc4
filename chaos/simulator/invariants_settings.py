"""Invariants of settings (design 8.1), for nodes that start with a setting unlike the cluster's.

What a quorum, a lease or a replica's state is computed from is replicated: a node whose settings
differ there must refuse to start, and say why. Any other setting may differ from node to node,
and all other invariants hold.
"""

from collections import Counter

from chaos.simulator.changed_setting import ChangedSetting
from chaos.simulator.machine import Machine
from chaos.simulator.violation import Violation


class SettingsInvariants:
    """Checks the nodes that were started with a changed setting, and counts them."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()

    def started(self, machine: Machine) -> None:
        """Count the nodes that may act with their setting."""
        changed = _changed(machine)
        if not changed.must_be_refused:
            self.counters["settings.borne"] += 1
            self.counters[f"settings.borne {changed.name}"] += 1

    def stepped(self, machine: Machine) -> None:
        """`changed_settings_are_refused`: a node that knows its cluster's settings halts."""
        changed = _changed(machine)
        if changed.must_be_refused and machine.actor.is_started:
            raise Violation(
                "changed_settings_are_refused",
                f"{machine.name} acts with {changed.name} {changed.value!r}; the cluster has "
                f"{changed.cluster_value!r}",
            )

    def halted(self, machine: Machine, reason: str) -> None:
        """`refusals_say_why`: a refusal names the setting, its value and the cluster's."""
        changed = _changed(machine)
        if not changed.must_be_refused:
            raise Violation(
                "nobody_halts",
                f"{machine.name} halts with {changed.name} {changed.value!r}: {reason}",
            )
        # A node that is no member by its own settings knows of no cluster to compare them with.
        is_no_member = machine.role != "gateway" and machine.name not in changed.options.members
        for part in (changed.name, str(changed.value), str(changed.cluster_value)):
            if part not in reason and not is_no_member:
                raise Violation(
                    "refusals_say_why",
                    f"{machine.name} refuses {changed.name} {changed.value!r} where the cluster "
                    f"has {changed.cluster_value!r}, without naming {part}: {reason}",
                )
        self.counters["settings.refused"] += 1
        self.counters[f"settings.refused {changed.name}"] += 1


def _changed(machine: Machine) -> ChangedSetting:
    changed = machine.changed_setting
    assert changed is not None, f"{machine.name} has the cluster's settings"
    return changed

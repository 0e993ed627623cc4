"""Nodes that start with another value of a setting refuse it and say why, or tolerate it."""

import random
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from actors.founding import Founding
from actors.options import MEMBER_ROLES, Options
from actors.values import Constants
from chaos.simulator.changed_setting import REPLICATED, ChangedSetting
from chaos.simulator.invariants import Invariants
from chaos.simulator.run import Plan, run_plan
from chaos.simulator.setting_faults import VALUES, draw_change, restart_with
from chaos.simulator.world import World
from tests.worlds import put


def started() -> World:
    world = World(1, observer=Invariants())
    world.start()
    world.ready()
    return world


def changes(name: str) -> list[ChangedSetting]:
    """All values of a setting that the usual cluster does not have, and that are valid."""
    found = []
    for value in VALUES[name]:
        if value != getattr(Options(), name):
            options = replace(Options(), **{name: value})
            found.append(ChangedSetting(name, value, getattr(Options(), name), options))
    return found


def test_every_setting_has_other_values() -> None:
    """Given all settings, then each of them can be changed, and to valid values only."""
    assert set(VALUES) == {field.name for field in fields(Options)}
    assert all(changes(name) for name in VALUES)


def test_what_a_cluster_is_founded_with_must_be_refused() -> None:
    """Given the genesis, then the simulator's own list has all settings that it fixes."""
    assert {f"{role}s" for role in MEMBER_ROLES} | set(Constants.model_fields) == REPLICATED


@pytest.mark.parametrize("name", sorted(VALUES))
def test_a_setting_is_refused_or_tolerated_by_every_role(name: str) -> None:
    """Given nodes of every role, when they start with another value, then the rule holds."""
    world = started()
    machines = [world.machines[f"{role}-1"] for role in (*MEMBER_ROLES, "gateway")]
    for changed in changes(name):
        restart_with(world, machines, changed, 0, lambda _, restart: restart())
        world.run(1_000)
        assert [m.is_up for m in machines] == [name not in REPLICATED] * len(machines)
        restart_with(world, machines, None, 0, lambda _, restart: restart())
        world.ready()
        assert world.done(put("a", b"1"), retry=True).outcome.status == "done"
    assert all(machine.is_up for machine in machines)


def test_every_setting_is_drawn() -> None:
    """Given other shapes, too, then every setting is drawn, and never with the cluster's value."""
    for options in (
        Options(),
        Options(stores=1, min_stores=1),
        Options(acceptors=7, rowa="strict"),
    ):
        drawn = [draw_change(options, random.Random(seed)) for seed in range(500)]
        assert {changed.name for changed in drawn} == set(VALUES)
        assert all(changed.value != changed.cluster_value for changed in drawn)


def _check_nothing(self: Founding, genesis: Any) -> None:
    return None


def _refuse_without_a_reason(self: Founding, genesis: Any) -> None:
    if self._turn.options.differences(genesis):
        self._turn.out.halt = f"{self._turn.name}: wrong settings"


@pytest.mark.parametrize(
    ("broken", "invariant"),
    [
        (_check_nothing, "changed_settings_are_refused"),
        (_refuse_without_a_reason, "refusals_say_why"),
    ],
)
def test_a_node_that_acts_or_is_silent_about_its_reason_is_found(
    broken: Callable[..., None], invariant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given nodes that do not compare their settings, or give no reason, then a rule fails."""
    monkeypatch.setattr(Founding, "_check_settings", broken)
    for seed in range(10):
        report = run_plan(Plan(seed, ("settings",), storm_ms=30_000, acknowledged=30))
        if not report.passed:
            assert report.invariant == invariant, report.detail
            return
    pytest.fail("no rule has failed")

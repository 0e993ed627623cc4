"""Whom each role reaches: a broker with a user for each node lets through exactly that."""

from dataclasses import replace
from typing import Any

import pytest

from actors.effects import Group
from actors.messages.addresses import (
    SENT_TO_GROUPS,
    SENT_TO_GROUPS_ONLY,
    groups_reached_by,
    roles_reached_by,
)
from actors.messages.permissions import PERMISSIONS, role_in
from actors.options import ROLES
from actors.turn import Turn
from chaos.simulator.faults import ALL
from chaos.simulator.run import Plan, Simulation
from tests.long import LONG

PLAN = Plan(seed=26, storm_ms=15_000, acknowledged=60, faults=ALL)


@pytest.mark.parametrize("seed", range(26, 66) if LONG else (26,))
def test_no_node_sends_where_its_role_may_not(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a storm of all faults, then every message goes where its type and its sender's role may
    send it.
    """
    used: set[tuple[str, type[Any], str]] = set()
    send = Turn.send

    def watched(turn: Turn, to: str, message: Any) -> None:
        used.add((turn.identity.role, type(message), to if to in Group.ALL else role_in(to)))
        send(turn, to, message)

    monkeypatch.setattr(Turn, "send", watched)
    report = Simulation(replace(PLAN, seed=seed)).run()
    assert report.passed, f"{report.plan.command}\n{report.invariant}: {report.detail}"
    for role, kind, to in used:
        if to in Group.ALL:
            assert to in SENT_TO_GROUPS.get(kind, ()), (role, kind, to)
            assert to in groups_reached_by(role), (role, kind, to)
        else:
            assert kind not in SENT_TO_GROUPS_ONLY, (role, kind, to)
            assert to in roles_reached_by(role), (role, kind, to)
    # The storm reaches much of the table.
    assert len({kind for _, kind, _ in used}) > 28
    assert {role for role, _, _ in used} == set(ROLES)


def test_roles_reach_no_more_than_they_need() -> None:
    """The groups and the roles that no message of theirs is for stay closed to them."""
    closed = {role: set(Group.ALL) - groups_reached_by(role) for role in ROLES}
    assert closed == {
        "proposer": {Group.LEARNERS, Group.STORES},
        "acceptor": {Group.STORES, Group.PHASE_2},
        "learner": {Group.PHASE_2},
        "store": {Group.STORES, Group.PHASE_2},
        "gateway": {Group.LEARNERS, Group.STORES, Group.PHASE_2},
    }
    assert set(ROLES) - roles_reached_by("gateway") == {"acceptor", "gateway"}
    assert set(SENT_TO_GROUPS) < set(PERMISSIONS)

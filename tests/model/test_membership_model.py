"""The model of membership change holds in small scopes, and each broken rule has its story."""

import pytest

from chaos.model.rules import MUTANTS
from chaos.model.scopes import FALLS_IN, REDUNDANT, SCOPES, VIEWS_SLOTS
from chaos.model.search import breadth_first
from chaos.model.system import MembershipSystem
from chaos.model.views import BROKEN_RULES, ViewSystem
from tests.long import only_long

QUICK = (
    "retire_implicit",
    "elect_new",
    "lease_new",
    "lease_old",
    "lease_switch",
    "serve_unread",
    "serve_unasked",
    "no_silence",
    "version_known",
    "version_proposed",
    "learner_newest",
    "snapshot_bare",
)
"""The mutants that fall within about a second. The others take a long test."""


@pytest.mark.parametrize(("scope", "states"), [("slots", 6_878), ("leases", 30_488)])
def test_a_change_is_safe_in_every_state(scope: str, states: int) -> None:
    system = MembershipSystem(SCOPES[scope])
    found = breadth_first(system)
    assert found.violation is None, found.story
    assert found.exhausted
    assert found.states == states, "the model has changed: renew docs/membership.md"
    assert found.goals.keys() == system.goals.keys()


@pytest.mark.parametrize("mutant", QUICK)
def test_a_broken_rule_has_a_counterexample(mutant: str) -> None:
    found = breadth_first(MembershipSystem(SCOPES[FALLS_IN[mutant]], frozenset({mutant})))
    assert found.violation is not None
    assert found.story[0] == "ballot 1 stands, knowing slots up to 0, phase 1 from slot 1"


def test_what_is_truncated_survives_on_every_whole_store() -> None:
    system = ViewSystem(VIEWS_SLOTS)
    found = breadth_first(system)
    assert found.violation is None, found.story
    assert found.exhausted
    assert found.goals.keys() == system.goals.keys()


@pytest.mark.parametrize("mutant", BROKEN_RULES)
def test_a_broken_rule_of_the_durable_mark_loses_slots(mutant: str) -> None:
    found = breadth_first(ViewSystem(VIEWS_SLOTS, frozenset({mutant})))
    assert found.violation is not None
    assert found.violation.invariant == "DURABLE"


def test_the_story_of_a_counterexample_is_told_from_genesis() -> None:
    found = breadth_first(MembershipSystem(SCOPES["grow"], frozenset({"learner_newest"})))
    assert str(found.violation) == (
        "LEARNT: a learner that knows slots up to 0 counts {a,b} for the command of ballot 1 in "
        "slot 2, which version 1 chooses"
    )
    assert found.story == [
        "ballot 1 stands, knowing slots up to 0, phase 1 from slot 1",
        "a promises ballot 1, version 0",
        "b promises ballot 1, version 0",
        "c promises ballot 1, version 0",
        "ballot 1 leads from slot 1",
        "ballot 1 proposes Members(1) for slot 1",
        "{a,b} accept Members(1) for slot 1 under ballot 1",
        "ballot 1 learns the chosen prefix through 1",
        "ballot 1 proposes the command of ballot 1 for slot 2",
    ]


def test_every_mutant_falls_or_is_shown_to_be_redundant() -> None:
    assert MUTANTS.keys() == FALLS_IN.keys() | REDUNDANT.keys()
    assert not FALLS_IN.keys() & REDUNDANT.keys()


@only_long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", sorted(FALLS_IN.keys() - set(QUICK)))
def test_a_broken_rule_has_a_longer_counterexample(mutant: str) -> None:
    system = MembershipSystem(SCOPES[FALLS_IN[mutant]], frozenset({mutant}))
    assert breadth_first(system, seconds_max=280).violation is not None


@only_long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", sorted(REDUNDANT))
def test_a_redundant_rule_breaks_nothing(mutant: str) -> None:
    scope = {"no_low_checked": "marks", "settled_before_e": "window"}.get(mutant, "leases")
    found = breadth_first(MembershipSystem(SCOPES[scope], frozenset({mutant})))
    assert found.violation is None, found.story
    assert found.exhausted

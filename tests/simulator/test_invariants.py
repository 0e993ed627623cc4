"""The invariants can fail: each broken protocol is found, by the rule that it breaks."""

from collections.abc import Callable
from typing import Any

import pytest

from actors.effects import Group
from actors.learner.coordinator import Coordinator
from actors.learner.learner import Learner
from actors.messages import Prepare
from actors.paxos.acceptor import Acceptor
from actors.paxos.ballot import Ballot
from actors.paxos.phase_one import Promises
from actors.paxos.phases import Electing, Leading
from actors.paxos.proposer import Proposer
from actors.state.namespace import Namespace
from actors.store.reads import Reads
from actors.store.store import Store
from actors.turn import Turn
from chaos.simulator.run import Plan, run_plan
from chaos.simulator.verdict import check_states, resolve_unknown
from chaos.simulator.violation import Violation
from tests.worlds import founded, put

_lead = Proposer._lead
_run_command = Namespace._run
_journal = Turn.journal
_take_view_or_abort = Learner._take_view_or_abort
_passes_fence = Store._passes_fence


def _no_refusals(self: Acceptor, sender: str, ballot: Ballot) -> bool:
    return False


def _lead_without_looking(self: Proposer, phase: Electing) -> None:
    for answer in phase.promises.by_acceptor.values():
        answer.accepted.clear()
    _lead(self, phase)


def _forgetful_run(self: Namespace, slot: int, index: int, command: Any, aborted: Any) -> Any:
    session = self.sessions.by_name.get(command.session)
    if session is not None:
        session.results.pop(command.sequence, None)
    return _run_command(self, slot, index, command, aborted)


def _unwritten(self: Turn, key: str, value: Any) -> None:
    if not key.startswith("prepared/"):
        _journal(self, key, value)


def _campaign_without_journal(self: Proposer) -> None:
    self.round = max(self.round, self._highest_ballot.round) + 1
    ballot = Ballot(self.round, self.name)
    self._highest_ballot = ballot
    self.phase = Electing(ballot=ballot, promises=Promises(self._low_water))
    self._send(Group.ACCEPTORS, Prepare(ballot=ballot, first_slot=self._low_water))
    self._wait_for_leader(self.options.lease_ms)


def _take_view_but_no_abort(self: Learner, slot: int, value: Any) -> None:
    _take_view_or_abort(self, slot, value)
    if self.name == "learner-1":
        self.learned.aborts.clear()


def _serve_older_epochs(self: Store, sender: str, epoch: int) -> bool:
    return epoch < self.fence or _passes_fence(self, sender, epoch)


@pytest.mark.parametrize(
    ("target", "name", "broken", "invariants"),
    [
        (
            Acceptor,
            "_refuses",
            _no_refusals,
            {"promises_never_go_back", "actors_own_checks", "lease_promise_kept"},
        ),
        (Proposer, "_lead", _lead_without_looking, {"chosen_value_stands", "one_value_per_slot"}),
        (Proposer, "_campaign", _campaign_without_journal, {"journal_before_answer"}),
        (
            Proposer,
            "lease_until",
            property(lambda self: self.now + 900 if isinstance(self.phase, Leading) else 0),
            {"one_lease_holder", "reads_under_a_lease", "settled_after_healing"},
        ),
        (Namespace, "_run", _forgetful_run, {"applied_once"}),
        (
            Reads,
            "_obstacle",
            lambda self, read: None,
            {"reads_are_fresh", "reads_in_the_view", "reads_under_a_lease"},
        ),
        (
            Coordinator,
            "_has_vote",
            lambda self, store, slot: store == "store-1",
            {"acknowledged_is_on_every_store", "outcomes_agree", "actors_own_checks"},
        ),
        (Turn, "journal", _unwritten, {"journal_before_answer"}),
        (
            Learner,
            "_take_view_or_abort",
            _take_view_but_no_abort,
            {"outcomes_agree", "settled_after_healing"},
        ),
        (Acceptor, "_start", lambda self: None, {"lease_promise_kept", "one_lease_holder"}),
        (Store, "_passes_fence", _serve_older_epochs, {"fence_holds"}),
    ],
    ids=[
        "an acceptor breaks its promises",
        "a leader ignores what was accepted",
        "a ballot is not journalled",
        "a lease without a quorum",
        "retries are applied twice",
        "a store reads without lease and waiting",
        "commit with one vote",
        "a vote is not journalled",
        "a coordinator forgets aborts",
        "an acceptor answers at once after its restart",
        "a store serves older epochs",
    ],
)
def test_a_broken_protocol_is_found(
    target: type,
    name: str,
    broken: Callable[..., Any] | property,
    invariants: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given a protocol broken in one place, when seeds run, then the rule that it breaks fails."""
    monkeypatch.setattr(target, name, broken)
    for seed in range(20):
        report = run_plan(Plan(seed, storm_ms=40_000, acknowledged=40))
        if not report.passed:
            assert report.invariant in invariants, f"{report.invariant}: {report.detail}"
            return
    pytest.fail("no rule has failed")


def test_a_history_that_is_not_decided_has_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaos.simulator.verdict._HISTORY_S", -1.0)

    report = run_plan(Plan(1, faults=("none",), storm_ms=3_000, acknowledged=10))

    assert report.invariant == "history_is_decided"


def test_states_that_agree_in_their_hash_alone_are_found_in_the_end() -> None:
    """Given a store that copied too little, when its hash does not show it, then its rows do."""
    world = founded()
    world.done(put("a", b"1"))
    world.settled()
    check_states(world)
    store = world.actor("store-3")
    del store.state.entries["a"]

    with pytest.raises(Violation, match="store-3 has None under 'entry/a'"):
        check_states(world)


def test_a_write_that_was_done_is_never_absent() -> None:
    """Given a session that a new start has closed, then stores may answer that a request never
    happened if it did not, and not if a coordinator has sent its result as done.
    """
    world = founded(gateways=2)
    session = world.actor("gateway-1").session
    world.done(put("a", b"1"))
    world.crash("gateway-1")
    world.start("gateway-1")
    world.ready("gateway-1")
    world.run(3_000)
    question = [(f"{session}-999", "gateway-2")]

    resolve_unknown(world, question, {(session, 999): ("aborted", 5, 0)})
    with pytest.raises(Violation, match="absent_never_happened"):
        resolve_unknown(world, question, {(session, 999): ("done", 5, 0)})

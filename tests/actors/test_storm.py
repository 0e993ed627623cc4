"""Random bad minutes, judged; and proof that the judgement can fail."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from actors.acceptor import Acceptor
from actors.coordinator import Coordinator
from actors.namespace import Namespace
from actors.proposer import Proposer
from actors.reads import Reads
from tests.actors.storm import Storm

SEEDS = range(1, 13)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_doubled_or_stale_in_a_storm() -> None:
    """Given nodes that die and messages that get lost, then the verdict holds, not vacuously."""
    total: Counter[str] = Counter()
    for seed in SEEDS:
        try:
            total += Storm(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    for interesting in ("done", "read", "aborted", "crashes", "elections", "epochs"):
        assert total[interesting] > 0, f"{interesting} never happened: {dict(total)}"


def _no_refusals(self: Acceptor, sender: str, ballot: Any) -> bool:
    return False


def _no_promise(self: Acceptor, ballot: Any) -> None:
    self.promised = max(self.promised, ballot)


def _everyone_may_lead(self: Proposer, phase: Any) -> None:
    for answer in phase.answers.values():
        answer.accepted.clear()
    _lead(self, phase)


_lead = Proposer._lead
_run_command = Namespace._run


def _forgetful_run(self: Namespace, slot: int, index: int, command: Any, abort: str | None) -> Any:
    session = self.sessions.get(command.session)
    if session is not None:
        session.results.pop(command.sequence, None)
    return _run_command(self, slot, index, command, abort)


def _always_leased(self: Reads, read: Any) -> None:
    return None


def _say_of_one(self: Coordinator, store: str, slot: int) -> bool:
    return store == "store-1"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("target", "name", "broken"),
    [
        (Acceptor, "_refuses", _no_refusals),
        (Proposer, "_lead", _everyone_may_lead),
        (Namespace, "_run", _forgetful_run),
        (Reads, "_obstacle", _always_leased),
        (Coordinator, "_has_say", _say_of_one),
    ],
    ids=[
        "acceptor breaks its promises",
        "leader ignores what was accepted",
        "retries are applied twice",
        "store reads without waiting",
        "commit with one vote",
    ],
)
def test_the_verdict_can_fail(
    target: type, name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a protocol broken in one place, when storms run, then the verdict notices."""
    monkeypatch.setattr(target, name, broken)
    for seed in range(1, 40):
        try:
            Storm(seed).run()
        except AssertionError:
            return
    pytest.fail("the verdict did not notice")

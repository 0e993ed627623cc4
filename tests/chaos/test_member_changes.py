"""The scenarios about members notice what is wrong: no cluster is needed to see that they do."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from chaos.scenarios import member_changes
from chaos.scenarios.scenario import Finding, Run, RunVoid
from tests.chaos.test_judgement import StillTarget, run

__all__ = ["run"]


def known(
    standing: str, waits_for: str | None = None, *, version: int = 1, whole: str | None = None
) -> dict[str, Any]:
    """What a gateway answers of one acceptor."""
    member = {
        "name": "acceptor-6",
        "standing": standing,
        "waits_for": waits_for,
        "disk": "d",
        "runs_on": "d",
        "age_ms": 0,
    }
    return {"acceptors": {"newest": version, "waits_for": whole}, "members": [member]}


class Changing(StillTarget):
    """A cluster whose node ends with these words, or does not end."""

    words: str | None = None

    async def runs(self, node: str) -> bool:
        return self.words is None

    async def last_words(self, node: str) -> str:
        return self.words or ""


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("WHOLE_PATIENCE_S", 0.2), ("_LOOK_S", 0.001), ("END_PATIENCE_S", 0.02)):
        monkeypatch.setattr(member_changes, name, seconds)


def _answers(
    monkeypatch: pytest.MonkeyPatch,
    pictures: list[dict[str, Any]],
    begun: list[int | None] | None = None,
) -> list[str]:
    """Let a gateway answer so, the last answer for ever; the actions that were asked for."""
    asked: list[str] = []
    left: Iterator[Mapping[str, Any]] = iter(pictures)
    answers: Iterator[int | None] = iter(begun or ())
    last: list[Mapping[str, Any]] = []

    async def members(run: Run) -> Mapping[str, Any]:
        last[:] = [next(left, last[0] if last else pictures[-1])]
        return last[0]

    async def change(run: Run, action: str, member: str) -> int | None:
        asked.append(action)
        return next(answers, 1)

    monkeypatch.setattr(Run, "members", members)
    monkeypatch.setattr(Run, "change", change)
    return asked


def _finding(run: Run) -> Finding:
    [finding] = run.findings
    return finding


async def test_a_change_is_over_only_when_nothing_is_waited_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [
        known("newcomer", "to be added", version=0),
        known("newcomer", "to be added", version=0),
        known("joining", "the end of the change", whole="its end"),
        known("member", whole="its end to be durable"),
        known("member"),
    ]
    asked = _answers(monkeypatch, pictures)
    assert await member_changes.changed(run, "add", "acceptor-6")
    assert (asked, _finding(run).holds) == (["add"], True)


async def test_a_change_that_does_not_end_is_found_with_what_it_waits_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answers(monkeypatch, [known("newcomer", version=0), known("member", whole="its end")])
    assert not await member_changes.changed(run, "add", "acceptor-6")
    finding = _finding(run)
    assert (finding.holds, finding.evidence) == (False, "it waits for its end")


async def test_a_refused_change_is_asked_for_again_until_it_begins(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    newcomer = known("newcomer", version=0)
    asked = _answers(
        monkeypatch, [newcomer, newcomer, newcomer, known("member")], [None, None, 1, 1]
    )
    assert await member_changes.changed(run, "add", "acceptor-6")
    assert asked == ["add"] * 3


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        ("synod: proposer-1 halts: proposer-1: it was removed (version 4 of the roster).", True),
        ("synod: acceptor-1 halts: this disk is no acceptor any more", True),
        ("MemoryError", False),
        (None, False),
    ],
)
async def test_a_removed_node_has_to_end_and_to_say_why(
    run: Run, words: str | None, holds: bool
) -> None:
    target = Changing()
    target.words = words
    run.target = target  # type: ignore[assignment]
    await member_changes._ends_by_itself(run, "acceptor-6")
    assert _finding(run).holds is holds


async def test_a_run_in_which_the_node_was_not_seen_proves_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answers(monkeypatch, [known("member")])
    with pytest.raises(RunVoid, match="waits to be added"):
        await member_changes.seen(
            run, "it waits to be added", "acceptor-6", lambda about: about["standing"] == "newcomer"
        )

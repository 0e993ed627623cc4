"""Pages of a state on their way to a backup: late, damaged, too old, or of a former incarnation."""

from typing import Any

import pytest

from actors.calls import CopiedPage, CopySnapshot, HoldChunks, NotDone
from actors.effects import Send
from actors.gateway.gateway import Gateway
from actors.gateway.state_copies import Copies
from actors.messages import (
    HOLD_MS_MAX,
    ChunkHold,
    NodeHeartbeat,
    SnapshotPage,
    SnapshotPull,
    SnapshotRow,
)
from actors.options import Identity, Options
from actors.roles import build_actor
from actors.state.snapshots import digest_of
from actors.values import StoreMember, View

ROWS = (SnapshotRow(key="entry/a", value="{}"),)


def taken(gateway: Gateway) -> tuple[list[Any], list[Any]]:
    """The messages sent, and the answers, since the last call."""
    effects = gateway.out.take()
    return list(effects.sends), [answer.value for answer in effects.answers]


def _page(slot: int, page: int = 0, digest: str | None = None) -> SnapshotPage:
    return SnapshotPage(
        slot=slot, page=page, rows_left=1, rows=ROWS, digest=digest or digest_of(ROWS)
    )


@pytest.fixture
def gateway() -> Gateway:
    """A gateway whose view has dropped `store-2`, and that knows `learner-2`, incarnation 3."""
    identity = Identity(
        name="gateway-1",
        disk="d",
        incarnation=1,
        journal_commits=0,
        fresh_id="ab" * 16,
    )
    gateway = build_actor(identity, Options())
    assert isinstance(gateway, Gateway)
    gateway.turn.now = 1_000
    gateway.turn.sender_disk, gateway.turn.sender_incarnation = "d1", 3
    stores = ("store-1", "store-3")
    gateway.cluster_state.view = View(
        epoch=4,
        coordinator="learner-2",
        coordinator_disk="d1",
        coordinator_incarnation=3,
        stores=tuple(StoreMember(name=name, disk="d", added_slot=0) for name in stores),
    )
    gateway.out.take()
    return gateway


@pytest.fixture
def copies(gateway: Gateway) -> Copies:
    return gateway.copies


def test_the_coordinator_is_asked_first_and_its_pages_in_order(
    gateway: Gateway, copies: Copies
) -> None:
    copies.copy(CopySnapshot(token=1, at_least=9))
    assert taken(gateway) == ([Send("learner-2", SnapshotPull(slot=0, page=0))], [])
    copies.on_page("learner-1", _page(9))
    copies.on_page("learner-2", _page(9, page=2))
    assert taken(gateway) == ([], [])

    copies.on_page("learner-2", _page(9))

    assert taken(gateway) == ([], [CopiedPage("learner-2/d1/3", _page(9))])
    copies.copy(CopySnapshot(token=2, at_least=9, source="learner-2/d1/3", slot=9, page=1))
    copies.on_page("learner-2", _page(9, page=1))
    assert taken(gateway) == (
        [Send("learner-2", SnapshotPull(slot=9, page=1))],
        [CopiedPage("learner-2/d1/3", _page(9, page=1))],
    )
    assert not copies.busy


def test_a_snapshot_that_is_gone_is_answered_by_the_first_page_of_another(
    gateway: Gateway, copies: Copies
) -> None:
    copies.copy(CopySnapshot(token=1, at_least=9, source="learner-2/d1/3", slot=9, page=4))
    copies.on_page("learner-2", _page(12))
    assert taken(gateway)[1] == [CopiedPage("learner-2/d1/3", _page(12))]


@pytest.mark.parametrize("bad", [_page(8), _page(9, digest="00")], ids=["too old", "damaged"])
def test_another_replica_is_asked_if_an_answer_is_of_no_use(
    gateway: Gateway, copies: Copies, bad: SnapshotPage
) -> None:
    copies.copy(CopySnapshot(token=1, at_least=9))
    copies.on_page("learner-2", bad)
    taken(gateway)
    asked = []
    for _ in range(3):
        gateway.turn.now += 2_500
        copies.tick()
        asked += [send.to for send in taken(gateway)[0]]
    assert asked == ["learner-1", "store-1", "store-3"]
    gateway.turn.now += 10_000
    copies.tick()
    (answer,) = taken(gateway)[1]
    assert isinstance(answer, NotDone)
    assert "learner-2" in answer.reason


def test_a_copy_from_a_silent_replica_starts_over_at_another(
    gateway: Gateway, copies: Copies
) -> None:
    copies.copy(CopySnapshot(token=1, at_least=9, source="learner-2/d1/3", slot=9, page=4))
    taken(gateway)
    gateway.turn.now += 2_000
    copies.tick()
    assert taken(gateway)[0] == [Send("learner-1", SnapshotPull(slot=0, page=0))]


def test_a_coordinator_that_is_silent_is_asked_last(gateway: Gateway, copies: Copies) -> None:
    for name in ("learner-1", "store-1", "store-3"):
        gateway.cluster_state.nodes[name] = (
            gateway.now,
            1,
            NodeHeartbeat(role=name[:-2], journal_commits=1),
            "a disk",
        )
    copies.copy(CopySnapshot(token=1, at_least=9))
    asked = []
    for name in ("learner-1", "store-1", "store-3"):
        asked += [send.to for send in taken(gateway)[0]]
        copies.on_page(name, _page(8))
        copies.tick()
    asked += [send.to for send in taken(gateway)[0]]

    assert asked == ["learner-1", "store-1", "store-3", "learner-2"]


def test_replicas_that_are_all_too_old_are_asked_in_rounds_with_pauses_between(
    gateway: Gateway, copies: Copies
) -> None:
    copies.copy(CopySnapshot(token=1, at_least=9))
    pulls: list[str] = []
    while copies.busy:
        for send in taken(gateway)[0]:
            pulls.append(send.to)
            copies.on_page(send.to, _page(8))
        gateway.turn.now += 10
        copies.tick()

    (answer,) = taken(gateway)[1]
    assert isinstance(answer, NotDone)
    assert answer.fact == "a read changes nothing"
    for name in ("learner-1", "learner-2", "store-1", "store-3"):
        assert f"{name}: only at slot 8, not at 9" in answer.reason
        assert 4 <= pulls.count(name) <= 8


def test_every_store_is_asked_to_hold(gateway: Gateway, copies: Copies) -> None:
    copies.hold(HoldChunks(token=1, for_ms=HOLD_MS_MAX))
    sends, answers = taken(gateway)
    hold = ChunkHold(for_ms=HOLD_MS_MAX)
    assert sends == [Send(name, hold) for name in ("store-1", "store-2", "store-3")]
    assert len(answers) == 1

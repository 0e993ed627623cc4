"""Pages of a state on their way to a backup: late, damaged, too old, or of a start that is over."""

from collections import Counter
from typing import Any

import pytest

from actors.calls import Copied, CopySnapshot, HoldChunks, Unavailable
from actors.copies import Copies
from actors.effects import Outbox, Send
from actors.messages import HOLD_MS_MAX, ChunkHold, SnapshotPage, SnapshotPull, SnapshotRow
from actors.options import Options
from actors.snapshots import digest_of
from actors.values import View

ROWS = (SnapshotRow(key="entry/a", value="{}"),)


class FakeClient:
    """As much of a client as copies need."""

    def __init__(self) -> None:
        self.now = 1_000
        self.options = Options()
        self.counters: Counter[str] = Counter()
        self.out = Outbox()
        self.sender_disk = "d1"
        self.sender_incarnation = 3
        self.stores = ("store-1", "store-3")
        self.view = View(
            epoch=4,
            coordinator="learner-2",
            coordinator_disk="d1",
            coordinator_incarnation=3,
            stores=(),
        )

    def _send(self, to: str, message: Any) -> None:
        self.out.sends.append(Send(to, message))

    def taken(self) -> tuple[list[Any], list[Any]]:
        """What was sent, and the answers, since the last look."""
        effects = self.out.take()
        return list(effects.sends), [answer.value for answer in effects.answers]


def _page(slot: int, page: int = 0, digest: str | None = None) -> SnapshotPage:
    return SnapshotPage(
        slot=slot, page=page, rows_left=1, rows=ROWS, digest=digest or digest_of(ROWS)
    )


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def copies(client: FakeClient) -> Copies:
    return Copies(client)  # type: ignore[arg-type]


def test_the_coordinator_is_asked_first_and_its_pages_in_order(
    client: FakeClient, copies: Copies
) -> None:
    copies.copy(CopySnapshot(token=1, at_least=9))
    assert client.taken() == ([Send("learner-2", SnapshotPull(slot=0, page=0))], [])
    copies.on_page("learner-1", _page(9))
    copies.on_page("learner-2", _page(9, page=2))
    assert client.taken() == ([], [])

    copies.on_page("learner-2", _page(9))

    assert client.taken() == ([], [Copied("learner-2/d1/3", _page(9))])
    copies.copy(CopySnapshot(token=2, at_least=9, source="learner-2/d1/3", slot=9, page=1))
    copies.on_page("learner-2", _page(9, page=1))
    assert client.taken() == (
        [Send("learner-2", SnapshotPull(slot=9, page=1))],
        [Copied("learner-2/d1/3", _page(9, page=1))],
    )
    assert not copies.busy


def test_a_snapshot_that_is_gone_is_answered_by_the_first_page_of_another(
    client: FakeClient, copies: Copies
) -> None:
    copies.copy(CopySnapshot(token=1, at_least=9, source="learner-2/d1/3", slot=9, page=4))
    copies.on_page("learner-2", _page(12))
    assert client.taken()[1] == [Copied("learner-2/d1/3", _page(12))]


@pytest.mark.parametrize("bad", [_page(8), _page(9, digest="00")], ids=["too old", "damaged"])
def test_somebody_else_is_asked_if_the_answer_is_of_no_use(
    client: FakeClient, copies: Copies, bad: SnapshotPage
) -> None:
    copies.copy(CopySnapshot(token=1, at_least=9))
    copies.on_page("learner-2", bad)
    client.taken()
    asked = []
    for _ in range(3):
        client.now += 2_500
        copies.tick()
        asked += [send.to for send in client.taken()[0]]
    assert asked == ["learner-1", "store-1", "store-3"]
    client.now += 10_000
    copies.tick()
    (answer,) = client.taken()[1]
    assert isinstance(answer, Unavailable)
    assert "learner-2" in answer.reason


def test_pages_of_a_replica_that_is_silent_are_begun_anew_elsewhere(
    client: FakeClient, copies: Copies
) -> None:
    copies.copy(CopySnapshot(token=1, at_least=9, source="learner-2/d1/3", slot=9, page=4))
    client.taken()
    client.now += 2_000
    copies.tick()
    assert client.taken()[0] == [Send("learner-1", SnapshotPull(slot=0, page=0))]


def test_every_store_is_asked_to_hold(client: FakeClient, copies: Copies) -> None:
    copies.hold(HoldChunks(token=1, for_ms=HOLD_MS_MAX))
    sends, answers = client.taken()
    hold = ChunkHold(for_ms=HOLD_MS_MAX)
    assert sends == [Send(name, hold) for name in ("store-1", "store-2", "store-3")]
    assert len(answers) == 1

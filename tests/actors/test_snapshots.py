"""A copy of another replica's state is one state, whole, unharmed and newer than the own one."""

from collections import Counter
from typing import Any

import pytest

from actors.effects import Outbox, Send
from actors.messages import SnapshotPage, SnapshotPull, SnapshotRow
from actors.options import Options
from actors.snapshots import SnapshotInstaller, digest_of


class FakeNode:
    """As much of a node as an installer needs."""

    def __init__(self) -> None:
        self.now = 10_000
        self.options = Options()
        self.counters: Counter[str] = Counter()
        self.out = Outbox()
        self.sender_disk = "d"
        self.sender_incarnation = 1

    def _send(self, to: str, message: Any) -> None:
        self.out.sends.append(Send(to, message))

    def asked(self) -> list[tuple[str, int, int]]:
        """Who was asked for which snapshot's which page since the last look."""
        pulls = [(s.to, s.message) for s in self.out.take().sends if isinstance(s, Send)]
        return [(to, m.slot, m.page) for to, m in pulls if isinstance(m, SnapshotPull)]


class Copy:
    """An installer, and what it has installed."""

    def __init__(self) -> None:
        self.node = FakeNode()
        self.installed: list[tuple[int, list[str]]] = []
        self.installer = SnapshotInstaller(
            self.node,  # type: ignore[arg-type]
            ["learner-1", "learner-2"],
            lambda slot, rows: self.installed.append((slot, [row.key for row in rows])),
        )
        self.installer.begin()

    def hears(self, slot: int, page: int, key: str, left: int, **more: Any) -> None:
        rows = (SnapshotRow(key=key, value="{}"),)
        told = {"digest": digest_of(rows), "applied": 5, "sender": "learner-1", **more}
        message = SnapshotPage(
            slot=slot, page=page, rows_left=left, rows=rows, digest=told["digest"]
        )
        self.installer.on_page(told["sender"], message, told["applied"])


@pytest.fixture
def copy() -> Copy:
    return Copy()


def test_pages_of_one_snapshot_make_a_state(copy: Copy) -> None:
    copy.hears(9, 0, "a", left=1)
    copy.hears(9, 0, "a", left=1)
    copy.hears(9, 1, "b", left=0)
    copy.hears(9, 1, "b", left=0)

    assert copy.node.asked() == [("learner-1", 0, 0), ("learner-1", 9, 1)]
    assert copy.installed == [(9, ["a", "b"])]


def test_rows_of_two_snapshots_are_never_mixed(copy: Copy) -> None:
    """Given the source let go of the first one, then the copy begins anew with the second."""
    copy.hears(9, 0, "gone by then", left=1)
    copy.hears(12, 0, "a", left=1)
    copy.hears(9, 1, "too late", left=0)
    copy.hears(12, 1, "b", left=0)

    assert copy.installed == [(12, ["a", "b"])]


def test_rows_of_two_starts_of_the_source_are_never_mixed(copy: Copy) -> None:
    """Given the source dies and lists the same state in another order, then it is copied anew."""
    copy.hears(9, 0, "a", left=1)
    copy.node.sender_incarnation = 2
    copy.hears(9, 1, "a", left=0)
    assert copy.installed == []

    copy.hears(9, 0, "b", left=1)
    copy.hears(9, 1, "a", left=0)
    assert copy.installed == [(9, ["b", "a"])]


@pytest.mark.parametrize("of", ["disk", "incarnation"])
def test_the_disk_and_the_start_of_the_source_both_count(copy: Copy, of: str) -> None:
    """Given the source starts again, or on a new disk whose starts have the same numbers, then the
    copy begins anew, and what the former one still sends is not taken.
    """
    copy.hears(9, 0, "a", left=2)
    copy.hears(9, 1, "b", left=1)
    former = (copy.node.sender_disk, copy.node.sender_incarnation)
    if of == "disk":
        copy.node.sender_disk = "another"
    else:
        copy.node.sender_incarnation += 1
    copy.hears(9, 2, "c", left=0)
    assert (copy.installed, copy.installer.busy) == ([], True)

    copy.hears(9, 0, "x", left=1)
    latter = (copy.node.sender_disk, copy.node.sender_incarnation)
    copy.node.sender_disk, copy.node.sender_incarnation = former
    copy.hears(9, 1, "b", left=1)
    assert copy.installed == []
    copy.node.sender_disk, copy.node.sender_incarnation = latter
    copy.hears(9, 1, "y", left=0)
    assert copy.installed == [(9, ["x", "y"])]


def test_a_page_of_an_older_snapshot_begins_nothing(copy: Copy) -> None:
    """Given the source serves a newer one, then a late first page of the former one is ignored."""
    copy.hears(12, 0, "a", left=1)
    copy.hears(9, 0, "late", left=0)
    copy.hears(12, 1, "b", left=0)

    assert copy.installed == [(12, ["a", "b"])]


def test_a_state_that_is_no_newer_than_the_own_one_is_not_installed(copy: Copy) -> None:
    copy.hears(5, 0, "a", left=0, applied=5)

    assert copy.installed == []
    assert not copy.installer.busy


def test_a_damaged_page_is_refused_and_somebody_else_is_asked(copy: Copy) -> None:
    copy.hears(9, 0, "a", left=0, digest="0" * 64)
    copy.installer.tick()

    assert copy.installed == []
    assert copy.node.asked() == [("learner-1", 0, 0), ("learner-2", 0, 0)]
    copy.hears(9, 0, "a", left=0, sender="learner-1")
    assert copy.installed == [], "it was not asked any more"
    copy.hears(9, 0, "a", left=0, sender="learner-2")
    assert copy.installed == [(9, ["a"])]


def test_sources_that_are_of_no_help_are_asked_in_rounds_with_pauses_between(copy: Copy) -> None:
    """Given a replica that needs another state, when no source has a newer one, then it does not
    ask them over and over.
    """
    began = copy.node.now
    asked = []
    for _ in range(100):
        for source, _, _ in copy.node.asked():
            asked.append((copy.node.now - began, source))
            copy.hears(5, 0, "a", left=0, applied=5, sender=source)
        copy.node.now += 10
        copy.installer.begin()

    moments = [at for at, source in asked if source == "learner-1"]
    assert [source for _, source in asked] == ["learner-1", "learner-2"] * 3
    assert moments == [0, 260, 770]
    assert not copy.installer.busy


def test_a_source_that_goes_on_sending_is_not_given_up(copy: Copy) -> None:
    """Given a state whose pages take a while each, then the copy waits from page to page."""
    for page in range(4):
        copy.node.now += 1_500
        copy.installer.tick()
        copy.hears(9, page, f"{page}", left=3 - page)

    assert copy.installed == [(9, ["0", "1", "2", "3"])]
    assert [source for source, _, _ in copy.node.asked()] == ["learner-1"] * 4

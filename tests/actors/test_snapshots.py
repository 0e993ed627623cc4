"""A copy of another replica's state is one whole state, undamaged and newer than the own one."""

from typing import Any

import pytest

from actors.effects import Send
from actors.messages import SnapshotPage, SnapshotPull, SnapshotRow
from actors.options import Identity, Options
from actors.state.namespace import Namespace
from actors.state.snapshots import SnapshotInstaller, SnapshotServer, digest_of
from actors.turn import Turn
from actors.values import Batch, Command, Constants, OpenSession
from tests.worlds import put

IDENTITY = Identity(name="store-1", disk="d1", incarnation=1, journal_commits=0, fresh_id="ab" * 16)


class Copy:
    """An installer, and what it has installed."""

    def __init__(self) -> None:
        self.turn = Turn(IDENTITY, Options())
        self.turn.begin(10_000)
        self.turn.sender_disk, self.turn.sender_incarnation = "d", 1
        self.installed: list[tuple[int, list[str]]] = []
        self.installer = SnapshotInstaller(self.turn, lambda: ["learner-1", "learner-2"])
        self.installer.begin()

    def asked(self) -> list[tuple[str, int, int]]:
        """The snapshots and pages requested since the last call, and from whom."""
        pulls = [(s.to, s.message) for s in self.turn.take().sends if isinstance(s, Send)]
        return [(to, m.slot, m.page) for to, m in pulls if isinstance(m, SnapshotPull)]

    def hears(self, slot: int, page: int, key: str, left: int, **more: Any) -> None:
        rows = (SnapshotRow(key=key, value="{}"),)
        defaults = {"digest": digest_of(rows), "applied": 5, "sender": "learner-1", **more}
        message = SnapshotPage(
            slot=slot, page=page, rows_left=left, rows=rows, digest=defaults["digest"]
        )
        copied = self.installer.on_page(defaults["sender"], message, defaults["applied"])
        if copied is not None:
            self.installed.append((copied.slot, [row.key for row in copied.rows]))


@pytest.fixture
def copy() -> Copy:
    return Copy()


def test_pages_of_one_snapshot_make_a_state(copy: Copy) -> None:
    copy.hears(9, 0, "a", left=1)
    copy.hears(9, 0, "a", left=1)
    copy.hears(9, 1, "b", left=0)
    copy.hears(9, 1, "b", left=0)

    assert copy.asked() == [("learner-1", 0, 0), ("learner-1", 9, 1)]
    assert copy.installed == [(9, ["a", "b"])]


def test_rows_of_two_snapshots_are_never_mixed(copy: Copy) -> None:
    """Given the source dropped the first snapshot, then the copy starts over with the second."""
    copy.hears(9, 0, "gone by then", left=1)
    copy.hears(12, 0, "a", left=1)
    copy.hears(9, 1, "too late", left=0)
    copy.hears(12, 1, "b", left=0)

    assert copy.installed == [(12, ["a", "b"])]


def test_rows_of_two_incarnations_of_the_source_are_never_mixed(copy: Copy) -> None:
    """Given the source restarts and lists the state in another order, then the copy starts over."""
    copy.hears(9, 0, "a", left=1)
    copy.turn.sender_incarnation = 2
    copy.hears(9, 1, "a", left=0)
    assert copy.installed == []

    copy.hears(9, 0, "b", left=1)
    copy.hears(9, 1, "a", left=0)
    assert copy.installed == [(9, ["b", "a"])]


@pytest.mark.parametrize("of", ["disk", "incarnation"])
def test_the_disk_and_the_incarnation_of_the_source_both_count(copy: Copy, of: str) -> None:
    """Given the source restarts, or on a new disk whose incarnations have the same numbers, then
    the copy starts over, and late pages of the former one are ignored.
    """
    copy.hears(9, 0, "a", left=2)
    copy.hears(9, 1, "b", left=1)
    former = (copy.turn.sender_disk, copy.turn.sender_incarnation)
    if of == "disk":
        copy.turn.sender_disk = "another"
    else:
        copy.turn.sender_incarnation += 1
    copy.hears(9, 2, "c", left=0)
    assert (copy.installed, copy.installer.busy) == ([], True)

    copy.hears(9, 0, "x", left=1)
    latter = (copy.turn.sender_disk, copy.turn.sender_incarnation)
    copy.turn.sender_disk, copy.turn.sender_incarnation = former
    copy.hears(9, 1, "b", left=1)
    assert copy.installed == []
    copy.turn.sender_disk, copy.turn.sender_incarnation = latter
    copy.hears(9, 1, "y", left=0)
    assert copy.installed == [(9, ["x", "y"])]


def test_a_page_of_an_older_snapshot_is_ignored(copy: Copy) -> None:
    """Given the source serves a newer snapshot, then a late first page of the former one is
    ignored.
    """
    copy.hears(12, 0, "a", left=1)
    copy.hears(9, 0, "late", left=0)
    copy.hears(12, 1, "b", left=0)

    assert copy.installed == [(12, ["a", "b"])]


def test_a_state_that_is_no_newer_than_the_own_one_is_not_installed(copy: Copy) -> None:
    copy.hears(5, 0, "a", left=0, applied=5)

    assert copy.installed == []
    assert not copy.installer.busy


def test_a_damaged_page_is_refused_and_another_source_is_asked(copy: Copy) -> None:
    copy.hears(9, 0, "a", left=0, digest="0" * 64)
    copy.installer.tick()

    assert copy.installed == []
    assert copy.asked() == [("learner-1", 0, 0), ("learner-2", 0, 0)]
    copy.hears(9, 0, "a", left=0, sender="learner-1")
    assert copy.installed == [], "it was not asked any more"
    copy.hears(9, 0, "a", left=0, sender="learner-2")
    assert copy.installed == [(9, ["a"])]


def test_sources_that_fail_are_asked_in_rounds_with_pauses_between(copy: Copy) -> None:
    """Given a replica that needs another state, when no source has a newer one, then it does not
    ask them over and over.
    """
    began = copy.turn.now
    asked = []
    for _ in range(100):
        for source, _, _ in copy.asked():
            asked.append((copy.turn.now - began, source))
            copy.hears(5, 0, "a", left=0, applied=5, sender=source)
        copy.turn.now += 10
        copy.installer.begin()

    moments = [at for at, source in asked if source == "learner-1"]
    assert [source for _, source in asked] == ["learner-1", "learner-2"] * 3
    assert moments == [0, 260, 770]
    assert not copy.installer.busy


def test_a_source_that_goes_on_sending_is_kept(copy: Copy) -> None:
    """Given a state whose pages take a while each, then the copy waits from page to page."""
    for page in range(4):
        copy.turn.now += 1_500
        copy.installer.tick()
        copy.hears(9, page, f"{page}", left=3 - page)

    assert copy.installed == [(9, ["0", "1", "2", "3"])]
    assert [source for source, _, _ in copy.asked()] == ["learner-1"] * 4


def test_a_copy_of_many_pages_asks_for_each_of_them_in_turn(copy: Copy) -> None:
    for page in range(5):
        copy.hears(9, page, f"{page}", left=4 - page)

    expected = [("learner-1", 0, 0), *(("learner-1", 9, page) for page in range(1, 5))]
    assert copy.asked() == expected
    assert copy.installed == [(9, ["0", "1", "2", "3", "4"])]


# -- the server -----------------------------------------------------------------------------------


class Serving:
    """A server with small pages, and the state that it serves."""

    def __init__(self) -> None:
        self.turn = Turn(IDENTITY, Options())
        self.turn.begin(10_000)
        self.turn.options = Options(page_bytes=2_000)
        self.server = SnapshotServer(self.turn)
        self.state = Namespace(Constants())

    def apply(self, files: int) -> None:
        """Another slot, with that many files."""
        slot = self.state.applied + 1
        commands = tuple(
            Command(
                session="s",
                sequence=number if slot == 1 else 1_000 * slot + number,
                acknowledged=-1,
                reply_to="gateway-1",
                operation=put(f"{slot}/{number}", b"x") if number else OpenSession(),
            )
            for number in range(files + 1)
        )
        self.state.apply(slot, Batch(commands=commands), ())

    def pulled(self, slot: int, page: int) -> SnapshotPage | None:
        """The server's answer to a request."""
        self.server.on_pull("store-1", SnapshotPull(slot=slot, page=page), self.state)
        sends = [send for send in self.turn.out.take().sends if isinstance(send, Send)]
        assert {send.to for send in sends} <= {"store-1"}
        pages = [send.message for send in sends]
        assert len(pages) <= 1
        return pages[0] if pages and isinstance(pages[0], SnapshotPage) else None

    def page(self, slot: int, page: int) -> SnapshotPage:
        """The same, where there must be one."""
        found = self.pulled(slot, page)
        assert found is not None
        assert found.digest == digest_of(found.rows)
        return found


@pytest.fixture
def serving() -> Serving:
    serving = Serving()
    serving.apply(20)
    return serving


def test_the_pages_of_a_snapshot_are_the_whole_state_and_stay_as_they_are(
    serving: Serving,
) -> None:
    """Given the state goes on meanwhile, then each page is the same whenever it is asked for."""
    whole = [(key, row.to_json().decode()) for key, row in serving.state.rows()]
    pages = [serving.page(0, 0)]
    while pages[-1].rows_left:
        serving.apply(1)
        serving.turn.now += 5_000
        pages.append(serving.page(pages[-1].slot, len(pages)))
        assert serving.page(1, len(pages) - 1) == pages[-1]
    rows = [(row.key, row.value) for page in pages for row in page.rows]
    assert rows == whole
    assert [(page.slot, page.page) for page in pages] == [(1, n) for n in range(len(pages))]
    assert [page.rows_left for page in pages] == [
        len(whole) - sum(len(page.rows) for page in pages[: n + 1]) for n in range(len(pages))
    ]
    sizes = [sum(len(row.key) + len(row.value) for row in page.rows) for page in pages]
    assert len(pages) > 4
    assert all(500 <= size < 1_500 for size in sizes[:-1])
    assert [serving.page(1, n) for n in range(len(pages))] == pages


def test_a_request_for_a_gone_snapshot_is_answered_with_a_first_page(serving: Serving) -> None:
    """Given a request for another snapshot or for a page not made yet, then the copy starts over:
    with the same snapshot while it is fresh, then with a new one; an empty state is not served.
    """
    first = serving.page(0, 0)
    serving.apply(1)
    for slot, page in ((7, 1), (1, 2), (1, 9)):
        assert serving.page(slot, page) == first
    assert serving.page(1, 1).page == 1
    serving.turn.now += 1_999
    assert serving.page(7, 0) == first
    serving.turn.now += 1
    assert serving.page(0, 0).slot == 2
    assert (serving.page(1, 1).slot, serving.page(1, 1).page) == (2, 0)
    assert serving.turn.counters["snapshots_served"] == 2

    assert Serving().pulled(0, 0) is None


def test_a_snapshot_without_requests_is_dropped(serving: Serving) -> None:
    first = serving.page(0, 0)
    serving.apply(1)
    for _ in range(3):
        serving.turn.now += 59_999
        serving.server.tick()
        assert serving.page(1, 1).slot == first.slot
    serving.turn.now += 60_000
    serving.server.tick()
    assert (serving.page(1, 1).slot, serving.page(1, 1).page) == (2, 0)

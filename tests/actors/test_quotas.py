"""Quotas: what may lie below a path, whichever command brings it there."""

import hashlib
import random
from typing import Any

import pytest

from actors.effects import Record
from actors.messages import ReadRequest
from actors.state.namespace import Namespace
from actors.state.tree import Used
from actors.store.reads import answer_read
from actors.values import (
    Batch,
    Command,
    Constants,
    CopyEntry,
    CreateToken,
    DeleteFile,
    FileEntry,
    Grant,
    Inline,
    MakeDirectory,
    MoveEntry,
    OpenSession,
    Outcome,
    Principal,
    PutFile,
    RemoveDirectory,
    RemoveQuota,
    SetQuota,
    Transaction,
)


def a_put(path: str, size: int = 1) -> PutFile:
    data = b"x" * size
    return PutFile(path=path, content=Inline(sha256=hashlib.sha256(data).hexdigest(), data=data))


class Replica:
    def __init__(self, **constants: Any) -> None:
        self.state = Namespace(Constants(**constants))
        self._sequence = 0
        self.do(OpenSession())

    def do(self, operation: Any, principal: Principal | None = None) -> Outcome:
        command = Command(
            session="gateway-1.s",
            sequence=self._sequence,
            acknowledged=self._sequence - 1,
            reply_to="gateway-1",
            operation=operation,
            principal=principal,
        )
        self._sequence += 1
        batch = Batch(elapsed_ms=1, commands=(command,))
        (outcome,) = self.state.apply(self.state.applied + 1, batch, ())
        return outcome

    def used(self, path: str) -> Used:
        return self.state.tree.used(path)


@pytest.fixture
def bounded() -> Replica:
    """At most three entries and ten bytes below `q`; a file of four bytes beside it."""
    replica = Replica()
    assert replica.do(SetQuota(path="q", entries_max=3, bytes_max=10)).status == "done"
    assert replica.do(a_put("beside", 4)).status == "done"
    return replica


def test_a_write_beyond_a_quota_is_refused_and_names_it(bounded: Replica) -> None:
    assert bounded.do(a_put("q/1", 7)).status == "done"
    refused = bounded.do(a_put("q/2", 4))
    assert (refused.status, refused.path) == ("over_quota", "q")
    assert refused.detail == (
        "the quota of /q allows 10 bytes, of which 7 are used, and this needs 4 more"
    )
    assert bounded.used("q") == (1, 7)
    assert bounded.do(a_put("q/2", 3)).status == "done"
    assert bounded.do(MakeDirectory(path="q/d")).status == "done"
    refused = bounded.do(MakeDirectory(path="q/e"))
    assert refused.detail == (
        "the quota of /q allows 3 entries, of which 3 are used, and this needs 1 more"
    )
    assert bounded.do(a_put("qq/1", 100)).status == "done"
    assert "q/e" not in bounded.state.entries


@pytest.mark.parametrize(
    "operation",
    [
        a_put("q/b", 7),
        MoveEntry(source="beside", target="q/b"),
        CopyEntry(source="beside", target="q/b"),
        CopyEntry(source="q/a", target="q/b"),
        Transaction(steps=(a_put("q/x", 1), a_put("q/y", 3))),
        Transaction(steps=(MoveEntry(source="beside", target="q/b"), a_put("free", 1))),
        a_put("q/a", 11),
    ],
    ids=lambda operation: str(operation)[:60],
)
def test_every_way_into_it_is_checked(bounded: Replica, operation: Any) -> None:
    assert bounded.do(a_put("q/a", 7)).status == "done"
    before = dict(bounded.state.entries)
    assert bounded.do(operation).status == "over_quota"
    assert bounded.state.entries == before
    assert bounded.used("q") == (1, 7)


@pytest.mark.parametrize(
    "operation",
    [
        Transaction(steps=(a_put("q/b", 5), DeleteFile(path="q/a"))),
        Transaction(steps=(a_put("q/b", 4), MoveEntry(source="q/b", target="free"))),
        MoveEntry(source="q/a", target="q/c"),
        MoveEntry(source="q/a", target="free"),
        a_put("q/a", 10),
        a_put("q/a", 1),
    ],
    ids=lambda operation: str(operation)[:60],
)
def test_only_what_is_used_in_the_end_counts(bounded: Replica, operation: Any) -> None:
    assert bounded.do(a_put("q/a", 7)).status == "done"
    assert bounded.do(operation).status == "done"


def test_a_quota_below_what_is_used_lets_through_what_uses_no_more(bounded: Replica) -> None:
    for name in "abc":
        assert bounded.do(a_put(f"q/{name}", 3)).status == "done"
    assert bounded.do(SetQuota(path="q", entries_max=1, bytes_max=2)).status == "done"
    assert bounded.do(a_put("q/a", 3)).status == "done"
    assert bounded.do(a_put("q/a", 2)).status == "done"
    assert bounded.do(MoveEntry(source="q/b", target="q/d")).status == "done"
    assert bounded.do(a_put("q/a", 3)).status == "over_quota"
    assert bounded.do(DeleteFile(path="q/d")).status == "done"
    assert bounded.do(a_put("q/d", 0)).status == "over_quota"
    assert bounded.do(RemoveQuota(path="q")).status == "done"
    assert bounded.do(a_put("q/d", 50)).status == "done"


def test_quotas_within_quotas_and_on_the_root() -> None:
    replica = Replica()
    for path, entries in (("", 4), ("a", 3), ("a/b", 1)):
        assert replica.do(SetQuota(path=path, entries_max=entries)).status == "done"
    assert replica.do(a_put("a/b/1")).status == "done"
    assert replica.do(a_put("a/b/2")).path == "a/b"
    assert replica.do(a_put("a/2")).status == "done"
    assert replica.do(a_put("a/3")).path == ""
    assert replica.do(DeleteFile(path="a/2")).status == "done"
    assert replica.do(a_put("c")).status == "done"
    assert replica.do(a_put("d")).path == ""


def test_a_quota_bounds_something_and_there_are_not_too_many() -> None:
    replica = Replica(tree_entries=40_000)
    assert replica.do(SetQuota(path="a")).status == "conflict"
    assert replica.do(RemoveQuota(path="a")).status == "not_found"
    assert replica.do(SetQuota(path="a", bytes_max=1)).status == "done"
    assert replica.do(SetQuota(path="b", bytes_max=1)).status == "done"
    refused = replica.do(SetQuota(path="c", bytes_max=1))
    assert (refused.status, "2 quotas" in refused.detail) == ("over_quota", True)
    assert replica.do(SetQuota(path="b", bytes_max=2)).status == "done"


def test_who_administers_a_path_can_bound_what_is_below_and_not_lift_its_own_bound() -> None:
    replica = Replica()
    made = CreateToken(token="t", sha256="", label="", grants=(Grant(role="admin", path="a"),))
    assert replica.do(made).status == "done"
    assert replica.do(SetQuota(path="a", entries_max=9)).status == "done"
    who = Principal(token="t", policy_slot=9)
    for path, status in (("a/b", "done"), ("a", "denied"), ("ab/c", "denied"), ("", "denied")):
        assert replica.do(SetQuota(path=path, entries_max=5), who).status == status, path
    assert replica.do(RemoveQuota(path="a"), who).status == "denied"
    assert replica.do(RemoveQuota(path="a/b"), who).status == "done"


def test_a_restored_or_copied_state_has_the_quotas_and_counts_the_same(bounded: Replica) -> None:
    bounded.do(a_put("q/d/1", 5))
    rows = [Record(key, row.to_json()) for key, row in bounded.state.rows()]
    assert "quota/q" in {row.key for row in rows}
    copy = Namespace(bounded.state.constants)
    copy.replace(rows)
    assert copy.quotas.rows == bounded.state.quotas.rows
    assert copy.tree.used("q") == (2, 5)
    assert copy.row("quota/q") == bounded.state.row("quota/q")
    assert dict(bounded.state.take_rows())["quota/q"] is not None
    bounded.do(RemoveQuota(path="q"))
    assert dict(bounded.state.take_rows())["quota/q"] is None


def test_what_is_used_is_what_is_there_after_anything() -> None:
    rng = random.Random(7)
    replica = Replica(slot_steps=30)
    replica.do(SetQuota(path="a", entries_max=20, bytes_max=60))
    folders = ("a", "a/b", "a/b/c", "ab", "d")
    statuses = set()
    for _ in range(1_500):
        path, other = (f"{rng.choice(folders)}/{rng.randrange(5)}" for _ in range(2))
        operation = rng.choice(
            [
                a_put(path, rng.randrange(12)),
                MoveEntry(source=path, target=other, overwrite=True),
                CopyEntry(source=rng.choice(folders), target=f"{other}x"),
                MoveEntry(source=rng.choice(folders), target=f"d/{rng.randrange(9)}"),
                RemoveDirectory(path=rng.choice(folders), recursive=True),
                Transaction(steps=(a_put(path), a_put(other), DeleteFile(path=f"{path}no"))),
                MakeDirectory(path=f"{path}/made"),
                DeleteFile(path=path),
            ]
        )
        statuses.add(replica.do(operation).status)
        for folder in ("", *folders):
            below = [
                entry
                for name, entry in replica.state.entries.items()
                if not folder or name.startswith(f"{folder}/")
            ]
            size = sum(e.content.size for e in below if isinstance(e, FileEntry))
            assert replica.used(folder) == (len(below), size), operation
    assert statuses >= {"done", "over_quota", "too_large", "not_found", "conflict"}
    assert len(replica.state.tree._used) < 200


def test_a_store_shows_quotas_to_who_administers_the_path(bounded: Replica) -> None:
    bounded.do(a_put("q/1", 7))
    bounded.do(SetQuota(path="z", bytes_max=1))
    reply = answer_read(bounded.state, ReadRequest(number=1, what="quotas", path="q"))
    (quota,) = reply.quotas
    assert (quota.path, quota.entries_max, quota.bytes_max) == ("q", 3, 10)
    assert (quota.entries, quota.bytes) == (1, 7)
    whole = answer_read(bounded.state, ReadRequest(number=1, what="quotas"))
    assert [one.path for one in whole.quotas] == ["q", "z"]
    grants = (Grant(role="write", path=""), Grant(role="admin", path="q"))
    bounded.do(CreateToken(token="t", sha256="", label="", grants=grants))
    who = Principal(token="t", policy_slot=9)
    for path, status in (("q", "found"), ("", "denied"), ("z", "denied")):
        asked = ReadRequest(number=1, what="quotas", path=path, principal=who)
        assert answer_read(bounded.state, asked).status == status

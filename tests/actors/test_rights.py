"""Who may do what: grants, revocations that race reads, bounds, and what watchers see."""

from typing import Any

import pytest

from actors.effects import Record
from actors.messages import ReadRequest
from actors.state.namespace import Namespace
from actors.state.rights import Rights
from actors.store.changes import Change
from actors.store.policy_reads import visible_part
from actors.store.reads import answer_read, touches
from actors.values import (
    AnyOperation,
    Batch,
    Command,
    Constants,
    CreateToken,
    Grant,
    OpenSession,
    Principal,
    RevokeToken,
)
from tests.worlds import put


def command(operation: AnyOperation, sequence: int = 0, token: str = "") -> Command:
    return Command(
        session="gateway-1.a",
        sequence=sequence,
        acknowledged=-1,
        reply_to="gateway-1",
        operation=operation,
        principal=Principal(token=token, policy_slot=99) if token else None,
    )


class State(Namespace):
    """A state to which commands are applied one by one."""

    def run(self, operation: AnyOperation, token: str = "") -> str:
        batch = Batch(commands=(command(operation, self.applied, token),), elapsed_ms=10)
        (outcome,) = self.apply(self.applied + 1, batch, ())
        return outcome.status


def state(**constants: Any) -> State:
    made = State(Constants(**constants))
    made.run(OpenSession())
    return made


def token(name: str, *grants: tuple[Any, str]) -> CreateToken:
    listed = tuple(Grant(role=role, path=path) for role, path in grants)
    return CreateToken(token=name, sha256="ab" * 32, label="", grants=listed)


def test_a_grant_ends_at_the_borders_of_names() -> None:
    rights = Rights([Grant(role="read", path="a/b")])
    paths = ("a/b", "a/b/c", "a/bc", "a", "", "b", "A/b")
    assert [path for path in paths if rights.may("read", path)] == ["a/b", "a/b/c"]
    assert [path for path in paths if rights.leads_on(path)] == ["a/b", "a", ""]


def test_a_read_waits_for_a_revocation_that_is_prepared() -> None:
    """Given a revocation that may be acknowledged already, then no read of a principal passes it;
    those of the administrator wait for nothing.
    """
    revocation = command(RevokeToken(token="t"))
    who = Principal(token="t", policy_slot=1)
    for what in ("entry", "list", "result", "access", "tokens"):
        asked = ReadRequest.model_validate({"number": 1, "what": what, "path": "a"})
        assert touches(revocation, asked.model_copy(update={"principal": who}))
        assert touches(revocation, asked) == (what == "tokens")


def test_the_number_and_the_size_of_tokens_are_bounded() -> None:
    few, small = state(tree_entries=600), state(tree_bytes=128 * 1_000)
    for bounded in (few, small):
        made = [bounded.run(token(f"t{number}", ("read", "a"))) for number in range(4)]
        assert made[-1] == "over_quota"
        assert bounded.run(RevokeToken(token="t0")) == "done"
        assert bounded.run(token("again", ("read", "a"))) == "done"
    assert len(few.policy.tokens) == 3


def test_snapshots_and_the_hash_hold_the_policy() -> None:
    one, other = state(), state()
    one.run(token("t", ("read", "a")))
    other.run(token("t", ("write", "a")))
    assert one.state_hash != other.state_hash

    copy = Namespace(one.constants)
    copy.replace(Record(key, row.to_json()) for key, row in one.rows())
    assert dict(copy.rows()) == dict(one.rows())
    assert copy.policy.bytes == one.policy.bytes > 0
    one.run(RevokeToken(token="t"))
    assert one.policy.bytes == 0
    assert ("token/t", None) in one.take_rows()


@pytest.mark.parametrize("what", ["entry", "list"])
def test_what_may_not_be_read_is_refused_alike_whether_it_is_there_or_not(what: str) -> None:
    made = state()
    made.run(token("t", ("read", "a")))
    made.run(put("z/there", b"1"))
    who = Principal(token="t", policy_slot=99)
    replies = [
        answer_read(
            made,
            ReadRequest.model_validate({"number": 1, "what": what, "path": path, "principal": who}),
        )
        for path in ("z/there", "z/not")
    ]
    assert {reply.status for reply in replies} == {"denied"}
    assert all(reply.entry is None for reply in replies)


def test_a_watcher_sees_of_a_change_what_it_may_read() -> None:
    rights = Rights([Grant(role="read", path="a/b")])

    def seen(kind: str, path: str, source: str | None = None) -> tuple[str, str, str | None] | None:
        about = {"kind": kind, "slot": 1, "index": 0, "ordinal": 0, "path": path, "source": source}
        shown = visible_part(Change.model_validate(about), rights)
        return None if shown is None else (shown.kind, shown.path, shown.source)

    assert seen("put", "a/b/c") == ("put", "a/b/c", None)
    assert seen("put", "a/bc") is None
    assert seen("put", "a") is None
    assert seen("move", "a/b/c", "a/b/d") == ("move", "a/b/c", "a/b/d")
    assert seen("move", "a/b/c", "z") == ("move", "a/b/c", None)
    assert seen("move", "z", "a/b/c") == ("remove_directory", "a/b/c", None)
    assert seen("copy", "z", "a/b/c") is None
    assert seen("remove_directory", "a") == ("remove_directory", "a", None)
    assert seen("remove_directory", "z") is None

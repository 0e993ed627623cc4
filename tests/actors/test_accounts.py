"""Users, groups and logins: what each may, what ends with what, and what is seen of them."""

from typing import Any

import pytest

from actors.effects import Record
from actors.messages import ReadReply, ReadRequest
from actors.principals import (
    GROUPS_MAX,
    ChangeGroup,
    ChangeUser,
    CreateGroup,
    CreateLogin,
    CreateUser,
    RefreshLogin,
    RemoveGroup,
    RemoveUser,
    RevokeLogin,
)
from actors.state.accounts import LOGINS_MAX
from actors.state.namespace import Namespace
from actors.store.reads import answer_read, touches
from actors.values import (
    AnyOperation,
    Batch,
    Command,
    Constants,
    CreateToken,
    Grant,
    IdempotencyKey,
    OpenSession,
    Outcome,
    Principal,
    RevokeToken,
    grows,
)
from tests.worlds import put

HOUR_MS = 3_600_000


def grant(role: Any, path: str = "") -> Grant:
    return Grant(role=role, path=path)


class State(Namespace):
    """A state to which commands are applied one by one."""

    def __init__(self, **constants: Any) -> None:
        super().__init__(Constants(**constants))
        self.run(OpenSession())

    def outcome(
        self, operation: AnyOperation, by: Principal | None = None, after_ms: int = 0, key: str = ""
    ) -> Outcome:
        command = Command(
            session="gateway-1.a",
            sequence=self.applied,
            acknowledged=-1,
            reply_to="gateway-1",
            operation=operation,
            principal=by,
            idempotency=IdempotencyKey(key=key, fingerprint="f") if key else None,
        )
        batch = Batch(commands=(command,), elapsed_ms=after_ms)
        (outcome,) = self.apply(self.applied + 1, batch, ())
        return outcome

    def run(self, operation: AnyOperation, by: Principal | None = None, after_ms: int = 0) -> str:
        return self.outcome(operation, by, after_ms).status

    def user(self, name: str, *grants: Grant, groups: tuple[str, ...] = ()) -> str:
        """Make a user; the version of its password."""
        made = CreateUser(user=name, password="$argon2id$x", grants=grants, groups=groups)
        outcome = self.outcome(made)
        assert outcome.status == "done", outcome
        return outcome.etag

    def log_in(self, login: str, user: str, checked: str | None = None, **more: Any) -> Principal:
        version = self.policy.users[user].password_set if checked is None else checked
        assert self.run(login_of(login, user, version, **more)) == "done"
        return Principal(token=login, policy_slot=self.applied, user=user)

    def reads(self, by: Principal | None, what: str, path: str = "", **more: Any) -> ReadReply:
        asked = {"number": 1, "what": what, "path": path, "principal": by, **more}
        return answer_read(self, ReadRequest.model_validate(asked))


def login_of(login: str, user: str | None, checked: str, **more: Any) -> CreateLogin:
    about: dict[str, Any] = {
        "login": login,
        "sha256": "ab" * 32,
        "label": "",
        "user": user,
        "checked": checked,
        "idle_ms": HOUR_MS,
        "expires_after_ms": 10 * HOUR_MS,
    }
    return CreateLogin.model_validate({**about, **more})


def test_a_user_has_its_own_grants_and_those_of_its_groups_as_they_are_now() -> None:
    made = State()
    made.run(CreateGroup(group="devs", grants=(grant("write", "src"),)))
    made.user("alice", grant("read", "docs"), groups=("devs",))
    alice = made.log_in("l1", "alice")
    assert made.run(put("src/a", b"1"), alice) == "done"
    assert made.run(put("docs/a", b"1"), alice) == "denied"

    made.run(ChangeGroup(group="devs", revoke=(grant("write", "src"),)))
    assert made.run(put("src/b", b"1"), alice) == "denied"
    made.run(ChangeUser(user="alice", grant=(grant("write", "docs"),)))
    assert made.run(put("docs/a", b"1"), alice) == "done"
    made.run(ChangeGroup(group="devs", grant=(grant("write", "src"),)))
    assert made.run(put("src/b", b"1"), alice) == "done"
    made.run(ChangeUser(user="alice", leave=("devs",)))
    assert made.run(put("src/c", b"1"), alice) == "denied"


def test_nobody_is_in_a_group_that_was_made_again() -> None:
    made = State()
    made.run(CreateGroup(group="devs", grants=(grant("read", "a"),)))
    made.user("alice", groups=("devs",))
    made.run(CreateToken(token="t", sha256="", label="", grants=(), groups=("devs",)))
    alice, token = made.log_in("l1", "alice"), Principal(token="t", policy_slot=99)
    assert [made.reads(one, "entry", "a").status for one in (alice, token)] == ["absent"] * 2
    made.run(RemoveGroup(group="devs"))
    made.run(CreateGroup(group="devs", grants=(grant("write", ""),)))
    assert [made.run(put("a", b"1"), one) for one in (alice, token)] == ["denied"] * 2
    assert made.reads(None, "users").users[0].groups == ()


@pytest.mark.parametrize(
    "end",
    [
        ChangeUser(user="alice", password="$argon2id$y"),
        RemoveUser(user="alice"),
        RevokeLogin(login="l1"),
    ],
    ids=lambda end: end.kind,
)
def test_a_login_ends_with_its_user_and_its_password(end: AnyOperation) -> None:
    made = State()
    first = made.user("alice", grant("write"))
    alice = made.log_in("l1", "alice")
    assert made.run(put("a", b"1"), alice) == "done"
    assert made.run(end) == "done"
    assert made.run(put("a", b"1"), alice) == "unauthenticated"
    assert made.reads(alice, "entry", "a").status == "unauthenticated"
    if isinstance(end, RemoveUser):
        made.user("alice", grant("write"))
    assert made.run(put("a", b"1"), alice) == "unauthenticated"
    if not isinstance(end, RevokeLogin):
        # The gateway had checked the former password, and its command comes late.
        assert made.run(login_of("l2", "alice", first)) == "unauthenticated"


def test_a_login_of_a_token_ends_with_it() -> None:
    made = State()
    token = CreateToken(
        token="t", sha256="", label="", grants=(grant("write"),), expires_after_ms=HOUR_MS
    )

    def logged_in(login: str) -> Principal:
        made.run(token)
        checked = str(made.applied)
        made_for = login_of(login, None, checked, token="t", idle_ms=9 * HOUR_MS)
        assert made.run(made_for) == "done"
        return Principal(token=login, policy_slot=made.applied)

    revoked = logged_in("l1")
    assert made.run(put("a", b"1"), revoked) == "done"
    made.run(RevokeToken(token="t"))
    expired = logged_in("l2")
    assert made.run(put("a", b"1"), revoked) == "unauthenticated"
    assert made.run(put("a", b"1"), expired, after_ms=HOUR_MS - 1) == "done"
    assert made.run(put("a", b"1"), expired, after_ms=1) == "unauthenticated"
    assert made.run(login_of("l3", None, "1", token="t")) == "unauthenticated"


def test_a_login_ends_when_it_is_idle_and_in_any_case_at_its_end() -> None:
    made = State()
    made.user("alice", grant("write"))
    idle = made.log_in("l1", "alice", expires_after_ms=100 * HOUR_MS)
    assert made.run(put("a", b"1"), idle, after_ms=HOUR_MS - 1) == "done"
    assert made.run(RefreshLogin(), idle) == "done"
    assert made.run(put("a", b"1"), idle, after_ms=HOUR_MS - 1) == "done"
    assert made.run(put("a", b"1"), idle, after_ms=1) == "unauthenticated"
    assert made.run(RefreshLogin(), idle) == "unauthenticated"

    busy = made.log_in("l2", "alice", expires_after_ms=2 * HOUR_MS)
    for _ in range(3):
        assert made.run(RefreshLogin(), busy, after_ms=HOUR_MS // 2) == "done"
    assert made.run(RefreshLogin(), busy, after_ms=HOUR_MS // 2) == "unauthenticated"
    assert made.run(RefreshLogin()) == "conflict"


def test_a_login_acts_for_no_other_user_and_is_not_a_former_one() -> None:
    made = State()
    made.user("alice", grant("write"))
    alice = made.log_in("l1", "alice")
    for forged in (
        alice.model_copy(update={"user": "bob"}),
        alice.model_copy(update={"user": None}),
        alice.model_copy(update={"policy_slot": alice.policy_slot - 1}),
    ):
        assert made.run(put("a", b"1"), forged) == "unauthenticated"


def test_who_may_change_what() -> None:
    made = State()
    made.run(CreateGroup(group="devs", grants=(grant("read", "a"),)))
    made.user("root", grant("admin"))
    made.user("alice", grant("admin", "a"))
    made.user("bob")
    root, alice, bob = (made.log_in(f"l{u}", u) for u in ("root", "alice", "bob"))
    of_root: tuple[AnyOperation, ...] = (
        CreateUser(user="eve"),
        CreateGroup(group="ops"),
        ChangeUser(user="bob", join=("devs",)),
        ChangeUser(user="bob", leave=("devs",)),
        ChangeUser(user="bob", password="$argon2id$z"),
        CreateToken(token="t", sha256="", label="", grants=(), groups=("devs",)),
        ChangeUser(user="bob", grant=(grant("read", "z"),)),
        ChangeUser(user="bob", revoke=(grant("read", "z"),)),
        RemoveUser(user="eve"),
        RemoveGroup(group="ops"),
    )
    for change in of_root:
        assert made.run(change, alice) == "denied", change
        assert made.run(change, root) == "done", change
    # Whoever administers a path grants there, to users and groups that others have made.
    of_alice: tuple[AnyOperation, ...] = (
        ChangeUser(user="alice", grant=(grant("write", "a/b"),)),
        ChangeGroup(group="devs", grant=(grant("write", "a/b"),)),
        ChangeGroup(group="devs", revoke=(grant("read", "a"),)),
    )
    bob = made.log_in("lbob2", "bob")
    for change in of_alice:
        assert made.run(change, bob) == "denied", change
        assert made.run(change, alice) == "done", change
    assert made.run(RevokeLogin(login="lalice"), bob) == "not_found"
    assert made.run(ChangeUser(user="bob", password="$argon2id$own"), bob) == "done"
    assert made.run(RevokeLogin(login="lalice"), alice) == "done"


def test_what_can_not_be_done_is_refused_and_changes_nothing() -> None:
    made = State()
    made.user("alice", *(grant("read", f"p{number}") for number in range(31)))
    made.run(CreateGroup(group="devs"))
    for number in range(GROUPS_MAX):
        made.run(CreateGroup(group=f"g{number}"))
    before = dict(made.rows())
    many = tuple(f"g{number}" for number in range(GROUPS_MAX))
    refusals: tuple[tuple[AnyOperation, str], ...] = (
        (CreateUser(user="alice"), "conflict"),
        (CreateUser(user="bob", groups=("none",)), "not_found"),
        (CreateUser(user="bob", grants=(grant("operate", "a"),)), "conflict"),
        (ChangeUser(user="alice"), "conflict"),
        (ChangeUser(user="bob", grant=(grant("read"),)), "not_found"),
        (ChangeUser(user="alice", revoke=(grant("read"),)), "conflict"),
        (ChangeUser(user="alice", leave=("devs",)), "conflict"),
        (ChangeUser(user="alice", grant=(grant("read"), grant("write"))), "over_quota"),
        (RemoveUser(user="bob"), "not_found"),
        (CreateGroup(group="devs"), "conflict"),
        (ChangeGroup(group="devs"), "conflict"),
        (RemoveGroup(group="none"), "not_found"),
        (login_of("l", "bob", "1-0"), "unauthenticated"),
        (login_of("l", "alice", "", token="t"), "conflict"),
        (RevokeLogin(login="l"), "not_found"),
    )
    for operation, status in refusals:
        assert made.run(operation) == status, operation
    assert made.run(ChangeUser(user="alice", join=many)) == "done"
    assert made.run(ChangeUser(user="alice", join=("devs",))) == "over_quota"

    def policy(rows: dict[str, Any]) -> dict[str, Any]:
        return {key: row for key, row in rows.items() if key.startswith(("user", "group", "login"))}

    after = policy(dict(made.rows()))
    after["user/alice"] = before["user/alice"]
    assert after == policy(before)


def test_the_number_of_logins_of_a_user_is_bounded_by_ending_the_oldest() -> None:
    made = State()
    made.user("alice", grant("write"))
    all_of_them = [made.log_in(f"l{number}", "alice") for number in range(LOGINS_MAX + 2)]
    statuses = [made.run(put("a", b"1"), one) for one in all_of_them]
    assert statuses == ["unauthenticated"] * 2 + ["done"] * LOGINS_MAX


def test_the_number_of_rows_is_bounded_and_freeing_is_always_possible() -> None:
    few = State(tree_entries=400)
    assert [few.run(CreateUser(user=f"u{n}")) for n in range(3)] == ["done", "done", "over_quota"]
    assert [few.run(CreateGroup(group=f"g{n}")) for n in range(3)][-1] == "over_quota"
    assert few.run(RemoveUser(user="u0")) == "done"
    assert few.run(CreateUser(user="again")) == "done"
    small = State(tree_bytes=128 * 1_000)
    assert [small.run(CreateUser(user=f"u{n}")) for n in range(2)] == ["done", "over_quota"]
    for freeing in (RemoveUser(user="u"), RemoveGroup(group="g"), RevokeLogin(login="l")):
        assert not grows(freeing)
    assert grows(CreateUser(user="u"))


def test_results_and_keys_are_a_users_in_all_of_its_logins() -> None:
    made = State()
    made.user("alice", grant("write", "a"))
    made.user("bob", grant("write", "a"))
    one, two = made.log_in("l1", "alice"), made.log_in("l2", "alice")
    bob = made.log_in("l3", "bob")
    first = made.outcome(put("a/1", b"1"), one, key="k")
    sequence = made.applied - 1
    assert made.outcome(put("a/1", b"1"), two, key="k") == first
    assert made.outcome(put("a/1", b"1"), bob, key="k") != first
    found: dict[str, Any] = {"session": "gateway-1.a", "sequence": sequence}
    assert made.reads(two, "result", **found).outcome == first
    assert made.reads(bob, "result", **found).status == "denied"
    assert first.token == "@alice"


def test_what_is_seen_of_users_groups_and_logins() -> None:
    made = State()
    made.run(CreateGroup(group="devs", grants=(grant("read", "a"),)))
    made.run(CreateGroup(group="ops"))
    made.user("root", grant("admin"))
    made.user("alice", groups=("devs",))
    root, alice = made.log_in("l1", "root"), made.log_in("l2", "alice")

    def names(by: Principal | None) -> tuple[list[str], list[str], list[str]]:
        return (
            [one.user for one in made.reads(by, "users").users],
            [one.group for one in made.reads(by, "groups").groups],
            [one.token for one in made.reads(by, "logins").tokens],
        )

    assert names(alice) == (["alice"], ["devs"], ["l2"])
    assert names(root) == names(None) == (["alice", "root"], ["devs", "ops"], ["l1", "l2"])
    (access,) = made.reads(alice, "access").tokens
    assert (access.grants, access.groups) == ((grant("read", "a"),), ("devs",))
    assert access.login is not None
    assert access.login.user == "alice"
    shown = [made.reads(by, what) for by in (root, alice) for what in ("users", "logins", "access")]
    assert "argon2" not in str(shown)
    assert "abab" not in str(shown)
    # Only gateways themselves read what proves a password or a secret.
    assert made.reads(None, "credential", "@alice").users[0].password == "$argon2id$x"
    assert made.reads(None, "credential", "l2").tokens[0].sha256 == "ab" * 32
    for path in ("@alice", "l2"):
        assert (
            made.reads(root, "credential", path).to_json()
            == made.reads(root, "credential", "nobody").to_json()
        )
    pages = [made.reads(None, "users", after=after, limit=1) for after in ("", "alice")]
    assert [(page.users[0].user, page.more) for page in pages] == [("alice", True), ("root", False)]


def test_reads_of_principals_wait_for_every_change_of_the_policy_that_is_prepared() -> None:
    who = Principal(token="l1", policy_slot=1, user="alice")
    for operation in (RemoveUser(user="alice"), ChangeGroup(group="g"), RevokeLogin(login="l1")):
        command = Command(
            session="s", sequence=1, acknowledged=0, reply_to="g", operation=operation
        )
        for what in ("entry", "list", "result", "access", "users", "groups", "logins"):
            asked = ReadRequest.model_validate({"number": 1, "what": what, "path": "a"})
            assert touches(command, asked.model_copy(update={"principal": who}))
            assert touches(command, asked) == (what in ("users", "groups", "logins"))


def test_snapshots_and_the_hash_hold_users_groups_and_logins() -> None:
    def made(path: str) -> State:
        one = State()
        one.run(CreateGroup(group="devs", grants=(grant("read", path),)))
        one.user("alice", groups=("devs",))
        one.log_in("l1", "alice")
        return one

    one, other = made("a"), made("b")
    assert one.state_hash != other.state_hash
    copy = Namespace(one.constants)
    copy.replace(Record(key, row.to_json()) for key, row in one.rows())
    assert dict(copy.rows()) == dict(one.rows())
    assert copy.policy.bytes == one.policy.bytes > 0
    assert copy.policy.logins_of("@alice") == ["l1"]
    one.take_rows()
    one.run(RemoveUser(user="alice"))
    assert {("user/alice", None), ("login/l1", None)} <= set(one.take_rows())
    one.run(RemoveGroup(group="devs"))
    assert one.policy.bytes == 0


def test_logins_that_have_ended_are_removed_with_time() -> None:
    made = State()
    made.user("alice")
    made.log_in("l1", "alice")
    made.run(OpenSession(), after_ms=2 * HOUR_MS)
    assert made.policy.logins == {}
    assert made.policy.logins_of("@alice") == []

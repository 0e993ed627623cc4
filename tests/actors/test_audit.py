"""The audit: one chain of records, which all learners have, and which a lost disk gets back."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from actors.calls import NotDone, ReadAudit
from actors.effects import Record
from actors.learner.audit_copy import AuditCopy
from actors.learner.audit_log import AuditLog, AuditPart, part_of
from actors.learner.audit_pages import HIDDEN, page_of
from actors.messages import AuditPage, AuditRead, AuditRecord, SnapshotRow
from actors.options import Identity, Options
from actors.principals import (
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
from actors.state.audit import AuditChain
from actors.state.namespace import Namespace
from actors.turn import Turn
from actors.values import (
    Batch,
    CloseSession,
    Command,
    Constants,
    CopyEntry,
    CreateToken,
    Grant,
    Inline,
    MoveEntry,
    OpenSession,
    Principal,
    PutFile,
    Refusal,
    RevokeToken,
    Transaction,
)
from chaos.simulator.disk import Disk
from chaos.simulator.world import World
from tests.worlds import founded, intercepted, put

SECRET = b"a secret content"


def a_put(path: str, data: bytes = SECRET) -> PutFile:
    return PutFile(path=path, content=Inline(sha256=hashlib.sha256(data).hexdigest(), data=data))


class Replica:
    """A state that chains commands, and the rows that a learner makes of them."""

    def __init__(self, **options: Any) -> None:
        self.turn = Turn(Identity("learner-1", "d", 1, 0, "ab" * 16), Options(**options))
        self.state = Namespace(Constants(audit=True))
        self.log = AuditLog(self.turn, self.state.audit)
        self._sequence = 0
        self.slot(OpenSession())

    def command(self, operation: Any, principal: Principal | None = None) -> Command:
        self._sequence += 1
        return Command(
            session="gateway-1.s",
            sequence=self._sequence - 1,
            acknowledged=-1,
            reply_to="gateway-1",
            operation=operation,
            principal=principal,
        )

    def slot(self, *operations: Any, abort: str = "", persist: bool = True) -> None:
        commands = tuple(o if isinstance(o, Command) else self.command(o) for o in operations)
        refused = (Refusal(index=0, reason=abort),) if abort else ()
        self.state.apply(self.state.applied + 1, Batch(elapsed_ms=5, commands=commands), refused)
        if persist:
            self.log.take(self.state.audit)

    def page(self, **asked: Any) -> AuditPage:
        read = AuditRead(**{"number": 1, "limit": 10_000, **asked})
        return page_of(self.log, self.state, read, 1024 * 1024)

    def records(self, **asked: Any) -> list[dict[str, Any]]:
        return [json.loads(record.text) for record in self.page(**asked).records]

    def numbers(self, **asked: Any) -> list[int]:
        return [record["number"] for record in self.records(**asked)]


def chained(records: Any, previous: str = "") -> str:
    """The hash of the last of these records, by an arithmetic of this test's own."""
    for record in records:
        previous = hashlib.sha256(previous.encode() + b"\n" + record.text.encode()).hexdigest()
        assert record.hash == previous
    return previous


# -- what a record says ----------------------------------------------------------------------------


def test_a_record_says_who_did_what_where_and_with_which_result() -> None:
    replica = Replica()
    who = Principal(token="t", policy_slot=9)
    grants = (Grant(role="write", path="d"), Grant(role="operate", path=""))
    made = CreateToken(token="t", sha256="ab" * 32, label="l", grants=grants)
    replica.slot(a_put('ü"\\'), made)
    replica.slot(replica.command(MoveEntry(source="a", target="d/a"), who), abort="no vote")
    steps = (a_put("d/1"), CopyEntry(source="d/1", target="d/2"))
    done = replica.command(Transaction(steps=steps), who)
    replica.slot(done, RevokeToken(token="t"), replica.command(a_put("d/3"), who))
    replica.slot(done, CloseSession(target="gateway-1.old"))

    _, *records = replica.records()
    brief = [
        {k: v for k, v in one.items() if k not in ("number", "log_time_ms", "request")}
        for one in records
    ]
    administrator, token = {"principal": None}, {"principal": "t"}
    step = {"operation": "put_file", "path": "d/1", "result": "done"}
    other = {"operation": "copy", "path": "d/2", "source": "d/1", "result": "done"}
    assert brief == [
        {"slot": 2, "index": 0, **administrator, "operation": "put_file", "path": 'ü"\\'}
        | {"result": "done"},
        {"slot": 2, "index": 1, **administrator, "operation": "create_token", "token": "t"}
        | {"grants": [["write", "d"], ["operate", ""]], "result": "done"},
        {"slot": 3, "index": 0, **token, "operation": "move", "path": "d/a", "source": "a"}
        | {"result": "aborted"},
        {"slot": 4, "index": 0, "step": 0, **token, **step},
        {"slot": 4, "index": 0, "step": 1, **token, **other},
        {"slot": 4, "index": 1, **administrator, "operation": "revoke_token", "token": "t"}
        | {"result": "done"},
        {"slot": 4, "index": 2, **token, "operation": "put_file", "path": "d/3"}
        | {"result": "unauthenticated"},
        {"slot": 5, "index": 0, "step": 0, **token, **step, "first": "4-0"},
        {"slot": 5, "index": 0, "step": 1, **token, **other, "first": "4-0"},
        {"slot": 5, "index": 1, **administrator, "operation": "close_session"}
        | {"session": "gateway-1.old", "result": "done"},
    ]
    assert [one["number"] for one in records] == list(range(2, 12))
    assert records[3]["request"] == done.request
    assert records[3]["log_time_ms"] == 20


def test_a_record_says_which_users_groups_and_sessions_a_command_changed() -> None:
    replica = Replica()
    write = (Grant(role="write", path="d"),)
    read = (Grant(role="read", path="a"),)
    made = CreateUser(user="alice", password="HASH", grants=write, groups=("team",))
    replica.slot(CreateGroup(group="team", grants=read), made)
    times = {"idle_ms": 1_000, "expires_after_ms": 1_000}

    def login(checked: str, **whom: str) -> CreateLogin:
        secret = {"sha256": "5ec3e7", "label": "x", "checked": checked}
        return CreateLogin.model_validate({"login": "l", **secret, **whom, **times})

    replica.slot(login("2-1", user="alice"), CreateUser(user="bob"))
    alice = Principal(token="l", policy_slot=9, user="alice")
    joined = CreateToken(token="t", sha256="5ec3e7", label="", grants=(), groups=("team",))
    own = ChangeUser(user="alice", password="HASH2")
    replica.slot(*(replica.command(one, alice) for one in (RefreshLogin(), a_put("d/1"), own)))
    changed = ChangeUser(user="bob", grant=write, revoke=read, join=("team",), leave=("no",))
    replica.slot(changed, ChangeGroup(group="team", grant=write, revoke=read), joined)
    replica.slot(login("5", token="t"))
    token = Principal(token="l", policy_slot=9)
    replica.slot(replica.command(a_put("d/2"), token), RevokeLogin(login="l"))
    replica.slot(RemoveGroup(group="team"), RemoveUser(user="alice"))

    _, *records = replica.records()
    left_out = ("number", "slot", "index", "log_time_ms", "request")
    brief = [{k: v for k, v in one.items() if k not in left_out} for one in records]

    def done(who: str | None, operation: str, **names: Any) -> dict[str, Any]:
        return {"principal": who, "operation": operation, "result": "done", **names}

    given, seen = [["write", "d"]], [["read", "a"]]
    assert brief == [
        done(None, "create_group", group="team", grants=seen),
        done(None, "create_user", user="alice", grants=given, groups=["team"], new_password=True),
        done(None, "create_login", login="l", user="alice"),
        done(None, "create_user", user="bob"),
        done("@alice", "refresh_login"),
        done("@alice", "put_file", path="d/1"),
        done("@alice", "change_user", user="alice", new_password=True),
        done(None, "change_user", user="bob", grants=given, revoked=seen, joined=["team"])
        | {"left": ["no"], "result": "conflict"},
        done(None, "change_group", group="team", grants=given, revoked=seen),
        done(None, "create_token", token="t", grants=[], groups=["team"]),
        done(None, "create_login", login="l", token="t"),
        done("l", "put_file", path="d/2"),
        done(None, "revoke_login", login="l"),
        done(None, "remove_group", group="team"),
        done(None, "remove_user", user="alice"),
    ]
    text = "".join(record.text for record in replica.page().records)
    for secret in ("HASH", "5ec3e7", '"x"', "2-1"):
        assert secret not in text
    for record in replica.page().records:
        about = json.loads(record.text)
        assert json.dumps(about, ensure_ascii=False, separators=(",", ":")) == record.text


def test_a_record_of_a_user_hides_what_its_reader_may_not_know() -> None:
    """Who administers a path sees who was given what there, and no other path and no group."""
    replica = Replica()
    ours, theirs = Grant(role="read", path="d/x"), Grant(role="read", path="z")
    replica.slot(
        CreateGroup(group="team"),
        CreateUser(user="alice", grants=(ours, theirs), groups=("team",)),
        CreateUser(user="bob", grants=(theirs,)),
        ChangeUser(user="alice", grant=(theirs,), revoke=(ours,), join=("team",)),
        RemoveUser(user="bob"),
    )

    shown = replica.records(grants=(Grant(role="admin", path="d"),))
    below = replica.numbers(prefix="d")

    grants, revoked = [["read", "d/x"], ["read", HIDDEN]], [["read", "d/x"]]
    kept = ("operation", "user", "grants", "revoked", "groups", "joined")
    assert [{k: v for k, v in one.items() if k in kept} for one in shown] == [
        {"operation": "create_user", "user": "alice", "grants": grants, "groups": [HIDDEN]},
        {"operation": "change_user", "user": "alice", "grants": [["read", HIDDEN]]}
        | {"revoked": revoked, "joined": [HIDDEN]},
    ]
    assert below == [one["number"] for one in shown] == [3, 5]


def test_a_record_holds_no_contents_and_no_secret() -> None:
    replica = Replica()
    made = CreateToken(
        token="t", sha256="5ec3e7" * 8, label="a label", grants=(Grant(role="read", path=""),)
    )
    replica.slot(a_put("f"), made)
    text = "".join(record.text for record in replica.page().records)
    for secret in (SECRET.decode(), hashlib.sha256(SECRET).hexdigest(), "5ec3e7", "a label"):
        assert secret not in text
    assert '"path":"f"' in text


def test_lines_are_as_json_writes_them() -> None:
    """So that a record which any program has read can be checked again."""
    replica = Replica()
    replica.slot(a_put('ü"\\\u2028'), MoveEntry(source="x", target="y"))
    for record in replica.page().records:
        about = json.loads(record.text)
        assert json.dumps(about, ensure_ascii=False, separators=(",", ":")) == record.text


# -- the chain -------------------------------------------------------------------------------------


def test_all_replicas_have_the_chain_and_it_covers_every_record() -> None:
    learner, store = Replica(), Namespace(Constants(audit=True))
    learner.slot(a_put("a"), a_put("b"))
    page = learner.page()
    assert chained(page.records) == page.head == learner.state.audit.head
    assert page.count == len(page.records) == 3

    # A store goes on from the end of the chain, which is in the state that it copied.
    store.replace(Record(key, row.to_json()) for key, row in learner.state.rows())
    assert store.audit.mark == learner.state.audit.mark
    slot = Batch(elapsed_ms=5, commands=(learner.command(a_put("c")),))
    store.apply(3, slot, ())
    learner.slot(*slot.commands)
    assert (store.audit.mark, store.audit.kept) == (learner.state.audit.mark, None)
    assert store.state_hash == learner.state.state_hash


def test_a_cluster_of_an_earlier_version_has_no_chain_and_the_former_rows() -> None:
    state = Namespace(Constants())
    command = Replica().command(a_put("a"))
    state.apply(1, Batch(commands=(command,)), ())
    assert state.audit.count == 0
    assert b"audit" not in dict(state.take_rows())["state"]  # type: ignore[operator]
    assert "audit" not in Constants().model_dump_json()


# -- rows ------------------------------------------------------------------------------------------


def test_rows_are_compressed_and_the_chain_goes_on_over_a_restart() -> None:
    replica = Replica()
    for number in range(900):
        replica.slot(a_put(f"some/folder/{number}"))
    assert len(replica.log.parts) < 600
    assert replica.log.parts[0].packed
    assert replica.log.bytes < 130_000
    page = replica.page()
    assert chained(page.records) == page.head

    rows = {}
    for record in replica.turn.take().records:
        rows[record.key] = record
    left = [record for record in rows.values() if record.value is not None]
    again = AuditLog(replica.turn, Namespace().audit)
    assert all(again.restore(record) for record in left)
    again.restored(replica.state.audit)
    assert (again.first, again.count, again.head) == (1, 901, page.head)
    assert again.parts == replica.log.parts
    assert all(
        again.row(record.key) == part for record, part in zip(left, again.parts, strict=True)
    )


def test_the_oldest_records_are_forgotten_beyond_the_bound() -> None:
    replica = Replica(audit_bytes=20_000)
    for number in range(2_000):
        replica.slot(*(a_put(f"{number}/{name}") for name in "abcd"), persist=number % 9 == 0)
    replica.log.take(replica.state.audit)
    assert replica.log.bytes < 20_000 + 64 * 1024
    page = replica.page()
    assert 1 < page.first < page.count == 8_001
    assert json.loads(page.records[0].text)["number"] == page.first
    assert chained(page.records, page.previous) == page.head


# -- reading ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled() -> Replica:
    replica = Replica()
    for number in range(300):
        who = Principal(token="t", policy_slot=0) if number % 3 == 0 else None
        replica.slot(replica.command(a_put(f"{'abc'[number % 3]}/{number}"), who))
    replica.slot(MoveEntry(source="b/1", target="c/moved"))
    return replica


def test_pages_go_on_where_the_last_one_ended(filled: Replica) -> None:
    found, after = [], 0
    while True:
        page = filled.page(after=after, limit=7)
        found += [json.loads(record.text)["number"] for record in page.records]
        chained(page.records, page.previous)
        after = page.through
        if not page.more:
            break
    assert found == list(range(1, 303))

    down, before = [], 0
    while True:
        page = filled.page(before=before, limit=7, newest_first=True)
        down += [json.loads(record.text)["number"] for record in page.records]
        before = page.through
        if not page.more:
            break
    assert down == found[::-1]


def test_a_page_ends_with_what_was_looked_through(filled: Replica) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("actors.learner.audit_pages._LOOKED_THROUGH_MAX", 50)
        page = filled.page(operation="move")
        assert (page.records, page.through, page.more, page.previous) == ((), 50, True, "")


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ({"principal": "t"}, lambda one: one["principal"] == "t"),
        ({"principal": ""}, lambda one: one["principal"] is None),
        ({"prefix": "b"}, lambda one: "b/" in one.get("path", "") + one.get("source", "")),
        ({"prefix": "b/1"}, lambda one: one["number"] in (3, 302)),
        ({"operation": "open_session"}, lambda one: one["number"] == 1),
        ({"result": "unauthenticated"}, lambda one: one["principal"] == "t"),
        ({"since_ms": 100, "until_ms": 120}, lambda one: 100 <= one["log_time_ms"] <= 120),
    ],
)
def test_records_are_selected(filled: Replica, asked: dict[str, Any], wanted: Any) -> None:
    expected = [one["number"] for one in filled.records() if wanted(one)]
    assert filled.numbers(**asked) == expected
    assert expected


def test_only_what_the_reader_may_administer_is_shown(filled: Replica) -> None:
    def may(*grants: tuple[Any, str]) -> tuple[Grant, ...]:
        return tuple(Grant(role=role, path=path) for role, path in grants)

    everything = filled.numbers()
    assert filled.numbers(grants=may(("admin", ""))) == everything
    assert filled.numbers(grants=may(("write", ""), ("operate", ""))) == []
    own = filled.records(grants=may(("admin", "b")))
    assert {one["path"].partition("/")[0] for one in own} == {"b", HIDDEN}
    assert (own[-1]["path"], own[-1]["source"]) == (HIDDEN, "b/1")
    assert filled.page(grants=may(("admin", "b"))).records[-1].hash == ""
    both = filled.records(grants=may(("admin", "b"), ("read", "c")))
    assert (both[-1]["path"], both[-1]["source"]) == ("c/moved", "b/1")


def test_a_learner_that_is_behind_says_so(filled: Replica) -> None:
    assert filled.page(at_least=filled.state.applied + 1).behind
    assert not filled.page(at_least=filled.state.applied).behind


# -- in a cluster ----------------------------------------------------------------------------------


def read(world: World, learner: str, **asked: Any) -> AuditPage:
    """The whole audit of one learner, as a gateway reads it."""
    request = AuditRead(number=0, limit=100_000, **asked)
    token = world.call(lambda token: ReadAudit(token=token, request=request, learner=learner))
    answer = world.answer(token)
    assert isinstance(answer, AuditPage), answer
    return answer


def test_all_learners_have_every_acknowledged_write_of_the_chain() -> None:
    world = founded()
    slots = [world.done(put(f"f/{number}", b"1")).outcome.slot for number in range(5)]
    one, other = (read(world, name, at_least=slots[-1]) for name in ("learner-1", "learner-2"))
    assert one.records == other.records
    assert chained(one.records) == one.head == other.head
    assert [json.loads(record.text)["slot"] for record in one.records][-5:] == slots
    for store in ("store-1", "store-2", "store-3"):
        assert world.actor(store).state.audit.kept is None


def _lose_disk(world: World, name: str) -> None:
    world.crash(name)
    world.machines[name].disk = Disk(f"{name}-empty")
    world.start(name)


def _whole(world: World) -> bool:
    logs = [world.actor(name).audit for name in ("learner-1", "learner-2")]
    return {(log.first, log.count) for log in logs} == {(1, max(log.count for log in logs))}


def test_a_learner_that_lost_its_disk_gets_all_records_back() -> None:
    world = founded(options=replace(Options(), log_bytes=0))
    for number in range(150):
        world.done(put(f"f/{number}", b"1"))
    world.settled()
    world.run(5_000)
    _lose_disk(world, "learner-2")
    world.run_until(lambda: world.actor("learner-2").counters["snapshots_installed"], 30_000)
    world.done(put("later", b"1"))
    world.run_until(lambda: _whole(world), 60_000)

    log = world.actor("learner-2").audit
    assert world.actor("learner-2").counters["audit_gaps_filled"] == 1
    one, other = read(world, "learner-1"), read(world, "learner-2")
    assert one.records == other.records
    assert chained(other.records) == log.head

    # And the other one gets them back from this one, also over a restart.
    _lose_disk(world, "learner-1")
    world.run_until(lambda: world.actor("learner-1").counters["snapshots_installed"], 30_000)
    world.crash("learner-1")
    world.start("learner-1")
    world.run_until(lambda: _whole(world), 60_000)


def test_records_that_are_not_journalled_yet_survive_a_copied_state() -> None:
    """Given a learner that has applied more than its journal holds, when it copies a state, then
    the records up to there are in its journal, and only those in between are to be got back.
    """
    world = founded()
    world.done(put("a", b"1"))
    learner, other = world.actor("learner-2"), world.actor("learner-1")
    assert learner.decided > learner.durable
    count = learner.state.audit.count
    with intercepted(world, lambda sender, to, message: to != "learner-2"):
        for number in range(5):
            world.done(put(f"f/{number}", b"1"))
    rows = [SnapshotRow(key=k, value=row.to_json().decode()) for k, row in other.state.rows()]
    learner._install(other.decided, rows)
    assert [part.last for part in learner.audit.parts][-1:] == [count]
    assert (learner.audit.count, learner.audit.first) == (count + 5, count + 6)


def test_if_all_learners_lose_their_disks_the_chain_goes_on_from_its_end() -> None:
    world = founded(options=replace(Options(), log_bytes=0))
    for number in range(150):
        world.done(put(f"f/{number}", b"1"))
    world.settled()
    world.run(5_000)
    former = read(world, "learner-1")
    for name in ("learner-1", "learner-2"):
        world.crash(name)
        world.machines[name].disk = Disk(f"{name}-empty")
    world.start("learner-1", "learner-2")
    world.ready()
    slot = world.done(put("later", b"1"), retry=True).outcome.slot
    world.run(15_000)

    one, other = (read(world, name, at_least=slot) for name in ("learner-1", "learner-2"))
    assert one.count > former.count
    assert chained(one.records, one.previous) == one.head == other.head
    assert other.first == one.first
    wanted = [record for record in former.records if json.loads(record.text)["number"] >= one.first]
    assert one.records[: len(wanted)] == tuple(wanted)
    assert not world.actor("learner-1").audit_copy.busy


def test_a_learner_takes_over_nothing_that_does_not_lead_to_its_end() -> None:
    """Given a learner whose rows were changed on its disk, then another does not copy them."""
    world = founded(options=replace(Options(), log_bytes=0))
    for number in range(150):
        world.done(put(f"f/{number}", b"1"))
    world.settled()
    world.run(5_000)
    log = world.actor("learner-1").audit
    part = log.parts[0]
    lines = [line.replace('"f/7"', '"f/x"') for line in part.lines()]
    assert lines != part.lines()
    forged = part.model_copy(update={"data": "\n".join(lines).encode(), "packed": False})
    log.parts[0] = forged
    _lose_disk(world, "learner-2")
    world.run_until(lambda: world.actor("learner-2").counters["snapshots_installed"], 30_000)
    world.run(10_000)
    learner = world.actor("learner-2")
    assert learner.counters["audit_pages_refused"] > 0
    assert learner.audit.first > 100
    assert not learner.audit_copy.busy


def test_a_learner_that_gave_up_asks_again() -> None:
    """Given a learner without the first records, which nobody had when it asked, then it gets them
    from one that has them now, and does not count as copying while it asks in vain.
    """
    world = founded()
    for number in range(20):
        world.done(put(f"f/{number}", b"1"))
    world.settled()
    world.run(5_000)
    one, other = (world.actor(name).audit for name in ("learner-1", "learner-2"))
    kept = list(one.parts)
    for log in (one, other):
        log.drop(log.parts[:1])
    world.run(15_000)
    learner = world.actor("learner-2")
    assert other.first > 1
    assert not learner.audit_copy.busy
    one.insert(kept[0])
    world.run(15_000)
    assert other.first == 1
    assert not learner.audit_copy.asks


def test_records_before_a_gap_are_for_learners_alone(filled: Replica) -> None:
    """Given a learner that lacks records amid its own, then another learner copies those before the
    gap, up to it, while nobody else sees any but those behind it.
    """
    whole = tuple(filled.log.ascending(0))
    third = len(whole) // 3
    groups = (whole[:third], whole[third : 2 * third], whole[2 * third :])
    rows = [
        part_of(
            group[0].number,
            [record.line for record in group],
            group[0].previous,
            group[-1].hash,
            pack=True,
        )
        for group in groups
    ]
    log = AuditLog(filled.turn, AuditChain())
    log.skip_to(filled.state.audit)
    log.parts = [rows[0], rows[2]]

    def numbers(after: int, *, for_copy: bool) -> list[int]:
        request = AuditRead(number=0, after=after, limit=1_000)
        page = page_of(log, filled.state, request, 1_000_000, for_copy=for_copy)
        chained(page.records, page.previous)
        return [json.loads(record.text)["number"] for record in page.records]

    assert numbers(0, for_copy=True) == [record.number for record in groups[0]]
    assert numbers(third, for_copy=True) == [record.number for record in groups[2]]
    assert numbers(0, for_copy=False) == [record.number for record in groups[2]]


def test_a_page_that_would_begin_before_the_first_record_is_refused(filled: Replica) -> None:
    """Given a learner without records, and a page from another that no learner sends."""
    log = AuditLog(filled.turn, AuditChain())
    log.skip_to(filled.state.audit)
    copy = AuditCopy(filled.turn, log, lambda: ["learner-2"])
    copy.begin()
    copy.tick()
    lies = (AuditRecord(text="{}", hash=""),) * 3
    page = AuditPage(number=copy._number, records=lies, through=1, applied=1, log_time_ms=1)
    copy.on_page("learner-2", page)
    assert filled.turn.counters["audit_pages_refused"] == 1
    assert not copy.busy
    assert log.parts == []


def test_rows_are_compressed_without_a_look_at_the_others(
    filled: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be thousands: to compare with each stopped a coordinator for more than a second."""
    compared: list[object] = []

    def equal(one: object, other: object) -> bool:
        compared.append(other)
        return one is other

    monkeypatch.setattr(AuditPart, "__eq__", equal)
    for number in range(1_300):
        filled.slot(put(f"f/{number}", b"1"))
    assert sum(part.packed for part in filled.log.parts) >= 2
    assert compared == []


def test_a_cluster_without_an_audit_says_so() -> None:
    world = founded(options=replace(Options(), audit=False))
    world.done(put("a", b"1"))
    request = AuditRead(number=0, limit=1)
    answer = world.answer(world.call(lambda token: ReadAudit(token=token, request=request)))
    assert isinstance(answer, NotDone)
    assert "without an audit" in answer.reason
    assert world.actor("learner-1").state.audit.count == 0

"""A history of the log that uses every operation and refusal, and its record in `golden/`.

Replicas of two releases apply the same log side by side during an upgrade. So a release must read
the slots, and compute the results, rows and hashes, exactly as the release that recorded them
(docs/decisions/0024-versions.md). The record is made once, with a version of the rules::

    python -m tests.actors.history
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from actors.principals import (
    GRANTS_MAX,
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
from actors.values import (
    NO_ROOM,
    NOOP,
    Abort,
    AnyOperation,
    AnyValue,
    Batch,
    Check,
    Chunked,
    CloseSession,
    Command,
    Constants,
    CopyEntry,
    CreateToken,
    DeleteFile,
    FoundingMember,
    Frozen,
    Genesis,
    Grant,
    IdempotencyKey,
    Indirect,
    Inline,
    MakeDirectory,
    Members,
    MoveEntry,
    OpenSession,
    Precondition,
    Principal,
    PutFile,
    Refusal,
    RemoveDirectory,
    RemoveQuota,
    RevokeToken,
    Roster,
    SetQuota,
    Settled,
    StoreMember,
    Transaction,
    Value,
    View,
)

RECORD = Path(__file__).with_name("golden") / "history-1.jsonl"

_VALUE: TypeAdapter[AnyValue] = TypeAdapter(Value)
_REFUSALS = TypeAdapter(tuple[Refusal, ...])
_MINUTE_MS = 60_000
_MEMBERS = ("acceptor-1", "acceptor-2", "acceptor-3", "learner-1", "store-1", "store-2", "store-3")

ANY = Precondition(if_match=("*",))
NONE = Precondition(if_none_match=("*",))


class Slot(NamedTuple):
    """A slot of the log and the commands that it aborts."""

    value: AnyValue
    aborted: tuple[Refusal, ...] = ()


class Chapter(NamedTuple):
    """A cluster of its own and its log, from slot 1."""

    genesis: Genesis
    slots: list[Slot]
    narrow_tree: bool = True
    """Whether the narrower bounds are also those of the tree, on which those of tokens rest."""


# -- the history ----------------------------------------------------------------------------------


class _Writer:
    """Numbers the commands of a session, and makes slots of them."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self._sequences: dict[str, int] = {}

    def command(
        self, operation: AnyOperation, session: str = "gateway-1.a", **more: Any
    ) -> Command:
        """The session's next command, unless `more` says otherwise."""
        sequence = more.pop("sequence", self._sequences.get(session, 0))
        self._sequences[session] = max(self._sequences.get(session, 0), sequence + 1)
        fields: dict[str, Any] = {"acknowledged": -1, "reply_to": "gateway-1", **more}
        return Command(session=session, sequence=sequence, operation=operation, **fields)

    def slot(self, *commands: Command | AnyOperation, after_ms: int = 10, **more: Any) -> None:
        """A slot with these commands, `after_ms` later."""
        made = tuple(c if isinstance(c, Command) else self.command(c) for c in commands)
        aborted = more.pop("aborted", ())
        self.slots.append(Slot(Batch(elapsed_ms=after_ms, commands=made, **more), aborted))

    def each(self, *operations: AnyOperation) -> None:
        """A slot for each operation."""
        for operation in operations:
            self.slot(operation)


def _genesis(constants: Constants) -> Genesis:
    stores = tuple(StoreMember(name=f"store-{n}", disk=f"s{n}", added_slot=0) for n in (1, 2, 3))
    return Genesis(
        cluster="c0ffee",
        constants=constants,
        members=tuple(FoundingMember(name=name, disk=f"disk of {name}") for name in _MEMBERS),
        view=_view(0, stores),
    )


def _view(epoch: int, stores: Sequence[StoreMember]) -> View:
    return View(
        epoch=epoch,
        coordinator="learner-1",
        coordinator_disk="disk of learner-1",
        coordinator_incarnation=epoch + 1,
        stores=tuple(stores),
    )


def _put(path: str, text: str = "x", **more: Any) -> PutFile:
    data = text.encode()
    content = Inline(sha256=hashlib.sha256(data).hexdigest(), data=data)
    return PutFile(path=path, content=content, **more)


def _tagged(tag: str) -> Precondition:
    return Precondition(if_match=(tag,))


def files() -> Chapter:
    """Every operation, done and refused."""
    writer = _Writer()
    each, slot = writer.each, writer.slot
    each(OpenSession(), _put("a/b/ü.txt", "grüße", content_type="text/plain", modified_ms=1_700))
    each(_put("a/b/ü.txt", "again", meta=(("k", "v"), ("ü", "ß")), executable=True))
    each(_put("empty", ""), _put("a/b/ü.txt/below"), _put(""), _put("a"), _put("new", when=ANY))
    each(_put("empty", "y", when=NONE), _put("empty", "z", when=_tagged("9-9")))
    chunks = tuple(hashlib.sha256(bytes([number])).hexdigest() for number in range(3))
    each(PutFile(path="large", content=Chunked(size=9, sha256=chunks[0], chunks=chunks)))
    each(PutFile(path="huge", content=Indirect(size=9, sha256=chunks[0], manifest=chunks[1])))
    each(DeleteFile(path="huge", when=_tagged("1-0")), DeleteFile(path="huge"))
    each(DeleteFile(path="huge"), DeleteFile(path="a"), DeleteFile(path=""))
    each(MakeDirectory(path="d/e"), MakeDirectory(path="d/e"), MakeDirectory(path=""))
    each(MakeDirectory(path="empty"), MakeDirectory(path="empty/e"))
    each(RemoveDirectory(path="d"), RemoveDirectory(path="no"), RemoveDirectory(path="empty"))
    each(RemoveDirectory(path=""), RemoveDirectory(path="d", recursive=True))
    for kind in (MoveEntry, CopyEntry):
        each(_put("t/1/one", "1"), _put("t/1/two", "2"), _put("t/file", "f"), _put("t/other"))
        each(MakeDirectory(path="t/full/x"), MakeDirectory(path="t/bare"))
        each(kind(source="t/file", target="t/moved"), kind(source="t/1", target="t/2/deep"))
        each(kind(source="", target="x"), kind(source="no", target="x"))
        each(kind(source="t/other", target="x", when=_tagged("0-0")))
        each(kind(source="t/other", target="x", target_when=ANY))
        each(kind(source="t/other", target="t/other"), kind(source="t/2", target="t/2/in"))
        each(kind(source="t/other", target="empty/in"), kind(source="t/other", target="t/moved"))
        each(kind(source="t/other", target="t/bare", overwrite=True))
        each(kind(source="t/2", target="t/full", overwrite=True))
        each(kind(source="t/other", target="t/moved", overwrite=True))
        each(kind(source="t/2", target="t/bare", overwrite=True))
        each(_put("q/" + "n" * 250 + "/f"), kind(source="q", target="/".join(["m" * 240] * 16)))
        each(RemoveDirectory(path="q", recursive=True), RemoveDirectory(path="t", recursive=True))
    steps = (
        _put("tx/one", "1"),
        Check(path="tx/one", when=ANY),
        CopyEntry(source="tx/one", target="tx/two"),
        MoveEntry(source="tx/two", target="tx/three"),
        MakeDirectory(path="tx/d"),
        RemoveDirectory(path="tx/d"),
        DeleteFile(path="tx/one"),
    )
    each(Transaction(steps=steps), Transaction(steps=(*steps, Check(path="tx/three", when=NONE))))
    each(Transaction(steps=(_put("tx/gone"), DeleteFile(path="no"))), Transaction(steps=()))
    each(Transaction(steps=(MakeDirectory(path="tx"), Check(path="", when=ANY))))
    slot(_put("many", "1"), _put("many", "2"), DeleteFile(path="many"), _put("many", "3"))
    return Chapter(_genesis(Constants()), writer.slots)


def sessions() -> Chapter:
    """Retries, keys, aborts, expiry, views and what else a slot may hold."""
    writer = _Writer()
    command, slot = writer.command, writer.slot
    slot(command(_put("early"), "gateway-2.x", sequence=3), command(OpenSession()))
    again = command(_put("a"))
    slot(again, again)
    slot(again, command(_put("b"), acknowledged=0), command(_put("c"), sequence=0))
    slot(command(_put("c"), acknowledged=2), command(_put("a"), sequence=1))
    key, other = (IdempotencyKey(key="k", fingerprint=text) for text in ("one", "two"))
    slot(command(_put("k"), idempotency=key), command(_put("k"), idempotency=key))
    slot(command(_put("k"), idempotency=other))
    slot(command(_put("no"), idempotency=IdempotencyKey(key="refused", fingerprint="f")))
    late, full = (Refusal(index=0, reason=r) for r in ("no vote", f"{NO_ROOM}: the disk is full"))
    slot(command(_put("late")), command(_put("in time")), aborted=(late,))
    slot(command(_put("full")), aborted=(full,))
    slot(command(OpenSession(), "gateway-1.never"), aborted=(late,))
    slot(command(_put("x"), "gateway-1.never", sequence=1))
    writer.slots.append(Slot(NOOP))
    writer.slots.append(Slot(Abort(slot=8, commands=(0,), epoch=0, reason="no vote")))
    members = tuple(StoreMember(name=f"store-{n}", disk=f"s{n}", added_slot=0) for n in (1, 2))
    returned = StoreMember(name="store-3", disk="new", added_slot=None)
    for view in (
        _view(1, members),
        _view(1, members),
        _view(3, ()),
        _view(2, (*members, returned)),
    ):
        writer.slots.append(Slot(view))
    slot(command(OpenSession(), "gateway-1.b"), command(CloseSession(target="gateway-1.b")))
    slot(
        command(_put("b"), "gateway-1.b", sequence=2),
        command(OpenSession(), "gateway-1.b", sequence=0),
    )
    slot(command(CloseSession(target="gateway-9.unknown")))
    slot(command(OpenSession(), "gateway-9.unknown"))
    slot(command(OpenSession(), "gateway-1.c"), after_ms=-5)
    slot(command(_put("stamped")), after_ms=0, stamp_ms=5 * _MINUTE_MS)
    slot(command(_put("young"), idempotency=IdempotencyKey(key="young", fingerprint="f")))
    for minutes in (1, 2, 1, 3, 1, 2, 4, 1, 3):
        slot(command(_put("tick"), acknowledged=9), after_ms=minutes * _MINUTE_MS)
    slot(command(_put("c"), "gateway-1.c"), command(_put("k"), idempotency=other))
    constants = Constants(session_expiry_ms=8 * _MINUTE_MS, idempotency_expiry_ms=6 * _MINUTE_MS)
    return Chapter(_genesis(constants), writer.slots)


def bounds() -> Chapter:
    """What is too large, too deep, too much, or too much beside others."""
    writer = _Writer()
    each, slot, command = writer.each, writer.slot, writer.command
    each(OpenSession(), _put("1/2/3/4"), _put("1/2/3/4/5"), MakeDirectory(path="1/2/3/5/6"))
    each(_put("1/2/3/a"), _put("1/2/3/b"), CopyEntry(source="1", target="deep/er"))
    each(CopyEntry(source="1", target="2"), CopyEntry(source="1/2", target="3"))
    each(_put("w", meta=(("k", "v" * 3_000),)), RemoveDirectory(path="2", recursive=True))
    slot(_put("p", "1"), _put("q", "2"), _put("r", "3"), _put("s", "4"), _put("t", "5"))
    busy = command(_put("later"), idempotency=IdempotencyKey(key="k", fingerprint="f"))
    slot(*(_put(f"u{n}", f"{n}") for n in range(8)), busy)
    each(*(_put(f"v{n}", f"{n}") for n in range(4)), _put("p", "replaced"), _put("v9"))
    each(DeleteFile(path="p"), _put("long", meta=(("k", "v" * 1_900),)))
    each(DeleteFile(path="q"), _put("longer", meta=(("k", "v" * 1_800),)))
    steps = tuple(Check(path="r", when=ANY) for _ in range(9))
    each(Transaction(steps=steps), Transaction(steps=(DeleteFile(path="r"), *steps)))
    constants = Constants(
        slot_steps=8, slot_bytes=3_000, path_depth=4, tree_entries=18, tree_bytes=7_500
    )
    return Chapter(_genesis(constants), writer.slots)


def principals() -> Chapter:
    """Tokens, what each may do and may not, their revocation and their expiry."""
    writer = _Writer()
    each, slot, command = writer.each, writer.slot, writer.command

    def create(token: str, *grants: tuple[Any, str], **more: Any) -> CreateToken:
        made = tuple(Grant(role=role, path=path) for role, path in grants)
        return CreateToken(token=token, sha256="ab" * 32, label=token, grants=made, **more)

    def act(token: str, *operations: AnyOperation, known: int = 9, **more: Any) -> None:
        who = Principal(token=token, policy_slot=known)
        for operation in operations:
            slot(command(operation, principal=who, **more))

    each(OpenSession(), create("w", ("write", "a/b")), create("w", ("read", "")))
    each(create("r", ("read", "a")), create("o", ("operate", ""), ("backup", "")))
    each(create("adm", ("admin", "a"), ("read", "z")), create("none"))
    each(create("odd", ("backup", "a")))
    each(create("late", ("write", "a")), _put("a/x"), _put("z/x"), _put("a/bc"))
    act("late", _put("a/y"), known=8)
    act("late", _put("a/y"), known=10)
    act("w", _put("a/b/c"), _put("a/b"), _put("a/bc"), DeleteFile(path="a/x"), _put(""))
    act("r", _put("a/r"), MakeDirectory(path="a/r"))
    act("w", MoveEntry(source="a/b/c", target="a/b/d"), MoveEntry(source="a/b/d", target="z/d"))
    act("w", MoveEntry(source="z/x", target="a/b/x"), CopyEntry(source="z/x", target="a/b/x"))
    act("adm", CopyEntry(source="z/x", target="a/z"), CopyEntry(source="a/z", target="z/y"))
    steps = (_put("a/b/1"), Check(path="a/b/1", when=ANY), RemoveDirectory(path="a/b"))
    act("w", Transaction(steps=(*steps[:2], _put("z/1"))), Transaction(steps=steps))
    act("r", Transaction(steps=(Check(path="a/x", when=ANY),)), RemoveDirectory(path="a"))
    act("r", Transaction(steps=(Check(path="", when=ANY),)))
    act("o", Transaction(steps=(Check(path="a", when=ANY),)))
    act("o", _put("a/o"), OpenSession(), CloseSession(target="gateway-1.b"))
    act("adm", create("mine", ("write", "a/m"), ("admin", "a/m")), create("more", ("read", "z")))
    act("adm", create("op", ("operate", "")), RevokeToken(token="r"), RevokeToken(token="o"))
    act("adm", RevokeToken(token="w"), RevokeToken(token="no"))
    act("w", _put("a/b/gone"), _put("a/b/gone"))
    key = IdempotencyKey(key="k", fingerprint="f")
    act("mine", _put("a/m/1"), _put("a/m/2"), known=99, idempotency=key)
    act("adm", _put("z/no"), _put("a/k"), _put("a/k"), idempotency=key)
    slot(command(_put("k"), idempotency=key))
    act("mine", RevokeToken(token="mine"), _put("a/m/3"), known=99)
    each(create("short", ("write", "s"), expires_after_ms=2 * _MINUTE_MS))
    act("short", _put("s/1"), known=99)
    slot(_put("later"), after_ms=2 * _MINUTE_MS - 30)
    act("short", _put("s/2"), _put("s/3"), known=99)
    slot(_put("tick"), after_ms=_MINUTE_MS)
    each(create("large", *[("read", "n" * 200 + str(number)) for number in range(32)]))
    each(*(create(f"t{number}", ("read", "t")) for number in range(9)))
    each(RevokeToken(token="t1"), create("w", ("read", "")))
    constants = Constants(
        session_expiry_ms=8 * _MINUTE_MS,
        idempotency_expiry_ms=6 * _MINUTE_MS,
        tree_entries=1_800,
        tree_bytes=128 * 6_074,  # The tokens reach it exactly.
    )
    return Chapter(_genesis(constants), writer.slots, narrow_tree=False)


def audited() -> Chapter:
    """Each kind of command in a cluster that chains them: done, refused, aborted, and again."""
    writer = _Writer()
    each, slot, command = writer.each, writer.slot, writer.command
    each(OpenSession(), _put('a/ü"\\'), _put("b"), MakeDirectory(path="d"), DeleteFile(path="no"))
    each(MoveEntry(source="b", target="d/b"), CopyEntry(source="d", target="e"))
    grants = (Grant(role="write", path="d"), Grant(role="operate", path=""))
    each(CreateToken(token="t", sha256="ab" * 32, label="t", grants=grants))
    who = Principal(token="t", policy_slot=99)
    steps = (_put("d/1"), MoveEntry(source="d/1", target="d/2"), Check(path="d/2", when=ANY))
    done = command(Transaction(steps=steps), principal=who)
    slot(done, command(_put("e/1"), principal=who), command(Transaction(steps=())))
    slot(done)
    slot(_put("f"), aborted=(Refusal(index=0, reason="no vote"),))
    each(RevokeToken(token="t"), RemoveDirectory(path="d", recursive=True))
    each(CloseSession(target="gateway-9.x"))
    return Chapter(_genesis(Constants(audit=True)), writer.slots, narrow_tree=False)


def quotas() -> Chapter:
    """Quotas that are set, reached, lowered, moved across, removed, and too many."""
    writer = _Writer()
    each, slot, command = writer.each, writer.slot, writer.command

    def bound(path: str, entries: int | None = None, size: int | None = None) -> SetQuota:
        return SetQuota(path=path, entries_max=entries, bytes_max=size)

    each(OpenSession(), bound("q", 3, 9), bound("q"), RemoveQuota(path="no"), _put("q/1", "123"))
    each(_put("q/d/2", "456"), _put("q/3"), _put("q/1", "1234567"), _put("q/1", "123456"))
    each(_put("q/1", "12"), DeleteFile(path="q/1"), _put("q/1", "1"), MakeDirectory(path="q/no"))
    each(_put("f", "12345"), MoveEntry(source="f", target="q/f"), DeleteFile(path="q/1"))
    each(MoveEntry(source="f", target="q/f"), CopyEntry(source="q/f", target="q/g"))
    each(bound("q", 1), _put("q/f", "5"), _put("q/g"), bound("q", None, 2), _put("q/f", "1234"))
    each(bound("q/d", 1, 3), MoveEntry(source="q/d", target="r"), _put("r/x", "1234"))
    steps = (DeleteFile(path="q/f"), _put("q/d/1", "1"), _put("q/d/2", "2"))
    each(Transaction(steps=steps), Transaction(steps=steps[:2]), bound("", 9), bound("z", 1))
    made = CreateToken(token="t", sha256="", label="", grants=(Grant(role="admin", path="q"),))
    each(RemoveQuota(path="q"), made)
    who = Principal(token="t", policy_slot=99)
    slot(command(bound("q", 9), principal=who), command(bound("q/d", 9), principal=who))
    slot(command(RemoveQuota(path="q/d"), principal=who), _put("s/1"), _put("s/2"), _put("s/3"))
    slot(_put("u"), _put("v"), _put("w"), RemoveQuota(path=""), _put("w"))
    constants = Constants(tree_entries=60_000, tree_bytes=128 * 4_000)
    return Chapter(_genesis(constants), writer.slots, narrow_tree=False)


def acceptors() -> Chapter:
    """The acceptors change; what does not count, changes nothing."""
    writer = _Writer()
    named = tuple(FoundingMember(name=name, disk=f"disk of {name}") for name in _MEMBERS[:3])
    replaced = (*named[:2], FoundingMember(name="acceptor-3", disk="another disk"))
    values: list[AnyValue] = [
        Members(version=2, acceptors=replaced),
        Settled(version=0),
        Members(version=1, acceptors=replaced),
        Members(version=2, acceptors=named),
        Settled(version=1),  # Too early: the new ones begin with slot 6.
        Settled(version=2),
        Settled(version=1),
        Settled(version=1),
        Members(version=2, acceptors=named),
    ]
    writer.slots.extend(map(Slot, values))
    writer.each(OpenSession(), _put("after"))
    return Chapter(_genesis(Constants(alpha=3)), writer.slots, narrow_tree=False)


def audited_acceptors() -> Chapter:
    """A change of the acceptors begins and ends, twice, in a cluster that chains it."""
    writer = _Writer()
    named = tuple(FoundingMember(name=name, disk=f"disk of {name}") for name in _MEMBERS[:3])
    replaced = (*named[:2], FoundingMember(name="acceptor-3", disk="another disk"))
    ends: AnyValue = Settled(version=1)
    values: list[AnyValue] = [
        Members(version=1, acceptors=replaced, principal="@al"),
        *(ends, ends, ends),
        Members(version=2, acceptors=named),
        *[Settled(version=2)] * 3,
    ]
    writer.slots.extend(map(Slot, values))
    writer.each(OpenSession(), _put("after"))
    return Chapter(_genesis(Constants(alpha=3, audit=True)), writer.slots, narrow_tree=False)


def rosters() -> Chapter:
    """Members of other roles come and go, in a cluster that chains it; what is not next is void."""
    writer = _Writer()
    names = ("proposer-1", "proposer-6", "learner-1", "learner-2", "store-1", "store-2")
    gone = (FoundingMember(name="store-2", disk="disk of store-2"),)
    later = (FoundingMember(name="proposer-6", disk="another disk"),)
    values: list[AnyValue] = [
        Roster(version=2, members=names),
        Roster(version=1, members=names, principal="@al"),
        Roster(version=1, members=names[1:]),
        Roster(version=2, members=names[:-1], removed=gone, principal="t"),
        Roster(version=3, members=(names[0], *names[2:5]), removed=later),
        Roster(version=4, members=names),
    ]
    writer.slots.extend(map(Slot, values))
    writer.each(OpenSession(), _put("after"))
    return Chapter(_genesis(Constants(audit=True)), writer.slots, narrow_tree=False)


def accounts() -> Chapter:
    """Users, groups and logins: what each may, changes and ends, in a cluster that chains it."""
    writer = _Writer()
    each, slot, command = writer.each, writer.slot, writer.command

    def grants(*pairs: tuple[Any, str]) -> tuple[Grant, ...]:
        return tuple(Grant(role=role, path=path) for role, path in pairs)

    def user(name: str, *pairs: tuple[Any, str], **more: Any) -> CreateUser:
        return CreateUser(user=name, password=f"hash of {name}", grants=grants(*pairs), **more)

    def made() -> str:
        """The version of what the newest slot has made."""
        return f"{len(writer.slots)}-0"

    def login(
        name: str, checked: str, minutes: int = 60, user: str | None = None, token: str = ""
    ) -> CreateLogin:
        return CreateLogin(
            login=name,
            sha256="cd" * 32,
            label=name,
            user=user,
            token=token or None,
            checked=checked,
            idle_ms=minutes * _MINUTE_MS,
            expires_after_ms=90 * _MINUTE_MS,
        )

    def act(name: str, *operations: AnyOperation, known: int = 999, **more: Any) -> None:
        who = Principal(token=name, policy_slot=known, **more)
        for operation in operations:
            slot(command(operation, principal=who))

    writers = CreateGroup(group="writers", grants=grants(("write", "w")))
    each(OpenSession(), writers, writers, CreateGroup(group="odd", grants=grants(("backup", "a"))))
    each(user("al", ("read", "a"), groups=("writers",)))
    first = made()
    each(user("al"), user("no", groups=("none",)), user("odd", ("operate", "a")))
    each(user("root", ("admin", "")))
    root = made()
    each(CreateUser(user="mute"), login("x", made(), user="mute"), login("x", "1-0", user="none"))
    each(login("l1", first, user="al"), login("l1", first, user="al"), login("x", "0-0", user="al"))
    each(login("x", first), login("x", first, user="al", token="t"), login("x", "0", token="t"))
    each(login("l2", root, user="root"), RefreshLogin(), RevokeLogin(login="none"))
    act("l1", _put("w/1"), _put("a/1"), _put("z/1"), RefreshLogin(), user="al")
    act("l1", _put("w/2"), known=3, user="al")
    act("l1", _put("w/2"), user="root")
    act("l1", _put("w/2"))

    # Users and groups change, by who may change them.
    new = grants(("write", "z"), ("read", "z"))
    each(ChangeUser(user="none", join=("writers",)), ChangeUser(user="al"))
    each(ChangeUser(user="al", grant=new, leave=("writers",)), ChangeUser(user="al", revoke=new))
    each(ChangeUser(user="al", revoke=new), ChangeUser(user="al", leave=("writers",)))
    each(ChangeUser(user="al", join=("none",)), ChangeUser(user="al", join=("writers",)))
    each(ChangeGroup(group="writers"), ChangeGroup(group="none", grant=new))
    each(ChangeGroup(group="writers", grant=new, revoke=grants(("write", "w"))))
    act("l1", _put("w/3"), _put("z/3"), ChangeUser(user="al", grant=new), user="al")
    act("l1", ChangeUser(user="root", password="h"), ChangeUser(user="al", join=("w",)), user="al")
    act("l1", RevokeLogin(login="l2"), RemoveUser(user="root"), user("me"), user="al")
    act("l2", RemoveGroup(group="none"), ChangeUser(user="al", password="by root"), user="root")
    second = made()
    act("l1", _put("z/4"), user="al")
    each(login("l1", first, user="al"), login("l1", second, user="al"))
    act("l1", ChangeUser(user="al", password="own"), _put("z/4"), user="al")
    third = f"{len(writer.slots) - 1}-0"
    each(login("l3", third, user="al"), RemoveGroup(group="writers"))
    act("l3", _put("z/5"), user="al")
    each(writers, *(CreateGroup(group=f"g{n}") for n in range(GROUPS_MAX + 1)))
    many = tuple(f"g{n}" for n in range(GROUPS_MAX))
    each(ChangeUser(user="al", join=many), ChangeUser(user="al", join=(f"g{GROUPS_MAX}",)))
    some = grants(*(("write", f"p{n}") for n in range(GRANTS_MAX)))
    each(ChangeUser(user="al", grant=some), ChangeGroup(group="g0", grant=some))
    act("l3", _put("p9/1"), _put("q"), user="al")
    each(ChangeUser(user="root", grant=some[:8]), ChangeUser(user="root", grant=some[8:]))
    each(ChangeUser(user="root", revoke=some[:8]))

    # Tokens of groups, and what they and users make.
    def token(name: str, *groups: str, **more: Any) -> CreateToken:
        return CreateToken(token=name, sha256="ab" * 32, label="", groups=groups, **more)

    given = grants(("write", "w"))
    each(token("t", "writers", grants=given), token("l3", grants=given), token("u", grants=()))
    secret = f"{len(writer.slots) - 2}"
    each(login("t1", "0", token="t"), login("t1", secret, token="t"), login("t", "0", token="t"))
    act("t1", _put("w/t"), RevokeToken(token="t"), RefreshLogin(), _put("w/u"))
    act("l2", token("m", grants=given), token("n", "g1", grants=()), user="root")
    act("l3", token("k", "g1", grants=()), RevokeToken(token="n"), user="al")
    act("m", _put("w/m"), CreateGroup(group="no"), RevokeToken(token="n"), RevokeToken(token="m"))
    key = IdempotencyKey(key="k", fingerprint="f")
    al = Principal(token="l3", policy_slot=999, user="al")
    slot(command(_put("p1/k"), principal=al, idempotency=key))
    each(login("l4", third, user="al"))
    again = al.model_copy(update={"token": "l4"})
    slot(command(_put("p1/k"), principal=again, idempotency=key))

    # Logins end: by hand, with their user or token, beyond a number, and by log time.
    act("l4", RevokeLogin(login="l3"), RevokeLogin(login="l2"), user="al")
    act("l3", _put("p1/3"), user="al")
    slot(*(login(f"many{n}", third, user="al") for n in range(LOGINS_MAX + 1)))
    each(token("s", grants=given, expires_after_ms=2 * _MINUTE_MS))
    of_s = f"{len(writer.slots)}"
    each(login("s1", of_s, token="s"), login("idle", root, 1, user="root"))
    each(login("idle2", root, 1, user="root"))
    slot(_put("tick"), after_ms=_MINUTE_MS - 40)
    act("idle", RefreshLogin(), _put("i"), user="root")
    act("idle2", *(_put(f"i{n}") for n in range(5)), user="root")
    slot(_put("tick"), after_ms=_MINUTE_MS - 100)
    act("idle", RefreshLogin(), user="root")
    act("s1", _put("w/s"), _put("w/s2"), _put("w/s3"))
    each(login("s2", of_s, token="s"))
    each(RemoveUser(user="al"), RemoveUser(user="al"), RevokeToken(token="n"))
    slot(_put("tick"), after_ms=3 * _MINUTE_MS)
    each(*(user(f"{'n' * 60}{n}", *(("read", "p" * 900),) * 4) for n in range(3)))
    each(ChangeUser(user="root", grant=grants(("read", "p" * 900))), RemoveUser(user="mute"))
    constants = Constants(
        session_expiry_ms=8 * _MINUTE_MS,
        tree_entries=200 * 40,
        tree_bytes=128 * 37_000,
        audit=True,
    )
    return Chapter(_genesis(constants), writer.slots, narrow_tree=False)


CHAPTERS = (
    files,
    sessions,
    bounds,
    principals,
    audited,
    quotas,
    acceptors,
    accounts,
    audited_acceptors,
    rosters,
)
_CHAPTERS_OF_TREES = 3
"""The first chapters are also applied under narrower bounds of the tree."""

NARROW = range(1, 40)
"""Each chapter is also applied under so narrow bounds that each cost of a step or an entry, and
each time of an expiry, decides an outcome somewhere.
"""


def _narrowed(constants: Constants, width: int, narrow_tree: bool) -> Constants:
    narrow = constants.model_copy(
        update={
            "slot_steps": width,
            "slot_bytes": 150 * width,
            "path_depth": 1 + width // 4,
            "tree_entries": width,
            "tree_bytes": 500 * width,
            "session_expiry_ms": width * _MINUTE_MS // 3,
            "idempotency_expiry_ms": width * _MINUTE_MS // 4,
        }
    )
    if narrow_tree:
        return narrow
    sizes = {"tree_entries": constants.tree_entries, "tree_bytes": constants.tree_bytes}
    return narrow.model_copy(update=sizes)


# -- its record -----------------------------------------------------------------------------------


def record() -> Iterator[str]:
    """The lines of the record: for each chapter its genesis, its slots and their results, and the
    results under narrower bounds.
    """
    for chapter in (make() for make in CHAPTERS):
        yield from _lines_of(chapter)


def repeated(lines: Sequence[str]) -> Iterator[str]:
    """The lines that this version would have recorded, computed from the slots in `lines`."""
    chapters: list[Chapter] = []
    for line in lines:
        read = json.loads(line)
        if "genesis" in read:
            genesis = Genesis.model_validate_json(json.dumps(read["genesis"]))
            chapters.append(Chapter(genesis, [], len(chapters) < _CHAPTERS_OF_TREES))
        elif "slot" in read:
            value = _VALUE.validate_json(json.dumps(read["value"]))
            aborted = _REFUSALS.validate_json(json.dumps(read["aborted"]))
            chapters[-1].slots.append(Slot(value, aborted))
    for chapter in chapters:
        yield from _lines_of(chapter)


def _lines_of(chapter: Chapter) -> Iterator[str]:
    genesis, slots, narrow_tree = chapter
    yield _line_of_genesis(genesis)
    state = begun(genesis)
    for slot in slots:
        yield _line_of_slot(state, slot)
    # A chain adds no cost to a command, so narrower bounds show nothing more of it.
    for width in () if genesis.constants.audit else NARROW:
        constants = _narrowed(genesis.constants, width, narrow_tree)
        narrow = genesis.model_copy(update={"constants": constants})
        state, results = begun(narrow), hashlib.sha256()
        for slot in slots:
            results.update(_line_of_slot(state, slot).encode())
        yield f'{{"narrow":{width},"results":"{results.hexdigest()}"}}'


def begun(genesis: Genesis) -> Namespace:
    """The empty state of a new cluster."""
    state = Namespace()
    state.audit.kept = []
    state.begin(genesis)
    return state


def _line_of_genesis(genesis: Genesis) -> str:
    # The reason why a View of one store takes no writes is part of results, too (decision 21).
    shortage = json.dumps(genesis.shortage(["store-1"]))
    return f'{{"genesis":{_json(genesis)},"shortage":{shortage}}}'


def _line_of_slot(state: Namespace, slot: Slot) -> str:
    outcomes = state.apply(state.applied + 1, slot.value, slot.aborted)
    state.tree.gained.clear()
    state.tree.dropped.clear()
    rows = hashlib.sha256()
    for key, row in sorted(state.rows()):
        rows.update(b"%b %b\n" % (key.encode(), row.to_json()))
    digest = slot.value.digest if isinstance(slot.value, Batch) else ""
    aborted, results = (",".join(map(_json, part)) for part in (slot.aborted, outcomes))
    return (
        f'{{"slot":{state.applied},"value":{_json(slot.value)},"digest":"{digest}",'
        f'"aborted":[{aborted}],"outcomes":[{results}],'
        f'"bytes":{state.tree.bytes},"state_hash":"{state.state_hash}",'
        f'"rows":"{rows.hexdigest()}"}}'
    )


def _json(value: Frozen) -> str:
    return value.to_json().decode()


if __name__ == "__main__":
    RECORD.write_text("".join(f"{line}\n" for line in record()), encoding="utf-8")

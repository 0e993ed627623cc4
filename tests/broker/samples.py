"""One instance of every message type, with values in every field."""

from typing import Literal

from actors import messages as m
from actors.messages import AnyMessage
from actors.paxos.ballot import Ballot
from actors.paxos.membership import Configuration, Membership
from actors.principals import (
    ChangeGroup,
    ChangeUser,
    CreateGroup,
    CreateLogin,
    CreateUser,
    PolicyChange,
    RefreshLogin,
    RemoveGroup,
    RemoveUser,
    RevokeLogin,
    RevokeToken,
)
from actors.store.changes import Change
from actors.values import (
    NOOP,
    Abort,
    AcceptedValue,
    Batch,
    Check,
    Chunked,
    CloseSession,
    Command,
    Constants,
    CopyEntry,
    CreateToken,
    DecidedSlot,
    DeleteFile,
    DirectoryEntry,
    FileEntry,
    FoundingMember,
    Genesis,
    Grant,
    IdempotencyKey,
    Indirect,
    Inline,
    MakeDirectory,
    Members,
    MoveEntry,
    OpenSession,
    Outcome,
    Precondition,
    PreparedSlot,
    Principal,
    PutFile,
    Refusal,
    RemoveDirectory,
    Roster,
    Settled,
    SlotValue,
    StoreMember,
    Transaction,
    View,
)

HASH = "ab" * 32
GRANTS = (Grant(role="write", path="a/b"), Grant(role="operate", path=""))
PRINCIPAL = Principal(token="t", policy_slot=8)
LOGGED_IN = Principal(token="l", policy_slot=8, user="u")
_READS: tuple[tuple[Literal["access", "credential", "users", "groups", "logins"], str], ...] = (
    ("access", ""),
    ("credential", "@u"),
    ("users", ""),
    ("groups", ""),
    ("logins", ""),
)
BALLOT = Ballot(7, "proposer-2")
VIEW = View(
    epoch=4,
    coordinator="learner-1",
    coordinator_disk="d9",
    coordinator_incarnation=2,
    stores=(
        StoreMember(name="store-1", disk="d1", added_slot=0),
        StoreMember(name="store-2", disk="d2", added_slot=None),
    ),
)
GENESIS = Genesis(
    cluster="c1",
    constants=Constants(),
    members=(FoundingMember(name="store-1", disk="d1"),),
    view=VIEW,
)
ABORTED = Refusal(index=1, reason="store-2 did not vote")
OUTCOME = Outcome(status="done", slot=9, index=1, created=True, detail="ü")
TAGGED = Precondition(if_match=("1-0",), if_none_match=("*",))


def command(sequence: int, operation: object) -> Command:
    return Command.model_validate(
        {
            "session": "s",
            "sequence": sequence,
            "acknowledged": 1,
            "reply_to": "gateway-1",
            "operation": operation,
            "idempotency": IdempotencyKey(key="k", fingerprint="f"),
        }
    )


BATCH = Batch(
    elapsed_ms=17,
    commands=tuple(
        command(sequence, operation)
        for sequence, operation in enumerate(
            (
                OpenSession(),
                CloseSession(target="t"),
                PutFile(
                    path="a/ü",
                    content=Inline(sha256=HASH, data=bytes(range(256))),
                    content_type="text/plain",
                    modified_ms=5,
                    executable=True,
                    meta=(("k", "v"),),
                    when=Precondition(if_match=("1-0",), if_none_match=("*",)),
                ),
                PutFile(path="b", content=Chunked(size=3, sha256=HASH, chunks=(HASH,))),
                PutFile(path="c", content=Indirect(size=3, sha256=HASH, manifest=HASH)),
                DeleteFile(path="a"),
                MakeDirectory(path="d"),
                RemoveDirectory(path="d", recursive=True),
                MoveEntry(source="a", target="b", overwrite=True, when=TAGGED, target_when=TAGGED),
                CopyEntry(source="a", target="b", overwrite=True, when=TAGGED, target_when=TAGGED),
                Transaction(
                    steps=(
                        PutFile(path="b", content=Inline(sha256=HASH, data=b"ab")),
                        DeleteFile(path="a"),
                        MakeDirectory(path="d"),
                        RemoveDirectory(path="d"),
                        MoveEntry(source="a", target="b"),
                        CopyEntry(source="a", target="b"),
                        Check(path="a", when=TAGGED),
                    )
                ),
            )
        )
    ),
)
ABORT = Abort(slot=9, commands=(0, 2), epoch=4, reason="no vote")
FILE = FileEntry(
    path="a",
    slot=9,
    index=0,
    version=2,
    content=Chunked(size=3, sha256=HASH, chunks=(HASH,)),
    content_type="text/plain",
    modified_ms=5,
    executable=False,
    meta=(),
)
ACCEPTED = AcceptedValue(slot=9, ballot=BALLOT, value=BATCH)
REFUSAL = Refusal(index=1, reason="no room")

SAMPLES: tuple[AnyMessage, ...] = (
    m.Census(disk="d1", incarnation=3),
    m.Present(asker_disk="d1", asker_incarnation=3, cluster=""),
    m.ProposeGenesis(genesis=GENESIS),
    m.HoldsGenesis(cluster="c1"),
    m.Inquiry(cluster=""),
    m.Founded(genesis=GENESIS, asker_disk="d", asker_incarnation=2),
    m.NodeHeartbeat(
        role="store",
        journal_commits=12,
        applied=9,
        durable=8,
        chosen_through=10,
        state_hash=HASH,
        ballot=BALLOT,
        view=VIEW,
        pending=3,
        in_doubt=1,
        installing=True,
        rows_left=4,
        chunks_missing=7,
        disk_full=True,
        halted="why",
    ),
    m.StaleDisk(disk="d1", incarnation=3, journal_commits=99),
    m.Prepare(ballot=BALLOT, first_slot=5),
    m.Promise(ballot=BALLOT, first_slot=5, next_slot=None, accepted=(ACCEPTED,), truncated_below=2),
    m.Accept(ballot=BALLOT, slot=9, value=BATCH),
    m.Accepted(ballot=BALLOT, slot=9),
    m.Reject(ballot=BALLOT, promised=Ballot(8, "p"), lease_left_ms=100, truncated_below=2),
    m.LeaseHeartbeat(ballot=BALLOT, number=4),
    m.LeaseGranted(ballot=BALLOT, number=4),
    m.LeaderBeat(
        ballot=BALLOT,
        ready=True,
        chosen_through=9,
        lease_left_ms=900,
        read_leases_ms={"store-1": 700},
    ),
    m.LearnerProgress(chosen_through=9, decided=8, view=VIEW),
    m.PullChosen(first_slot=1, last_slot=9),
    m.Chosen(entries=(SlotValue(slot=9, value=NOOP), SlotValue(slot=10, value=ABORT))),
    m.AcceptedRange(entries=(ACCEPTED,), truncated_below=2),
    m.ProposeValue(value=ABORT),
    m.Truncate(below=4),
    m.LogRead(number=1, before=0, limit=10, commands_max=0),
    m.LogPage(
        number=1,
        entries=(
            m.LogEntry(
                slot=3,
                kind="batch",
                epoch=0,
                ballot=BALLOT,
                accepted_by=("acceptor-1",),
                commands_count=1,
                commands=(m.LogCommand(request="s-1", operation="put_file", path="a"),),
                aborted=(),
                text="1 commands",
            ),
        ),
        decided=3,
        first_kept=1,
    ),
    m.AuditRead(
        number=7,
        after=3,
        before=9,
        newest_first=True,
        limit=10,
        at_least=8,
        principal="t",
        prefix="a/b",
        operation="put_file",
        result="done",
        since_ms=5,
        until_ms=6,
        grants=GRANTS,
    ),
    m.AuditPage(
        number=7,
        records=(m.AuditRecord(text='{"number":4,"path":"ü"}', hash=HASH),),
        previous=HASH,
        through=4,
        more=True,
        first=1,
        count=9,
        head=HASH,
        applied=9,
        log_time_ms=7,
    ),
    m.TxnPrepare(epoch=4, slot=9, batch=BATCH),
    m.TxnVote(epoch=4, slot=9, refused=(REFUSAL,), durable=8),
    m.TxnProgress(epoch=4, slot=9),
    m.TxnDecision(epoch=4, slot=9, ballot=BALLOT, aborted=(ABORTED,), value=VIEW),
    m.TxnInquiry(view=VIEW, decided=8),
    m.TxnState(
        epoch=4, applied=8, whole=True, prepared=(PreparedSlot(slot=9, refused=(REFUSAL,)),)
    ),
    m.Fenced(epoch=5),
    m.PullDecided(applied=8),
    m.Decided(entries=(DecidedSlot(slot=9, value=BATCH, aborted=(ABORTED,)),), first_kept=2),
    m.Submit(ballot=BALLOT, command=BATCH.commands[2]),
    m.Redirect(session="s", sequence=2, ballot=BALLOT, reason="not leading", never_proposed=True),
    m.Result(session="s", sequence=2, outcome=OUTCOME),
    m.LeaseAsk(number=3),
    m.LeaseGrant(number=3, epoch=4, disk="d1", added_slot=0, duration_ms=900),
    m.ReadRequest(number=5, what="list", path="d", after="a", limit=10, consistency="stale"),
    m.ReadReply(
        number=5,
        status="found",
        applied=9,
        entry=FILE,
        children=(FILE, DirectoryEntry(path="d", slot=3, index=0)),
        more=True,
        changes=(
            Change(kind="put", slot=9, index=1, ordinal=0, path="a", size=3, content_type="b/c"),
            Change(kind="move", slot=9, index=2, ordinal=1, path="b", source="a"),
        ),
        outcome=OUTCOME,
        detail="d",
    ),
    m.ChunkPut(sha256=HASH, manifest=True, data=bytes(range(256)) * 5000),
    m.ChunkStored(sha256=HASH),
    m.ChunkRefused(sha256=HASH, reason="no room"),
    m.ChunkGet(sha256=HASH),
    m.ChunkData(sha256=HASH, data=b"\xff\x00\xce"),
    m.ChunkMissing(sha256=HASH),
    m.ChunkHold(for_ms=60_000),
    m.ChunkKeep(names=(HASH, "0" * 64), for_ms=60_000),
    m.SnapshotPull(slot=9, page=2),
    m.SnapshotPage(
        slot=9,
        page=2,
        rows=(m.SnapshotRow(key="entry/a", value='{"kind": "ü"}'),),
        rows_left=3,
        digest=HASH,
    ),
    m.JoinRequest(applied=9, state_hash=HASH),
    m.Diverged(slot=9, state_hash=HASH, reported="cd" * 16),
    m.ChangeMember(number=3, action="replace", name="acceptor-3", version=1, principal="t"),
    m.ChangeAnswer(number=3, version=1, refused="ü", again=True),
    m.Superseded(disk="a3", version=1),
)

_POLICY_CHANGES: tuple[PolicyChange, ...] = (
    CreateToken(token="t", sha256=HASH, label="ü", grants=GRANTS, groups=("g", "h")),
    RevokeToken(token="t"),
    CreateUser(user="u", password="$argon2id$", grants=GRANTS, groups=("g",)),
    CreateUser(user="u"),
    ChangeUser(
        user="u",
        password="$argon2id$",
        grant=GRANTS,
        revoke=GRANTS,
        join=("g",),
        leave=("h",),
    ),
    RemoveUser(user="u"),
    CreateGroup(group="g", grants=GRANTS),
    ChangeGroup(group="g", grant=GRANTS, revoke=GRANTS),
    RemoveGroup(group="g"),
    CreateLogin(
        login="l",
        sha256=HASH,
        label="ü",
        user="u",
        checked="9-1",
        idle_ms=5,
        expires_after_ms=7,
    ),
    CreateLogin(
        login="l",
        sha256=HASH,
        label="",
        token="t",
        checked="9",
        idle_ms=5,
        expires_after_ms=7,
    ),
    RefreshLogin(),
    RevokeLogin(login="l"),
)

OF_PRINCIPALS: tuple[AnyMessage, ...] = (
    m.Submit(
        ballot=BALLOT,
        command=Command(
            session="s",
            sequence=3,
            acknowledged=2,
            reply_to="gateway-1",
            operation=CreateToken(
                token="t",
                sha256=HASH,
                label="ü",
                grants=GRANTS,
                expires_after_ms=7,
            ),
            principal=PRINCIPAL,
        ),
    ),
    m.Result(
        session="s",
        sequence=3,
        outcome=Outcome(status="denied", slot=9, index=0, detail="no", token="t"),
    ),
    m.ReadRequest(number=6, what="tokens", principal=PRINCIPAL),
    m.ReadReply(
        number=6,
        status="found",
        applied=9,
        tokens=(
            m.TokenInfo(
                token="t",
                slot=9,
                label="ü",
                grants=GRANTS,
                created_by="u",
                left_ms=5,
                sha256=HASH,
            ),
        ),
    ),
    *(
        m.Submit(
            ballot=BALLOT,
            command=Command(
                session="s",
                sequence=sequence,
                acknowledged=2,
                reply_to="gateway-1",
                operation=operation,
                principal=LOGGED_IN,
            ),
        )
        for sequence, operation in enumerate(_POLICY_CHANGES)
    ),
    *(
        m.ReadRequest(number=number, what=what, path=path, after="a", principal=LOGGED_IN)
        for number, (what, path) in enumerate(_READS)
    ),
    m.ReadReply(
        number=6,
        status="found",
        applied=9,
        tokens=(
            m.TokenInfo(
                token="l",
                slot=9,
                label="ü",
                grants=GRANTS,
                created_by="@u",
                left_ms=5,
                sha256=HASH,
                groups=("g",),
                login=m.LoginInfo(user="u", token=None, idle_ms=7, idle_left_ms=3),
            ),
        ),
        users=(
            m.UserInfo(
                user="u",
                slot=9,
                grants=GRANTS,
                groups=("g",),
                created_by="v",
                has_password=True,
                password="$argon2id$",
                password_set="9-1",
            ),
        ),
        groups=(m.GroupInfo(group="g", slot=9, grants=GRANTS, created_by="v"),),
    ),
)
"""More instances, of messages for the holders of tokens and for users."""

_ACCEPTORS = tuple(FoundingMember(name=f"acceptor-{n}", disk=f"a{n}") for n in (1, 2, 3))
_MEMBERS = Members(version=1, acceptors=_ACCEPTORS)
_MEMBERSHIP = Membership(
    active=(
        Configuration(version=0, named_slot=0, first_slot=1, acceptors=_ACCEPTORS),
        Configuration(version=1, named_slot=5, first_slot=69, acceptors=_ACCEPTORS),
    ),
    settled_slot=0,
)
_ROSTER = Roster(
    version=1,
    members=("proposer-1", "learner-1", "learner-2", "store-1"),
    removed=(FoundingMember(name="store-2", disk="s2"),),
    principal="@u",
)
_LATER = _MEMBERSHIP.after(70, Settled(version=1), 64).after(71, _ROSTER, 64)
_ELSEWHERE = Ballot(8, "proposer-1/d9")

OF_MEMBERSHIP: tuple[AnyMessage, ...] = (
    m.Prepare(ballot=BALLOT, first_slot=4, version=1),
    m.Accept(ballot=BALLOT, slot=9, value=_MEMBERS, learner="learner-1", version=1),
    m.Accept(ballot=BALLOT, slot=70, value=Settled(version=1), version=1),
    m.Accept(ballot=BALLOT, slot=71, value=BATCH, version=1),
    m.Reject(ballot=BALLOT, promised=BALLOT, lease_left_ms=0, truncated_below=1, fence=1),
    m.LeaseHeartbeat(ballot=BALLOT, number=3, version=1),
    m.LearnerProgress(
        chosen_through=9, decided=8, view=VIEW, membership=_MEMBERSHIP, durable_mark=7
    ),
    m.NodeHeartbeat(role="learner", journal_commits=9, membership=_MEMBERSHIP, durable_mark=7),
    m.TxnDecision(epoch=1, slot=9, ballot=BALLOT, aborted=(), value=_MEMBERS),
    m.Founded(genesis=GENESIS, asker_disk="d", asker_incarnation=1, version=1),
    m.Prepare(ballot=_ELSEWHERE, first_slot=4),
    m.Accept(ballot=_ELSEWHERE, slot=71, value=_ROSTER, version=1),
    m.TxnDecision(epoch=1, slot=71, ballot=_ELSEWHERE, aborted=(), value=_ROSTER),
    m.NodeHeartbeat(role="learner", journal_commits=9, membership=_LATER, durable_mark=71),
)
"""More instances, of messages that are sent once the members change."""

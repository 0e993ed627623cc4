"""The audit: a chain of records, one for each step of each command that the log decides, and one
for the beginning and the end of each change of the acceptors.

Who, what, where and with which result follows from the log, so every replica computes the same
chain. Its end is a part of the replicated state: it comes with every snapshot and backup, and the
hashes that replicas compare cover it. The records themselves are kept by learners
(`actors.learner.audit_log`).

A record is a line of JSON, and its hash is `SHA-256(HASH_BEFORE LINE_FEED LINE)`, in lower-case
hex, where the one before the first is empty. It holds names alone: no contents, no secret, no
password, no hash of any. So what a record shows of a command is listed here, field by field.
"""

import hashlib
from collections.abc import Sequence
from json.encoder import encode_basestring as quoted

from actors.numbers import Count
from actors.principals import (
    ChangeGroup,
    ChangeUser,
    CreateGroup,
    CreateLogin,
    CreateUser,
    Grant,
    RefreshLogin,
    RemoveGroup,
    RemoveUser,
    RevokeLogin,
)
from actors.values import (
    AccountChange,
    AnyPart,
    Batch,
    CloseSession,
    Command,
    CopyEntry,
    CreateToken,
    Frozen,
    Members,
    MoveEntry,
    OpenSession,
    Outcome,
    RevokeToken,
    Roster,
    Settled,
    Transaction,
)


class AuditMark(Frozen):
    """The end of the chain: the number of its records, and the hash of the last one."""

    count: Count
    head: str


def next_hash(former: str, line: str) -> str:
    """The hash of a record after the one whose hash is `former`."""
    return hashlib.sha256(f"{former}\n{line}".encode("utf-8", "surrogatepass")).hexdigest()


class AuditChain:
    """The end of the chain, and the newest records, if their owner wants them."""

    def __init__(self) -> None:
        self.count = 0
        self.head = ""
        self.kept: list[tuple[str, str]] | None = None
        """The lines that the owner has not taken yet, and their hashes; `None`: it wants none."""

    @property
    def mark(self) -> AuditMark | None:
        """The end of the chain, if there is any."""
        return AuditMark(count=self.count, head=self.head) if self.count else None

    def restore(self, mark: AuditMark | None) -> None:
        """Go on from the end in a row of the journal."""
        self.count, self.head = (0, "") if mark is None else (mark.count, mark.head)

    def note(self, slot: int, log_time_ms: int, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Add the records of a slot's commands, which had these outcomes."""
        count, head, kept = self.count, self.head, self.kept
        for index, (command, outcome) in enumerate(zip(batch.commands, outcomes, strict=True)):
            operation = command.operation
            where = f'"slot":{slot},"index":{index}'
            about = _about_command(slot, index, log_time_ms, command, outcome)
            if isinstance(operation, Transaction):
                steps = [
                    f'{where},"step":{number},{about[0]}{_about(step)}{about[1]}'
                    for number, step in enumerate(operation.steps)
                ]
            else:
                steps = [f"{where},{about[0]}{_about(operation)}{about[1]}"]
            for step in steps:
                count += 1
                line = f'{{"number":{count},{step}}}'
                head = next_hash(head, line)
                if kept is not None:
                    kept.append((line, head))
        self.count, self.head = count, head

    def note_members(self, slot: int, log_time_ms: int, value: Members | Settled | Roster) -> None:
        """Add the record of a change of the members, or of acceptors that begins or ends in a slot.
        Its principal asked for it; its end is the leader's own doing.
        """
        who = "null"
        if not isinstance(value, Settled) and value.principal is not None:
            who = quoted(value.principal)
        if isinstance(value, Members):
            disks = (f"[{quoted(one.name)},{quoted(one.disk)}]" for one in value.acceptors)
            about = f'"change_acceptors","version":{value.version},"acceptors":[{",".join(disks)}]'
        elif isinstance(value, Roster):
            names = ",".join(map(quoted, value.members))
            about = f'"change_roster","version":{value.version},"members":[{names}]'
        else:
            about = f'"settle_acceptors","version":{value.version}'
        self.count += 1
        line = (
            f'{{"number":{self.count},"slot":{slot},"index":0,"log_time_ms":{log_time_ms},'
            f'"principal":{who},"operation":{about},"result":"done","request":""}}'
        )
        self.head = next_hash(self.head, line)
        if self.kept is not None:
            self.kept.append((line, self.head))


def _about_command(
    slot: int, index: int, log_time_ms: int, command: Command, outcome: Outcome
) -> tuple[str, str]:
    """What is the same for all steps of a command: what stands before the step, and after it.

    `first` names the place of the command's first copy, if this one is a retry.
    """
    who = "null" if command.principal is None else quoted(command.principal.owner)
    is_first = (outcome.slot, outcome.index) == (slot, index)
    first = "" if is_first else f',"first":"{outcome.slot}-{outcome.index}"'
    return (
        f'"log_time_ms":{log_time_ms},"principal":{who},',
        f',"result":"{outcome.status}"{first},"request":{quoted(command.request)}',
    )


def _about(part: AnyPart) -> str:
    match part:
        case MoveEntry(source=source, target=path) | CopyEntry(source=source, target=path):
            names = f',"path":{quoted(path)},"source":{quoted(source)}'
        case OpenSession():
            names = ""
        case CloseSession(target=session):
            names = f',"session":{quoted(session)}'
        case CreateToken(token=token, grants=grants, groups=groups):
            names = f',"token":{quoted(token)},"grants":[{_pairs(grants)}]'
            names += _listed("groups", groups)
        case RevokeToken(token=token):
            names = f',"token":{quoted(token)}'
        case _ if isinstance(part, AccountChange):
            names = _about_account(part)
        case _:
            names = f',"path":{quoted(part.path)}'
    return f'"operation":"{part.kind}"{names}'


def _about_account(change: AccountChange) -> str:
    """Of a user, group or login. That there is a new password is shown, and nothing of it."""
    match change:
        case CreateUser(user=user, grants=grants, groups=groups):
            names = f',"user":{quoted(user)}{_given("grants", grants)}{_listed("groups", groups)}'
            return names + _password(change.password)
        case ChangeUser(user=user):
            given = _given("grants", change.grant) + _given("revoked", change.revoke)
            moved = _listed("joined", change.join) + _listed("left", change.leave)
            return f',"user":{quoted(user)}{given}{moved}{_password(change.password)}'
        case RemoveUser(user=user):
            return f',"user":{quoted(user)}'
        case CreateGroup(group=group, grants=grants):
            return f',"group":{quoted(group)}{_given("grants", grants)}'
        case ChangeGroup(group=group):
            given = _given("grants", change.grant) + _given("revoked", change.revoke)
            return f',"group":{quoted(group)}{given}'
        case RemoveGroup(group=group):
            return f',"group":{quoted(group)}'
        case CreateLogin(login=login):
            holder = _named("token", change.token) + _named("user", change.user)
            return f',"login":{quoted(login)}{holder}'
        case RefreshLogin():
            return ""
        case RevokeLogin(login=login):
            return f',"login":{quoted(login)}'


def _named(name: str, text: str | None) -> str:
    return "" if text is None else f',"{name}":{quoted(text)}'


def _pairs(grants: Sequence[Grant]) -> str:
    return ",".join(f"[{quoted(one.role)},{quoted(one.path)}]" for one in grants)


def _given(name: str, grants: Sequence[Grant]) -> str:
    return f',"{name}":[{_pairs(grants)}]' if grants else ""


def _listed(name: str, texts: Sequence[str]) -> str:
    return f',"{name}":[{",".join(map(quoted, texts))}]' if texts else ""


def _password(password: str | None) -> str:
    return "" if password is None else ',"new_password":true'

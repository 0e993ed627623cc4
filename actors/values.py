"""The values that a slot of the log can hold, and the commands in them.

A slot's value is a `Batch` of commands, a `View`, an `Abort` or a `NoOp` (design 3.5), begins or
ends a change of the acceptors (`Members`, `Settled`; decision 26), or names the proposers, learners
and stores (`Roster`). All of these are replicated state: a replica that applies the same slots in
the same order has the same namespace, sessions and results.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from actors.frozen import Frozen as Frozen
from actors.frozen import is_none as _is_none
from actors.numbers import COUNT_MAX, Count, Milliseconds
from actors.paxos.ballot import Ballot
from actors.paxos.quorum import Voters
from actors.principals import GRANTS_MAX as GRANTS_MAX
from actors.principals import OWNER_CHARS_MAX as OWNER_CHARS_MAX
from actors.principals import PATH_BYTES_MAX as PATH_BYTES_MAX
from actors.principals import TOKEN_ID_CHARS_MAX as TOKEN_ID_CHARS_MAX
from actors.principals import TOKEN_LABEL_CHARS_MAX as TOKEN_LABEL_CHARS_MAX
from actors.principals import AccountChange as AccountChange
from actors.principals import CreateToken as CreateToken
from actors.principals import FreeingChange, granted_by
from actors.principals import Grant as Grant
from actors.principals import PolicyChange as PolicyChange
from actors.principals import Principal as Principal
from actors.principals import RevokeToken as RevokeToken
from actors.principals import Role as Role
from actors.unread import UnreadBatch

INLINE_LIMIT_BYTES = 16 * 1024
"""Contents up to this size travel inside the command."""

CHUNK_BYTES = 1024 * 1024
"""Larger contents are cut into chunks of this size (the last one may be shorter)."""

CHUNKS_IN_COMMAND = 128
"""A manifest of more chunks than this is itself a chunk."""

_NODE_CHARS_MAX = 64
_SESSION_CHARS_MAX = 128


# -- contents ------------------------------------------------------------------------------------


class Inline(Frozen):
    """Contents that travel inside the command."""

    kind: Literal["inline"] = "inline"
    sha256: str
    data: bytes

    @cached_property
    def as_chunks(self) -> "Chunked":
        """How a replica keeps it: one chunk, named by its SHA-256."""
        chunks = (self.sha256,) if self.data else ()
        return Chunked(size=len(self.data), sha256=self.sha256, chunks=chunks)


class Chunked(Frozen):
    """Contents stored as chunks, in order, each named by its SHA-256. No chunks: an empty file."""

    kind: Literal["chunked"] = "chunked"
    size: Count
    sha256: str
    chunks: tuple[str, ...]


class Indirect(Frozen):
    """Contents whose list of chunks is itself a chunk: `manifest` names a JSON list of names."""

    kind: Literal["indirect"] = "indirect"
    size: Count
    sha256: str
    manifest: str


Content = Annotated[Inline | Chunked | Indirect, Field(discriminator="kind")]
StoredContent = Annotated[Chunked | Indirect, Field(discriminator="kind")]


def stored(content: Inline | Chunked | Indirect) -> Chunked | Indirect:
    """How a replica keeps `content`."""
    return content.as_chunks if isinstance(content, Inline) else content


# -- operations ----------------------------------------------------------------------------------


class Precondition(Frozen):
    """RFC 9110, section 13.1. Tags are strong; `*` stands for any current version."""

    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None


ALWAYS = Precondition()


class OpenSession(Frozen):
    """Makes the command's own session known. Commands of unknown sessions are refused.

    `after_slot` is a slot whose outcome the client knew when it sent the command. If a session has
    expired after it, the command may be a late copy of the one that opened that session, and opens
    none.
    """

    kind: Literal["open_session"] = "open_session"
    after_slot: Count = 0


class CloseSession(Frozen):
    """End session `target`: no later command of it is applied; its results stay readable."""

    kind: Literal["close_session"] = "close_session"
    target: str = Field(max_length=_SESSION_CHARS_MAX)


class PutFile(Frozen):
    """Create or replace a file; missing parent directories are made in the same command."""

    kind: Literal["put_file"] = "put_file"
    path: str
    content: Content
    content_type: str = "application/octet-stream"
    modified_ms: int = 0
    executable: bool = False
    meta: tuple[tuple[str, str], ...] = ()
    when: Precondition = ALWAYS


class DeleteFile(Frozen):
    """Remove a file."""

    kind: Literal["delete_file"] = "delete_file"
    path: str
    when: Precondition = ALWAYS


class MakeDirectory(Frozen):
    """Make a directory and its missing parents. It is done as well if the directory exists."""

    kind: Literal["make_directory"] = "make_directory"
    path: str


class RemoveDirectory(Frozen):
    """Remove a directory, with all below it if `recursive`."""

    kind: Literal["remove_directory"] = "remove_directory"
    path: str
    recursive: bool = False


class SetQuota(Frozen):
    """Bound the entries below `path`, and the bytes of their contents; `None`: any number. It
    replaces the path's former quota. The empty path is the root.
    """

    kind: Literal["set_quota"] = "set_quota"
    path: str
    entries_max: Count | None = None
    bytes_max: Count | None = None


class RemoveQuota(Frozen):
    """Remove the quota of `path`."""

    kind: Literal["remove_quota"] = "remove_quota"
    path: str


class MoveEntry(Frozen):
    """Give a file, or a directory with all below it, another path: all of it or nothing.

    `when` applies to the source, `target_when` to the target. An entry at the target is replaced
    only if `overwrite`: a file by a file, an empty directory by a directory, as rename(2) does.
    """

    kind: Literal["move"] = "move"
    source: str
    target: str
    overwrite: bool = False
    when: Precondition = ALWAYS
    target_when: Precondition = ALWAYS


class CopyEntry(Frozen):
    """Copy a file, or a directory with all below it, to another path: all of it or nothing.

    Contents are shared, so no bytes move. The rules are those of `MoveEntry`.
    """

    kind: Literal["copy"] = "copy"
    source: str
    target: str
    overwrite: bool = False
    when: Precondition = ALWAYS
    target_when: Precondition = ALWAYS


class Check(Frozen):
    """A step that changes nothing and fails unless `when` holds for `path`."""

    kind: Literal["check"] = "check"
    path: str
    when: Precondition


AnyStep = PutFile | DeleteFile | MakeDirectory | RemoveDirectory | MoveEntry | CopyEntry | Check
Step = Annotated[AnyStep, Field(discriminator="kind")]


class Transaction(Frozen):
    """Steps that are all applied or none. Each step sees the effects of those before it."""

    kind: Literal["transaction"] = "transaction"
    steps: tuple[Step, ...]


AnyOperation = (
    OpenSession
    | CloseSession
    | PutFile
    | DeleteFile
    | MakeDirectory
    | RemoveDirectory
    | MoveEntry
    | CopyEntry
    | Transaction
    | CreateToken
    | RevokeToken
    | SetQuota
    | RemoveQuota
    | AccountChange
)
Operation = Annotated[AnyOperation, Field(discriminator="kind")]

AnyPart = AnyStep | OpenSession | CloseSession | PolicyChange | SetQuota | RemoveQuota
"""An operation that has no steps."""


def steps_of(operation: AnyOperation) -> tuple[AnyPart, ...]:
    """The steps of a transaction; any other operation is its own only step."""
    return operation.steps if isinstance(operation, Transaction) else (operation,)


def is_path(text: str) -> bool:
    """Whether the tree can hold `text`: the root, or names joined by single slashes.

    Gateways refuse more. Any other text would have parents and children that don't match.
    """
    if len(text) > PATH_BYTES_MAX:
        return False
    return not text or not {"", ".", ".."} & set(text.split("/"))


def paths_of(operation: AnyOperation) -> Iterator[str]:
    """The paths that `operation` names."""
    for step in steps_of(operation):
        match step:
            case OpenSession() | CloseSession():
                pass
            case _ if isinstance(step, PolicyChange):
                yield from (grant.path for grant in granted_by(step))
            case MoveEntry(source=source, target=target) | CopyEntry(source=source, target=target):
                yield source
                yield target
            case _:
                yield step.path


def contents_of(operation: AnyOperation) -> tuple[Inline | Chunked | Indirect, ...]:
    """The contents that `operation` carries; copies and moves carry none."""
    if isinstance(operation, PutFile):
        return (operation.content,)
    if isinstance(operation, Transaction):
        return tuple(step.content for step in operation.steps if isinstance(step, PutFile))
    return ()


_FREEING = (
    OpenSession | CloseSession | DeleteFile | RemoveDirectory | Check | FreeingChange | RemoveQuota
)


def grows(operation: AnyOperation) -> bool:
    """Whether `operation` may need room permanently: all but deletions, checks, and the opening and
    closing of sessions and logins. A move writes as much as it moves, and under longer names.
    """
    return not all(isinstance(step, _FREEING) for step in steps_of(operation))


NO_ROOM = "no room"
"""The prefix of an abort's reason if a store's disk was full."""


def no_room(store: str) -> str:
    """The reason of a store that has no room for operations that grow."""
    return f"{NO_ROOM}: the disk of {store} is full"


class IdempotencyKey(Frozen):
    """A caller's name for one request; `fingerprint` distinguishes a retry from another request."""

    key: str
    fingerprint: str


class Command(Frozen):
    """One request of a client, applied at most once for each `(session, sequence)`.

    The client knows the results of all sequences up to `acknowledged`, so they may be forgotten.
    `reply_to` is the node that waits for the result. `principal` is for whom it is done; without
    one it is done for the administrator.
    """

    session: str = Field(max_length=_SESSION_CHARS_MAX)
    sequence: Count
    acknowledged: int = Field(ge=-1, le=COUNT_MAX)
    reply_to: str = Field(max_length=_NODE_CHARS_MAX)
    operation: Operation
    idempotency: IdempotencyKey | None = None
    principal: Principal | None = Field(None, exclude_if=_is_none)

    @property
    def request(self) -> str:
        """The request's id, as `Synod-Request-Id` shows it."""
        return f"{self.session}-{self.sequence}"

    @cached_property
    def size_bytes(self) -> int:
        """Its size in a message; most of it may be names, tags or metadata, not contents."""
        return len(self.to_json())


Status = Literal[
    "done",
    "precondition_failed",
    "not_found",
    "conflict",
    "not_empty",
    "aborted",
    "busy",
    "too_large",
    "over_quota",
    "no_room",
    "unknown_session",
    "forgotten",
    "key_reused",
    "denied",
    "unauthenticated",
]


class Outcome(Frozen):
    """The result of a command, the same on every replica, decided at `slot` and `index`.

    `unknown_session` and `forgotten` mean only that this copy of the command was not applied. Any
    other status but `done` means that the command was not applied and never will be under this
    sequence: the durable fact is the log up to `slot`. `step` is the number, from 0, of the step
    that refused a transaction; `path` is where, if the operation names several paths. `denied`: the
    command's principal lacks a right; `unauthenticated`: its token was revoked or has expired.
    `token` is the principal's owner.
    """

    status: Status
    slot: Count
    index: Count
    created: bool = False
    detail: str = ""
    step: Count | None = None
    path: str | None = None
    token: str | None = Field(None, exclude_if=_is_none)

    @property
    def etag(self) -> str:
        """The strong tag of the version that a `done` write made."""
        return f"{self.slot}-{self.index}"


# -- values of slots -----------------------------------------------------------------------------


class Batch(Frozen):
    """Commands, in the order in which they are applied.

    Log time advances by `elapsed_ms`, the time that passed on the leader's clock, under its lease,
    since its previous batch. Batches of earlier versions carry `stamp_ms` (Unix time) instead, to
    which it advances.
    """

    kind: Literal["batch"] = "batch"
    elapsed_ms: Milliseconds = Field(0, ge=-COUNT_MAX, le=COUNT_MAX)
    stamp_ms: Count | None = None
    commands: tuple[Command, ...]

    @cached_property
    def json_text(self) -> bytes:
        """The batch as JSON, cached because one batch is the bulk of many messages and rows.

        For a batch that was read it is the text that was read, see `adopt_json`.
        """
        return self.__pydantic_serializer__.to_json(self)

    def adopt_json(self, text: bytes) -> None:
        """Keep the JSON that the batch was read from, so that it is not serialized again."""
        self.__dict__["json_text"] = text

    def to_json(self) -> bytes:
        """See `Frozen.to_json`."""
        return self.json_text

    @cached_property
    def digest(self) -> str:
        """The batch's SHA-256, the same with contents inline, as in messages, and as chunks, as in
        a replica's journal.
        """
        kept = self.model_copy(update={"commands": tuple(map(_as_kept, self.commands))})
        return hashlib.sha256(self.__pydantic_serializer__.to_json(kept)).hexdigest()

    @cached_property
    def contents(self) -> tuple[Inline | Chunked | Indirect, ...]:
        """All contents that the commands carry, in order."""
        return tuple(c for command in self.commands for c in contents_of(command.operation))

    @cached_property
    def weight(self) -> int:
        """Its size in a message, in bytes."""
        return len(self.json_text)


def _as_kept(command: Command) -> Command:
    operation = command.operation
    kept: AnyOperation = operation
    if isinstance(operation, PutFile):
        kept = _put_as_kept(operation)
    elif isinstance(operation, Transaction):
        steps = (_put_as_kept(s) if isinstance(s, PutFile) else s for s in operation.steps)
        kept = operation.model_copy(update={"steps": tuple(steps)})
    return command.model_copy(update={"operation": kept})


def _put_as_kept(put: PutFile) -> PutFile:
    return put.model_copy(update={"content": stored(put.content)})


class StoreMember(Frozen):
    """A store of a view. `added_slot` last added this disk; `None`: the View's own slot."""

    name: str
    disk: str
    added_slot: Count | None


class View(Frozen):
    """The stores and the coordinator, from the slot at which the View takes effect.

    It takes effect only if the epoch is `epoch - 1` when the log reaches it. The coordinator is one
    start of one process on one disk: a learner that lost its disk counts its starts from 1 again.
    """

    kind: Literal["view"] = "view"
    epoch: Count
    coordinator: str
    coordinator_disk: str
    coordinator_incarnation: Count
    stores: tuple[StoreMember, ...]

    def in_force_at(self, slot: int) -> "View":
        """This View as it takes effect at `slot`, which adds its new stores."""
        stores = tuple(
            m if m.added_slot is not None else m.model_copy(update={"added_slot": slot})
            for m in self.stores
        )
        return self.model_copy(update={"stores": stores})

    def member(self, name: str) -> StoreMember | None:
        """The store of that name, if it is in the view."""
        return next((store for store in self.stores if store.name == name), None)


class Abort(Frozen):
    """The coordinator of `epoch` gives up `commands` (indices) of `slot`.

    It counts only if it joins the chosen prefix while `epoch` is current.
    """

    kind: Literal["abort"] = "abort"
    slot: Count
    commands: tuple[Count, ...]
    epoch: Count
    reason: str


class NoOp(Frozen):
    """Fills a gap."""

    kind: Literal["noop"] = "noop"


class FoundingMember(Frozen):
    """A node of the cluster and the identity of its disk."""

    name: str
    disk: str


ACCEPTORS_LEAST = 3
"""With fewer, no acceptor could fail."""


class Members(Frozen):
    """Acceptors, by node and disk: configuration `version`, which begins `alpha` slots later.

    `principal` is the owner of the principal that asked for it; none: the administrator.
    """

    kind: Literal["members"] = "members"
    version: Count
    acceptors: tuple[FoundingMember, ...]
    principal: str | None = Field(None, max_length=OWNER_CHARS_MAX, exclude_if=_is_none)

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        count = len(self.acceptors)
        if count < ACCEPTORS_LEAST:
            raise ValueError(f"{count} acceptors; {ACCEPTORS_LEAST} at least")
        for one in ("name", "disk"):
            if len({getattr(acceptor, one) for acceptor in self.acceptors}) < count:
                raise ValueError(f"two acceptors have the same {one}")
        return self


class Settled(Frozen):
    """The change to configuration `version` ends: the one before it is retired."""

    kind: Literal["settled"] = "settled"
    version: Count


LEARNERS_LEAST = 2
"""With fewer, no learner could fail."""

_ROSTER_NAME = re.compile("(proposer|learner|store)-[1-9][0-9]{0,3}")


def check_roster(members: tuple[str, ...]) -> tuple[str, ...]:
    """For fields with the names of a roster. Raises `ValueError` if no cluster could live by it."""
    roles = Counter(name.partition("-")[0] for name in members)
    if not all(map(_ROSTER_NAME.fullmatch, members)) or len(set(members)) < len(members):
        raise ValueError(f"no roster: {', '.join(members)[:200]!r}")
    if not roles["proposer"] or not roles["store"] or roles["learner"] < LEARNERS_LEAST:
        raise ValueError(f"too few of a role: {', '.join(members)[:200]!r}")
    return members


RosterNames = Annotated[tuple[str, ...], AfterValidator(check_roster)]


class Roster(Frozen):
    """The proposers, learners and stores, all of them by name, from its own slot on.

    They vote on no slot, so it takes effect at once where it counts: if its version is one higher
    than the last one's (0: the genesis). `removed` are the disks of one that is not named any more,
    so that these learn that they were removed, and no later one of the name does.
    `principal` is as in `Members`.
    """

    kind: Literal["roster"] = "roster"
    version: Count
    members: RosterNames
    removed: tuple[FoundingMember, ...] = ()
    principal: str | None = Field(None, max_length=OWNER_CHARS_MAX, exclude_if=_is_none)


AnyValue = Batch | View | Abort | NoOp | Members | Settled | Roster
Value = Annotated[AnyValue, Field(discriminator="kind")]
NOOP = NoOp()

AnyVote = AnyValue | UnreadBatch
"""What acceptors vote for; see `actors.paxos.votes` for who reads it."""

Vote = Annotated[AnyVote, Field(discriminator="kind")]


_OVERHEAD_BYTES = 192
"""The rest of the message: a slot and a ballot, whose proposer's name may have 64 bytes."""


def weight(value: AnyVote) -> int:
    """The size of a slot's value in a message, with the rest of its entry, in bytes."""
    size_bytes = value.weight if isinstance(value, Batch) else len(value.to_json())
    return _OVERHEAD_BYTES + size_bytes


class Holder(Frozen):
    """A row or a message with the value of a slot in the field named `held`.

    A batch is written last, as its cached JSON, read or not.
    """

    held: ClassVar[Literal["value", "batch"]] = "value"

    def to_json(self) -> bytes:
        """See `Frozen.to_json`."""
        value = self.__dict__[self.held]
        if not isinstance(value, Batch | UnreadBatch):
            return super().to_json()
        held: set[str] = {self.held}
        head = self.__pydantic_serializer__.to_json(self, exclude=held)
        return b'%b,"%b":%b}' % (head[:-1], self.held.encode(), value.json_text)


class AcceptedValue(Holder):
    """What an acceptor accepted for a slot, and under which ballot."""

    slot: Count
    ballot: Ballot
    value: Vote


class SlotValue(Holder):
    """A chosen slot."""

    slot: Count
    value: Value


class Refusal(Frozen):
    """A command of a slot, by its index, that is not to be committed, and the reason."""

    index: Count
    reason: str


class PreparedSlot(Frozen):
    """A slot that the store has journalled and not yet applied.

    `digest` is the batch's (`Batch.digest`); stores of earlier versions don't report it.
    """

    slot: Count
    refused: tuple[Refusal, ...]
    digest: str = ""


class DecidedSlot(Holder):
    """A slot with its value and its outcome: the `aborted` commands, with the log's reasons."""

    slot: Count
    value: Value
    aborted: tuple[Refusal, ...]


# -- the namespace as clients see it -------------------------------------------------------------


class FileEntry(Frozen):
    """A file. `version` counts the writes applied to the path since the file was created."""

    kind: Literal["file"] = "file"
    path: str
    slot: Count
    index: Count
    version: Count
    content: StoredContent
    content_type: str
    modified_ms: int
    executable: bool
    meta: tuple[tuple[str, str], ...]

    @property
    def etag(self) -> str:
        """The strong tag of this version."""
        return f"{self.slot}-{self.index}"


class DirectoryEntry(Frozen):
    """A directory; the root has the empty path and is always there."""

    kind: Literal["directory"] = "directory"
    path: str
    slot: Count
    index: Count


Entry = Annotated[FileEntry | DirectoryEntry, Field(discriminator="kind")]


# -- the cluster's founding ----------------------------------------------------------------------


ALPHA = 64
"""The usual `Constants.alpha`. It is not written, so a genesis is as before there was one."""


class Constants(Frozen):
    """The constants of leases and of the replicated state, fixed when the cluster is founded.

    `lease_margin_ms` covers the difference between two nodes' clock rates over one lease. Sessions
    and idempotency keys expire after `session_expiry_ms` and `idempotency_expiry_ms` of log time
    without use. With fewer than `min_stores` whole stores in the view (fewer than all stores of the
    genesis, if `rowa` is "strict") new writes are refused. A store keeps a chunk for
    `chunk_grace_ms` after its upload was last renewed; gateways renew several times within it.

    The others bound the memory and the time that a request can cost every replica, see
    `actors.state.budget`: the commands of one slot look through or write at most `slot_steps`
    entries and write at most `slot_bytes` of them; a path has at most `path_depth` names; the tree
    has at most `tree_entries` files and directories of `tree_bytes` in all, without contents.

    `audit`: whether commands are chained (`actors.state.audit`). Clusters that earlier versions
    founded have no such constant, and no chain.

    The acceptors of a slot are known `alpha` slots before it, and no leader proposes a slot further
    ahead of the chosen prefix that it knows.
    """

    lease_ms: Count = 1_200
    lease_margin_ms: Count = 120
    session_expiry_ms: Count = 24 * 3_600_000
    idempotency_expiry_ms: Count = 24 * 3_600_000
    min_stores: Count = 2
    rowa: Literal["available", "strict"] = "available"
    chunk_grace_ms: Count = 3_600_000
    slot_steps: Count = 10_000
    slot_bytes: Count = 16 * 1024 * 1024
    path_depth: Count = 128
    tree_entries: Count = 2_000_000
    tree_bytes: Count = 2 * 1024 * 1024 * 1024
    audit: bool = Field(False, exclude_if=lambda audit: not audit)
    alpha: Count = Field(ALPHA, ge=1, exclude_if=lambda slots: slots == ALPHA)


class Genesis(Frozen):
    """Slot 0: the members that founded the cluster, their disks, the constants and the first view.

    No quorum, lease or replicated state is computed from a node's own settings: nodes whose
    settings differ would compute different results (design 8.1).
    """

    cluster: str
    constants: Constants
    members: tuple[FoundingMember, ...]
    view: View

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_version(cls, given: Any) -> Any:
        """Earlier versions founded clusters with `lease_ms` alone and defaults for the rest."""
        if isinstance(given, dict) and "constants" not in given and "lease_ms" in given:
            lease = {"lease_ms": given["lease_ms"]}
            return {k: v for k, v in given.items() if k != "lease_ms"} | {"constants": lease}
        return given

    def names(self, role: str) -> tuple[str, ...]:
        """All members of a role, in order."""
        return tuple(m.name for m in self.members if m.name.startswith(f"{role}-"))

    @cached_property
    def voters(self) -> Voters[str]:
        """The acceptors, of which any majority is a quorum."""
        return Voters(self.names("acceptor"))

    @property
    def stores_needed(self) -> int:
        """The number of whole stores that a new write needs, by the founding."""
        stores = len(self.names("store"))
        strict = self.constants.rowa == "strict"
        return stores if strict else min(self.constants.min_stores, stores)

    def shortage(self, stores: Sequence[str], needed: int | None = None) -> str:
        """The reason why `stores` are too few for a new write, which needs as many as the founding
        or `needed`; empty if they are enough.
        """
        needed = self.stores_needed if needed is None else needed
        if len(stores) >= needed:
            return ""
        names = ", ".join(stores) or "none"
        return f"writes need {needed} whole stores, but the view has {len(stores)} ({names})"

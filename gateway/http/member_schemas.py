"""The shapes of the JSON about the members; see `gateway.http.schemas`."""

from typing_extensions import TypedDict

from actors.calls import Standing
from actors.messages import Action


class AcceptorDisk(TypedDict):
    """An acceptor and the disk from which it votes: a disk counts, not a name."""

    name: str
    disk: str


class AcceptorChange(TypedDict):
    """A change of the acceptors that is under way: it began in `slot`, and the new ones choose the
    slots from `first_slot` on.
    """

    version: int
    members: list[AcceptorDisk]
    slot: int
    first_slot: int


class Acceptors(TypedDict):
    """The acceptors, counted from version 0, and the change that is under way, if one is. The last
    one ended in `settled_slot` (0: there was none). No slot up to `durable_through` is ever
    forgotten. While `former_needed`, a disk that was replaced or removed may still be needed, until
    what `waits_for` says. `newest` is the version that was named last.
    """

    version: int
    newest: int
    members: list[AcceptorDisk]
    change: AcceptorChange | None
    settled_slot: int
    durable_through: int
    former_needed: bool
    waits_for: str | None


class RosterStatus(TypedDict):
    """The names of the proposers, learners and stores, counted from version 0 and named in `slot`
    (0: in the genesis). `newest` is the version, as of the acceptors.
    """

    version: int
    newest: int
    slot: int
    waits_for: str | None


class MemberItem(TypedDict):
    """A node that is, or was, or may become a member.

    `disk` is the one that counts, an acceptor's by its newest configuration and a store's by the
    view; `null`: none, or any. `runs_on` is the disk of its last heartbeat, which came `age_ms`
    ago. `command` is what to type if it waits for that.

    `standing`: `member`; `uncounted`, an acceptor on another disk than the one that counts;
    `joining`, not yet wholly a member; `newcomer`, which waits to be added; `leaving`, which was
    removed and may still be needed; `removed`, which may be switched off.
    """

    name: str
    role: str
    standing: Standing
    disk: str | None
    runs_on: str | None
    age_ms: int | None
    waits_for: str | None
    command: str | None


class MemberList(TypedDict):
    """The members of all roles, and what each change that has begun still waits for."""

    acceptors: Acceptors | None
    roster: RosterStatus | None
    members: list[MemberItem]


class ChangeAccepted(TypedDict):
    """The leader has begun the change; `/v1/members` shows what becomes of it. `version` is that of
    the acceptors or, for other roles, of the roster, which replacing a disk leaves as it is.
    """

    name: str
    action: Action
    version: int

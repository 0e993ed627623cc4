"""What an actor is built from: the protocol's settings, the members' names, its own identity."""

from dataclasses import dataclass
from typing import Any, Literal

from actors.numbers import Milliseconds
from actors.paging import BATCH_BYTES_MAX, PAGE_BYTES
from actors.values import Constants, Genesis

ROLES = ("proposer", "acceptor", "learner", "store", "gateway")
MEMBER_ROLES = ("proposer", "acceptor", "learner", "store")
_CONSTANTS = Constants()


def role_of(name: str) -> str:
    """The role that a node's name starts with. Raises `ValueError` for anything else."""
    role, _, number = name.rpartition("-")
    if role not in ROLES or not number.isdecimal() or number != str(int(number)) or number == "0":
        raise ValueError(
            f"{name!r} is not a node's name: use one of {', '.join(ROLES)}, a hyphen and a number "
            "from 1, such as store-2"
        )
    return role


MEMBER_NUMBER_MAX = 64
"""The highest number of a member that is added later; so what a node keeps of others is bounded,
however many names are invented."""


def may_be_added(name: str) -> bool:
    """Whether a node of this name can become a member, though the genesis does not name it."""
    return role_of(name) in MEMBER_ROLES and number_of(name) <= MEMBER_NUMBER_MAX


def number_of(name: str) -> int:
    """The number that a node's name ends with."""
    return int(name.rpartition("-")[2])


@dataclass(frozen=True, slots=True)
class Options:
    """The settings of one node. Durations are milliseconds.

    A cluster is founded with the numbers of members and with `constants`. From then on they are
    read from the genesis, and a node whose settings differ from it refuses to start
    (`differences`). All other settings may differ from node to node. A learner keeps `log_bytes` of
    the decided log for nodes that were away; a joining store copies contents at
    `copy_bytes_per_s` at most. Answers with parts of the log are cut into pages of about
    `page_bytes`, states into pages of a quarter of it. A learner keeps the latest records of the
    audit, of about `audit_bytes` in memory and on disk.
    """

    proposers: int = 5
    acceptors: int = 5
    learners: int = 2
    stores: int = 3
    heartbeat_ms: Milliseconds = 2_000
    leader_heartbeat_ms: Milliseconds = 300
    lease_ms: Milliseconds = _CONSTANTS.lease_ms
    lease_margin_ms: Milliseconds = _CONSTANTS.lease_margin_ms
    window_slots: int = 8
    batch_commands: int = 256
    batch_bytes: int = 1024 * 1024
    sync_ms: Milliseconds = 10_000
    request_deadline_ms: Milliseconds = 10_000
    session_expiry_ms: Milliseconds = _CONSTANTS.session_expiry_ms
    idempotency_expiry_ms: Milliseconds = _CONSTANTS.idempotency_expiry_ms
    min_stores: int = _CONSTANTS.min_stores
    rowa: Literal["available", "strict"] = _CONSTANTS.rowa
    slot_steps: int = _CONSTANTS.slot_steps
    slot_bytes: int = _CONSTANTS.slot_bytes
    path_depth: int = _CONSTANTS.path_depth
    tree_entries: int = _CONSTANTS.tree_entries
    tree_bytes: int = _CONSTANTS.tree_bytes
    alpha: int = _CONSTANTS.alpha
    chunk_grace_ms: Milliseconds = _CONSTANTS.chunk_grace_ms
    audit: bool = True
    audit_bytes: int = 32 * 1024 * 1024
    log_bytes: int = 4 * 1024 * 1024
    copy_bytes_per_s: int = 32 * 1024 * 1024
    page_bytes: int = PAGE_BYTES

    def __post_init__(self) -> None:
        if self.acceptors < 3 or self.acceptors % 2 == 0:
            raise ValueError(f"acceptors must be odd and at least 3, not {self.acceptors}")
        if self.learners < 2:
            raise ValueError(f"learners must be at least 2, not {self.learners}")
        if self.stores < 1 or self.proposers < 1:
            raise ValueError("there must be at least one store and one proposer")
        if self.batch_bytes > BATCH_BYTES_MAX:
            raise ValueError(
                f"batch_bytes must be at most {BATCH_BYTES_MAX}, not {self.batch_bytes}: no "
                "message could carry the slot"
            )
        if not 1 <= self.window_slots <= self.alpha:
            raise ValueError(
                f"window_slots must be from 1 to alpha ({self.alpha}), not {self.window_slots}"
            )
        if self.lease_ms <= 2 * self.leader_heartbeat_ms + self.lease_margin_ms:
            raise ValueError(
                f"a lease of {self.lease_ms} ms is too short for a leader heartbeat every "
                f"{self.leader_heartbeat_ms} ms and a margin of {self.lease_margin_ms} ms"
            )

    @property
    def constants(self) -> Constants:
        """The constants of a cluster that is founded with these settings."""
        return Constants(**{name: getattr(self, name) for name in Constants.model_fields})

    def differences(self, genesis: Genesis) -> tuple[str, ...]:
        """Each setting that differs from `genesis`, with its value and the cluster's."""
        ours: dict[str, Any] = {f"{role}s": len(self.names(role)) for role in MEMBER_ROLES}
        theirs: dict[str, Any] = {f"{role}s": len(genesis.names(role)) for role in MEMBER_ROLES}
        ours |= dict(self.constants)
        theirs |= dict(genesis.constants)
        if not theirs["audit"]:
            # A version that had no audit founded the cluster, and nodes of this one go on in it.
            del ours["audit"]
        return tuple(
            f"{name} is {value!r} here and {theirs[name]!r} in the cluster"
            for name, value in ours.items()
            if value != theirs[name]
        )

    def names(self, role: str) -> tuple[str, ...]:
        """All members of a role, in order. Gateways are not members; there may be any number."""
        count = {
            "proposer": self.proposers,
            "acceptor": self.acceptors,
            "learner": self.learners,
            "store": self.stores,
        }[role]
        return tuple(f"{role}-{number}" for number in range(1, count + 1))

    @property
    def members(self) -> tuple[str, ...]:
        """Every member of every role."""
        return tuple(name for role in MEMBER_ROLES for name in self.names(role))


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of one start of one process.

    `disk` was minted with the empty journal; `incarnation` counts starts (and rebuilds) on it from
    1; `journal_commits` is the journal's count of commits when it was opened; `fresh_id` is random
    text, new at every start.
    """

    name: str
    disk: str
    incarnation: int
    journal_commits: int
    fresh_id: str

    @property
    def first_number(self) -> int:
        """The first number of this start's requests; no other start uses the same numbers.

        Answers to a former start may still lie in the node's queue, and must match no request.
        The numbers stay below 2^53, so that every reader of JSON keeps all their digits.
        """
        return int(self.fresh_id[:13], 16)

    @property
    def role(self) -> str:
        """The role in the name."""
        return role_of(self.name)

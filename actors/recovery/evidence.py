"""What the journal of one node of a lost cluster holds, as far as a recovery needs it.

A store's journal has the state at its applied slot, the slots that it prepared, and the highest
epoch that it answered; a learner's the state and the latest decided slots; an acceptor's what it
accepted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from actors.effects import BLOB_ROW, Record
from actors.errors import JournalUnreadable
from actors.founding import FOUNDED
from actors.options import role_of
from actors.paxos.votes import accepted_of, learned
from actors.state.namespace import Namespace
from actors.store.chunks import ChunkManifest
from actors.store.state import Prepared
from actors.values import (
    AcceptedValue,
    AnyValue,
    Batch,
    DecidedSlot,
    Genesis,
    Inline,
    StoreMember,
    View,
)

_ACCEPTED = TypeAdapter(AcceptedValue)
_DECIDED = TypeAdapter(DecidedSlot)
_FENCE = TypeAdapter(int)
_GENESIS = TypeAdapter(Genesis)
_MANIFEST = TypeAdapter(ChunkManifest)
_PREPARED = TypeAdapter(Prepared)


@dataclass(slots=True)
class OldNode:
    """A node of the lost cluster, on one disk."""

    name: str
    disk: str
    genesis: Genesis | None = None
    state: Namespace = field(default_factory=Namespace)
    """The state at the applied slot; empty unless it is a store or a learner."""
    prepared: dict[int, Prepared] = field(default_factory=dict)
    """The slots beyond it that a store has prepared, each of them chosen, with all before it."""
    fence: int = 0
    """The highest epoch that a store has answered."""
    has_diverged: bool = False
    """Whether a store knows that its state differs from the coordinator's."""
    listings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The lists of chunks that a store holds, by the name of the list."""
    blobs: set[str] = field(default_factory=set)
    """The names of the contents in the journal."""
    log: dict[int, DecidedSlot] = field(default_factory=dict)
    """The latest decided slots of a learner."""
    accepted: dict[int, AcceptedValue] = field(default_factory=dict)
    """What an acceptor accepted last for each slot."""

    @property
    def role(self) -> str:
        """The role in its name."""
        return role_of(self.name)

    @property
    def applied(self) -> int:
        """The end of the slots in its state."""
        return self.state.applied

    def member_of(self, view: View | None) -> StoreMember | None:
        """This disk's place in `view`."""
        member = view.member(self.name) if view is not None else None
        return member if member is not None and member.disk == self.disk else None

    def inline_contents(self) -> Iterator[Inline]:
        """The small contents in values of the log that it keeps."""
        values: list[AnyValue] = [decided.value for decided in self.log.values()]
        values += [learned(accepted.value) for accepted in self.accepted.values()]
        for value in values:
            if isinstance(value, Batch):
                yield from (one for one in value.contents if isinstance(one, Inline))


def read_node(name: str, disk: str, records: Iterable[Record]) -> OldNode:
    """Read a journal: the names of its contents, as rows `blob/…`, and its rows.

    Raises `JournalUnreadable`.
    """
    node = OldNode(name, disk)
    for record in records:
        try:
            _take(node, record)
        except ValidationError as error:
            raise JournalUnreadable(
                f"record {record.key!r} of {name} can't be read: {error}"
            ) from error
    if node.genesis is not None:
        node.state.begin(node.genesis)
    node.state.restored()
    for slot in [slot for slot in node.prepared if slot <= node.applied]:
        del node.prepared[slot]  # Void: the outcome is known.
    return node


def _take(node: OldNode, record: Record) -> None:
    kind, _, rest = record.key.partition("/")
    value = record.value or b""
    if record.key == FOUNDED:
        node.genesis = _GENESIS.validate_json(value)
    elif record.key.startswith(BLOB_ROW):
        node.blobs.add(rest)
    elif node.role == "acceptor":
        if kind == "accepted":
            accepted = accepted_of(record) or _ACCEPTED.validate_json(value)
            node.accepted[accepted.slot] = accepted
    elif node.role == "learner":
        if kind == "log":
            decided = _DECIDED.validate_json(value)
            node.log[decided.slot] = decided
        elif kind != "audit":
            node.state.restore(record)
    elif node.role == "store":
        _take_of_store(node, record, kind, rest, value)


def _take_of_store(node: OldNode, record: Record, kind: str, rest: str, value: bytes) -> None:
    match kind:
        case "prepared":
            prepared = _PREPARED.validate_json(value)
            node.prepared[prepared.slot] = prepared
        case "fence":
            node.fence = _FENCE.validate_json(value)
        case "diverged":
            node.has_diverged = True
        case "manifest":
            node.listings[rest] = _MANIFEST.validate_json(value).names
        case _:
            node.state.restore(record)

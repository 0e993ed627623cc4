"""What one store holds: the state as of its applied slot, and the slots that it has prepared."""

from actors.state.namespace import Namespace
from actors.store.changes import Changes
from actors.store.chunks import bare_json
from actors.turn import Turn
from actors.values import Batch, Frozen, Refusal, StoreMember


class Prepared(Frozen):
    """A slot that this store votes on: its commands, and those that the store refuses.

    The journal holds inline contents separately, as chunks.
    """

    slot: int
    batch: Batch
    refused: tuple[Refusal, ...]

    def to_json(self) -> bytes:
        """See `Frozen.to_json`."""
        head = self.__pydantic_serializer__.to_json(self, exclude={"batch"})
        return b'%b,"batch":%b}' % (head[:-1], bare_json(self.batch))


class StoreState:
    """The state that a store's parts share; it changes within one turn at a time."""

    def __init__(self, turn: Turn) -> None:
        self._identity = turn.identity
        self.namespace = Namespace()
        self.changes = Changes()
        self.prepared: dict[int, Prepared] = {}
        """The slots that are journalled and not applied."""
        self.fence = 0
        """The highest epoch that this store has answered; older ones are refused."""
        self.durable = 0
        """The end of the applied slots that the journal holds; those up to `applied` follow."""
        self.reported_through = 0
        """The highest slot that another node has reported as decided."""

    @property
    def applied(self) -> int:
        """The end of the slots that this store has applied."""
        return self.namespace.applied

    @property
    def membership(self) -> StoreMember | None:
        """This disk's place in the view at the applied slot."""
        view = self.namespace.view
        member = view.member(self._identity.name) if view else None
        return member if member is not None and member.disk == self._identity.disk else None

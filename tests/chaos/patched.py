"""A node with a deliberate bug, in a process of its own: `patched.py BUG node NAME …`.

Only the tests of the verdict and of mixed versions start it. It imports no other test, as tests are
not installed.
"""

import sys
from typing import Any


def vote_before_commit() -> None:
    """A store votes for a write before its disk has it."""
    from broker.runtime import NodeHost

    carry_out = NodeHost._carry_out

    async def hasty(self: Any, outcome: Any, receipts: Any = None) -> None:
        votes = [one for one in outcome.sends if _type_of(one) == "txn.vote"]
        if votes:
            outcome.sends = [one for one in outcome.sends if _type_of(one) != "txn.vote"]
            await self._send(votes)
        await carry_out(self, outcome, receipts)

    NodeHost._carry_out = hasty  # type: ignore[method-assign]


def _type_of(send: Any) -> str:
    return str(getattr(getattr(send, "message", None), "type", ""))


def read_without_lease() -> None:
    """A store answers linearizable reads without a lease from the leader."""
    from actors.store.reads import ReadLease, Reads

    obstacle = Reads._obstacle

    def as_if_leased(self: Any, read: Any) -> str | None:
        self.lease = ReadLease(until=1 << 60, added_slot=0)
        return obstacle(self, read)

    Reads._obstacle = as_if_leased  # type: ignore[method-assign]


def commit_with_two_votes() -> None:
    """A coordinator commits with two votes of three."""
    from actors.learner.coordinator import Coordinator

    decidable = Coordinator._decidable

    def lenient(self: Any, slot: int, batch: Any) -> Any:
        round_ = self.rounds.get(slot)
        if round_ is not None and round_.abort is None and len(round_.votes) >= 2:
            round_.committed = True
        return decidable(self, slot, batch)

    Coordinator._decidable = lenient  # type: ignore[method-assign]


def another_wire() -> None:
    """A later release sends a field that the former one does not know, under the same version."""
    from broker import codec

    encode_control = codec._encode_control

    def with_a_field(parcel: Any, messages: Any, bodies: list[bytes]) -> Any:
        later = [body[:-1] + b',"later":1}' for body in bodies]
        return encode_control(parcel, messages, later)

    codec._encode_control = with_a_field


def another_outcome() -> None:
    """A replica of a later release keeps another content type than the former one."""
    from actors.state import operations

    put_file = operations._put_file

    def tidied(tree: Any, slot: int, index: int, operation: Any) -> Any:
        update = {"content_type": operation.content_type.upper()}
        return put_file(tree, slot, index, operation.model_copy(update=update))

    operations._put_file = tidied


BUGS = {
    bug.__name__: bug
    for bug in (
        vote_before_commit,
        read_without_lease,
        commit_with_two_votes,
        another_wire,
        another_outcome,
    )
}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    from gateway.cli.main import main

    main()

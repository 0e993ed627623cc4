"""A node with a deliberate bug, in a process of its own: `patched.py BUG node NAME …`.

Only the tests of the verdict start it. It imports no other test, as tests are not installed.
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


BUGS = {
    bug.__name__: bug for bug in (vote_before_commit, read_without_lease, commit_with_two_votes)
}

if __name__ == "__main__":
    BUGS[sys.argv.pop(1)]()
    from gateway.cli.main import main

    main()

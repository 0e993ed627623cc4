"""Phase 1 of one ballot: what the acceptors promised, page by page, and what they had accepted.

A slot counts as empty only if a page expressly covers it (design 3.3). Promises are kept by
acceptor and disk, and each slot is judged by those of its own configuration
(docs/decisions/0026-membership.md, rule 7).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.messages import Promise
from actors.paxos.membership import Configuration, Key
from actors.values import AcceptedValue, AnyVote


@dataclass(slots=True)
class AcceptorPromise:
    """One acceptor's promise, page by page; complete when `next_slot` is `None`."""

    truncated_below: int
    next_slot: int | None
    accepted: dict[int, AcceptedValue] = field(default_factory=dict)


class FoundValue(NamedTuple):
    """The value of the highest ballot that the promises report for a slot."""

    value: AnyVote
    is_chosen: bool
    """Whether a quorum has accepted it under that ballot."""


@dataclass(slots=True)
class Promises:
    """The promises of one ballot for all slots from `first_slot` on."""

    first_slot: int
    by_acceptor: dict[Key, AcceptorPromise] = field(default_factory=dict)

    @property
    def complete(self) -> Mapping[Key, AcceptorPromise]:
        """The promises that cover every slot."""
        return {key: one for key, one in self.by_acceptor.items() if one.next_slot is None}

    def take(self, acceptor: Key, message: Promise) -> int | None:
        """Take a page; the first slot of the page to ask that acceptor for, if there is one."""
        answer = self.by_acceptor.get(acceptor)
        if message.first_slot == self.first_slot:
            answer = AcceptorPromise(message.truncated_below, message.next_slot)
        elif answer is None or answer.next_slot != message.first_slot:
            return None  # A duplicate of a page.
        elif answer.truncated_below != message.truncated_below:
            # Slots vanished between two pages, so the pages no longer cover them.
            del self.by_acceptor[acceptor]
            return self.first_slot
        self.by_acceptor[acceptor] = answer
        answer.next_slot = message.next_slot
        for accepted in message.accepted:
            answer.accepted[accepted.slot] = accepted
        return message.next_slot

    @property
    def slots(self) -> set[int]:
        """The slots for which a complete promise reports a value."""
        return {slot for answer in self.complete.values() for slot in answer.accepted}

    def covers(self, configuration: Configuration) -> bool:
        """Whether a majority of the configuration has promised."""
        return configuration.voters.are_quorum(self.complete)

    def truncated_below(self, configuration: Configuration) -> int:
        """Below this slot the promises of the configuration do not cover every slot: what they do
        not cover is durable elsewhere.
        """
        members = [one for key, one in self.complete.items() if key in configuration.voters]
        return max((one.truncated_below for one in members), default=0)

    def found(self, slot: int, configuration: Configuration) -> FoundValue | None:
        """What the promises of the slot's own configuration report for it."""
        found = {
            key: answer.accepted[slot]
            for key, answer in self.complete.items()
            if key in configuration.voters and slot in answer.accepted
        }
        if not found:
            return None
        best = max(found.values(), key=lambda accepted: accepted.ballot)
        agreed = [key for key, one in found.items() if one.ballot == best.ballot]
        return FoundValue(best.value, configuration.voters.are_quorum(agreed))

    def forget(self, slot: int) -> None:
        """Forget what was accepted in a slot that is proposed again, or left alone."""
        for answer in self.by_acceptor.values():
            answer.accepted.pop(slot, None)

    def forget_below(self, slot: int) -> None:
        """Forget what was accepted in the slots before that one."""
        for answer in self.by_acceptor.values():
            for former in [former for former in answer.accepted if former < slot]:
                del answer.accepted[former]

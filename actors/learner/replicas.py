"""What one learner knows of the replicas: what they hold durably, and whether they agree.

A replica reports on its own disk, and what it reports stays true for that disk for ever, so
everything here is kept by `(name, disk)`. States are compared by the hash that each replica chains
over the slots it applied (design 4.10).
"""

from collections.abc import Iterable
from typing import Any

from actors.errors import InvariantViolation
from actors.messages import Diverged, NodeHeartbeat, TxnState
from actors.numbers import Milliseconds
from actors.peers import Key
from actors.turn import Turn
from actors.values import StoreMember

_HASHES_KEPT = 4_096
_OUTSIDE_MS = 500
_OUTSIDE_MS_MAX = 16_000
_FORGIVEN_MS = 300_000


class Replicas:
    """The reports of learners and stores that one learner has received."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self.diverged: set[Key] = set()
        """Replicas whose state differs from the others'."""
        self._durable: dict[Key, int] = {}
        self._whole: dict[Key, int] = {}
        """The slot through which each store was last known to be whole."""
        self._own_hashes: dict[int, str] = {}
        self._agrees: dict[Key, bool] = {}
        self._drops: dict[str, tuple[Milliseconds, int]] = {}
        """When each store was last dropped, and how many times in succession."""

    # -- durability ------------------------------------------------------------------------------

    def note_durable(self, sender: str, message: Any) -> None:
        """Note the durable mark in a store's vote, or the wholeness in its state."""
        key = (sender, self._turn.sender_disk)
        if isinstance(message, TxnState):
            if message.whole:
                self._whole[key] = max(self._whole.get(key, 0), message.applied)
        elif hasattr(message, "durable"):
            self._durable[key] = max(self._durable.get(key, 0), message.durable)

    def report(self, sender: str, message: NodeHeartbeat, compares: bool) -> None:
        """Note a replica's heartbeat; `compares`: also compare its state with this learner's."""
        key = (sender, self._turn.sender_disk)
        self._durable[key] = max(self._durable.get(key, 0), message.durable)
        if message.role == "store" and not message.installing and not message.chunks_missing:
            self._whole[key] = max(self._whole.get(key, 0), message.applied)
        if compares and message.applied:
            self._compare(key, message.applied, message.state_hash)

    def forget(self, key: Key) -> None:
        """Forget that disk."""
        self.diverged.discard(key)
        self._durable.pop(key, None)
        self._whole.pop(key, None)
        self._agrees.pop(key, None)

    def durable_through(self, stores: Iterable[StoreMember]) -> int:
        """The slot through which all of `stores` hold everything in their journals."""
        return min(self._durable.get((store.name, store.disk), 0) for store in stores)

    def is_whole(self, store: StoreMember) -> bool:
        """Whether a member has caught up with the slot that added it, as founding members always
        have, and its state agrees with the others'. Its journal has to reach that slot: what it has
        only applied, a restart takes back, and the slots may be truncated by then.
        """
        assert store.added_slot is not None
        key = (store.name, store.disk)
        if key in self.diverged:
            return False
        return min(self._whole.get(key, 0), self._durable.get(key, 0)) >= store.added_slot

    # -- agreement -------------------------------------------------------------------------------

    def note_own_hash(self, slot: int, state_hash: str) -> None:
        """Note the hash of this learner's state at `slot`."""
        self._own_hashes[slot] = state_hash
        while (oldest := next(iter(self._own_hashes))) <= slot - _HASHES_KEPT:
            del self._own_hashes[oldest]  # More than one if a snapshot skipped slots.

    def own_hash(self, slot: int) -> str | None:
        """The hash of this learner's state at `slot`, if it is still kept."""
        return self._own_hashes.get(slot)

    # -- drops and returns -----------------------------------------------------------------------

    def note_dropped(self, store: str) -> None:
        """Note that a View drops `store`. Repeated drops lengthen its stay outside."""
        now = self._turn.now
        former_at, count = self._drops.get(store, (now, 0))
        self._drops[store] = (now, 1 if now - former_at > _FORGIVEN_MS else count + 1)

    def may_return(self, store: str) -> bool:
        """Whether `store` was outside for long enough; a flapping store slows down all writes."""
        if store not in self._drops:
            return True
        dropped_at, count = self._drops[store]
        outside_ms = min(_OUTSIDE_MS << (count - 1), _OUTSIDE_MS_MAX)
        return self._turn.now - dropped_at >= outside_ms

    def _compare(self, key: Key, slot: int, state_hash: str) -> None:
        """Notify a replica whose state differs; halt if most replicas differ from this learner."""
        own_hash = self.own_hash(slot)
        if own_hash is None:
            return
        for former in [k for k in self._agrees if k[0] == key[0] and k != key]:
            del self._agrees[former]  # The replica lost that disk, which no longer counts.
        self._agrees[key] = own_hash == state_hash
        if own_hash == state_hash:
            self.diverged.discard(key)
            return
        against = [other for other in sorted(self._agrees) if not self._agrees[other]]
        if len(against) >= 2 and 2 * len(against) > len(self._agrees):
            raise InvariantViolation(
                f"the state of {self._turn.name} at slot {slot} has the hash "
                f"{own_hash}, but {', '.join(name for name, _ in against)} have "
                f"another one ({state_hash})"
            )
        if key not in self.diverged:
            self._turn.counters["diverged"] += 1
        self.diverged.add(key)
        self._turn.send(key[0], Diverged(slot=slot, state_hash=own_hash, reported=state_hash))

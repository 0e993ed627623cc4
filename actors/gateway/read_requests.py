"""The reads of one gateway: each goes from store to store until one serves it."""

from dataclasses import dataclass

from actors.adaptive_timeout import Estimator
from actors.calls import NOTHING_READ, NotDone, Read, ReadDone
from actors.gateway.cluster_state import ClusterState
from actors.messages import ReadReply, ReadRequest
from actors.numbers import Milliseconds
from actors.rotation import Rotation
from actors.turn import Turn


@dataclass(slots=True)
class PendingRead:
    """A read that no store has answered yet."""

    token: int
    request: ReadRequest
    deadline: Milliseconds
    rotation: Rotation
    sent_at: Milliseconds


class ReadRequests:
    """The reads that wait for a store."""

    def __init__(self, turn: Turn, cluster: ClusterState) -> None:
        self._turn = turn
        self._cluster = cluster
        self._pending: dict[int, PendingRead] = {}
        self._next_number = turn.identity.first_number
        self._read_time = Estimator(least_ms=200, most_ms=1_500)

    @property
    def busy(self) -> bool:
        """Whether any read waits."""
        return bool(self._pending)

    def begin(self, call: Read) -> None:
        """Ask a store."""
        turn = self._turn
        number = self._next_number
        self._next_number += 1
        request = call.request.model_copy(update={"number": number})
        deadline = turn.now + turn.options.request_deadline_ms // 2
        rotation = self._cluster.rotation(deadline)
        read = PendingRead(call.token, request, deadline, rotation, turn.now)
        self._pending[number] = read
        self._ask(read)

    def _ask(self, read: PendingRead) -> None:
        """Send the read to the store whose turn it is, if it is time to ask one."""
        store = self._cluster.next_store(read.rotation, self._read_time.timeout_ms + 1_000)
        if store is not None:
            read.sent_at = self._turn.now
            self._turn.send(store, read.request)

    def on_reply(self, sender: str, message: ReadReply) -> None:
        """A store's answer, or the reason for none, after which the next store is asked."""
        turn = self._turn
        read = self._pending.get(message.number)
        if read is None:
            return
        if message.status == "not_served":
            read.rotation.refused(sender, turn.now, message.detail.removeprefix(f"{sender}: "))
            self._ask(read)
            return
        del self._pending[message.number]
        if read.request.what != "changes":  # Stores let requests for changes wait.
            self._read_time.observe(turn.now - read.sent_at)
        turn.answer(read.token, ReadDone(sender, message))

    def tick(self) -> None:
        """Ask the next store, or give up."""
        turn = self._turn
        for number in sorted(self._pending):
            read = self._pending[number]
            if turn.now >= read.deadline:
                del self._pending[number]
                reason = f"no store could serve the read ({read.rotation.account})"
                turn.answer(read.token, NotDone(reason, NOTHING_READ))
            else:
                if read.rotation.is_overdue(turn.now):
                    self._read_time.observe(turn.now - read.sent_at)
                self._ask(read)

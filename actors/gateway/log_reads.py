"""A gateway's reads of the log, from one learner after the other."""

from dataclasses import dataclass

from actors.calls import NOTHING_READ, NotDone, ReadLog
from actors.gateway.cluster_state import ClusterState
from actors.messages import LogPage, LogRead
from actors.numbers import Milliseconds
from actors.rotation import Rotation
from actors.turn import Turn

_AGAIN_MS = 1_000
_PATIENCE_MS = 4_000


@dataclass(slots=True)
class _Asking:
    """A call that no learner has answered yet."""

    call: ReadLog
    deadline: Milliseconds
    rotation: Rotation


class LogReads:
    """The calls for the log at one gateway."""

    def __init__(self, turn: Turn, cluster: ClusterState) -> None:
        self._turn = turn
        self._cluster = cluster
        self._asking: dict[int, _Asking] = {}
        self._number = turn.identity.first_number

    @property
    def busy(self) -> bool:
        """Whether a call waits."""
        return bool(self._asking)

    def begin(self, call: ReadLog) -> None:
        """Ask a learner."""
        self._number += 1
        deadline = self._turn.now + _PATIENCE_MS
        self._asking[self._number] = _Asking(call, deadline, Rotation(deadline=deadline))
        self._ask(self._number)

    def on_page(self, sender: str, message: LogPage) -> None:
        """A learner's answer; the first one counts."""
        asking = self._asking.pop(message.number, None)
        if asking is not None:
            self._turn.answer(asking.call.token, message)

    def tick(self) -> None:
        """Ask the next learner, or give up."""
        now = self._turn.now
        for number in sorted(self._asking):
            asking = self._asking[number]
            if now >= asking.deadline:
                del self._asking[number]
                reason = f"no learner sent its log ({asking.rotation.account})"
                refusal = NotDone(reason, NOTHING_READ)
                self._turn.answer(asking.call.token, refusal)
            else:
                self._ask(number)

    def _ask(self, number: int) -> None:
        """Ask the learner whose turn it is, if it is time to ask one."""
        turn, cluster, asking = self._turn, self._cluster, self._asking[number]
        call, view = asking.call, cluster.view
        # The coordinator is asked first: acceptors send it their votes, so it knows the most.
        learners = sorted(
            turn.names("learner"),
            key=lambda name: view is None or name != view.coordinator,
        )
        silent = cluster.silent(tuple(learners))
        learner = asking.rotation.next(learners, turn.now, _AGAIN_MS, silent)
        if learner is None:
            return
        turn.send(
            learner,
            LogRead(
                number=number,
                before=call.before,
                limit=call.limit,
                commands_max=call.commands_max,
            ),
        )

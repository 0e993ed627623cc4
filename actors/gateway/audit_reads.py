"""A gateway's reads of the audit, from one learner after the other."""

from dataclasses import dataclass

from actors.calls import NOTHING_READ, NotDone, ReadAudit
from actors.gateway.cluster_state import ClusterState
from actors.messages import AuditPage
from actors.numbers import Milliseconds
from actors.rotation import Rotation
from actors.turn import Turn

_AGAIN_MS = 1_500
_PATIENCE_MS = 6_000


@dataclass(slots=True)
class _Asking:
    """A call that no learner has answered yet."""

    call: ReadAudit
    deadline: Milliseconds
    rotation: Rotation


class AuditReads:
    """The calls for the audit at one gateway."""

    def __init__(self, turn: Turn, cluster: ClusterState) -> None:
        self._turn = turn
        self._cluster = cluster
        self._asking: dict[int, _Asking] = {}
        self._number = turn.identity.first_number

    @property
    def busy(self) -> bool:
        """Whether a call waits."""
        return bool(self._asking)

    def begin(self, call: ReadAudit) -> None:
        """Ask a learner."""
        turn = self._turn
        if not turn.constants.audit:
            reason = "the cluster was founded without an audit"
            turn.answer(call.token, NotDone(reason, NOTHING_READ))
            return
        if call.learner and call.learner not in turn.names("learner"):
            reason = f"there is no {call.learner}"
            turn.answer(call.token, NotDone(reason, NOTHING_READ))
            return
        self._number += 1
        deadline = turn.now + _PATIENCE_MS
        self._asking[self._number] = _Asking(call, deadline, Rotation(deadline=deadline))
        self._ask(self._number)

    def on_page(self, sender: str, message: AuditPage) -> None:
        """A learner's answer, or that it is behind, after which the next one is asked."""
        asking = self._asking.get(message.number)
        if asking is None:
            return
        if message.behind:
            asking.rotation.refused(sender, self._turn.now, "it is behind")
            self._ask(message.number)
            return
        del self._asking[message.number]
        self._turn.answer(asking.call.token, message)

    def tick(self) -> None:
        """Ask the next learner, or give up."""
        now = self._turn.now
        for number in sorted(self._asking):
            asking = self._asking[number]
            if now >= asking.deadline:
                del self._asking[number]
                reason = f"no learner sent its records ({asking.rotation.account})"
                self._turn.answer(asking.call.token, NotDone(reason, NOTHING_READ))
            else:
                self._ask(number)

    def _ask(self, number: int) -> None:
        """Ask the learner whose turn it is, if it is time to ask one."""
        turn, cluster, asking = self._turn, self._cluster, self._asking[number]
        view = cluster.view
        named = asking.call.learner
        # The coordinator is asked last: it has the most to do.
        learners = (
            [named]
            if named
            else sorted(
                turn.names("learner"),
                key=lambda name: view is not None and name == view.coordinator,
            )
        )
        silent = cluster.silent(tuple(learners))
        learner = asking.rotation.next(learners, turn.now, _AGAIN_MS, silent)
        if learner is not None:
            turn.send(learner, asking.call.request.model_copy(update={"number": number}))

"""A gateway's requests to change the members, which the leader carries out or refuses."""

from dataclasses import dataclass

from actors.calls import ChangeBegun, ChangeNotBegun, MemberChange
from actors.gateway.cluster_state import ClusterState
from actors.messages import ChangeAnswer, ChangeMember
from actors.numbers import Milliseconds
from actors.turn import Turn

_PATIENCE_MS = 4_000


@dataclass(slots=True)
class _Asking:
    token: int
    deadline: Milliseconds


class MemberRequests:
    """The requests of one gateway that the leader has not answered."""

    def __init__(self, turn: Turn, cluster: ClusterState) -> None:
        self._turn = turn
        self._cluster = cluster
        self._asking: dict[int, _Asking] = {}
        self._number = turn.identity.first_number

    @property
    def busy(self) -> bool:
        """Whether a request waits."""
        return bool(self._asking)

    def begin(self, call: MemberChange) -> None:
        """Ask the leader."""
        if not self._cluster.has_leader:
            self._turn.answer(call.token, ChangeNotBegun("no proposer leads", again=True))
            return
        self._number += 1
        self._asking[self._number] = _Asking(call.token, self._turn.now + _PATIENCE_MS)
        request = ChangeMember(
            number=self._number,
            action=call.action,
            name=call.name,
            version=self._cluster.version_of(call.name),
            principal=call.principal,
        )
        self._turn.send(self._cluster.leader.node, request)

    def on_answer(self, message: ChangeAnswer) -> None:
        """The leader has proposed the change, or refuses."""
        asking = self._asking.pop(message.number, None)
        if asking is None:
            return
        if message.refused:
            self._turn.answer(asking.token, ChangeNotBegun(message.refused, message.again))
        else:
            self._turn.answer(asking.token, ChangeBegun(message.version))

    def tick(self) -> None:
        """Give up what the leader has not answered. It may have begun all the same."""
        for number, asking in list(self._asking.items()):
            if self._turn.now >= asking.deadline:
                del self._asking[number]
                answer = ChangeNotBegun("the leader did not answer; it may have begun", again=True)
                self._turn.answer(asking.token, answer)

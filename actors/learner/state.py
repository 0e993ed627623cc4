"""What one learner knows: the chosen log, the resulting state, and the view in force.

A learner keeps two marks on the log. `chosen_through` is the end of the chosen prefix, through
which Views and Aborts take effect. `decided` is the end of the prefix whose every slot is committed
or aborted, and which the namespace has applied.
"""

from actors.adaptive_timeout import Estimator
from actors.failure_detector import FailureDetector
from actors.learner.chosen_log import ChosenLog
from actors.paxos.ballot import NO_BALLOT, Ballot
from actors.state.namespace import Namespace
from actors.turn import Turn
from actors.values import View


class LearnerState:
    """Read and changed by the learner and its parts, within one turn at a time."""

    def __init__(self, turn: Turn) -> None:
        self.log = ChosenLog()
        self.namespace = Namespace()
        self.durable = 0
        """The decided slots that the journal holds."""
        self.aborts: dict[int, dict[int, str]] = {}
        """Counted aborts of undecided slots: index of the command to the reason."""
        self.view: View | None = None
        """The view in force at `chosen_through`, with every `added_slot` filled in."""
        self.view_slot = 0
        """The slot of the View that began the epoch."""
        self.leader: Ballot = NO_BALLOT
        self.vote_time = Estimator(least_ms=300, most_ms=3_000)
        """How long all votes of a slot take; a wait in vain is a sample, too."""
        self.failure_detector = FailureDetector(turn.options.heartbeat_ms)
        self._turn = turn

    @property
    def peers(self) -> list[str]:
        """The other learners, as far as this node has heard: whom to ask."""
        return self.other_learners()

    def other_learners(self) -> list[str]:
        """See `peers`."""
        return [name for name in self._turn.names("learner") if name != self._turn.name]

    def members(self, role: str) -> tuple[str, ...]:
        """The members of a role as of `chosen_through`."""
        genesis, membership = self._turn.genesis, self.log.membership
        return genesis.names(role) if membership is None else membership.names(role, genesis)

    @property
    def stores_needed(self) -> int:
        """The number of whole stores that a new write needs, as of `chosen_through`."""
        genesis, membership = self._turn.genesis, self.log.membership
        if membership is None:
            return genesis.stores_needed
        return membership.stores_needed(genesis)

    @property
    def chosen_through(self) -> int:
        """The end of the chosen prefix."""
        return self.log.chosen_through

    @property
    def decided(self) -> int:
        """The end of the decided prefix."""
        return self.namespace.applied

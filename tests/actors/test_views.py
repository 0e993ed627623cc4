"""What replicas find out about each other."""

import pytest

from actors.errors import InvariantViolation
from tests.actors.storm import put
from tests.actors.test_commit import founded


def test_a_learner_whose_state_differs_halts_and_says_what_to_do() -> None:
    cluster = founded()
    cluster.done(put("a", b"1"))
    cluster.settled()
    odd = cluster.actor("learner-2")
    odd.state.state_hash = "0" * 32
    odd.replicas.note_own_hash(odd.state.applied, "0" * 32)

    with pytest.raises(InvariantViolation, match="start learner-2 on an empty folder"):
        cluster.run(10_000)

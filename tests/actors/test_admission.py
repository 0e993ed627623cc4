"""Messages that don't fit the known cluster, disk or incarnation are dropped and counted."""

import pytest

from actors.effects import Envelope
from actors.messages import Prepare
from actors.paxos.ballot import Ballot
from tests.worlds import founded


@pytest.mark.parametrize(
    "counter",
    ["dropped_foreign_cluster", "dropped_not_permitted", "dropped_former_incarnation"],
)
def test_messages_that_are_not_admitted_are_dropped_and_change_nothing(counter: str) -> None:
    """Given a live acceptor, when a Prepare that exceeds all ballots comes from elsewhere, also
    from another disk under the ballot of the founding one, then it does not answer.
    """
    cluster = founded(11)
    cluster.crash("proposer-5")
    cluster.start("proposer-5")  # Its second start.
    cluster.run(5_000)
    acceptor, sender = cluster.actor("acceptor-2"), cluster.actor("proposer-5").identity
    whole = Prepare(ballot=Ballot(99, "proposer-5"), first_slot=1)
    admitted = Envelope(acceptor.cluster, sender.name, sender.disk, sender.incarnation, whole)
    acceptor.receive(admitted, cluster.machines["acceptor-2"].now_ms)
    wrong = {
        "dropped_foreign_cluster": admitted._replace(cluster="another"),
        "dropped_not_permitted": admitted._replace(disk="another"),
        "dropped_former_incarnation": admitted._replace(incarnation=sender.incarnation - 1),
    }[counter]
    before, promised = acceptor.counters[counter], acceptor.promised

    effects = acceptor.receive(wrong, cluster.machines["acceptor-2"].now_ms)

    assert acceptor.counters[counter] == before + 1
    assert (effects.records, effects.sends, acceptor.promised) == ((), (), promised)

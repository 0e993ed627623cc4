"""Candidates that get into each other's way."""

from actors.ballot import Ballot
from actors.messages import LeaderBeat, Reject
from tests.worlds import founded


def test_candidates_that_duel_spread_further_and_a_leader_ends_that() -> None:
    cluster = founded()
    proposer = cluster.actor("proposer-5")

    def spread_ms() -> int:
        proposer._take()
        proposer._stand()
        higher = Ballot(proposer.round + 1, "proposer-4")
        proposer._on_reject(
            "acceptor-1",
            Reject(
                ballot=proposer.phase.ballot, promised=higher, lease_left_ms=0, truncated_below=1
            ),
        )
        timer = proposer._take().timers[-1]
        assert timer.key.name == "election"
        return int(timer.most_ms - timer.least_ms)

    lease_ms = cluster.options.lease_ms
    assert [spread_ms() for _ in range(5)] == [lease_ms, 2 * lease_ms, *[4 * lease_ms] * 3]
    beat = LeaderBeat(
        ballot=Ballot(proposer.round + 9, "proposer-1"),
        ready=True,
        chosen_through=0,
        lease_left_ms=0,
        read_leases_ms={},
    )
    proposer._on_leader_beat("proposer-1", beat)
    assert spread_ms() == lease_ms

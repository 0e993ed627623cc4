"""Candidates that get into each other's way."""

from actors.messages import LeaderBeat, Reject
from actors.options import Options
from actors.paxos.ballot import Ballot
from actors.paxos.phases import Electing, Following, Leading
from chaos.simulator.network import Conditions
from tests.worlds import founded, intercepted, put


def test_duelling_candidates_spread_their_campaigns_until_one_leads() -> None:
    cluster = founded()
    proposer = cluster.actor("proposer-5")

    def spread_ms() -> int:
        proposer._take()
        proposer._campaign()
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


def test_a_candidate_gives_up_once_leases_leave_it_no_quorum() -> None:
    """Given acceptors that a lease binds, then refusals of two of five, however often, don't end a
    campaign, and that of a third does; refusals of another ballot don't count.
    """
    world = founded()
    proposer = world.actor("proposer-5")
    proposer._campaign()
    proposer._take()
    phase = proposer.phase
    assert isinstance(phase, Electing)

    def rejected(acceptor: str, ballot: Ballot = phase.ballot, lease_left_ms: int = 500) -> bool:
        reject = Reject(
            ballot=ballot,
            promised=phase.ballot,
            lease_left_ms=lease_left_ms,
            truncated_below=1,
        )
        proposer.turn.sender_disk = world.machines[acceptor].disk.identity
        proposer._on_reject(acceptor, reject)
        return proposer.phase is phase

    former = Ballot(phase.ballot.round - 1, "proposer-5")
    for acceptor in ("acceptor-1", "acceptor-2", "acceptor-1"):
        assert rejected(acceptor)
    assert rejected("acceptor-3", ballot=former)
    assert rejected("acceptor-3", lease_left_ms=0)
    assert {name for name, _ in phase.lease_bound} == {"acceptor-1", "acceptor-2"}
    assert not rejected("acceptor-3")
    assert isinstance(proposer.phase, Following)


def test_a_candidate_that_receives_pages_does_not_start_over() -> None:
    """Given promises of so many pages that they take longer than the time before the next campaign,
    then the candidate is elected all the same, under its first ballot.
    """
    cluster = founded(options=Options(page_bytes=400))
    with intercepted(cluster, lambda sender, to, message: message.type != "log.truncate"):
        for number in range(40):
            cluster.done(put("a", b"%d" % number * 300))
        cluster.network.conditions = Conditions(least_us=50_000, most_us=50_000)
        cluster.run(1_000)
        cluster.crash(*(name for name in cluster.options.names("proposer") if name != "proposer-5"))
        candidate = cluster.actor("proposer-5")
        cluster.run_until(lambda: isinstance(candidate.phase, Leading), 15_000)
    assert candidate.counters["elections"] == 1
    assert candidate.counters["promise_pages"] > 3 * 30


def test_an_acceptor_that_keeps_restarting_prevents_no_election() -> None:
    """Given an acceptor that is never up for a whole lease, and whose refusal always comes first,
    then the other four elect a leader.
    """
    cluster = founded()
    cluster.run(3_000)
    (leader,) = [m.name for m in cluster.up("proposer") if m.actor.holds_lease]
    cluster.crash(leader)
    rejects = 0
    for _ in range(10):
        cluster.crash("acceptor-1")
        cluster.start("acceptor-1")
        cluster.run(900)
        rejects += cluster.actor("acceptor-1").counters["rejects"]
    assert rejects > 0
    assert [m.actor.holds_lease for m in cluster.up("proposer")].count(True) == 1
    cluster.done(put("a", b"1"))

"""The leases and promises that a gateway learns from heartbeats."""

from actors.calls import Survey, Surveyed
from chaos.simulator.world import World
from tests.worlds import founded, put


def _survey(cluster: World) -> Surveyed:
    found = cluster.answer(cluster.call(lambda token: Survey(token=token)))
    assert isinstance(found, Surveyed)
    return found


def test_every_leader_beat_reports_its_lease_and_the_read_leases() -> None:
    cluster = founded()
    cluster.done(put("a", b"1"))
    cluster.read("a")
    options = cluster.actor("gateway-1").options
    cluster.run(options.leader_heartbeat_ms)

    leases = _survey(cluster).leases

    assert leases is not None
    assert leases.ballot.proposer == _survey(cluster).leader
    assert leases.age_ms <= 2 * options.leader_heartbeat_ms
    assert 0 < leases.left_ms < options.lease_ms
    (left_ms,) = leases.read_left_ms.values()
    assert 0 < left_ms < options.lease_ms
    cluster.run(2 * options.lease_ms)
    after = _survey(cluster).leases
    assert after is not None
    assert after.left_ms > 0, "the leader renews its lease"
    assert after.read_left_ms == {}, "nobody read, so no store asked again"


def test_every_acceptor_reports_the_ballot_that_it_has_promised() -> None:
    cluster = founded()
    cluster.done(put("a", b"1"))
    cluster.run(2 * cluster.actor("gateway-1").options.heartbeat_ms)

    found = _survey(cluster)

    assert found.leases is not None
    promised = {name: found.nodes[name].heartbeat.ballot for name in found.expected["acceptor"]}
    assert promised == dict.fromkeys(found.expected["acceptor"], found.leases.ballot)


def test_a_dead_leaders_leases_are_reported_with_their_age() -> None:
    cluster = founded()
    leader = _survey(cluster).leader
    assert leader is not None
    cluster.crash(leader)
    cluster.run(600)

    leases = _survey(cluster).leases

    assert leases is not None
    assert leases.ballot.proposer == leader
    assert leases.age_ms >= 300

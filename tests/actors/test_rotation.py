"""A request that goes from peer to peer: each has its turn, and none is asked without a pause."""

import pytest

from actors.calls import NotDone, Read, ReadDone
from actors.messages import ReadRequest
from actors.rotation import Rotation
from chaos.simulator.world import World
from tests.worlds import founded, put

PEERS = ("a", "b", "c")


def asked_while(
    rotation: Rotation, until: int, refuses: bool, peers: tuple[str, ...] = PEERS
) -> list[tuple[int, str]]:
    """Which peer is asked when, if all refuse at once, or if none answers within a second."""
    asked: list[tuple[int, str]] = []
    for now in range(0, until, 10):
        while (peer := rotation.next(peers, now, 1_000)) is not None:
            asked.append((now, peer))
            if refuses:
                rotation.refused(peer, now, "no")
    return asked


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("refuses", [True, False])
def test_every_peer_is_asked_once_before_any_is_asked_twice(start: int, refuses: bool) -> None:
    names = [peer for _, peer in asked_while(Rotation(start), 20_000, refuses)]

    assert names[0] == PEERS[start % 3]
    assert len(names) >= 12
    for first in range(0, len(names) - 2, 3):
        assert sorted(names[first : first + 3]) == list(PEERS)


def test_a_round_of_refusals_is_followed_by_a_pause_that_grows() -> None:
    asked = asked_while(Rotation(), 8_000, refuses=True)

    moments = [now for now, _ in asked]
    assert moments == [at for at in (0, 250, 750, 1_750, 3_750, 5_750, 7_750) for _ in PEERS]


def test_peers_that_seem_alive_are_asked_first() -> None:
    rotation = Rotation(start=1)
    asked = []
    for now in range(3):
        peer = rotation.next(PEERS, now, 1_000, silent={"b"})
        assert peer is not None
        asked.append(peer)
        rotation.refused(peer, now, "no")

    assert asked == ["c", "a", "b"]


def test_a_peer_that_joins_or_returns_is_asked_during_the_pause() -> None:
    rotation = Rotation()
    assert asked_while(rotation, 100, refuses=True) == [(0, peer) for peer in PEERS]
    assert rotation.next(PEERS, 100, 1_000) is None

    assert rotation.next((*PEERS, "d"), 100, 1_000) == "d"
    rotation.refused("d", 100, "no")
    assert rotation.next(("a", "c"), 100, 1_000) is None
    assert rotation.next(PEERS, 110, 1_000) == "b"


def test_silent_peers_leave_time_for_every_other_peer_before_the_deadline() -> None:
    asked = asked_while(Rotation(deadline=1_500), 1_500, refuses=False)

    assert asked == [(0, "a"), (500, "b"), (1_000, "c")]


def test_late_and_early_refusals_end_no_wait_for_another_peer() -> None:
    rotation = Rotation()
    assert rotation.next(PEERS, 0, 1_000) == "a"
    rotation.refused("c", 10, "no")
    assert rotation.next(PEERS, 20, 1_000) is None
    assert rotation.next(PEERS, 1_000, 1_000) == "b"
    rotation.refused("a", 1_010, "too late")

    assert rotation.next(PEERS, 1_020, 1_000) is None
    assert rotation.unanswered == {"a": 1}
    assert rotation.account == "a: too late; b: no answer"


def test_without_peers_none_is_asked() -> None:
    rotation = Rotation(start=5)
    assert rotation.next((), 0, 1_000) is None
    assert rotation.account == "none was asked"


# -- reads ----------------------------------------------------------------------------------------


def _read(world: World) -> int:
    request = ReadRequest(number=0, what="entry", path="a")
    return world.call(lambda token: Read(token=token, request=request))


def _without_leases(*stores: str) -> World:
    """A cluster with one file, in which the leader does not receive these stores' messages."""
    world = founded()
    world.done(put("a", b"1"))
    world.run(3_000)
    world.network.cut |= {(store, f"proposer-{n}") for store in stores for n in range(1, 6)}
    world.run(3_000)
    return world


@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("serves", ["store-1", "store-2", "store-3"])
def test_a_read_that_one_store_can_serve_is_served_there(first: int, serves: str) -> None:
    """Given two stores of the view without a read lease, whichever is asked first."""
    others = sorted({"store-1", "store-2", "store-3"} - {serves})
    world = _without_leases(*others)
    world.actor("gateway-1").cluster_state._next_store = first

    answer = world.answer(_read(world))

    assert isinstance(answer, ReadDone), answer
    assert answer.store == serves


@pytest.mark.parametrize("first", range(6))
def test_a_read_outlives_two_stores_that_have_just_fallen_silent(first: int) -> None:
    """Given a gateway that has measured no read yet, and heartbeats that came a moment ago."""
    world = founded()
    world.done(put("a", b"1"))
    world.run(3_000)
    world.network.cut |= {("gateway-1", store) for store in ("store-1", "store-3")}
    world.actor("gateway-1").cluster_state._next_store = first

    answer = world.answer(_read(world))

    assert isinstance(answer, ReadDone), answer
    assert answer.store == "store-2"


def test_a_failed_read_reports_each_stores_reason() -> None:
    world = _without_leases("store-1", "store-2", "store-3")
    world.network.cut |= {("gateway-1", "store-2")}

    answer = world.answer(_read(world))

    assert isinstance(answer, NotDone)
    assert answer.fact == "a read changes nothing"
    head, _, account = answer.reason.partition(" (")
    assert head == "no store could serve the read"
    assert sorted(account.removesuffix(")").split("; ")) == [
        "store-1: no read lease",
        "store-2: no answer",
        "store-3: no read lease",
    ]

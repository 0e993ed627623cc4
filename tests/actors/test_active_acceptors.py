"""While the acceptors change, both the old and the new ones elect and grant the lease (decision 26,
rules 5 to 9 and 12).
"""

from collections.abc import Iterable
from typing import Any

import pytest

from actors.effects import Envelope, Send
from actors.messages import (
    LearnerProgress,
    LeaseAsk,
    LeaseGrant,
    LeaseGranted,
    LeaseHeartbeat,
    NodeHeartbeat,
    Prepare,
    Promise,
    Reject,
)
from actors.messages.permissions import permitted
from actors.options import Options
from actors.paxos.ballot import Ballot
from actors.paxos.membership import Key, Membership
from actors.paxos.phases import Electing, Following, Leading
from actors.paxos.proposer import Proposer
from actors.values import AcceptedValue, FoundingMember, Members, Settled, View
from chaos.simulator.world import World
from tests.worlds import FIVE_ACCEPTORS, batch, founded, founding_acceptors, voter

ALPHA = 4
NEW = tuple(FoundingMember(name=f"acceptor-{n}", disk=f"new-{n}") for n in (1, 2, 3))
REPLACED = Members(version=1, acceptors=(*NEW, *founding_acceptors(5)[3:]))
AMID = FIVE_ACCEPTORS.after(5, REPLACED, ALPHA)
"""Of five acceptors three are replaced: the new ones choose slots from 9 on."""
SETTLED = AMID.after(20, Settled(version=1), ALPHA)
OLD_QUORUM = [voter(number) for number in (1, 2, 3)]
COMMON = [voter(number) for number in (4, 5)]
NEW_DISKS = [voter(number, f"new-{number}") for number in (1, 2, 3)]


@pytest.fixture
def world() -> World:
    return founded(options=Options(window_slots=2, alpha=ALPHA))


def phase_of(proposer: Proposer) -> Any:
    """Its phase, as it is now."""
    return proposer.phase


def standing(world: World, membership: Membership | None, chosen_through: int) -> Proposer:
    """`proposer-5`, whose genesis is `FIVE_ACCEPTORS`, with that knowledge, as a candidate."""
    proposer = world.actor("proposer-5")
    assert isinstance(proposer, Proposer)
    proposer._founded = FIVE_ACCEPTORS
    proposer._low_water = 1
    proposer._learn(report(world, membership, chosen_through))
    proposer._campaign()
    return proposer


def report(
    world: World, membership: Membership | None, through: int, durable_mark: int = 0
) -> LearnerProgress:
    view: View = world.actor("learner-1").view
    return LearnerProgress(
        chosen_through=through,
        decided=through,
        view=view,
        membership=membership,
        durable_mark=durable_mark,
    )


def promised_by(proposer: Proposer, voters: Iterable[Key], *slots: int) -> None:
    phase = proposer.phase
    assert not isinstance(phase, Following)
    for name, disk in voters:
        proposer.turn.sender_disk = disk
        accepted = tuple(
            AcceptedValue(slot=slot, ballot=Ballot(1, "proposer-1"), value=batch(slot))
            for slot in slots
        )
        promise = Promise(
            ballot=phase.ballot,
            first_slot=phase.promises.first_slot,
            next_slot=None,
            accepted=accepted,
            truncated_below=1,
        )
        proposer._on_promise(name, promise)


def granted_by(proposer: Proposer, voters: Iterable[Key]) -> None:
    phase = proposer.phase
    assert isinstance(phase, Leading)
    for name, disk in voters:
        proposer.turn.sender_disk = disk
        grant = LeaseGranted(ballot=phase.ballot, number=phase.heartbeat_number)
        proposer._on_lease_granted(name, grant)


def says(proposer: Proposer, kind: type) -> list[tuple[str, Any]]:
    """The messages of a type that it has sent since the last question, with their receivers."""
    sends = [send for send in proposer._take().sends if isinstance(send, Send)]
    return [(send.to, send.message) for send in sends if isinstance(send.message, kind)]


# -- elections ------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [OLD_QUORUM, [*NEW_DISKS, *COMMON]], ids=["old", "new"])
def test_amid_a_change_neither_the_old_nor_the_new_acceptors_elect_alone(
    world: World, alone: list[Key]
) -> None:
    proposer = standing(world, AMID, 30)
    promised_by(proposer, alone)
    assert isinstance(phase_of(proposer), Electing)
    promised_by(proposer, [*OLD_QUORUM, *COMMON, *NEW_DISKS])
    assert isinstance(phase_of(proposer), Leading)
    proposer._take()


def test_a_candidate_that_learns_of_the_end_of_a_change_is_elected_by_the_new_ones(
    world: World,
) -> None:
    """Given promises of the new acceptors alone, then they elect once it learns that they are; and
    slots that only the retired ones chose are not proposed again.
    """
    proposer = standing(world, AMID, 19)
    promised_by(proposer, NEW_DISKS, 7, 21)
    assert isinstance(phase_of(proposer), Electing)
    assert proposer._learn(report(world, SETTLED, 20))
    assert isinstance(phase_of(proposer), Leading)
    assert min(phase_of(proposer).in_flight) == SETTLED.newest.first_slot == 9
    proposer._take()


def test_the_low_water_mark_rises_to_the_oldest_active_acceptors(world: World) -> None:
    """Given a leader that knows of the end of a change, then neither it nor its next campaign goes
    back to slots that only the retired acceptors chose.
    """
    proposer = standing(world, SETTLED, 20)
    promised_by(proposer, [*NEW_DISKS, *COMMON], 7, 21)
    assert isinstance(phase_of(proposer), Leading)
    proposer._step_down("enough")
    proposer._campaign()
    assert isinstance(phase_of(proposer), Electing)
    assert phase_of(proposer).promises.first_slot == SETTLED.newest.first_slot == 9
    proposer._take()


def test_an_old_report_takes_no_acceptor_back(world: World) -> None:
    proposer = standing(world, SETTLED, 20)
    for former in (AMID, None):
        assert proposer._learn(report(world, former, 19, durable_mark=3))
        assert proposer.membership == SETTLED
    proposer._take()


def test_a_candidate_that_the_fence_refuses_gives_up(world: World) -> None:
    """Given acceptors that have answered version 1, which it does not know, then refusals of a
    majority end the campaign.
    """
    proposer = standing(world, None, 4)
    phase = proposer.phase
    assert isinstance(phase, Electing)
    for name, disk in OLD_QUORUM:
        assert proposer.phase is phase
        proposer.turn.sender_disk = disk
        reject = Reject(
            ballot=phase.ballot,
            promised=phase.ballot,
            lease_left_ms=0,
            truncated_below=1,
            fence=1,
        )
        proposer._on_reject(name, reject)
    assert isinstance(phase_of(proposer), Following)
    assert proposer.version == 0, "it does not know these acceptors"
    assert proposer._learn(report(world, AMID, 12))
    assert (proposer.durable_mark, proposer.version) == (0, 1), "the fence proves the version"
    proposer._take()


# -- a leader that learns of new acceptors --------------------------------------------------------


def elected(world: World) -> Proposer:
    """A leader of the old acceptors, with their lease, in whose window the change begins."""
    proposer = standing(world, None, 4)
    promised_by(proposer, OLD_QUORUM, *range(1, 5))
    granted_by(proposer, OLD_QUORUM)
    assert proposer.is_ready
    assert proposer._learn(report(world, AMID, 12))
    proposer._take()
    return proposer


def test_a_leader_prepares_new_acceptors_and_recovers_what_they_report(world: World) -> None:
    """Given a leader that learns of new acceptors, then it prepares them under its own ballot, and
    proposes slot 9 and those after it only once a majority of them has promised: what they report.
    """
    proposer = elected(world)
    phase = proposer.phase
    assert isinstance(phase, Leading)
    proposer._on_leader_due("")
    prepared = says(proposer, Prepare)
    assert [to for to, _ in prepared] == [f"acceptor-{number}" for number in (4, 5, 1, 2, 3, 4, 5)]
    assert {message.ballot for _, message in prepared} == {phase.ballot}
    proposer._advance(phase)
    assert max(phase.in_flight, default=0) < 9

    promised_by(proposer, NEW_DISKS[:2], 10)
    assert phase.recovered_through == 10
    assert max(phase.in_flight, default=0) < 9
    promised_by(proposer, NEW_DISKS[2:])
    assert phase.in_flight[10].value == batch(10)
    promised_by(proposer, COMMON, 16)
    assert 16 not in phase.in_flight, "they were not needed"
    proposer._take()


def test_the_lease_takes_a_majority_of_each_and_the_earliest_end_counts(world: World) -> None:
    proposer = elected(world)
    held = [proposer.holds_lease]
    granted_by(proposer, NEW_DISKS)
    assert [*held, proposer.holds_lease] == [False, True]
    first = proposer.lease_until
    proposer.turn.now += 200
    proposer._on_leader_due("")
    granted_by(proposer, [*NEW_DISKS, *COMMON])
    assert proposer.lease_until == first, "that of the old ones is older"
    granted_by(proposer, OLD_QUORUM)
    assert proposer.lease_until == first + 200
    proposer._take()


def test_no_store_gets_a_lease_before_the_new_acceptors_have_promised(world: World) -> None:
    """Else a value that they chose under a lower ballot could be a View that drops the store."""
    proposer = elected(world)
    granted_by(proposer, [*NEW_DISKS, *COMMON])
    assert (proposer.holds_lease, proposer.is_ready) == (True, False)
    store = world.machines["store-1"]

    def asks() -> list[tuple[str, Any]]:
        proposer.turn.sender_disk = store.disk.identity
        proposer._on_lease_ask("store-1", LeaseAsk(number=1))
        return says(proposer, LeaseGrant)

    assert asks() == []
    promised_by(proposer, NEW_DISKS, 14)
    assert proposer.is_ready
    assert asks() == [], "the prefix has not passed what they report"
    assert proposer._learn(report(world, AMID, 14))
    assert [to for to, _ in asks()] == ["store-1"]


# -- versions --------------------------------------------------------------------------------------


def test_messages_name_the_newest_acceptors_that_are_named_durably(world: World) -> None:
    """Given a change whose Members is in slot 5, then version 1 is named from the durable mark 5
    on; after the change also by a proposer that does not know the mark.
    """
    proposer = elected(world)
    for mark, version in ((4, 0), (5, 1)):
        assert proposer._learn(report(world, AMID, 12, durable_mark=mark))
        proposer._on_leader_due("")
        assert {beat.version for _, beat in says(proposer, LeaseHeartbeat)} == {version}
    proposer._unlearn()
    assert (proposer.version, proposer.membership) == (0, FIVE_ACCEPTORS)
    assert proposer._learn(report(world, SETTLED, 20))
    assert (proposer.durable_mark, proposer.version) == (0, 1)
    assert proposer._learn(report(world, SETTLED, 20, durable_mark=21))
    assert proposer.durable_mark == 0, "no mark is ahead of the prefix"


def test_learners_report_what_all_stores_and_themselves_hold_durably() -> None:
    """Given a change, then heartbeats and reports have the acceptors and a mark that no store's
    journal lags behind; without a change they have neither.
    """
    world = founded()
    world.run(5_000)
    learner = world.actor("learner-1")
    assert learner.heartbeat().membership is None
    learner.log.membership = learner.log.membership.after(1, REPLACED, 1)
    beat = learner.heartbeat()
    stores = [world.actor(name).durable for name in world.options.names("store")]
    assert beat.membership == learner.log.membership
    assert beat.durable_mark == min(learner.durable, *stores) > 0
    for member in learner.view.stores:
        learner.replicas._durable[member.name, member.disk] += 5
    learner.learned.durable += 7
    assert learner.heartbeat().durable_mark == beat.durable_mark + 5
    learner.learned.durable -= 7
    assert learner.heartbeat().durable_mark == beat.durable_mark + 5, "it never falls"


def test_only_learners_report_acceptors(world: World) -> None:
    """Given a heartbeat of a store with acceptors, or a report that names other nodes as such, then
    it is dropped: messages would be sent to them.
    """
    beat = NodeHeartbeat(role="store", journal_commits=1, membership=AMID)
    stores = FIVE_ACCEPTORS.after(
        5,
        Members(
            version=1,
            acceptors=tuple(
                m.model_copy(update={"name": f"store-{n}"}) for n, m in enumerate(NEW, 1)
            ),
        ),
        ALPHA,
    )
    for sender, message, passes in (
        ("store-1", beat, False),
        ("learner-1", beat.model_copy(update={"role": "learner"}), True),
        ("learner-1", beat.model_copy(update={"role": "learner", "membership": stores}), False),
        ("learner-1", report(world, AMID, 9), True),
        ("learner-1", report(world, stores, 9), False),
    ):
        rule = permitted(sender.partition("-")[0], "proposer", on_founding_disk=True)[type(message)]
        disk = world.machines[sender].disk.identity
        envelope = Envelope(world.actor(sender).cluster, sender, disk, 1, message)
        assert rule is not None
        assert rule(envelope, "proposer-1") == passes

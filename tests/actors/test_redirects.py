"""A proposer's redirects of commands, and what a gateway may conclude from them."""

from typing import Any

import pytest

from actors.calls import GiveUp, NotDone, Unknown, WriteDecided
from actors.effects import Answer, Effects, Envelope
from actors.messages import LeaderBeat, LearnerProgress, Redirect, Result, Submit
from actors.paxos.ballot import Ballot
from actors.values import Command, OpenSession, Outcome
from chaos.simulator.world import World
from tests.worlds import founded, hand, intercepted, leader_of, put, sent


def submit(ballot: Ballot, sequence: int) -> Submit:
    command = Command(
        session="gateway-1.s",
        sequence=sequence,
        acknowledged=-1,
        reply_to="gateway-1",
        operation=OpenSession(),
    )
    return Submit(ballot=ballot, command=command)


def redirects(effects: Effects) -> list[tuple[int, bool]]:
    """The sequences that are redirected, and whether as never proposed."""
    return [(m.sequence, m.never_proposed) for m in sent(effects) if isinstance(m, Redirect)]


# -- the proposer ---------------------------------------------------------------------------------


def test_never_proposed_is_claimed_only_for_sequences_that_the_last_ballot_did_not_reach() -> None:
    """Given a leader that proposed one command and steps down, then only later ones, and only those
    meant for that ballot, are never proposed; and its next incarnation claims nothing.
    """
    world = founded()
    leader = leader_of(world)
    name, ballot = leader.name, leader.actor.phase.ballot
    former = Ballot(ballot.round - 1, ballot.proposer)
    assert redirects(hand(world, name, "gateway-1", submit(former, 8))) == [(8, False)]
    assert redirects(hand(world, name, "gateway-1", submit(ballot, 5))) == []
    leader.actor.settle(leader.now_ms)
    leader.actor._step_down("a test")
    leader.actor._take()

    for meant_for, sequence, never in (
        (ballot, 6, True),
        (ballot, 5, False),
        (ballot, 4, False),
        (former, 6, False),
    ):
        effects = hand(world, name, "gateway-1", submit(meant_for, sequence))
        assert redirects(effects) == [(sequence, never)]
    world.crash(name)
    world.start(name)
    assert redirects(hand(world, name, "gateway-1", submit(ballot, 6))) == [(6, False)]


def test_a_command_in_progress_is_queued_once_and_again_when_its_slot_is_chosen() -> None:
    """Given a command that is sent again, since its result may be lost, then it waits for its slot
    but no longer: the log has room for another copy, which gets the same result.
    """
    world = founded()
    leader = leader_of(world)
    name, phase = leader.name, leader.actor.phase
    again = submit(phase.ballot, 5)
    hand(world, name, "gateway-1", again)
    leader.actor.settle(leader.now_ms)
    slot = phase.next_slot - 1
    hand(world, name, "gateway-1", again)
    assert list(phase.queue) == []
    view = leader.actor.view
    hand(world, name, "learner-1", LearnerProgress(chosen_through=slot, decided=slot, view=view))
    hand(world, name, "gateway-1", again)
    assert list(phase.queue) == [again.command]


def test_a_leader_without_a_quorum_steps_down_and_redirects_its_queue() -> None:
    """Given a leader that no acceptor hears, then it leads no longer than its lease ran, and
    redirects the commands in its queue as never proposed.
    """
    world = founded()
    leader = leader_of(world)
    acceptors = world.options.names("acceptor")
    proposers = world.options.names("proposer")
    world.network.cut |= {(leader.name, name) for name in (*acceptors, *proposers)}
    world.crash(*(name for name in proposers if name != leader.name))
    ballot = leader.actor.phase.ballot
    leader.actor.phase.undecided[99] = 10  # Others wait until that slot is decided.
    sent: list[Redirect] = []

    def keep(sender: str, to: str, message: Any) -> bool:
        if isinstance(message, Redirect):
            sent.append(message)
        return True

    with intercepted(world, keep):
        gateway = world.machines["gateway-1"].disk
        cluster = leader.actor.cluster
        leader.arrive(
            (
                Envelope(
                    cluster, "gateway-1", gateway.identity, gateway.incarnation, submit(ballot, 5)
                ),
            )
        )
        world.run(2 * world.options.lease_ms)
    assert leader.actor.counters["stepped_down"] == 1
    assert [(m.session, m.sequence, m.ballot, m.never_proposed) for m in sent] == [
        ("gateway-1.s", 5, ballot, True)
    ]


# -- the client -----------------------------------------------------------------------------------


def writing() -> tuple[World, int, Any]:
    """A gateway's write that no proposer answers, and the token of its caller."""
    world = founded()
    world.network.cut |= {("gateway-1", name) for name in world.options.names("proposer")}
    token = world.write(put("a", b"1"), retry=True)
    gateway = world.actor("gateway-1")
    (pending,) = gateway.writes._pending.values()
    return world, token, pending


def end_wait(world: World, token: int) -> Any:
    """The caller's answer if its wait ends now."""
    machine = world.machines["gateway-1"]
    call = GiveUp(token=1_000, write=token)
    identity = machine.actor.identity
    me = Envelope(machine.actor.cluster, "gateway-1", identity.disk, identity.incarnation, call)
    answers: tuple[Answer, ...] = machine.actor.receive(me, machine.now_ms).answers
    return answers[0].value


def redirect(world: World, pending: Any, ballot: Ballot, **more: Any) -> None:
    command = pending.command
    fields = {
        "session": command.session,
        "sequence": command.sequence,
        "ballot": ballot,
        "never_proposed": True,
        "reason": "a test",
        **more,
    }
    hand(world, "gateway-1", ballot.proposer, Redirect(**fields))


def test_a_write_is_refused_for_good_only_if_no_ballot_can_propose_a_copy() -> None:
    """Given copies sent to two leaders, then each has to report that it never proposed it."""
    world, token, pending = writing()
    (first,) = pending.open_ballots
    second = Ballot(first.round + 1, "proposer-5")
    beat = LeaderBeat(
        ballot=second, ready=True, chosen_through=0, lease_left_ms=900, read_leases_ms={}
    )
    hand(world, "gateway-1", "proposer-5", beat)
    assert pending.open_ballots == {first, second}
    redirect(world, pending, second)
    redirect(world, pending, first, session="gateway-1.former")
    redirect(world, pending, first, never_proposed=False)
    assert pending.open_ballots == {first}
    redirect(world, pending, first)
    assert pending.open_ballots == set()
    answer = end_wait(world, token)
    assert isinstance(answer, NotDone)


def test_a_write_answered_as_unknown_is_not_retried_under_another_sequence() -> None:
    """Given a write that aborts after its caller has gone, then that outcome is answered to every
    later query, also after the gateway has restarted.
    """
    world, token, pending = writing()
    request = pending.command.request
    answer = end_wait(world, token)
    assert answer == Unknown(request)
    machine = world.machines["gateway-1"]
    aborted = Outcome(status="aborted", slot=9, index=0)
    result = Result(
        session=pending.command.session, sequence=pending.command.sequence, outcome=aborted
    )
    sender = world.machines["learner-1"].disk
    cluster = machine.actor.cluster
    machine.arrive((Envelope(cluster, "learner-1", sender.identity, sender.incarnation, result),))
    assert machine.actor.writes._pending == {}
    assert machine.actor.writes.resolved == {request: aborted}
    world.crash("gateway-1")
    world.start("gateway-1")
    assert world.actor("gateway-1").writes.resolved == {request: aborted}


def test_an_aborted_write_is_retried_once_under_another_sequence_while_its_caller_waits() -> None:
    world, token, pending = writing()
    session, sequence = pending.command.session, pending.command.sequence
    aborted = Outcome(status="aborted", slot=9, index=0)
    hand(
        world,
        "gateway-1",
        "learner-1",
        Result(session=session, sequence=sequence, outcome=aborted),
    )
    (again,) = world.actor("gateway-1").writes._pending.values()
    assert again.command.operation == pending.command.operation
    assert (again.command.sequence, again.command.acknowledged) == (sequence + 1, sequence)
    effects = hand(
        world,
        "gateway-1",
        "learner-1",
        Result(session=session, sequence=sequence + 1, outcome=aborted),
    )
    (answer,) = effects.answers
    assert answer == Answer(token, WriteDecided(again.command.request, aborted, retried=True))


def test_a_gateway_acknowledges_only_results_that_it_has_received() -> None:
    """Given a result that is overtaken by a later one, then it may not be forgotten yet."""
    world, _, pending = writing()
    gateway = world.actor("gateway-1")
    session, first = pending.command.session, pending.command.sequence
    world.write(put("b", b"2"))
    done = Outcome(status="done", slot=9, index=0)
    for sequence, acknowledged in ((first + 1, first - 1), (first, first + 1)):
        result = Result(session=session, sequence=sequence, outcome=done)
        hand(world, "gateway-1", "learner-1", result)
        assert gateway.writes._acknowledged_through == acknowledged


@pytest.mark.parametrize("sent_to_a_leader", [True, False])
def test_a_caller_waits_half_as_long_if_no_copy_was_sent(
    sent_to_a_leader: bool,
) -> None:
    """Given a write whose result does not come, then its caller is answered *unknown* at the
    deadline if a leader may propose it, and *unavailable* at half of it if no leader has got it.
    """
    world = founded()
    gateway, deadline_ms = world.actor("gateway-1"), world.options.request_deadline_ms
    if sent_to_a_leader:
        world.network.cut |= {(name, "gateway-1") for name in world.options.names("learner")}
    else:
        world.crash(*world.options.names("proposer"))
        world.run(2 * world.options.lease_ms)
    began_ms = world.machines["gateway-1"].now_ms
    token = world.write(put("a", b"1"))
    waits_ms = deadline_ms if sent_to_a_leader else deadline_ms // 2
    world.run(waits_ms - 200)
    assert token not in world.answers
    world.run_until(lambda: token in world.answers, 1_000, 1)
    waited_ms = world.machines["gateway-1"].now_ms - began_ms
    assert waits_ms <= waited_ms <= waits_ms + 150
    assert isinstance(world.answers[token], Unknown if sent_to_a_leader else NotDone)
    assert [p.token for p in gateway.writes._pending.values()] == [None] * sent_to_a_leader

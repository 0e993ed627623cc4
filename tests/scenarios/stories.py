"""The golden scenarios. Each runs on a stage, and its text is beside it in a `.txt` file."""

from collections.abc import Callable

from actors.calls import ChangeBegun, ChangeNotBegun, MemberChange
from actors.effects import TimerKey
from actors.paxos.phases import Leading
from actors.values import NoOp
from chaos.simulator.disk import Disk
from chaos.simulator.machine import MachineObserver
from chaos.simulator.parcels import SPURIOUS, DueTimer
from tests.scenarios.stage import Stage

STORES = ("store-1", "store-2", "store-3")
ACCEPTORS = tuple(f"acceptor-{n}" for n in range(1, 6))
LEARNERS = ("learner-1", "learner-2")
CALM = "a calm cluster: proposer-1 leads, learner-1 coordinates epoch 0"


def happy_path() -> Stage:
    """Six hops: gateway, leader, acceptors, learners, stores, coordinator, gateway."""
    stage = Stage()
    stage.start()
    stage.given(CALM)
    stage.when("a client writes greeting")
    outcome = stage.write("greeting", "hello")
    stage.then("it is done", holds=outcome.status == "done")
    stage.world.settled()
    applied = {machine.actor.state.applied for machine in stage.world.up("store", "learner")}
    stage.then("every store and learner has applied it", holds=applied == {outcome.slot})
    return stage


def leader_change_with_gap() -> Stage:
    """A leader dies with a slot that reached nobody before one that is chosen."""
    stage = Stage()
    stage.start()
    stage.given(CALM)
    gap = stage.leader.phase.next_slot
    stage.when(f"what proposer-1 says about slot {gap} is lost")
    stage.cut(("proposer-1",), ACCEPTORS + LEARNERS)
    first = stage.begin("first", "lost")
    stage.world.run(5)
    stage.heal()
    stage.when(f"slot {gap + 1} reaches the acceptors, and proposer-1 dies")
    second = stage.begin("second", "chosen")
    stage.until_said("acceptor-5", "paxos.accepted")
    stage.world.crash("proposer-1")
    stage.until(lambda: stage.leader is not None, "another leader")
    winner = stage.leader
    stage.until(lambda: stage.world.actor("learner-1").chosen_through > gap, "the gap to be filled")
    stage.then(
        f"{winner.name} has filled slot {gap} with nothing",
        holds=isinstance(stage.world.actor("learner-1").log[gap].value, NoOp)
        and winner.counters["gaps_filled"] == 1,
    )
    answer = stage.world.answer(second)
    stage.then(
        f"the second write is done in slot {gap + 1}",
        holds=(answer.outcome.status, answer.outcome.slot) == ("done", gap + 1),
    )
    lost = stage.world.answer(first)
    stage.then(
        "the first one is done in a later slot",
        holds=lost.outcome.status == "done" and lost.outcome.slot > gap + 1,
    )
    return stage


def dueling_proposers() -> Stage:
    """Two candidates stand at the same moment; the lease and back-off let one of them win."""
    stage = Stage(also=("lease.heartbeat",))
    stage.start()
    stage.given(CALM)
    world = stage.world
    stage.when("proposer-1 dies, and proposer-2 and proposer-3 stand at the same moment")
    world.crash("proposer-1")
    rivals = [world.machines[name] for name in ("proposer-2", "proposer-3")]
    patience = world.options.lease_ms + world.options.leader_heartbeat_ms
    stage.until(
        lambda: all(m.now_ms - m.actor.phase.heard_at >= patience for m in rivals), "patience"
    )
    for machine in rivals:
        machine.arrive(DueTimer(machine.serial, TimerKey("election"), SPURIOUS))
    stage.until(lambda: stage.leader is not None, "a leader")
    leading = [m.name for m in world.up("proposer") if isinstance(m.actor.phase, Leading)]
    stage.then(
        f"{stage.leader.name} leads under {stage.leader.phase.ballot}, and nobody else has a lease",
        holds=[m.name for m in world.up("proposer") if m.actor.holds_lease] == [stage.leader.name]
        and stage.leader.name in leading,
    )
    stage.when("a client writes")
    outcome = stage.write("after", "the duel")
    stage.then("it is done", holds=outcome.status == "done")
    return stage


def store_dies_pending() -> Stage:
    """A store dies before it takes in the prepare: the write is given up in the log, then it goes
    on without the store.
    """
    stage = Stage()
    stage.start()
    stage.given(CALM)
    stage.when("store-2 dies, and a client writes before anybody knows")
    stage.world.crash("store-2")
    answer = stage.world.answer(stage.begin("pending", "1"))
    stage.then(
        f"the client is told: {answer.outcome.status}",
        holds=answer.outcome.status in ("aborted", "done"),
    )
    learner = stage.world.actor("learner-1")
    stage.until(lambda: learner.view.epoch == 1, "the view without store-2")
    stage.then(
        "store-2 is not in the view",
        holds=[m.name for m in learner.view.stores] == ["store-1", "store-3"],
    )
    stage.when("a client writes again")
    outcome = stage.write("pending", "2")
    stage.then("it is done by two stores", holds=outcome.status == "done")
    return stage


def store_dies_after_vote() -> Stage:
    """A vote outlives its store: the write is committed, and the store asks when it is back."""
    stage = Stage(also=("sync.pull", "sync.decided"))
    stage.start()
    stage.given(CALM)
    stage.when("a client writes, and store-2 dies once it has voted")
    token = stage.begin("voted", "1")
    stage.until_said("store-2", "txn.vote")
    stage.world.crash("store-2")
    answer = stage.world.answer(token)
    slot = answer.outcome.slot
    stage.then("the write is done", holds=answer.outcome.status == "done")
    disk = stage.world.machines["store-2"].disk
    stage.then(
        f"store-2 has slot {slot} on its disk, prepared and in doubt",
        holds=f"prepared/{slot:016x}" in disk.records,
    )
    stage.when("store-2 starts again")
    stage.world.start("store-2")
    store = stage.world.actor("store-2")
    stage.until(lambda: store.state.applied >= slot, "store-2 to apply the slot")
    stage.then("it has learned the outcome", holds="voted" in store.state.entries)
    return stage


def _fail_over(stage: Stage, lacks: tuple[str, ...]) -> tuple[int, int]:
    """The coordinator receives no vote and dies; `lacks` never got the slot. Token and slot."""
    stage.cut(STORES, ("learner-1",))
    stage.cut(("learner-1",), lacks)
    slot = stage.leader.phase.next_slot
    token = stage.begin("doubt", "1")
    last = next(name for name in reversed(STORES) if name not in lacks)
    stage.until_said(last, "txn.vote")
    stage.world.crash("learner-1")
    stage.heal()
    learner = stage.world.actor("learner-2")
    stage.until(lambda: learner.view.epoch == 1, "learner-2 to take over")
    stage.until(lambda: learner.decided >= slot, "the slot to be decided")
    return token, slot


def coordinator_fails_over_all_prepared() -> Stage:
    """The old coordinator may have told the client, so the new one commits."""
    stage = Stage()
    stage.start()
    stage.given(CALM)
    stage.when("all stores prepare a slot, their votes are lost, and learner-1 dies")
    token, slot = _fail_over(stage, ())
    learner = stage.world.actor("learner-2")
    stage.then(
        f"learner-2 coordinates epoch 1 and has committed slot {slot}",
        holds=learner.coordinator is not None and learner.log[slot].aborted == (),
    )
    answer = stage.world.answer(token)
    stage.then(
        f"the client is told: done in slot {slot}",
        holds=(answer.outcome.status, answer.outcome.slot) == ("done", slot),
    )
    return stage


def coordinator_fails_over_one_not_prepared() -> Stage:
    """A fenced store says that it has not prepared: it is asked to, in the new epoch."""
    stage = Stage()
    stage.start()
    stage.given(CALM)
    stage.when("store-3 does not hear of a slot that the others prepare, and learner-1 dies")
    token, slot = _fail_over(stage, ("store-3",))
    stage.then(
        "store-3 has answered epoch 1, so it would refuse learner-1 in epoch 0",
        holds=stage.world.actor("store-3").fence == 1,
    )
    answer = stage.world.answer(token)
    stage.then(
        f"slot {slot} is {answer.outcome.status} on all stores, and so is the client told",
        holds=answer.outcome.slot == slot
        and all(
            ("doubt" in m.actor.state.entries) == (answer.outcome.status == "done")
            for m in stage.world.up("store")
            if m.actor.state.applied >= slot
        ),
    )
    return stage


def lease_lapses_before_view_drops_store() -> Stage:
    """A store that the coordinator can't hear still serves reads: the View waits for its lease."""
    stage = Stage(also=("lease.ask", "lease.grant"))
    stage.start()
    stage.given(CALM)
    world, leader = stage.world, stage.leader
    stage.when(
        "no learner hears store-3, a client writes, and store-3 asks for leases as for reads"
    )
    stage.cut(("store-3",), LEARNERS)
    token = stage.begin("lease", "1")
    reads = world.actor("store-3").reads

    def ask_and_see() -> bool:
        reads._ask_lease()  # As for a read; whose store the gateway chooses is chance.
        return bool(leader.phase.waiting_views)

    stage.until(ask_and_see, "the leader to be asked for a View")
    machine = world.machines["store-3"]
    left_ms = reads.lease.until - machine.now_ms
    stage.then("the leader has the View and holds it back: store-3 has a lease", holds=left_ms > 0)
    held_until = reads.lease.until
    stage.until(lambda: not leader.phase.waiting_views, "the View to be proposed")
    stage.then(
        "the View was proposed after the last lease of store-3 had lapsed",
        holds=machine.now_ms >= held_until and reads.lease.until <= machine.now_ms,
    )
    learner = world.actor("learner-1")
    stage.until(lambda: learner.view.epoch == 1, "the View to take effect")
    stage.then(
        "store-3 is not in the view",
        holds=[m.name for m in learner.view.stores] == ["store-1", "store-2"],
    )
    answer = world.answer(token)
    status = answer.outcome.status
    stage.then(f"the write is {status}", holds=status in ("done", "aborted"))
    return stage


def rejoin() -> Stage:
    """A store that was dropped copies what it missed, asks, and is added at a slot of the log."""
    stage = Stage(also=("sync.pull", "sync.decided"))
    stage.start()
    world = stage.world
    learner = world.actor("learner-1")
    world.crash("store-3")
    stage.until(lambda: learner.view.epoch == 1, "the view without store-3")
    missed = stage.write("missed", "1")
    stage.given(f"epoch 1 without store-3, which missed slot {missed.slot}")
    stage.when("store-3 starts again")
    world.start("store-3")
    store = world.actor("store-3")
    stage.until(lambda: learner.view.epoch == 2, "the view with store-3")
    member = learner.view.member("store-3")
    stage.then(
        f"the View of slot {member.added_slot} has added it",
        holds=member is not None and member.added_slot == learner.learned.view_slot,
    )
    stage.then("by then it had what it missed", holds="missed" in store.state.entries)
    stage.when("a client writes")
    outcome = stage.write("after", "1")
    world.settled()
    stage.then(
        "all three stores have it",
        holds=all("after" in m.actor.state.entries for m in world.up("store"))
        and outcome.slot > member.added_slot,
    )
    return stage


def replace_acceptor() -> Stage:
    """An acceptor lost its disk. The leader asks the empty one for a promise, names it in the log,
    and ends the change once nobody can elect a leader, or read, by the former acceptors alone.
    """
    stage = Stage(also=("members.superseded",), alpha=2, window_slots=2)
    stage.start()
    stage.given(f"{CALM}; a slot's acceptors are known two slots before")
    world = stage.world
    machine = world.machines["acceptor-3"]
    former = machine.disk

    def replace_3(token: int) -> MemberChange:
        return MemberChange(token=token, action="replace", name="acceptor-3")

    stage.when("acceptor-3 loses its disk, and starts on an empty one")
    world.crash("acceptor-3")
    machine.disk = Disk("another disk")
    world.start("acceptor-3")
    world.run(3_000)
    learner = world.actor("learner-1")
    new = ("acceptor-3", machine.disk.identity)
    stage.then(
        "it knows the cluster, and does not vote",
        holds=world.actor("acceptor-3").is_started and not learner.log.membership.has_active(new),
    )
    stage.when("an operator has it replaced")
    early = world.answer(world.call(replace_3))
    stage.then("it is too early", holds=isinstance(early, ChangeNotBegun) and early.again)
    world.run(50)
    stage.when("the operator asks again")
    begun = world.answer(world.call(replace_3))
    stage.then("the change has begun", holds=begun == ChangeBegun(version=1))
    stage.until(lambda: learner.log.membership.settled_slot > 0, "the end of the change")
    known = learner.log.membership
    stage.then(
        "the new acceptors alone choose what follows",
        holds=known.is_settled and known.has_active(new),
    )
    stage.until(
        lambda: learner.heartbeat().durable_mark >= known.settled_slot, "the end to be durable"
    )
    stage.then("the former disk is not needed any more", holds=True)
    stage.when("the former disk comes back all the same")
    world.observer = MachineObserver()  # It halts, and no other node ever does.
    world.crash("acceptor-3")
    machine.disk = former
    world.start("acceptor-3")
    stage.until(lambda: "acceptor-3" in world.halted, "it to halt")
    stage.then(
        "it halts and says why", holds="is no acceptor any more" in world.halted["acceptor-3"]
    )
    return stage


def leader_dies_amid_a_change() -> Stage:
    """A leader names another acceptor in the log and dies. The next one, elected by majorities of
    the old acceptors and of the new ones, ends the change.
    """
    stage = Stage(alpha=2, window_slots=2)
    stage.start()
    stage.given(f"{CALM}; a slot's acceptors are known two slots before")
    world = stage.world
    machine = world.machines["acceptor-3"]

    def replace_3(token: int) -> MemberChange:
        return MemberChange(token=token, action="replace", name="acceptor-3")

    stage.when("acceptor-3 loses its disk, starts on an empty one, and is to be replaced")
    world.crash("acceptor-3")
    machine.disk = Disk("another disk")
    world.start("acceptor-3")
    world.run(3_000)
    world.answer(world.call(replace_3))
    world.run(50)
    begun = world.answer(world.call(replace_3))
    stage.then("the change has begun", holds=begun == ChangeBegun(version=1))
    learner = world.actor("learner-1")
    stage.until(lambda: not learner.log.membership.is_settled, "the learners to know it")
    stage.when("the leader dies")
    world.crash("proposer-1")
    stage.until(lambda: learner.log.membership.settled_slot > 0, "the end of the change")
    known = learner.log.membership
    stage.then(
        "another proposer leads, and has ended the change",
        holds=stage.leader.name != "proposer-1"
        and known.is_settled
        and known.has_active(("acceptor-3", machine.disk.identity)),
    )
    return stage


STORIES: dict[str, Callable[[], Stage]] = {
    story.__name__: story
    for story in (
        happy_path,
        leader_change_with_gap,
        dueling_proposers,
        store_dies_pending,
        store_dies_after_vote,
        coordinator_fails_over_all_prepared,
        coordinator_fails_over_one_not_prepared,
        lease_lapses_before_view_drops_store,
        rejoin,
        replace_acceptor,
        leader_dies_amid_a_change,
    )
}

"""The proposer: election, phase 1 for all slots, pipelined phase 2 and the leader's lease.

Multi-Paxos after Paxos Made Simple, section 3, and Paxos Made Moderately Complex, section 2.3.
Safety rests on the journalled round (a ballot is never used twice, nor after a restart) and on the
acceptors' promises. The lease adds one thing only: while it holds, no other leader can have been
elected, so read leases may be granted. Timers only start attempts.

Who votes is a value of the log (docs/decisions/0026-membership.md). What this proposer knows of it
comes from learners: the end of their chosen prefix, the acceptors there, and the durable mark. A
leader proposes no slot more than `alpha` ahead of the prefix that it knows (rule 4), and none whose
own acceptors have not promised its ballot by a majority (rule 7).
"""

from typing import ClassVar

from pydantic import TypeAdapter

from actors.effects import Group, Record
from actors.errors import InvariantViolation
from actors.messages import (
    Accept,
    ChangeAnswer,
    ChangeMember,
    LeaderBeat,
    LearnerProgress,
    LeaseAsk,
    LeaseGrant,
    LeaseGranted,
    LeaseHeartbeat,
    NodeHeartbeat,
    Prepare,
    Promise,
    ProposeValue,
    Redirect,
    Reject,
    Submit,
)
from actors.node import Handlers, Node, Timers, read_record
from actors.numbers import GAP_SLOTS_MAX, Milliseconds
from actors.options import Identity, Options, number_of
from actors.paging import COMMAND_BYTES_MAX
from actors.paxos.acceptor_change import ChangeRefused, NotYet, planned_configuration
from actors.paxos.ballot import NO_BALLOT, Ballot, proposer_on
from actors.paxos.member_changes import MemberChanges, next_value
from actors.paxos.membership import Configuration, Key, Membership
from actors.paxos.phase_one import Promises
from actors.paxos.phases import Electing, Following, InFlight, Leading, drops, recoverable_range
from actors.values import (
    NOOP,
    AnyVote,
    Batch,
    Command,
    Frozen,
    Members,
    Settled,
    View,
)

_ROUND = TypeAdapter(int)
_TICK_MS = 150
_RESEND_SLOTS = 16
_QUEUE_COMMANDS = 8192
_DUELS_MOST = 3


class Proposer(Node):
    """A node that proposes values while it leads, and stands for election otherwise."""

    def __init__(self, identity: Identity, options: Options) -> None:
        super().__init__(identity, options)
        self.round = 0
        self.phase: Following | Electing | Leading = Following(heard_at=0)
        self.chosen_through = 0
        self.view: View | None = None
        """The view in force at `chosen_through`, from a learner."""
        self.durable_mark = 0
        """A slot through which a learner and all stores hold everything in their journals."""
        self._fence_seen = 0
        """The highest version that an acceptor is known to have answered."""
        self._changed_membership: Membership | None = None
        self._highest_ballot = NO_BALLOT
        self._own = ""
        """What stands for it in its ballots."""
        self._duels = 0
        """Consecutive candidacies that another candidate's ballot ended."""
        self._low_water = 1
        self.changes = MemberChanges(self.turn)
        self._last_led = NO_BALLOT
        self._highest_proposed: dict[str, int] = {}
        """For each session, the highest sequence proposed under `_last_led`."""

    @property
    def membership(self) -> Membership:
        """The acceptors as of `chosen_through`."""
        return self._changed_membership or self._founded

    @property
    def version(self) -> int:
        """The version that its messages name: of the newest acceptors that are named durably for
        certain (decision 26, rule 12). An acceptor's fence is as good a proof as the mark: it has
        answered a message that named the version.
        """
        return self.membership.version_at(self.durable_mark, self._fence_seen)

    def _restore(self, records: list[Record]) -> None:
        for record in records:
            if record.key == "round":
                self.round = read_record(_ROUND, record)

    def _remake_row(self, key: str) -> Frozen | bytes | None:
        return _ROUND.dump_json(self.round) if key == "round" else None

    def _start(self) -> None:
        self.phase = Following(heard_at=self.now)
        self._founded = Membership.founded(self.genesis)
        disk = self.identity.disk
        self._own = proposer_on(self.name, disk, self.founding.disks.get(self.name) == disk)
        # In a new cluster the first proposer campaigns first; after that, jitter decides.
        own_turn = number_of(self.name) - 1 if self.round == 0 else 0
        wait = self.constants.lease_ms + own_turn * self.options.leader_heartbeat_ms
        self._set_timer("election", wait, wait + self.options.leader_heartbeat_ms)

    def heartbeat(self) -> NodeHeartbeat:
        leading = self.phase.ballot if isinstance(self.phase, Leading) else None
        pending = len(self.phase.queue) if isinstance(self.phase, Leading) else 0
        return NodeHeartbeat(
            role="proposer",
            journal_commits=self._commits,
            ballot=leading,
            chosen_through=self.chosen_through,
            pending=pending,
        )

    @property
    def is_member(self) -> bool:
        """Whether the roster names this proposer, as far as it knows; else it does not stand."""
        return self.name in self.membership.names("proposer", self.genesis)

    def _removal(self) -> str:
        """See `Node._removal`."""
        membership = self.membership
        is_held = self._is_held(membership, self.durable_mark)
        return self._removed_by(membership) if is_held else ""

    # -- election --------------------------------------------------------------------------------

    def _on_election_due(self, subject: str) -> None:
        phase = self.phase
        if isinstance(phase, Leading):
            return
        patience = self.constants.lease_ms + self.options.leader_heartbeat_ms
        if isinstance(phase, Following) and self.now - phase.heard_at < patience:
            self._wait_for_leader(patience - (self.now - phase.heard_at))
            return
        every = self.options.leader_heartbeat_ms
        if self.now - self.turn.resumed_at < every or not self.is_member:
            # This node was away itself, perhaps with all the others, and the leader may go on; or
            # it waits to be added, or was removed.
            self._set_timer("election", every, 2 * every)
            return
        self._campaign()

    def _wait_for_leader(self, least: Milliseconds) -> None:
        """Campaign after `least` at the earliest; duelling candidates spread out."""
        spread = self.constants.lease_ms // 2 << min(self._duels, _DUELS_MOST)
        self._set_timer("election", least, least + spread)

    def _campaign(self) -> None:
        """Begin phase 1 under a new ballot, whose round is journalled before the message leaves."""
        self.round = max(self.round, self._highest_ballot.round) + 1
        self._journal("round", _ROUND.dump_json(self.round))
        ballot = Ballot(self.round, self._own)
        self._highest_ballot = ballot
        self.phase = Electing(ballot=ballot, promises=Promises(self._low_water))
        self.counters["elections"] += 1
        self._prepare(Group.ACCEPTORS, ballot, self._low_water)
        self._wait_for_leader(self.constants.lease_ms)

    def _prepare(self, to: str, ballot: Ballot, first_slot: int) -> None:
        self._send(to, Prepare(ballot=ballot, first_slot=first_slot, version=self.version))

    def _on_promise(self, sender: str, message: Promise) -> None:
        """A page of a promise: of a candidate, or of a leader that prepares new acceptors."""
        phase = self.phase
        if isinstance(phase, Following) or message.ballot != phase.ballot:
            return
        promises = phase.promises
        acceptor = (sender, self.turn.sender_disk)
        if isinstance(phase, Leading) and not self._wants_promise(phase, acceptor):
            return
        if isinstance(phase, Leading) and acceptor in promises.complete:
            return  # A duplicate: what it had accepted is proposed again, or left alone.
        ask_from = promises.take(acceptor, message)
        if ask_from is not None:
            self._prepare(sender, phase.ballot, ask_from)
            if ask_from != promises.first_slot and isinstance(phase, Electing):
                self.counters["promise_pages"] += 1
                # A long log takes time, and another campaign would start over with its first page.
                self._wait_for_leader(self.constants.lease_ms)
        elif isinstance(phase, Electing):
            self._lead_if_elected(phase)
        else:
            self._take_late_promise(phase)

    def _lead_if_elected(self, phase: Electing) -> None:
        """Lead once a majority of every active configuration has promised (rule 6)."""
        if self.membership.are_quorums(phase.promises.complete):
            self._lead(phase)

    def _lead(self, phase: Electing) -> None:
        """Lead: take for each slot the value of the highest ballot in the quorum's promises.

        Slots that only retired acceptors chose are durable, and are not proposed again (rule 6).
        """
        promises, active = phase.promises, self.membership.active
        low = max(
            promises.first_slot,
            active[0].first_slot,
            *map(promises.truncated_below, active),
        )
        promises.forget_below(low)
        last, far_slot = recoverable_range(low, promises.slots)
        leading = Leading(
            ballot=phase.ballot,
            elected_at=self.now,
            log_time_at=self.now,
            promises=promises,
            next_slot=low,
            recovered_through=max(low - 1, last),
            far_slot=far_slot,
        )
        if self.chosen_through >= leading.frontier:
            # Phase 1 finds every chosen slot, so that report was not about this log.
            self.counters["progress_doubted"] += 1
            self._unlearn()
        self._low_water = low
        self.phase = leading
        self._last_led = phase.ballot
        self._highest_proposed = {}
        self.counters["led"] += 1
        self._advance(leading)
        self._on_leader_due("")

    def _wants_promise(self, phase: Leading, acceptor: Key) -> bool:
        """Whether a leader still needs that promise: for new acceptors, or for planned ones."""
        return phase.plans(acceptor) or self._lacks_promises(phase)

    def _lacks_promises(self, phase: Leading) -> bool:
        """Whether a configuration has begun since the election whose majority has not promised."""
        return not all(map(phase.promises.covers, self.membership.active))

    def _prepare_new_acceptors(self, phase: Leading) -> None:
        """Prepare, under the same ballot, acceptors that have not promised it (rule 7)."""
        if not self._lacks_promises(phase):
            return
        for configuration in self.membership.active:
            self._prepare_all(phase, configuration)

    def _prepare_all(self, phase: Leading, configuration: Configuration) -> None:
        for acceptor in configuration.acceptors:
            if (acceptor.name, acceptor.disk) not in phase.promises.complete:
                self._prepare(acceptor.name, phase.ballot, phase.promises.first_slot)

    def _take_late_promise(self, phase: Leading) -> None:
        """Recover what a promise reports that came after the election."""
        phase.promises.forget_below(phase.next_slot)
        last, far_slot = recoverable_range(phase.frontier, phase.promises.slots)
        phase.recovered_through = max(phase.recovered_through, last)
        if far_slot is not None:
            phase.far_slot = min(far_slot, phase.far_slot or far_slot)
        self._advance(phase)

    # -- slots, in order -------------------------------------------------------------------------

    def _advance(self, phase: Leading) -> None:
        """Propose what may be proposed now: first what phase 1 found, then what waits."""
        while self._may_propose_next(phase):
            if phase.next_slot <= phase.recovered_through:
                self._propose_again(phase, self._take_slot(phase))
            elif not phase.waiting_values or self._stops_at_far_slot(phase):
                return
            else:
                value = phase.waiting_values.popleft()
                self._propose(phase, self._take_slot(phase), value)

    def _may_propose_next(self, phase: Leading) -> bool:
        """Whether the next slot is in the window, and its own acceptors have promised (decision 26,
        rules 4 and 7). Slots that their promises do not cover are durable, and passed over.
        """
        # Slots that only retired acceptors chose are durable.
        phase.next_slot = max(phase.next_slot, self.membership.active[0].first_slot)
        while phase.next_slot <= self.chosen_through + self.constants.alpha:
            configuration = self.membership.at(phase.next_slot)
            if not phase.promises.covers(configuration):
                return False
            low = phase.promises.truncated_below(configuration)
            if phase.next_slot >= low:
                return True
            phase.next_slot = low
        return False

    def _propose_again(self, phase: Leading, slot: int) -> None:
        """Propose what phase 1 found in a slot, or fill a gap."""
        found = phase.promises.found(slot, self.membership.at(slot))
        phase.promises.forget(slot)
        if found is None:
            self.counters["gaps_filled"] += 1
            phase.reproposed[slot] = NOOP
        elif not found.is_chosen:
            phase.reproposed[slot] = found.value
        else:
            # A quorum accepted it under one ballot: it is chosen, and only this leader could
            # overwrite those entries. It leaves them alone, and learners pull them.
            return
        self._propose(phase, slot, phase.reproposed[slot])

    def _on_reject(self, sender: str, message: Reject) -> None:
        """An acceptor promised a higher ballot, a lease runs, or slots are truncated."""
        plausible = self._note_ballot(message.promised)
        fenced = message.fence > self.version
        self._fence_seen = max(self._fence_seen, message.fence)
        phase, acceptor = self.phase, (sender, self.turn.sender_disk)
        if isinstance(phase, Electing) and message.ballot == phase.ballot:
            if message.lease_left_ms > 0 or not plausible or fenced:
                phase.lease_bound.add(acceptor)
            # A quorum of the others is enough, for instance if one acceptor keeps restarting.
            too_few = not self.membership.can_do_without(phase.lease_bound)
            overtaken = plausible and message.promised > phase.ballot
            if overtaken or too_few:
                self._duels += overtaken
                self.phase = Following(heard_at=self.now - self.constants.lease_ms)
                self._wait_for_leader(message.lease_left_ms + self.options.leader_heartbeat_ms // 4)
        elif isinstance(phase, Leading) and message.ballot == phase.ballot:
            self.counters["rejected"] += 1
            if plausible and message.promised > phase.ballot and phase.plans(acceptor):
                # A change waits for what this ballot never gets: a promise, or grants.
                self._step_down(f"{sender}, which a change needs, has promised a higher ballot")

    def _on_leader_beat(self, sender: str, message: LeaderBeat) -> None:
        """Follow another leader. The lease is what prevents two leaders, not this message."""
        if not self._note_ballot(message.ballot):
            return
        self._duels = 0
        phase = self.phase
        if isinstance(phase, Following):
            phase.heard_at = self.now
        elif message.ballot > phase.ballot:
            self._step_down(f"{sender} leads under {message.ballot}")

    def _note_ballot(self, ballot: Ballot) -> bool:
        """Note a ballot that this node's next one has to exceed; whether it is plausible. An
        implausible one is ignored: it could use up all rounds.
        """
        if not ballot.is_plausible_after(self._highest_ballot):
            self.counters["ballots_doubted"] += 1
            return False
        self._highest_ballot = max(self._highest_ballot, ballot)
        return True

    # -- changes of the acceptors (decision 26) --------------------------------------------------

    def _forget_peer(self, key: Key) -> None:
        """Forget what a disk said that is no acceptor's: no more is kept than of eight a name."""
        if not (isinstance(self.phase, Following) or self.membership.has_active(key)):
            self.phase.forget(key)

    def _on_change_member(self, sender: str, message: ChangeMember) -> None:
        """A gateway asks for a change of the members."""
        answer = ChangeAnswer(number=message.number)
        try:
            version = self._begin_change(message)
            answer = answer.model_copy(update={"version": version})
        except ChangeRefused as refusal:
            again = isinstance(refusal, NotYet)
            answer = answer.model_copy(update={"refused": str(refusal), "again": again})
        self._send(sender, answer)

    def _begin_change(self, request: ChangeMember) -> int:
        """Propose other members (rules 10 and 20); their version. It is the same if that was asked
        for before. Raises `ChangeRefused`, also if only promises are missing, for which it asks.
        """
        phase, membership = self.phase, self.membership
        if not isinstance(phase, Leading) or not self.is_ready:
            raise NotYet(f"{self.name} does not lead")
        begun = self.changes.version_begun(request, membership)
        if begun is not None:
            return begun
        value = self.changes.plan(request, phase, membership, self.view, self.durable_mark)
        if value is None:
            return membership.roster_version
        if isinstance(value, Members):
            phase.planned = planned_configuration(value)
            self._prepare_all(phase, phase.planned)
            self.changes.check(request, value, phase, membership)
        is_read = self.chosen_through >= phase.recovered_through
        if not is_read or phase.waiting_values or not self._may_propose_next(phase):
            raise NotYet("the leader is busy")
        if self._stops_at_far_slot(phase):
            raise NotYet(f"{self.name} does not lead")
        self._propose(phase, self._take_slot(phase), value)
        self.counters["changes_begun"] += 1
        return value.version

    def _carry_on_change(self, phase: Leading) -> None:
        """Fill the slots before the new acceptors' first one, and end the change (rule 11)."""
        membership = self.membership
        if membership.is_settled or not self.is_ready:
            return
        while (
            not phase.changes_members
            and phase.next_slot > phase.recovered_through
            and self._may_propose_next(phase)
            and (value := next_value(phase, membership, self.durable_mark, self.lease_until))
            and not self._stops_at_far_slot(phase)
        ):
            self._propose(phase, self._take_slot(phase), value)
            self.counters["changes_ended"] += isinstance(value, Settled)

    # -- the leader's lease ----------------------------------------------------------------------

    @property
    def lease_until(self) -> Milliseconds:
        """The end of the lease on this node's clock, counted from sending, less the margin."""
        if not isinstance(self.phase, Leading):
            return 0
        sent_at = self.membership.reached_by_quorums(self.phase.granted)
        if sent_at is None:
            return 0
        return sent_at + self.constants.lease_ms - self.constants.lease_margin_ms

    @property
    def holds_lease(self) -> bool:
        """Whether the lease holds now; to be asked at each use (design 3.8)."""
        return self.now < self.lease_until

    @property
    def is_ready(self) -> bool:
        """Whether it holds the lease, and a majority of every active configuration has promised
        (rule 9).
        """
        phase = self.phase
        return isinstance(phase, Leading) and self.holds_lease and not self._lacks_promises(phase)

    def _on_leader_due(self, subject: str) -> None:
        """Renew the lease, or step down without one.

        A leader that was away tries for as long as one that was just elected: acceptors that have
        promised nothing meanwhile renew the lease, and no election is needed.
        """
        phase = self.phase
        if not isinstance(phase, Leading):
            return
        if not self.is_member:
            self._step_down("it was removed")
            return
        begun_at = max(phase.elected_at, self.turn.resumed_at)
        if self.now >= max(self.lease_until, begun_at + self.constants.lease_ms):
            self._step_down("no quorum renewed the lease")
            return
        phase.heartbeat_number += 1
        phase.sent_at[phase.heartbeat_number] = self.now
        phase.sent_version[phase.heartbeat_number] = self.version
        for table in (phase.sent_at, phase.sent_version):
            table.pop(phase.heartbeat_number - 64, None)
        beat = LeaseHeartbeat(
            ballot=phase.ballot, number=phase.heartbeat_number, version=self.version
        )
        self._send(Group.ACCEPTORS, beat)
        self._prepare_new_acceptors(phase)
        self._announce(phase)
        every = self.options.leader_heartbeat_ms
        self._set_timer("leader", every, every)

    def _announce(self, phase: Leading) -> None:
        self._send(
            Group.HEARTBEATS,
            LeaderBeat(
                ballot=phase.ballot,
                ready=self.is_ready,
                chosen_through=max(self.chosen_through, phase.recovered_through),
                lease_left_ms=max(0, self.lease_until - self.now),
                read_leases_ms={
                    store: until - self.now
                    for store, until in sorted(phase.read_grants.items())
                    if until > self.now
                },
            ),
        )

    def _on_lease_granted(self, sender: str, message: LeaseGranted) -> None:
        phase = self.phase
        if not isinstance(phase, Leading) or message.ballot != phase.ballot:
            return
        sent_at = phase.sent_at.get(message.number)
        if sent_at is None:
            return
        had_lease = self.holds_lease
        acceptor = (sender, self.turn.sender_disk)
        phase.granted[acceptor] = max(phase.granted.get(acceptor, sent_at), sent_at)
        version = phase.sent_version[message.number]
        phase.answered[acceptor] = max(phase.answered.get(acceptor, 0), version)
        if self.holds_lease and not had_lease:
            self._announce(phase)

    def _step_down(self, reason: str) -> None:
        """Give the ballot up for good, and redirect the commands that were never proposed."""
        phase = self.phase
        self.phase = Following(heard_at=self.now)
        if isinstance(phase, Leading):
            self.counters["stepped_down"] += 1
            for command in phase.queue:
                self._redirect(command, phase.ballot, reason)
        self._wait_for_leader(self.options.leader_heartbeat_ms)

    # -- commands --------------------------------------------------------------------------------

    def _on_submit(self, sender: str, message: Submit) -> None:
        phase = self.phase
        command = message.command
        if message.ballot.proposer != self._own:
            self.counters["dropped_foreign_ballot"] += 1
            return  # Of another disk under this name, which alone knows what it proposed.
        if not isinstance(phase, Leading) or message.ballot != phase.ballot:
            self._redirect(command, message.ballot, f"{message.ballot} does not lead")
            return
        key = (command.session, command.sequence)
        if key in phase.underway:
            return
        if command.size_bytes > COMMAND_BYTES_MAX:
            # No gateway sends one so large, and no message could carry its slot.
            self.counters["too_large"] += 1
            return
        if len(phase.queue) >= _QUEUE_COMMANDS:
            self.counters["overload"] += 1
            return  # Without an answer; the gateway sends it again.
        phase.underway.add(key)
        phase.queue.append(command)

    def _redirect(self, command: Command, ballot: Ballot, reason: str) -> None:
        """Refuse a command: `ballot` does not lead and never will again.

        `never_proposed` is claimed only for the ballot that this incarnation led last, because what
        a former one proposed is not journalled, and only for sequences above all proposed.
        """
        never_proposed = ballot == self._last_led and command.sequence > (
            self._highest_proposed.get(command.session, -1)
        )
        self._send(
            command.reply_to,
            Redirect(
                session=command.session,
                sequence=command.sequence,
                ballot=ballot,
                never_proposed=never_proposed,
                reason=reason,
            ),
        )

    def _on_propose_value(self, sender: str, message: ProposeValue) -> None:
        """Propose a View or an Abort ahead of the queue, because slots in flight wait for it."""
        phase = self.phase
        if not isinstance(phase, Leading) or phase.is_asked_for(message.value):
            return
        if self._stops_at_far_slot(phase):
            return
        if isinstance(message.value, View) and self._lease_outlives(phase, message.value):
            if message.value not in phase.waiting_views:
                phase.waiting_views.append(message.value)
            self._arm("tick", _TICK_MS, _TICK_MS * 2)
            return
        phase.waiting_values.append(message.value)
        self._advance(phase)

    def _settle(self) -> None:
        """Put the queue into as few slots as possible: messages are costly, commands are not.

        While commands are undecided, new ones queue up until they are as many (similar to Nagle's
        algorithm, RFC 896), so the busier the cluster, the fuller its slots.
        """
        phase = self.phase
        if not isinstance(phase, Leading):
            return
        self._carry_on_change(phase)
        if not phase.queue or self._stops_at_far_slot(phase):
            return
        while (
            phase.queue
            and phase.next_slot > phase.recovered_through
            and self._may_propose_next(phase)
            and len(phase.in_flight) < self.options.window_slots
            and len(phase.queue) >= min(sum(phase.undecided.values()), self.options.batch_commands)
        ):
            commands = phase.take_commands(self.options.batch_commands, self.options.batch_bytes)
            for command in commands:
                highest = self._highest_proposed.get(command.session, -1)
                self._highest_proposed[command.session] = max(highest, command.sequence)
            batch = Batch(elapsed_ms=self._elapsed_ms(phase), commands=commands)
            slot = self._take_slot(phase)
            phase.undecided[slot] = len(commands)
            self._propose(phase, slot, batch)

    def _elapsed_ms(self, phase: Leading) -> Milliseconds:
        """By how much the next batch advances log time, by which sessions and keys expire.

        It is measured on this monotonic clock and counts only under the lease: meanwhile no other
        leader can have been elected, so the times that two leaders count never overlap. Thus log
        time is never faster than real time, whatever happens to wall clocks. It is slower by the
        gaps between leaders, so sessions and keys only live longer.
        """
        if not self.holds_lease:
            return 0
        since, phase.log_time_at = phase.log_time_at, self.now
        return self.now - since

    def _stops_at_far_slot(self, phase: Leading) -> bool:
        """Step down if the log has come near the far slot, so that the next phase 1 reaches it."""
        room = GAP_SLOTS_MAX // 2
        if phase.far_slot is None or phase.frontier + room < phase.far_slot:
            return False
        self._step_down(f"slot {phase.far_slot}, which an acceptor has a value for, is near")
        return True

    def _take_slot(self, phase: Leading) -> int:
        slot = phase.next_slot
        phase.next_slot += 1
        return slot

    def _propose(self, phase: Leading, slot: int, value: AnyVote) -> None:
        if slot in phase.in_flight:
            raise InvariantViolation(f"{phase.ballot} proposes slot {slot} twice: {value!r}")
        if phase.far_slot is not None and slot >= phase.far_slot:
            raise InvariantViolation(
                f"{phase.ballot} proposes slot {slot} without the value that an acceptor has for "
                f"slot {phase.far_slot}"
            )
        phase.in_flight[slot] = InFlight(value=value, sent_at=self.now)
        self._send_accept(phase.ballot, slot, value)
        self._arm("tick", _TICK_MS, _TICK_MS * 2)

    def _send_accept(self, ballot: Ballot, slot: int, value: AnyVote, first: bool = True) -> None:
        """Ask for votes. At first only the coordinator receives them, and notifies the others; the
        votes on a View go to all learners, for it may replace a coordinator that receives nothing.
        """
        to_one = first and self.view is not None and not isinstance(value, View)
        accept = Accept(
            ballot=ballot,
            slot=slot,
            value=value,
            learner=self.view.coordinator if to_one and self.view else "",
            version=self.version,
        )
        self._send(Group.PHASE_2, accept)

    def _on_progress(self, sender: str, message: LearnerProgress) -> None:
        """A learner reports that it knows all slots up to `chosen_through` as chosen."""
        if not self._learn(message):
            return
        phase = self.phase
        if not isinstance(phase, Leading):
            return
        self._note_decided(phase, message.decided)
        for slot in [s for s in phase.in_flight if s <= message.chosen_through]:
            value = phase.in_flight.pop(slot).value
            if isinstance(value, Batch):
                for command in value.commands:
                    phase.underway.discard((command.session, command.sequence))
        self._advance(phase)

    def _learn(self, report: LearnerProgress | NodeHeartbeat) -> bool:
        """Learn from a learner's report, which is never older than what is known already; whether
        the report can be about this log.
        """
        phase, chosen_through = self.phase, report.chosen_through
        if isinstance(phase, Leading) and chosen_through > phase.frontier + GAP_SLOTS_MAX:
            # This leader proposed no such slot: there is another leader, or the number is wrong.
            self.counters["progress_doubted"] += 1
            return False
        if report.view is None:
            return True
        if report.durable_mark <= chosen_through:
            self.durable_mark = max(self.durable_mark, report.durable_mark)
        if chosen_through >= self.chosen_through:
            self.chosen_through = chosen_through
            self.view = report.view
            self._changed_membership = report.membership
            if isinstance(phase, Electing):
                self._lead_if_elected(phase)
        return True

    def _unlearn(self) -> None:
        """Begin with the genesis again, as after a restart: learners report the rest."""
        self.chosen_through, self.durable_mark = 0, 0
        self.view = self._changed_membership = None

    def _on_heartbeat(self, sender: str, message: NodeHeartbeat) -> None:
        """A learner's heartbeat stands in for lost reports of progress, which the queue waits for;
        and it shows if a restarted learner knows less than was reported before. An acceptor's tells
        on which disk it runs.
        """
        self.changes.note_heartbeat(sender, message, self.membership, self._founded)
        if message.role != "learner":
            return
        self._learn(message)
        phase = self.phase
        if not isinstance(phase, Leading):
            return
        self._advance(phase)
        self._note_decided(phase, message.applied)
        unknown = [slot for slot in phase.reproposed if slot > message.chosen_through]
        for slot in unknown[:_RESEND_SLOTS]:
            if slot not in phase.in_flight:  # The tick resends those.
                self.counters["retransmissions"] += 1
                self._send_accept(phase.ballot, slot, phase.reproposed[slot], first=False)

    def _note_decided(self, phase: Leading, decided: int) -> None:
        for slot in [s for s in phase.undecided if s <= decided]:
            del phase.undecided[slot]

    def _on_tick(self, subject: str) -> None:
        """Resend what was not reported as chosen; propose Views that waited for read leases."""
        phase = self.phase
        if not isinstance(phase, Leading):
            return
        patience = 2 * _TICK_MS
        for slot in sorted(phase.in_flight)[:_RESEND_SLOTS]:
            flight = phase.in_flight[slot]
            if self.now - flight.sent_at >= patience:
                flight.sent_at = self.now
                self.counters["retransmissions"] += 1
                self._send_accept(phase.ballot, slot, flight.value, first=False)
        for view in list(phase.waiting_views):
            if self._stops_at_far_slot(phase):
                return
            if not self._lease_outlives(phase, view):
                phase.waiting_views.remove(view)
                phase.waiting_values.append(view)
        self._advance(phase)
        if phase.in_flight or phase.waiting_views or phase.waiting_values:
            self._arm("tick", _TICK_MS, _TICK_MS * 2)

    # -- read leases (design 4.8) ----------------------------------------------------------------

    def _on_lease_ask(self, sender: str, message: LeaseAsk) -> None:
        """Grant a read lease, no longer than the own one, to members that no pending View drops."""
        phase = self.phase
        if not isinstance(phase, Leading) or not self.is_ready:
            return
        if self.view is None or self.chosen_through < phase.recovered_through:
            return  # The view in force is not known yet.
        member = self.view.member(sender)
        if member is None or member.added_slot is None or member.disk != self.turn.sender_disk:
            return
        if any(drops(view, member) for view in phase.pending_views):
            return
        until = self.lease_until
        phase.read_grants[sender] = max(until, phase.read_grants.get(sender, 0))
        self._send(
            sender,
            LeaseGrant(
                number=message.number,
                epoch=self.view.epoch,
                disk=member.disk,
                added_slot=member.added_slot,
                duration_ms=until - self.now,
            ),
        )

    def _lease_outlives(self, phase: Leading, view: View) -> bool:
        """Whether a store that `view` drops may still serve reads under a grant.

        Grants of earlier leaders have lapsed: each was no longer than its leader's lease, and this
        leader could not be elected before that had lapsed.
        """
        if self.view is None:
            return bool(phase.read_grants)
        return any(
            phase.read_grants.get(member.name, 0) > self.now
            for member in self.view.stores
            if drops(view, member)
        )

    # -- handlers --------------------------------------------------------------------------------

    handlers: ClassVar[Handlers] = {
        Promise: _on_promise,
        Reject: _on_reject,
        LeaseGranted: _on_lease_granted,
        LeaderBeat: _on_leader_beat,
        Submit: _on_submit,
        ProposeValue: _on_propose_value,
        LearnerProgress: _on_progress,
        LeaseAsk: _on_lease_ask,
        ChangeMember: _on_change_member,
    }
    timers: ClassVar[Timers] = {
        "election": _on_election_due,
        "leader": _on_leader_due,
        "tick": _on_tick,
    }

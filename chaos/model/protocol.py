"""Multi-Paxos whose acceptors change, as a transition system (docs/decisions/0026-membership.md).

What is left out, and why nothing is lost by it:

- *Messages.* A message that was sent can arrive at any time, again, or never. So a step of a
  receiver asks only whether a sender could have sent the message by then; an old copy is a message
  with an older version.
- *Votes are cast late.* A vote matters once a promise reports it or a quorum is complete. So an
  acceptor casts the votes for its ballot when it leaves the ballot (any subset of what it could
  have accepted), or as one of a quorum that is completed at that moment.
- *Proposers.* Each ballot has a proposer of its own that begins with the knowledge of genesis and
  may learn at any time: a proposer that stands again is another one. One that died does no step.
- *What a leader received* is any quorum of the promises that were given, slot by slot.
- *Time.* `hold` is a lease at an acceptor, from the grant until it lets go. A leader's clock ends
  the lease no later, so a leader can't hold one unless a quorum of each needed configuration does
  at that moment. A restarted acceptor is silent for a lease, hence a restart changes nothing.
- *Read leases* run for as long as a quorum that covered them when they were granted holds on.
- *Learners* know what is chosen, at once or never. They may forget all above the durable mark.
"""

from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import TypeVar

from chaos.model.membership import (
    NOTHING,
    Disks,
    ModelMembership,
    is_members,
    members,
    membership,
    named,
    settled,
)
from chaos.model.rules import checked
from chaos.model.search import BrokenInvariant, ModelStep
from chaos.model.world import AcceptorState, ModelState, ProposerState, Scope

_T = TypeVar("_T")
Reached = ModelState | BrokenInvariant
ModelSteps = Iterator[tuple[ModelStep, Reached]]
_IDLE, _CANDIDATE, _LEADER, _DEAD = range(4)
_KINDS = 5


class Protocol:
    """The steps of one scope, with some of its rules broken by mutants."""

    def __init__(
        self, scope: Scope, mutants: frozenset[str] = frozenset(), symmetric: bool = True
    ) -> None:
        self.scope = scope
        self.mutants = checked(mutants)
        self.names = "".join(
            sorted(set("".join(scope.configurations)), key=lambda x: (x.lower(), x))
        )
        masks = tuple(
            sum(1 << self.names.index(disk) for disk in disks) for disks in scope.configurations
        )
        self.masks = masks
        self.disks = Disks(masks, tuple(n.lower() for n in self.names), "by_name" in mutants)
        self.count = len(self.names)
        classes: dict[tuple[bool, ...], list[int]] = {}
        for i, name in enumerate(self.names):
            if sum(other.lower() == name.lower() for other in self.names) > 1:
                continue  # Disks under one name aren't interchangeable with others.
            classes.setdefault(tuple(bool(mask >> i & 1) for mask in masks), []).append(i)
        self._classes = [tuple(c) for c in classes.values() if len(c) > 1]
        self._symmetric = symmetric

    # -- what is known ---------------------------------------------------------------------------

    def membership(self, chosen: tuple[int, ...], through: int) -> ModelMembership:
        """The membership at the end of the prefix `through`."""
        return membership(chosen[:through], self.scope.alpha, self.mutants)

    def prefix(self, chosen: tuple[int, ...]) -> int:
        """The end of the chosen prefix."""
        return _prefix(chosen)

    def version(self, world: ModelState, ballot: int) -> int:
        """The newest version that a proposer's messages may name (rule 12)."""
        proposer = world.proposers[ballot - 1]
        known = self.membership(world.chosen, proposer.through)
        if "version_proposed" in self.mutants:
            proposed = [value - members(0) for value in proposer.values if is_members(value)]
            return max([known.newest, *proposed])
        if "version_known" in self.mutants:
            return known.newest
        return known.version_at(proposer.mark)

    def promised(self, world: ModelState, ballot: int) -> int:
        """The disks that have promised `ballot`."""
        return sum(1 << i for i, a in enumerate(world.acceptors) if a.promises[ballot - 1])

    def value(self, world: ModelState, ballot: int, slot: int) -> int:
        """What `ballot` has proposed for `slot`."""
        proposer = world.proposers[ballot - 1]
        at = slot - proposer.low
        return proposer.values[at] if 0 <= at < len(proposer.values) else NOTHING

    # -- the first state, and what is broken in a state ------------------------------------------

    def first(self) -> ModelState:
        """Genesis: no proposer has stood for election yet."""
        none = (0,) * self.scope.ballots
        acceptor = AcceptorState(0, none, none, 0, 0, 0, 1)
        return ModelState(
            (acceptor,) * self.count,
            (ProposerState(_IDLE, 0, 0, 1, ()),) * self.scope.ballots,
            (NOTHING,) * self.scope.slots,
            0,
        )

    def lease_versions(self, known: ModelMembership, through: int) -> tuple[int, ...]:
        """The configurations whose majorities grant a lease (rule 8)."""
        if "lease_new" in self.mutants:
            return known.active[-1:]
        if "lease_old" in self.mutants:
            return known.active[:1]
        if "lease_switch" in self.mutants and len(known.active) > 1:
            return known.active[-1:] if through >= known.firsts[-1] - 1 else known.active[:1]
        return known.active

    def holds_lease(self, world: ModelState, ballot: int) -> bool:
        """Whether the leader of `ballot` may take itself for the holder of the lease."""
        proposer = world.proposers[ballot - 1]
        if proposer.phase != _LEADER:
            return False
        held = sum(1 << i for i, a in enumerate(world.acceptors) if abs(a.hold) == ballot)
        if not held:
            return False
        known = self.membership(world.chosen, proposer.through)
        return self.disks.are_quorums(held, self.lease_versions(known, proposer.through))

    def broken(self, world: ModelState) -> BrokenInvariant | None:
        """The invariants of a single state."""
        if self.scope.leases:
            held = [b for b in range(1, self.scope.ballots + 1) if self.holds_lease(world, b)]
            if len(held) > 1:
                return BrokenInvariant(
                    "LEASE", f"ballots {held[0]} and {held[1]} both hold a lease"
                )
        if "learner_newest" in self.mutants or "snapshot_bare" in self.mutants:
            return self._misread(world)
        return None

    def _misread(self, world: ModelState) -> BrokenInvariant | None:
        """Whether a learner can count votes by another configuration than the slot's own. By the
        rules it can't, for it knows the slot's configuration from the same prefix as everyone.
        """
        end = self.prefix(world.chosen)
        truth = self.membership(world.chosen, end)
        bare = "snapshot_bare" in self.mutants
        for through in range(end + 1):
            known = self.membership(world.chosen, 0 if bare else through)
            last = through + self.scope.alpha if bare else self.scope.slots
            for slot in range(through + 1, min(last, self.scope.slots) + 1):
                wrong = known.at(slot)
                if wrong == truth.at(slot):
                    continue
                for ballot in range(1, self.scope.ballots + 1):
                    value = self.value(world, ballot, slot)
                    voters = self.voted(world, ballot, slot) | self._may_vote(world, ballot, slot)
                    for quorum in self.disks.quorums_in(voters, (wrong,)):
                        if value and not self.disks.are_quorum(quorum, truth.at(slot)):
                            return BrokenInvariant(
                                "LEARNT",
                                f"a learner that knows slots up to {through} counts "
                                f"{self.who(quorum)} for {named(value)} in slot {slot}, "
                                f"which version {truth.at(slot)} chooses",
                            )
        return None

    # -- steps -----------------------------------------------------------------------------------

    def steps(self, world: ModelState) -> ModelSteps:
        """Every step that the scope allows."""
        end = self.prefix(world.chosen)
        for ballot in range(1, self.scope.ballots + 1):
            proposer = world.proposers[ballot - 1]
            if proposer.phase == _DEAD:
                continue
            if proposer.phase == _IDLE:
                ended = any(settled(version) in world.chosen for version in range(1, 3))
                if self.scope.late and ballot > 1 and not ended:
                    continue
                yield from self._stand(world, ballot, end)
                continue
            if proposer.through < end:
                yield from self._learn(world, ballot, proposer)
            if self.scope.lazy_marks and proposer.mark < min(world.mark, proposer.through):
                mark = min(world.mark, proposer.through)
                after = self._with(world, ballot, proposer._replace(mark=mark))
                yield ("hears mark", ballot, mark), after
            version = self.version(world, ballot)
            for i, acceptor in enumerate(world.acceptors):
                yield from self._promise(world, ballot, version, i, acceptor)
            if proposer.phase == _CANDIDATE:
                yield from self._elect(world, ballot, proposer)
                continue
            if self.scope.leases:
                for i, acceptor in enumerate(world.acceptors):
                    yield from self._grant(world, ballot, version, i, acceptor)
            if self.scope.reads:
                yield from self._serve(world, ballot, proposer)
            yield from self._propose(world, ballot, proposer)
            yield from self._choose(world, ballot, proposer)
        if self.scope.lazy_marks and world.mark < end:
            yield ("durable", world.mark + 1), world._replace(mark=world.mark + 1)
        for i, acceptor in enumerate(world.acceptors):
            if acceptor.hold:
                acceptors = self._put(world, i, acceptor._replace(hold=0, reads=0))
                yield ("lets go", i, abs(acceptor.hold)), self._tidy(world, acceptors)
            if self.scope.truncates and acceptor.kept_from <= world.mark:
                cut = self._put(world, i, acceptor._replace(kept_from=world.mark + 1))
                yield ("truncates", i, world.mark), self._sorted(world, cut)
            if self.scope.restarts:
                yield from self._restart(world, i, acceptor)

    def _learn(self, world: ModelState, ballot: int, proposer: ProposerState) -> ModelSteps:
        through = proposer.through + 1
        mark = proposer.mark if self.scope.lazy_marks else min(world.mark, through)
        after = proposer._replace(through=through, mark=mark)
        yield ("learns", ballot, through), self._with(world, ballot, after)

    def _stand(self, world: ModelState, ballot: int, end: int) -> ModelSteps:
        """Phase 1 begins at the known mark, whatever the proposer has learnt by then."""
        for through in range(end + 1):
            newest = min(world.mark, through)
            for mark in range(newest + 1) if self.scope.lazy_marks else (newest,):
                low = (through if "low_ahead" in self.mutants else mark) + 1
                after = ProposerState(_CANDIDATE, through, mark, low, ())
                yield ("stands", ballot, low, through), self._with(world, ballot, after)

    # -- acceptors -------------------------------------------------------------------------------

    def _serves(self, acceptor: AcceptorState, ballot: int) -> bool:
        return acceptor.promised <= ballot and (acceptor.hold <= 0 or acceptor.hold == ballot)

    def _versions(self, acceptor: AcceptorState, newest: int, unfenced: str) -> range:
        """The versions of copies of a message that an acceptor still answers with yes."""
        if "no_fence" in self.mutants or unfenced in self.mutants:
            return range(newest + 1)
        return range(acceptor.fence, newest + 1)

    def _promise(
        self, world: ModelState, ballot: int, newest: int, i: int, acceptor: AcceptorState
    ) -> ModelSteps:
        """Prepare arrives: a first one, or one that raises the fence."""
        if not self._serves(acceptor, ballot):
            return
        is_new = acceptor.promised < ballot
        for version in self._versions(acceptor, newest, "no_fence_on_prepare"):
            if is_new or version > acceptor.fence:
                for left, votes in self._leave(world, i, acceptor, ballot):
                    after = left
                    if version > left.fence:
                        after = left._replace(fence=version)
                    step = ("promises", i, ballot, version, votes, acceptor.promised)
                    yield step, self._moved(world, i, after, votes)

    def _leave(
        self, world: ModelState, i: int, acceptor: AcceptorState, ballot: int
    ) -> Iterator[tuple[AcceptorState, int]]:
        """Promise `ballot`; before that, cast any votes for the ballot that was promised."""
        if acceptor.promised == ballot:
            yield acceptor, 0
            return
        promises = _set(acceptor.promises, ballot - 1, acceptor.kept_from)
        moved = AcceptorState(
            ballot,
            acceptor.votes,
            promises,
            acceptor.fence,
            acceptor.hold,
            acceptor.reads,
            acceptor.kept_from,
        )
        yield moved, 0
        former = acceptor.promised
        if not former or not world.proposers[former - 1].values:
            return
        open_slots = [
            slot
            for slot in range(1, self.scope.slots + 1)
            if self._may_vote(world, former, slot) >> i & 1
        ]
        for count in range(1, len(open_slots) + 1):
            for slots in combinations(open_slots, count):
                votes = sum(1 << slot for slot in slots)
                cast = _set(acceptor.votes, former - 1, acceptor.votes[former - 1] | votes)
                yield moved._replace(votes=cast), votes

    def voted(self, world: ModelState, ballot: int, slot: int) -> int:
        return sum(1 << i for i, a in enumerate(world.acceptors) if a.votes[ballot - 1] >> slot & 1)

    def _may_vote(self, world: ModelState, ballot: int, slot: int) -> int:
        """The disks that would accept that proposal now, and have not."""
        if not self.value(world, ballot, slot):
            return 0
        known = self.membership(world.chosen, world.proposers[ballot - 1].through)
        asked = self.disks.voters[known.at(slot)]
        version = self.version(world, ballot)
        return sum(
            1 << i
            for i, a in enumerate(world.acceptors)
            if asked >> i & 1
            and a.promised == ballot
            and (a.hold <= 0 or a.hold == ballot)
            and not a.votes[ballot - 1] >> slot & 1
            and a.kept_from <= slot
            and self._versions(a, version, "no_fence_on_accept")
        )

    def _grant(
        self, world: ModelState, ballot: int, newest: int, i: int, acceptor: AcceptorState
    ) -> ModelSteps:
        """A leader's heartbeat arrives."""
        if not self._serves(acceptor, ballot) or acceptor.hold == ballot:
            return  # Prepare raises a fence as well as a heartbeat does.
        for version in self._versions(acceptor, newest, "no_fence_on_lease"):
            for left, votes in self._leave(world, i, acceptor, ballot):
                after = left._replace(fence=max(left.fence, version), hold=ballot, reads=0)
                step = ("grants", i, ballot, version, votes, acceptor.promised)
                yield step, self._moved(world, i, after, votes)

    def _restart(self, world: ModelState, i: int, acceptor: AcceptorState) -> ModelSteps:
        """By the rules a restart changes nothing that is modelled."""
        after = acceptor
        if "no_silence" in self.mutants:
            after = after._replace(hold=-abs(after.hold))
        if "fence_volatile" in self.mutants:
            after = after._replace(fence=0)
        if "wiped_counts" in self.mutants:
            after = self.first().acceptors[0]
        if after != acceptor:
            yield ("restarts", i), self._tidy(world, self._put(world, i, after))

    # -- leaders ---------------------------------------------------------------------------------

    def _elect(self, world: ModelState, ballot: int, proposer: ProposerState) -> ModelSteps:
        """A quorum of each active configuration has promised (rule 6)."""
        known = self.membership(world.chosen, proposer.through)
        active = known.active
        if "elect_new" in self.mutants:
            active = active[-1:]
        if "elect_old" in self.mutants:
            active = active[:1]
        lows: set[int] = set()
        for quorum in self.disks.quorums_in(self.promised(world, ballot), active):
            covered = [a.promises[ballot - 1] for a in self._among(world, quorum)]
            lows.add(max([proposer.low, *covered]))
        unbounded = self.mutants & {"no_low", "no_low_checked"}
        oldest = 1 if unbounded else known.firsts[known.oldest]
        for low in sorted({max(low, oldest) for low in lows}):
            for other in range(1, ballot):
                if self.scope.leases and self.holds_lease(world, other):
                    yield (
                        ("leads", ballot, low),
                        BrokenInvariant(
                            "LEASE", f"ballot {ballot} is elected while {other} holds one"
                        ),
                    )
                    return
            after = proposer._replace(phase=_LEADER, low=low)
            yield ("leads", ballot, low), self._with(world, ballot, after)

    def _propose(self, world: ModelState, ballot: int, proposer: ProposerState) -> ModelSteps:
        """The next slot, by rules 4, 7, 10 and 11."""
        slot = proposer.low + len(proposer.values)
        known = self.membership(world.chosen, proposer.through)
        if slot > self.scope.slots:
            return
        if slot > proposer.through + self.scope.alpha and "no_window" not in self.mutants:
            return
        promised = self.promised(world, ballot)
        quorums = self.disks.quorums_in(promised, (known.at(slot),))
        is_retired = known.at(slot) < known.oldest
        if "no_phase_1" in self.mutants or (is_retired and "no_low" in self.mutants):
            quorums = (promised,)
        values: set[int] = set()
        for quorum in quorums:
            answers = self._among(world, quorum)
            beyond = max((a.promises[ballot - 1] for a in answers), default=0)
            if beyond > slot:
                # What the promises do not cover is durable, hence chosen.
                yield from self._skip(world, ballot, proposer, beyond)
                continue
            best = max((_newest_vote(a, ballot, slot) for a in answers), default=0)
            values |= {self.value(world, best, slot)} if best else {NOTHING}
        changes: list[int] = []
        if NOTHING in values:
            values.remove(NOTHING)
            changes = self._changes(world, ballot, proposer, known, slot)
            values |= {ballot, *changes}
        for value in sorted(values):
            after = self._with(world, ballot, proposer._replace(values=(*proposer.values, value)))
            if settled(known.newest) in changes and value == settled(known.newest):
                after = self._outlived(after, ballot, known)
            yield ("proposes", ballot, slot, value), after

    def _outlived(self, world: ModelState, ballot: int, known: ModelMembership) -> ModelState:
        """The lease of both configurations outlives the read leases that the old one covered."""
        old = 1 << _KINDS * (ballot - 1) + 2 * known.oldest
        if "settle_unleased" in self.mutants or not any(
            acceptor.reads & old for acceptor in world.acceptors
        ):
            return world
        acceptors = tuple(
            a._replace(reads=a.reads & ~old | old << 1) if a.hold == ballot else a
            for a in world.acceptors
        )
        return self._sorted(world, acceptors)

    def _skip(self, world: ModelState, ballot: int, proposer: ProposerState, to: int) -> ModelSteps:
        nothing = (NOTHING,) * (to - proposer.low - len(proposer.values))
        after = proposer._replace(values=proposer.values + nothing)
        yield ("skips", ballot, to), self._with(world, ballot, after)

    def _changes(
        self,
        world: ModelState,
        ballot: int,
        proposer: ProposerState,
        known: ModelMembership,
        slot: int,
    ) -> list[int]:
        """The next Members, or the Settled of the newest, if it may be proposed in `slot` now."""
        flying = proposer.values[max(0, proposer.through + 1 - proposer.low) :]
        promised = self.promised(world, ballot)
        version = known.newest + 1
        one_active = known.oldest == known.newest or "two_at_once" in self.mutants
        if one_active and version < len(self.masks) and not any(map(is_members, flying)):
            leased = not self.scope.leases or self.holds_lease(world, ballot)
            if (
                (leased or "plan_unleased" in self.mutants)
                and (
                    "plan_unread" in self.mutants
                    or self.recovered(world, ballot, known.active) <= proposer.through
                )
                and ("plan_unpromised" in self.mutants or self.disks.are_quorum(promised, version))
            ):
                return [members(version)]
        if known.oldest != known.newest and settled(known.newest) not in flying:
            first = known.firsts[-1]
            fenced = sum(1 << i for i, a in enumerate(world.acceptors) if a.fence >= known.newest)
            if (
                (slot >= first or "settled_before_e" in self.mutants)
                and (
                    "settle_unfenced" in self.mutants or self.disks.are_quorum(fenced, known.oldest)
                )
                and ("settle_early" in self.mutants or proposer.mark >= first - 1)
                and (
                    not self.scope.leases
                    or "settle_unleased" in self.mutants
                    or self.holds_lease(world, ballot)
                )
            ):
                return [settled(known.newest)]
        return []

    def recovered(self, world: ModelState, ballot: int, versions: tuple[int, ...]) -> int:
        """The last slot that phase 1 found in use, by the quorums that found least."""
        promised = self.promised(world, ballot)
        least = self.scope.slots + 1
        for quorum in self.disks.quorums_in(promised, versions):
            last = 0
            for acceptor in self._among(world, quorum):
                covered = acceptor.promises[ballot - 1]
                for votes in acceptor.votes[: ballot - 1]:
                    if votes.bit_length() > covered:
                        last = max(last, votes.bit_length() - 1)
                last = max(last, covered - 1)
            least = min(least, last)
        return least

    def _serve(self, world: ModelState, ballot: int, proposer: ProposerState) -> ModelSteps:
        """A store gets a read lease (rule 9)."""
        if not self.holds_lease(world, ballot):
            return
        known = self.membership(world.chosen, proposer.through)
        asked = known.active[:1] if "serve_unasked" in self.mutants else known.active
        if "serve_unread" not in self.mutants and (
            self.recovered(world, ballot, asked) > proposer.through
        ):
            return
        for slot in range(proposer.through + 1, self.scope.slots + 1):
            value = world.chosen[slot - 1]
            if value and self.value(world, ballot, slot) != value:
                what = f"{ballot} grants reads and has not found {named(value)} in slot {slot}"
                yield ("serves", ballot), BrokenInvariant("READ", what)
                return
        needed = self.lease_versions(known, proposer.through)
        bit = 1 << _KINDS * (ballot - 1) + needed[0] + needed[-1]
        acceptors = tuple(
            a._replace(reads=a.reads | bit) if abs(a.hold) == ballot else a for a in world.acceptors
        )
        if acceptors != world.acceptors:
            yield ("serves", ballot), self._sorted(world, acceptors)

    def _choose(self, world: ModelState, ballot: int, proposer: ProposerState) -> ModelSteps:
        """The votes of a quorum are completed."""
        known = self.membership(world.chosen, proposer.through)
        for at, value in enumerate(proposer.values):
            slot = proposer.low + at
            voted = self.voted(world, ballot, slot)
            version = known.at(slot)
            if value == NOTHING or self.disks.are_quorum(voted, version):
                continue
            may = self._may_vote(world, ballot, slot)
            quorums = self.disks.quorums_in(voted | may, (version,))
            fewest = min(((quorum & may).bit_count() for quorum in quorums), default=0)
            for quorum in quorums:
                if (quorum & may).bit_count() > fewest:
                    continue  # The others may vote later.
                acceptors = tuple(
                    a._replace(votes=_set(a.votes, ballot - 1, a.votes[ballot - 1] | 1 << slot))
                    if (quorum & may) >> i & 1
                    else a
                    for i, a in enumerate(world.acceptors)
                )
                step = ("chosen", ballot, slot, value, quorum)
                yield step, self._voted_world(world, acceptors)

    def who(self, mask: int) -> str:
        """The disks in `mask`, for readers."""
        return "{" + ",".join(n for i, n in enumerate(self.names) if mask >> i & 1) + "}"

    # -- the next state --------------------------------------------------------------------------

    def _among(self, world: ModelState, mask: int) -> list[AcceptorState]:
        return [a for i, a in enumerate(world.acceptors) if mask >> i & 1]

    def _put(self, world: ModelState, i: int, acceptor: AcceptorState) -> tuple[AcceptorState, ...]:
        return _set(world.acceptors, i, acceptor)

    def _with(self, world: ModelState, ballot: int, proposer: ProposerState) -> ModelState:
        proposers = _set(world.proposers, ballot - 1, proposer)
        return ModelState(world.acceptors, proposers, world.chosen, world.mark)

    def _moved(self, world: ModelState, i: int, acceptor: AcceptorState, votes: int) -> Reached:
        """The state after a promise, with the votes that were cast before it."""
        acceptors = self._put(world, i, acceptor)
        after = self._voted_world(world, acceptors) if votes else self._sorted(world, acceptors)
        if isinstance(after, BrokenInvariant):
            return after
        least = min(a.promised for a in acceptors)
        if least <= min(a.promised for a in world.acceptors):
            return after
        return self._buried(after, least)

    def _buried(self, world: ModelState, least: int) -> ModelState:
        """Forget of the ballots below `least` all but the votes, for no acceptor serves them."""
        proposers = list(world.proposers)
        for ballot in range(1, least):
            proposer = proposers[ballot - 1]
            values = [
                value if self.voted(world, ballot, slot) else NOTHING
                for slot, value in enumerate(proposer.values, proposer.low)
            ]
            while values and not values[-1]:
                values.pop()
            low = proposer.low
            while values and not values[0]:
                values.pop(0)
                low += 1
            proposers[ballot - 1] = ProposerState(_DEAD, 0, 0, low if values else 1, tuple(values))
        none = (0,) * (least - 1)
        acceptors = tuple(
            a._replace(promises=none + a.promises[least - 1 :]) for a in world.acceptors
        )
        return self._sorted(world._replace(proposers=tuple(proposers)), acceptors)

    def _sorted(self, world: ModelState, acceptors: tuple[AcceptorState, ...]) -> ModelState:
        """Of disks that are members of the same configurations, no order means anything."""
        if self._symmetric:
            acceptors = self.in_order(acceptors)
        return ModelState(acceptors, world.proposers, world.chosen, world.mark)

    def in_order(self, acceptors: tuple[AcceptorState, ...]) -> tuple[AcceptorState, ...]:
        """The same disks, those that are interchangeable in the order of their states."""
        if not self._classes:
            return acceptors
        placed = list(acceptors)
        for places in self._classes:
            for place, acceptor in zip(places, sorted(placed[i] for i in places), strict=True):
                placed[place] = acceptor
        return tuple(placed)

    def _tidy(self, world: ModelState, acceptors: tuple[AcceptorState, ...]) -> ModelState:
        """Forget read leases that have lapsed."""
        reads = 0
        for acceptor in acceptors:
            reads |= acceptor.reads
        for bit in [b for b in range(reads.bit_length()) if reads >> b & 1]:
            if not self._is_served(acceptors, bit):
                acceptors = tuple(a._replace(reads=a.reads & ~(1 << bit)) for a in acceptors)
        return self._sorted(world, acceptors)

    def _is_served(self, acceptors: tuple[AcceptorState, ...], bit: int) -> bool:
        covering = sum(1 << i for i, a in enumerate(acceptors) if a.reads >> bit & 1)
        kind = bit % _KINDS
        return self.disks.are_quorums(covering, {kind // 2, (kind + 1) // 2})

    def _voted_world(self, world: ModelState, acceptors: tuple[AcceptorState, ...]) -> Reached:
        """The state after votes, with what they choose."""
        after = ModelState(acceptors, world.proposers, world.chosen, world.mark)
        chosen = list(world.chosen)
        slot = 0
        while slot < self.scope.slots:
            slot += 1
            known = self.prefix(tuple(chosen))
            if slot > known + self.scope.alpha:
                break
            version = self.membership(tuple(chosen), known).at(slot)
            for ballot in range(1, self.scope.ballots + 1):
                value = self.value(world, ballot, slot)
                if not value or not self.disks.are_quorum(self.voted(after, ballot, slot), version):
                    continue
                if chosen[slot - 1] not in (NOTHING, value):
                    return BrokenInvariant(
                        "CHOSEN",
                        f"slot {slot} holds {named(chosen[slot - 1])} and {named(value)}",
                    )
                if not chosen[slot - 1]:
                    chosen[slot - 1] = value
                    other = self._reader(acceptors, ballot)
                    if other:
                        return BrokenInvariant(
                            "READ",
                            f"slot {slot} is chosen under {ballot} while {other} grants reads",
                        )
        chosen_now = tuple(chosen)
        mark = world.mark if self.scope.lazy_marks else self.prefix(chosen_now)
        return self._sorted(world._replace(chosen=chosen_now, mark=mark), acceptors)

    def _reader(self, acceptors: tuple[AcceptorState, ...], ballot: int) -> int:
        """Another ballot than `ballot` whose read leases may run, or 0."""
        reads = 0
        for acceptor in acceptors:
            reads |= acceptor.reads
        for bit in range(reads.bit_length()):
            owner = bit // _KINDS + 1
            if reads >> bit & 1 and owner != ballot and self._is_served(acceptors, bit):
                return owner
        return 0


def _set(values: tuple[_T, ...], at: int, value: _T) -> tuple[_T, ...]:
    return (*values[:at], value, *values[at + 1 :])


@cache
def _prefix(chosen: tuple[int, ...]) -> int:
    return next((i for i, value in enumerate(chosen) if not value), len(chosen))


def _newest_vote(acceptor: AcceptorState, ballot: int, slot: int) -> int:
    """The highest ballot below `ballot` under which it accepted `slot`, or 0."""
    for below in range(ballot - 1, 0, -1):
        if acceptor.votes[below - 1] >> slot & 1:
            return below
    return 0

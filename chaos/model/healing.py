"""Whether a state heals: everything chosen is learnt, the change ends, and the log goes on.

In every state of a scope that `heals`, all faults end, after the worst that the rules allow: all
learners and proposers have forgotten what is not durable, and disks are lost for good, a minority
of each configuration that is still needed. Then a new candidate has to finish, and so has each
leader that could go on: it keeps its lease, and no election would help.
"""

from itertools import combinations

from chaos.model.membership import NOTHING, ModelMembership, settled
from chaos.model.protocol import Protocol
from chaos.model.search import BrokenInvariant
from chaos.model.world import ModelState

_SLOTS_MORE = 8
_FRESH = -1
"""A command that is first proposed while healing."""


class Healing:
    """The judgement of the states of one protocol."""

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._judged: dict[object, BrokenInvariant | None] = {}
        self._left: dict[tuple[int, ...], tuple[int, ...]] = {}

    def broken(self, world: ModelState) -> BrokenInvariant | None:
        """Why a state would not heal, or `None`. Leases, which lapse, make no difference."""
        key = (
            tuple((a.promised, a.votes, a.fence, a.kept_from) for a in world.acceptors),
            tuple(p if p.phase else None for p in world.proposers),
            world.chosen,
            world.mark,
        )
        if key not in self._judged:
            self._judged[key] = self._judge(world)
        return self._judged[key]

    def _judge(self, world: ModelState) -> BrokenInvariant | None:
        leaders = [b for b, p in enumerate(world.proposers, 1) if p.phase == 2]
        for alive in self._survivors(self._needed(world)):
            for ballot in (0, *leaders):
                recovery = _Recovery(self._protocol, world, alive, ballot)
                if ballot and not recovery.goes_on():
                    continue
                why = recovery.run()
                if why is not None:
                    leader = f"leader {ballot} goes on" if ballot else "a candidate"
                    alive_now = self._protocol.who(alive)
                    return BrokenInvariant("STUCK", f"{leader}, {alive_now} are left: {why}")
        return None

    def _needed(self, world: ModelState) -> tuple[int, ...]:
        """The versions that must keep a majority: all but those that were retired durably."""
        protocol = self._protocol
        off_early = "off_early" in protocol.mutants
        end = protocol.prefix(world.chosen) if off_early else world.mark
        known = protocol.membership(world.chosen, end)
        return tuple(range(known.oldest, len(protocol.masks)))

    def _survivors(self, needed: tuple[int, ...]) -> tuple[int, ...]:
        """The least sets of disks that may be left."""
        if needed not in self._left:
            self._left[needed] = self._least_survivors(needed)
        return self._left[needed]

    def _least_survivors(self, needed: tuple[int, ...]) -> tuple[int, ...]:
        everyone = (1 << self._protocol.count) - 1
        masks = self._protocol.masks
        found: list[int] = []
        for size in range(self._protocol.count + 1):
            for disks in combinations(range(self._protocol.count), size):
                left = sum(1 << i for i in disks)
                if any(other & left == other for other in found):
                    continue
                if all((masks[v] & left).bit_count() * 2 > masks[v].bit_count() for v in needed):
                    found.append(left)
        return tuple(found or [everyone])


class _Recovery:
    """One leader, with all disks in `alive`, after everything else was forgotten."""

    def __init__(self, protocol: Protocol, world: ModelState, alive: int, ballot: int) -> None:
        self._protocol = protocol
        self._disks = protocol.disks
        self._world = world
        self._ballot = ballot
        self._newest = ballot or len(world.proposers) + 1
        self._alive = [i for i in range(protocol.count) if alive >> i & 1]
        self._accepted: dict[int, dict[int, tuple[int, int]]] = {
            i: self._last_votes(i) for i in range(protocol.count)
        }
        self._promised = protocol.promised(world, ballot) if ballot else 0
        self._fences = {i: world.acceptors[i].fence for i in self._alive}
        self._kept_from = {i: world.acceptors[i].kept_from for i in self._alive}
        self._log = list(world.chosen[: world.mark])
        """What the learners know."""
        proposer = world.proposers[ballot - 1] if ballot else None
        self._through = max(world.mark, proposer.through if proposer else 0)
        self._chosen = list(world.chosen[: self._through])
        """What the leader knows: the learners' log, and what they have forgotten since."""
        self._mark = world.mark
        self._low = proposer.low if proposer else world.mark + 1
        self._values = list(proposer.values) if proposer else []
        self._leads = proposer is not None

    def _last_votes(self, i: int) -> dict[int, tuple[int, int]]:
        """For each slot, the ballot and the value that disk `i` accepted last."""
        last: dict[int, tuple[int, int]] = {}
        acceptor = self._world.acceptors[i]
        for ballot, votes in enumerate(acceptor.votes, 1):
            for slot in range(acceptor.kept_from, votes.bit_length()):
                if votes >> slot & 1:
                    last[slot] = (ballot, self._protocol.value(self._world, ballot, slot))
        return last

    def _known(self) -> ModelMembership:
        return self._protocol.membership(tuple(self._chosen), self._through)

    def _version(self) -> int:
        known = self._known()
        if self._protocol.mutants & {"version_known", "version_proposed"}:
            return known.newest
        return known.version_at(self._mark)

    def _voters(self) -> int:
        """The disks that serve the leader's ballot."""
        version = self._version()
        unfenced = "no_fence" in self._protocol.mutants
        return sum(
            1 << i
            for i in self._alive
            if (unfenced or self._fences[i] <= version)
            and self._world.acceptors[i].promised <= self._newest
        )

    def goes_on(self) -> bool:
        """Whether the leader keeps its lease, so that no other proposer is elected."""
        known = self._known()
        needed = self._protocol.lease_versions(known, self._through)
        return self._disks.are_quorums(self._voters(), needed)

    def run(self) -> str | None:
        """Why the log does not go on, or `None`."""
        last = max((s for s, v in enumerate(self._world.chosen, 1) if v), default=0)
        while len(self._log) < self._protocol.scope.slots + _SLOTS_MORE:
            known = self._known()
            is_done = known.oldest == known.newest and len(self._log) > last
            if is_done and self._log[-1] == _FRESH:
                return self._same_as_chosen()
            if not (self._learn() or self._elect() or self._propose()):
                # A leader that has lost its lease meanwhile steps down.
                return None if self._ballot and not self.goes_on() else self._why()
        return f"{len(self._log)} slots did not end the change"

    def _same_as_chosen(self) -> str | None:
        for slot, (now, then) in enumerate(zip(self._log, self._world.chosen, strict=False), 1):
            if then and now != then:
                return f"slot {slot} is chosen once more, with another value"
        return None

    def _learn(self) -> bool:
        """The learners pull the next slot, and it becomes durable at once."""
        slot = len(self._log) + 1
        membership = self._protocol.membership(tuple(self._log), len(self._log))
        votes: dict[tuple[int, int], int] = {}
        for i in self._alive:
            if slot in self._accepted[i]:
                vote = self._accepted[i][slot]
                votes[vote] = votes.get(vote, 0) | 1 << i
        for (_, value), voters in sorted(votes.items()):
            if self._disks.are_quorum(voters, membership.at(slot)):
                self._log.append(value)
                self._mark = slot
                if self._through < slot:
                    self._chosen.append(value)
                    self._through = slot
                return True
        return False

    def _elect(self) -> bool:
        known = self._known()
        if self._leads or not self._disks.are_quorums(self._voters(), known.active):
            return False
        self._leads = True
        self._low = self._mark + 1
        if "low_ahead" in self._protocol.mutants:
            self._low = self._through + 1
        if "no_low" not in self._protocol.mutants:
            self._low = max(self._low, known.firsts[known.oldest])
        self._fence()
        return True

    def _fence(self) -> None:
        version = self._version()
        for i in self._alive:
            if self._voters() >> i & 1:
                self._fences[i] = max(self._fences[i], version)

    def _propose(self) -> bool:
        """Propose again what is not known, then the next slot. Whether anybody accepted."""
        if not self._leads:
            return False
        known = self._known()
        self._fence()
        moved = False
        slot = self._low + len(self._values)
        if slot <= self._through + self._protocol.scope.alpha:
            promised = self._voters() | self._promised
            if slot <= len(self._log):
                self._values.append(NOTHING)
                moved = True
            elif self._disks.are_quorum(promised, known.at(slot)):
                self._values.append(self._next_value(slot, known, promised))
                moved = True
        for at, value in enumerate(self._values):
            slot = self._low + at
            if slot > len(self._log) and value != NOTHING:
                asked = self._voters() & self._disks.voters[known.at(slot)]
                for i in [i for i in self._alive if asked >> i & 1]:
                    is_new = self._accepted[i].get(slot, (0, 0))[0] < self._newest
                    if is_new and slot >= self._kept_from[i]:
                        self._accepted[i][slot] = (self._newest, value)
                        moved = True
        return moved

    def _next_value(self, slot: int, known: ModelMembership, promised: int) -> int:
        found = max(
            self._accepted[i].get(slot, (0, NOTHING))
            for i in range(self._protocol.count)
            if promised >> i & 1
        )
        if found[0]:
            return found[1]
        if known.oldest != known.newest and slot >= known.firsts[-1]:
            fenced = sum(1 << i for i in self._alive if self._fences[i] >= known.newest)
            flying = self._values[max(0, self._through + 1 - self._low) :]
            may_end = self._disks.are_quorum(fenced, known.oldest) and (
                self._mark >= known.firsts[-1] - 1
            )
            if may_end and settled(known.newest) not in flying:
                return settled(known.newest)
        return _FRESH

    def _why(self) -> str:
        slot = len(self._log) + 1
        if not self._leads:
            known = self._known()
            short = [v for v in known.active if not self._disks.are_quorum(self._voters(), v)]
            return (
                f"knowing slots up to {self._through}, it gets no quorum of version "
                f"{', '.join(map(str, short))} and slot {slot} can't be pulled"
            )
        if slot < self._low:
            return f"it proposes from slot {self._low} on, and slot {slot} can't be pulled"
        return f"slot {slot} gets no quorum"

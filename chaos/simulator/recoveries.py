"""What a recovery from the disks would find, again and again while faults go on (decision 32).

Whenever one of the given stores is in the view of the log and whole, the recovered state must have
everything that a coordinator has reported to a client. The checks read disks and change nothing, so
a run is the same with and without them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from actors.recovery.evidence import OldNode, read_node
from actors.recovery.judgement import Judgement, OpenCommand, Unrecoverable, judge
from actors.values import Chunked, FileEntry
from chaos.simulator.invariants_commit import CommitInvariants
from chaos.simulator.machine import Machine
from chaos.simulator.reference_log import ReferenceLog
from chaos.simulator.violation import Violation
from chaos.simulator.world import World

_RULE = "recovery_has_acknowledged"


class Recoveries:
    """Recovers from the disks of several nodes, and compares with what clients may know."""

    def __init__(self, world: World, log: ReferenceLog, commit: CommitInvariants) -> None:
        self._world = world
        self._log = log
        self._commit = commit
        self._checks = world.seed
        self.counters: Counter[str] = Counter()

    def check(self) -> None:
        """As if the cluster were lost for good now. Raises `Violation`."""
        if self._log.genesis is None:
            return
        stores, learners = self._sound("store"), self._sound("learner")
        whole = [store for store in stores if self._is_whole_member(store)]
        for store in whole:
            self._recover([store])
        if whole:
            # One check in turn for no acceptors, a minority and all: to read journals takes time.
            self._checks += 1
            acceptors = self._sound("acceptor")
            minority = acceptors[: (len(acceptors) - 1) // 2]
            given = ([], minority, acceptors)[self._checks % 3]
            self._recover([*stores, *learners, *given])

    def _sound(self, role: str) -> list[Machine]:
        """The nodes whose disks can be opened and belong to the cluster."""
        return [
            machine
            for machine in self._world.machines.values()
            if machine.role == role
            and not machine.disk.rotten_rows
            and "genesis/founded" in machine.disk.records
        ]

    def _is_whole_member(self, machine: Machine) -> bool:
        """Whether the store is in the view, and its disk holds everything that it has to."""
        view = self._log.view
        member = view.member(machine.name) if view is not None else None
        if member is None or member.disk != machine.disk.identity:
            return False
        disk = machine.disk
        if disk.rotten_blobs or not disk.ever_rotten <= disk.blobs.keys():
            return False  # What rotted, also of a prepared slot, is fetched from another store.
        node = _node(machine)
        added = member.added_slot
        return added is not None and node.applied >= added and not _lacking(node, [node])

    def _recover(self, machines: Sequence[Machine]) -> None:
        nodes = [_node(machine) for machine in machines]
        names = ", ".join(machine.name for machine in machines)
        try:
            judged = judge(nodes)
        except Unrecoverable as error:
            raise Violation(_RULE, f"from {names}: {error}") from None
        self.counters["recoveries"] += 1
        self.counters["recoveries.open_commands"] += len(judged.open)
        lacking = _lacking(judged.base, nodes)
        if lacking:
            raise Violation(_RULE, f"from {names}: contents are lost: {lacking[:3]}")
        self._check_results(judged, names, exact=judged.has_quorum and self._is_exact(judged))

    def _is_exact(self, judged: Judgement) -> bool:
        """Whether the journals prove every slot of the log, so that nothing is left open."""
        return not judged.unknown and judged.through >= self._log.chosen_through

    def _check_results(self, judged: Judgement, names: str, *, exact: bool) -> None:
        found = {(one.slot, one.index): one for one in judged.open}
        self.counters["recoveries.exact"] += exact
        for (session, sequence), (status, slot, index) in self._commit.results.items():
            if slot <= judged.base_slot:
                continue
            one = found.get((slot, index))
            is_aborted = status in ("aborted", "no_room")
            if one is not None and bool(one.left_out) == is_aborted:
                if one.outcome.status == status or not exact:
                    self._check_status(one, status, found.values())
                    continue
            elif is_aborted and not exact:
                self.counters["recoveries.aborted_is_applied"] += one is not None
                continue
            raise Violation(
                _RULE,
                f"from {names}: {session}-{sequence} was reported as {status} at {slot}-{index}; "
                f"from slot {judged.base_slot} on, with epoch {judged.epoch} answered and view "
                f"{judged.view}, {one!r} is found",
            )

    def _check_status(self, one: OpenCommand, status: str, found: Iterable[OpenCommand]) -> None:
        """A result may differ only if a command before it is applied that the log aborts."""
        if one.outcome.status == status:
            self.counters["recoveries.open_results"] += 1
            return
        self.counters["recoveries.other_results"] += 1
        if not any(
            other.slot <= one.slot and not other.left_out and self._is_aborted(other)
            for other in found
        ):
            raise Violation(_RULE, f"{one!r} was reported as {status}, and nothing explains that")

    def _is_aborted(self, one: OpenCommand) -> bool:
        return one.index in self._log.aborted(one.slot)


def _node(machine: Machine) -> OldNode:
    return read_node(machine.name, machine.disk.identity, machine.disk.rows())


def _lacking(base: OldNode, nodes: Sequence[OldNode]) -> list[str]:
    """The contents that the state names and none of the nodes holds."""
    held = set().union(*(node.blobs for node in nodes))
    listings = {name: listed for node in nodes for name, listed in node.listings.items()}
    needed: dict[str, None] = {}
    for entry in base.state.entries.values():
        if isinstance(entry, FileEntry):
            content = entry.content
            if isinstance(content, Chunked):
                needed.update(dict.fromkeys(content.chunks))
            else:
                listed = listings.get(content.manifest, ())
                needed.update(dict.fromkeys((content.manifest, *listed)))
    return [name for name in needed if name not in held]

"""Who is a member of the cluster, as one gateway knows it from heartbeats, and who may go.

It may be stale. It never says too early that a removed node may be switched off: that rests on
learners' reports of the chosen log and of what can't be forgotten any more (decision 26, rule 18).
"""

from actors.calls import MemberReport, MembersReport, Standing
from actors.gateway.cluster_state import ClusterState
from actors.options import MEMBER_ROLES, number_of, role_of
from actors.paxos.membership import Membership
from actors.values import Genesis


def members_report(cluster: ClusterState, genesis: Genesis) -> MembersReport:
    """The members, those that were removed, and the nodes that wait to be added."""
    known = cluster.acceptors_report()
    membership, roster = known.membership, known.membership.roster
    is_durable = roster is None or roster.slot <= known.durable_mark
    removed = () if roster is None else (member.name for member in roster.removed)
    names = {
        *(acceptor.name for one in membership.active for acceptor in one.acceptors),
        *(name for role in MEMBER_ROLES for name in membership.names(role, genesis)),
        *cluster.stores,
        *removed,
        *(name for name in cluster.nodes if role_of(name) in MEMBER_ROLES),
    }
    ordered = sorted(names, key=lambda name: (MEMBER_ROLES.index(role_of(name)), number_of(name)))
    judge = _Judge(cluster, genesis, membership, is_durable, known.needs_former)
    return MembersReport(
        version=membership.roster_version,
        slot=0 if roster is None else roster.slot,
        is_durable=is_durable,
        members=tuple(judge.report(name) for name in ordered),
    )


class _Judge:
    """One look at what is known."""

    def __init__(
        self,
        cluster: ClusterState,
        genesis: Genesis,
        membership: Membership,
        is_durable: bool,
        needs_former: bool,
    ) -> None:
        self._cluster = cluster
        self._genesis = genesis
        self._membership = membership
        self._is_durable = is_durable
        self._needs_former = needs_former

    def report(self, name: str) -> MemberReport:
        """The report on a node."""
        role = role_of(name)
        seen = self._cluster.nodes.get(name)
        runs_on = "" if seen is None else seen[3]
        if role == "acceptor":
            standing, disk, waits_for = self._acceptor(name, runs_on)
        elif name in self._membership.names(role, self._genesis):
            standing, disk, waits_for = self._member(name, role, runs_on)
        else:
            standing, disk, waits_for = self._outsider(name, role, runs_on)
        return MemberReport(name, role, standing, disk, runs_on, waits_for)

    def _acceptor(self, name: str, runs_on: str) -> tuple[Standing, str, str]:
        membership = self._membership
        newest = {one.name: one.disk for one in membership.newest.acceptors}
        oldest = {one.name: one.disk for one in membership.active[0].acceptors}
        disk = newest.get(name, "")
        end = "the end of the change" if membership.is_settled else "the change under way"
        if not disk and name in oldest:
            return "leaving", oldest[name], end
        if not disk:
            was_one = any(one.name == name for one in self._genesis.members)
            if not was_one:
                return "newcomer", "", "to be added"
            if self._needs_former:
                return "leaving", "", end
            return "removed", "", ""
        if runs_on and not membership.has_active((name, runs_on)):
            return "uncounted", disk, "to be replaced: it runs on another disk"
        if oldest.get(name) != disk and not membership.is_settled:
            return "joining", disk, "the end of the change"
        return "member", disk, ""

    def _member(self, name: str, role: str, runs_on: str) -> tuple[Standing, str, str]:
        if role != "store":
            return "member", "", ""
        view = self._cluster.view or self._genesis.view
        member = view.member(name)
        if member is None:
            return "joining", "", "the view to add it"
        if runs_on and runs_on != member.disk:
            return "joining", member.disk, "the view to add the disk on which it runs"
        heartbeat = self._cluster.nodes[name][2] if runs_on else None
        if heartbeat is not None and (heartbeat.installing or heartbeat.chunks_missing):
            return "joining", member.disk, "it copies what it lacks"
        return "member", member.disk, ""

    def _outsider(self, name: str, role: str, runs_on: str) -> tuple[Standing, str, str]:
        """A node that the roster does not name."""
        roster, cluster = self._membership.roster, self._cluster
        founding = {one.name: one.disk for one in self._genesis.members}
        removed = () if roster is None else roster.removed
        was_on = {founding.get(name), *(one.disk for one in removed if one.name == name)} - {None}
        if not was_on:
            return "newcomer", "", "to be added"
        if not self._is_durable:
            return "leaving", "", "its removal to be durable"
        view = cluster.view or self._genesis.view
        if role == "store" and view.member(name) is not None:
            return "leaving", "", "the view without it"
        if role == "learner" and view.coordinator == name:
            return "leaving", "", "another coordinator"
        if cluster.is_view_undurable:
            return "leaving", "", "the view without it to be durable"
        if runs_on and runs_on not in was_on:
            return "newcomer", "", "to be added again"
        return "removed", "", ""

"""What the cluster can do now and why not, as one gateway knows it.

The UI, `/readyz`, `/v1/cluster`, `synod status` and `/v1/events` all take it from here, so they
can't disagree. Every statement rests on received messages, and says how old they are where that
matters; the state of a node that was not heard is "unknown" and never "healthy".
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from actors.calls import Surveyed
from actors.values import StoreMember

_UNKNOWN_CODES = frozenset(("lease_lapsed", "no_view"))

WriteAvailability = Literal["taken", "refused", "unknown"]
ReadAvailability = Literal["served", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why an operation can't be done, or a warning: a stable `code`, and a text for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether writes are taken and linearizable reads are served.

    `reasons` say why writes are not taken, `read_reasons` why reads are not served; `warnings`
    what is amiss though both are. `heard_ms` tells how long ago the gateway heard of any node.
    """

    writes: WriteAvailability
    reads: ReadAvailability
    reasons: tuple[Reason, ...] = ()
    read_reasons: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()
    heard_ms: int | None = None

    @property
    def ready(self) -> bool:
        """Whether the cluster takes writes."""
        return self.writes == "taken"

    @property
    def text(self) -> str:
        """Why writes are not taken, in one line."""
        return "; ".join(reason.detail for reason in self.reasons)

    def as_json(self) -> dict[str, Any]:
        """The JSON for `/v1/cluster`."""
        return asdict(self)


def unknown_condition(detail: str) -> Condition:
    """Nothing is known, for the reason `detail`."""
    reason = Reason("unknown", detail)
    return Condition("unknown", "unknown", (reason,), (reason,))


def condition_of(survey: Surveyed, obstacle: str) -> Condition:
    """The condition that `survey` implies; `obstacle` says why this gateway can send nothing."""
    if obstacle:
        cut_off = (Reason("broker", obstacle),)
        return Condition("refused", "refused", cut_off, cut_off, heard_ms=survey.heard_ms)
    if not survey.cluster:
        early = (Reason("not_founded", "this gateway does not know its cluster yet"),)
        return Condition("refused", "refused", early, early, heard_ms=survey.heard_ms)
    if survey.heard_ms is None or survey.heard_ms >= survey.silent_ms:
        return _nothing_heard(survey)
    return _Assessment(survey).condition()


def _nothing_heard(survey: Surveyed) -> Condition:
    ago = "yet" if survey.heard_ms is None else f"for {_seconds(survey.heard_ms)}"
    reason = Reason(
        "unheard",
        f"this gateway has heard no node {ago}, though its connection to the broker stands",
    )
    return Condition("unknown", "unknown", (reason,), (reason,), heard_ms=survey.heard_ms)


class _Assessment:
    """One look at a survey in which something was heard."""

    def __init__(self, survey: Surveyed) -> None:
        self._survey = survey
        self._view: tuple[StoreMember, ...] = survey.view.stores if survey.view else ()

    def condition(self) -> Condition:
        survey = self._survey
        leading = self._leading()
        stores = self._stores()
        reasons = [
            reason for reason in (*leading, self._learners(), stores, self._disk_space()) if reason
        ]
        if survey.session is None:
            reasons.append(Reason("no_session", "this gateway's session is not open yet"))
        elif not survey.ready and not reasons:
            reasons.append(Reason("not_ready", "no leader takes commands of this gateway now"))
        if not reasons and not survey.view_heard:
            reasons = [Reason("no_view", "no learner has told this gateway of the view yet")]
        read_reasons = self._read_reasons(leading)
        writes: WriteAvailability = "taken"
        reads: ReadAvailability = "served"
        if reasons:
            writes = "unknown" if _all_unknown(reasons) else "refused"
        if read_reasons:
            reads = "unknown" if _all_unknown(read_reasons) else "refused"
        return Condition(
            writes,
            reads,
            tuple(reasons),
            tuple(read_reasons),
            tuple(self._warnings()),
            survey.heard_ms,
        )

    # -- nodes -----------------------------------------------------------------------------------

    def _fault_of(self, name: str) -> str:
        """Why a node can't do its part, from its latest heartbeat; empty if it can."""
        survey = self._survey
        seen = survey.nodes.get(name)
        if seen is not None and seen.heartbeat.halted:
            return f"halted: {seen.heartbeat.halted}"
        if self._is_uncounted(name):
            return f"runs on a disk that does not count: synod replace {name}"
        # While this gateway itself received nothing, the others only seemed silent.
        age_ms = survey.listening_ms if seen is None else min(seen.age_ms, survey.listening_ms)
        if age_ms < survey.silent_ms:
            return ""
        return "never heard" if seen is None else f"not heard for {_seconds(seen.age_ms)}"

    def _is_uncounted(self, name: str) -> bool:
        """Whether an acceptor runs on another disk than the one that votes under its name."""
        seen, acceptors = self._survey.nodes.get(name), self._survey.acceptors
        if seen is None or acceptors is None or seen.heartbeat.role != "acceptor":
            return False
        return not acceptors.membership.has_active((name, seen.disk))

    def _faults(self, names: Iterable[str]) -> dict[str, str]:
        return {name: fault for name in names if (fault := self._fault_of(name))}

    # -- what a write needs ----------------------------------------------------------------------

    def _leading(self) -> list[Reason]:
        """Why no proposer can order a command."""
        survey = self._survey
        leases = survey.leases
        if survey.leader is not None:
            if leases is None or leases.age_ms < leases.left_ms:
                return []
            return [
                Reason(
                    "lease_lapsed",
                    f"the lease of {survey.leader}, last heard of {_seconds(leases.age_ms)} ago, "
                    "has lapsed, unless it was renewed since",
                )
            ]
        text = "no proposer leads: a quorum of acceptors and one proposer are needed"
        found = [Reason("no_leader", text)]
        for role, needed in (("proposer", 1), ("acceptor", self._quorum())):
            names = survey.expected.get(role, ())
            faults = self._faults(names)
            if names and len(names) - len(faults) < needed:
                heard = len(names) - len(faults)
                count = f"{heard} of {len(names)} {role}s"
                text = f"{count} can be counted on and {needed} are needed ({_listed(faults)})"
                found.append(Reason(f"too_few_{role}s", text))
        return found

    def _quorum(self) -> int:
        return len(self._survey.expected.get("acceptor", ())) // 2 + 1

    def _learners(self) -> Reason | None:
        names = self._survey.expected.get("learner", ())
        faults = self._faults(names)
        if not names or len(faults) < len(names):
            return None
        return Reason("no_learner", f"no learner is left to coordinate ({_listed(faults)})")

    def _store_faults(self) -> dict[str, str]:
        """The stores of the view that a write can't count on, and why."""
        faults = self._faults(member.name for member in self._view)
        for member in self._view:
            seen = self._survey.nodes.get(member.name)
            if seen is None or member.name in faults:
                continue
            if seen.heartbeat.installing or seen.heartbeat.applied < (member.added_slot or 0):
                faults[member.name] = "still copies what it lacks"
        return faults

    def _stores(self) -> Reason | None:
        needed = self._survey.stores_needed
        faults = self._store_faults()
        heard = [member.name for member in self._view if member.name not in faults]
        if len(heard) >= needed:
            return None
        of_view = f"the view has {len(heard)} ({', '.join(heard) or 'none'})"
        rest = f"; {_listed(faults)}" if faults else ""
        outside = [
            name
            for name in self._survey.expected.get("store", ())
            if all(member.name != name for member in self._view)
        ]
        rest += f"; outside the view: {', '.join(outside)}" if outside else ""
        return Reason("too_few_stores", f"writes need {needed} whole stores, but {of_view}{rest}")

    def _disk_space(self) -> Reason | None:
        full = [
            member.name
            for member in self._view
            if (seen := self._survey.nodes.get(member.name)) and seen.heartbeat.disk_full
        ]
        if not full:
            return None
        return Reason(
            "disk_full", f"the disk of {', '.join(full)} is full: only what deletes is taken"
        )

    # -- what a read needs -----------------------------------------------------------------------

    def _read_reasons(self, leading: list[Reason]) -> list[Reason]:
        faults = self._store_faults()
        able = [member.name for member in self._view if member.name not in faults]
        if not able:
            what = _listed(faults) or "the view has none"
            return [Reason("no_store", f"no store of the view can serve a read ({what})")]
        leases = self._survey.leases
        left_ms = {} if leases is None else leases.read_left_ms
        if not leading or (leases and any(left_ms.get(n, 0) > leases.age_ms for n in able)):
            return []
        return leading

    # -- warnings --------------------------------------------------------------------------------

    def _warnings(self) -> list[Reason]:
        survey = self._survey
        names = [name for names in survey.expected.values() for name in names]
        faults = self._faults(names or [member.name for member in self._view])
        found = [
            Reason("uncounted" if self._is_uncounted(n) else "node_silent", f"{n}: {fault}")
            for n, fault in faults.items()
        ]
        for member in self._view:
            if member.name in faults and survey.view_heard:
                text = f"writes wait until the view is without {member.name}"
                found.append(Reason("silent_in_view", text))
        in_view = {member.name for member in self._view}
        for name in survey.expected.get("store", ()):
            if name not in in_view and name not in faults:
                text = f"{name} is outside the view and takes part in nothing"
                found.append(Reason("outside_view", text))
        return found


def _all_unknown(reasons: list[Reason]) -> bool:
    """Whether all of these only say that the gateway lacks information."""
    return all(reason.code in _UNKNOWN_CODES for reason in reasons)


def _listed(faults: dict[str, str]) -> str:
    return ", ".join(f"{name}: {fault}" for name, fault in faults.items())


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.1f} s"

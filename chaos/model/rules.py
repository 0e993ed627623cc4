"""The rules of membership change that the model can break, each by a named mutant."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A rule, by its number in docs/decisions/0026-membership.md, and what the mutant does."""

    name: str
    rule: str
    what: str


_MUTANTS = (
    BrokenRule("two_at_once", "2", "Members counts while two configurations are active"),
    BrokenRule("at_once", "2", "a configuration begins at the slot after its Members"),
    BrokenRule("retire_implicit", "2", "a configuration ends once the next one has begun"),
    BrokenRule("settled_before_e", "2", "Settled counts below the new configuration's first slot"),
    BrokenRule("no_window", "4", "slots are proposed whose configuration the leader can't know"),
    BrokenRule("elect_new", "6", "the newest active configuration alone elects"),
    BrokenRule("elect_old", "6", "the oldest active configuration alone elects"),
    BrokenRule("low_ahead", "6", "phase 1 starts behind the chosen prefix, not the durable mark"),
    BrokenRule("no_low", "6", "phase 1 may start at slots of a retired configuration, unasked"),
    BrokenRule("no_low_checked", "6", "the same, but each slot still needs promises of its own"),
    BrokenRule("no_phase_1", "7", "the new configuration votes before a majority of it promised"),
    BrokenRule("lease_new", "8", "the newest active configuration alone grants the lease"),
    BrokenRule("lease_old", "8", "the oldest active configuration alone grants the lease"),
    BrokenRule("lease_switch", "8", "the lease goes from the old configuration to the new at e"),
    BrokenRule("serve_unread", "9", "reads are granted below what phase 1 found"),
    BrokenRule("serve_unasked", "9", "reads are granted before the new configuration has promised"),
    BrokenRule("plan_unpromised", "10", "Members is proposed before its majority promised"),
    BrokenRule("plan_unleased", "10", "Members is proposed without the lease"),
    BrokenRule("plan_unread", "10", "Members is proposed below what phase 1 found"),
    BrokenRule("settle_unfenced", "11i", "Settled is proposed before the old majority is fenced"),
    BrokenRule("settle_early", "11ii", "Settled is proposed before the old slots are durable"),
    BrokenRule("settle_unleased", "11iii", "Settled is proposed while older read leases may run"),
    BrokenRule("no_fence", "12", "acceptors serve every version"),
    BrokenRule("fence_volatile", "12", "the fence is forgotten in a restart"),
    BrokenRule("no_fence_on_prepare", "12", "promises are not fenced, votes and leases are"),
    BrokenRule("no_fence_on_lease", "12", "leases are not fenced, promises and votes are"),
    BrokenRule("no_fence_on_accept", "12", "votes are not fenced, promises and leases are"),
    BrokenRule("version_known", "13", "the version is the newest chosen one"),
    BrokenRule("version_proposed", "13", "the version is the newest proposed one"),
    BrokenRule("by_name", "15", "quorums count names instead of disks"),
    BrokenRule("wiped_counts", "15", "an empty disk counts as the member that it was"),
    BrokenRule("no_silence", "16", "an acceptor forgets its lease in a restart"),
    BrokenRule("learner_newest", "17", "votes are counted before their configuration is known"),
    BrokenRule("snapshot_bare", "17", "a snapshot leaves out the membership state"),
    BrokenRule("off_early", "18", "old disks are switched off once Settled is chosen"),
)
MUTANTS = {mutant.name: mutant for mutant in _MUTANTS}


class UnknownMutant(Exception):
    """No mutant has that name."""


def checked(names: frozenset[str]) -> frozenset[str]:
    """Return `names` if each is a mutant's. Raises `UnknownMutant`."""
    unknown = names - MUTANTS.keys()
    if unknown:
        raise UnknownMutant(f"{', '.join(sorted(unknown))}: one of {', '.join(MUTANTS)}")
    return names

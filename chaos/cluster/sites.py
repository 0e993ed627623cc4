"""Who is where if a cluster is spread over three sites, so that any one of them can be lost."""

from collections import Counter
from collections.abc import Mapping, Sequence

SITES = 3
SITE_NAMES = tuple(f"site-{number}" for number in range(1, SITES + 1))


def sites_of(nodes: Sequence[str], brokers: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The broker and the nodes on each site, broker first; empty without a broker for each site.

    Gateways start at the last site, so that the first one, which has most of the others, is not
    also where clients come in. Raises `ValueError` if some site is one that can't be lost.
    """
    if len(brokers) != SITES:
        return {}
    spread: dict[str, list[str]] = {name: [] for name in SITE_NAMES}
    for member in (*brokers, *nodes):
        role, _, number = member.rpartition("-")
        place = (int(number) - 1) % SITES
        spread[f"site-{SITES - place if role == 'gateway' else place + 1}"].append(member)
    _check(spread, Counter(_role(node) for node in nodes))
    return spread


def _check(spread: Mapping[str, Sequence[str]], totals: Mapping[str, int]) -> None:
    """No site may hold a majority of the acceptors, or all of another role that is needed."""
    for site, members in spread.items():
        for role, held in Counter(map(_role, members)).items():
            left = totals.get(role, SITES) - held
            if left < 1 or (role == "acceptor" and left <= held):
                raise ValueError(f"{site} can't be lost: it holds {held} of {totals[role]} {role}s")


def _role(member: str) -> str:
    return member.rpartition("-")[0]

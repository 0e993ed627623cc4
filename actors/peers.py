"""Whom one node has heard of: on which disk, in which start, and how far that disk had come.

Voters are bound to the disks of the genesis. A learner or a store may have lost its disk: what it
says is true whatever disk it has by now, and where a store's disk matters, the view names it.
Gateways come and go and are in no genesis: a gateway's name is bound to the disk that was first
heard under it, until that one's heartbeats stay away (docs/decisions/0016-who-may-send-what.md).
All of it is bounded, however many names and disks are invented.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.numbers import Milliseconds

GATEWAYS_MAX = 256
"""How many gateways a node knows at once: each costs some hundred bytes, and a cluster has few."""

DISKS_MAX = 8
"""How many disks of one name: a member loses its disk so seldom that older ones are history."""

Key = tuple[str, str]
"""A node's name and its disk: a node that lost its disk is another one."""


@dataclass(slots=True)
class DiskReport:
    """The newest start that was heard of on a disk, and the most commits it has reported."""

    incarnation: int
    commits: int = 0


@dataclass(slots=True)
class Binding:
    """The disk that a gateway's name stands for, and when it last gave a sign of life."""

    disk: str
    beat_at: Milliseconds


@dataclass(slots=True)
class Peers:
    """The senders that one node has let in; `silence_ms` without a heartbeat frees a gateway."""

    silence_ms: Milliseconds
    _disks: dict[str, dict[str, DiskReport]] = field(default_factory=dict)
    """Of each name its disks, the one heard of last at the end."""
    _gateways: dict[str, Binding] = field(default_factory=dict)
    """The one that was silent for longest comes first."""

    def may_be(self, key: Key, role: str, founded: Mapping[str, str], now: Milliseconds) -> bool:
        """Whether a sender on this disk may be the node of that name, as of now.

        `founded` are the disks of the genesis.
        """
        name, disk = key
        if role in ("proposer", "acceptor"):
            return founded.get(name) == disk
        bound = self._gateways.get(name)
        return bound is None or bound.disk == disk or self._is_silent(bound, now)

    def has_room_for(self, gateway: str, now: Milliseconds) -> bool:
        """Whether a gateway is known, or can be: so many others don't live at once."""
        if gateway in self._gateways or len(self._gateways) < GATEWAYS_MAX:
            return True
        return self._is_silent(next(iter(self._gateways.values())), now)

    def _is_silent(self, bound: Binding, now: Milliseconds) -> bool:
        return now - bound.beat_at >= self.silence_ms

    def incarnation(self, key: Key) -> int:
        """The newest start heard of on a disk; 0 if none was."""
        seen = self._disks.get(key[0], {}).get(key[1])
        return seen.incarnation if seen is not None else 0

    def commits(self, key: Key) -> int:
        """The most commits that a disk has reported."""
        seen = self._disks.get(key[0], {}).get(key[1])
        return seen.commits if seen is not None else 0

    def meet(
        self, key: Key, role: str, incarnation: int, founded: Mapping[str, str], now: Milliseconds
    ) -> list[Key]:
        """Remember who fits; the names and disks that are forgotten for it."""
        name, disk = key
        forgotten = self._bind(key, now) if role == "gateway" else []
        disks = self._disks.setdefault(name, {})
        seen = disks.pop(disk, None) or DiskReport(incarnation)
        seen.incarnation = incarnation
        disks[disk] = seen
        if len(disks) > DISKS_MAX:
            oldest = next(other for other in disks if other != founded.get(name))
            del disks[oldest]
            forgotten.append((name, oldest))
        return forgotten

    def _bind(self, key: Key, now: Milliseconds) -> list[Key]:
        name, disk = key
        bound = self._gateways.get(name)
        if bound is not None and bound.disk == disk:
            return []
        forgotten: list[Key] = []
        if bound is not None:
            forgotten.append((name, bound.disk))
        elif len(self._gateways) >= GATEWAYS_MAX:
            silent, its = next(iter(self._gateways.items()))
            forgotten.append((silent, its.disk))
        for former, _ in forgotten:
            del self._gateways[former]
            self._disks.pop(former, None)
        self._gateways[name] = Binding(disk, now)
        return forgotten

    def beat(self, key: Key, commits: int, now: Milliseconds) -> bool:
        """A heartbeat came from a disk; whether it had come further before."""
        name, disk = key
        bound = self._gateways.pop(name, None)
        if bound is not None:
            bound.beat_at = now
            self._gateways[name] = bound
        seen = self._disks[name][disk]
        if commits < seen.commits:
            return True
        seen.commits = commits
        return False

"""The senders that one node knows: their disks, incarnations, and how far each disk had come.

A member may have lost its disk: its reports are true whatever disk it has now. Where it matters
which one it is, a view names a store's, a configuration an acceptor's, whose votes are counted by
name and disk, and a ballot that of a proposer on another disk than the founding one.
Gateways come and go and are in no genesis: a gateway's name is bound to the disk of its first
message, until that disk's heartbeats stay away (docs/decisions/0016-who-may-send-what.md).
All of it is bounded, however many names and disks are invented.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.numbers import Milliseconds

GATEWAYS_MAX = 256
"""How many gateways a node knows at once. Each costs some hundred bytes, and a cluster has few."""

DISKS_MAX = 8
"""How many disks of one name a node knows: members lose their disks so rarely that older ones no
longer matter."""

Key = tuple[str, str]
"""A node's name and its disk: a node that lost its disk is another one."""


@dataclass(slots=True)
class DiskReport:
    """The newest incarnation on a disk, and the most commits that it has reported."""

    incarnation: int
    commits: int = 0


@dataclass(slots=True)
class Binding:
    """The disk that a gateway's name is bound to, and when its last heartbeat came."""

    disk: str
    beat_at: Milliseconds


@dataclass(slots=True)
class Peers:
    """The senders that one node knows; `silence_ms` without a heartbeat frees a gateway's name."""

    silence_ms: Milliseconds
    _disks: dict[str, dict[str, DiskReport]] = field(default_factory=dict)
    """The disks of each name, the one that sent last at the end."""
    _gateways: dict[str, Binding] = field(default_factory=dict)
    """The gateway that has been silent for longest comes first."""

    def may_be(self, key: Key, now: Milliseconds) -> bool:
        """Whether a sender on this disk can be the node of that name: only a gateway's is bound."""
        name, disk = key
        bound = self._gateways.get(name)
        return bound is None or bound.disk == disk or self._is_silent(bound, now)

    def has_room_for(self, gateway: str, now: Milliseconds) -> bool:
        """Whether `gateway` is known, or a place is free or held by a silent one."""
        if gateway in self._gateways or len(self._gateways) < GATEWAYS_MAX:
            return True
        return self._is_silent(next(iter(self._gateways.values())), now)

    def _is_silent(self, bound: Binding, now: Milliseconds) -> bool:
        return now - bound.beat_at >= self.silence_ms

    def incarnation(self, key: Key) -> int:
        """The newest incarnation on a disk; 0 if it is unknown."""
        report = self._disks.get(key[0], {}).get(key[1])
        return report.incarnation if report is not None else 0

    def commits(self, key: Key) -> int:
        """The most commits that a disk has reported."""
        report = self._disks.get(key[0], {}).get(key[1])
        return report.commits if report is not None else 0

    def meet(
        self, key: Key, role: str, incarnation: int, founded: Mapping[str, str], now: Milliseconds
    ) -> list[Key]:
        """Remember an admitted sender; the names and disks that are forgotten for it."""
        name, disk = key
        forgotten = self._bind(key, now) if role == "gateway" else []
        disks = self._disks.setdefault(name, {})
        report = disks.pop(disk, None) or DiskReport(incarnation)
        report.incarnation = incarnation
        disks[disk] = report
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
        """Note a heartbeat of a disk; whether the disk had reported more before."""
        name, disk = key
        bound = self._gateways.pop(name, None)
        if bound is not None:
            bound.beat_at = now
            self._gateways[name] = bound
        report = self._disks[name][disk]
        if commits < report.commits:
            return True
        report.commits = commits
        return False
